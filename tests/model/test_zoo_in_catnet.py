"""Every mechanism of the zoo inside the whole network, at both places."""

from dataclasses import replace

import pytest
import torch
from zoo import FEW, everywhere

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.model.attention import ATTENTION
from catnet.model.catnet import CATNet
from catnet.model.ffn import ConvFFN
from catnet.model.loss import Objective

placements = pytest.mark.parametrize("mask_on", ["queries", "keys", "none"])
hows = pytest.mark.parametrize("mask_how", ["multiply", "bias"])


def settings(name, **changes):
    """A mechanism at the self place, and at the cross place too where it has the form."""
    crossed = name if ATTENTION[name].cross else "masked"
    return {
        "attention": name,
        "attention_options": FEW.get(name, {}),
        "cross_attention": crossed,
        "cross_attention_options": FEW.get(crossed, {}),
        **changes,
    }


def unreached(module, total):
    """Names of the parameters that `total` does not reach; every gradient must be finite."""
    names, parameters = zip(*module.named_parameters(), strict=True)
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
    pairs = zip(names, gradients, strict=True)
    return [name for name, gradient in pairs if gradient is None or gradient.abs().max() < 1e-8]


@everywhere
@placements
@hows
def test_it_trains_at_every_place_under_every_mask(name, mask_on, mask_how, headless, episodes):
    model = headless(**settings(name, mask_on=mask_on, mask_how=mask_how))
    objective = Objective(model, alignment=1.0, early=1.0)
    losses = objective(episodes(shots=2))
    assert losses.total.isfinite()
    assert unreached(objective, losses.total) == []


@everywhere
@pytest.mark.parametrize("mask_on", ["queries", "keys"])
@torch.no_grad()
def test_the_support_image_changes_every_mask(name, mask_on, headless, episodes):
    model, one = headless(**settings(name, mask_on=mask_on)), episodes()
    other = replace(one, support=episodes(seed=1).support)
    for before, after in zip(model(one).logits, model(other).logits, strict=True):
        assert ((before - after).abs().amax(dim=(1, 2)) > 1e-3).all()


@everywhere
@torch.no_grad()
def test_a_batch_equals_its_episodes_one_at_a_time(name, headless, episodes):
    model, batch = headless(**settings(name, mask_on="keys")), episodes(batch=3, shots=2)
    together = model(batch).probability
    for at in range(3):
        alone = model(batch[at : at + 1]).probability[0]
        torch.testing.assert_close(alone, together[at], rtol=1e-4, atol=1e-4)


@everywhere
@torch.no_grad()
def test_a_saved_network_says_the_same_when_it_is_restored(name, headless, episodes, tmp_path):
    model, one = headless(**settings(name)), episodes()
    model.save_pretrained(tmp_path)
    restored = CATNet.from_pretrained(tmp_path)
    for cmat in restored.cmat:
        assert type(cmat.self_support.attention) is ATTENTION[name]
        assert type(cmat.cross.attention) is ATTENTION[name if ATTENTION[name].cross else "masked"]
    assert torch.equal(restored(one).probability, model(one).probability)


@everywhere
@torch.no_grad()
def test_maps_go_from_round_to_round_where_a_mechanism_hands_them_on(name, headless, episodes):
    model, one = headless(**settings(name, rounds=2)), episodes(shots=2)
    seen = []
    for cmat in model.cmat:
        cmat.register_forward_hook(lambda _, given, left: seen.append((given[0].maps, left[2])))
    whole = model(one).probability
    (first, handed), (second, _) = seen
    assert first == (None, None)
    if not ATTENTION[name].carries_map:
        assert handed == second == (None, None)
        return
    assert [m.shape[0] for m in handed] == [4, 2]  # shots stand in the batch of the support's map
    assert all(torch.equal(*pair) for pair in zip(handed, second, strict=True))
    drop = model.cmat[1].register_forward_pre_hook(
        lambda _, given: (replace(given[0], maps=(None, None)),)
    )
    assert not torch.allclose(model(one).probability, whole, atol=1e-4)
    drop.remove()
    assert torch.equal(model(one).probability, whole)


@pytest.mark.parametrize("ffn", ["mlp", "conv"])
@pytest.mark.parametrize("position", ["none", "sine", "peg"])
def test_feed_forward_and_position_are_what_the_settings_name(ffn, position, headless, episodes):
    model = headless(ffn=ffn, position=position)
    used = [module for module in model.modules() if isinstance(module, ConvFFN)]
    assert len(used) == (2 * len(model.cmat) if ffn == "conv" else 0)
    assert bool(list(model.position.parameters())) == (position == "peg")
    objective = Objective(model, alignment=1.0, early=1.0)
    assert unreached(objective, objective(episodes(shots=2)).total) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attention": "outlok"}, ["'outlok' is unknown", "did you mean 'outlook'?"]),
        ({"cross_attention": "none"}, ["'none' has no cross form", "masked"]),
        ({"attention_options": {"hads": 4}}, ["'masked' has no option 'hads'", "'heads'"]),
        ({"attention_options": {"heads": "4"}}, ["'masked': heads='4'", "int"]),
        ({"cross_attention_options": {"heads": 5}}, ["heads=5", "dim=32"]),
    ],
)
def test_a_wrong_setting_of_the_zoo_is_one_sentence(changes, words):
    with pytest.raises(UserError) as caught:
        CATNet(ModelSettings(encoder="tu-test_resnet", dim=32, **changes))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_name_is_refused_even_where_no_round_runs():
    for settings in ({"attention": "foo"}, {"cross_attention": "none"}):
        with pytest.raises(UserError, match=r"foo|no cross form"):
            CATNet(ModelSettings(encoder="tu-test_resnet", dim=32, rounds=0, **settings))
