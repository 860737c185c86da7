"""What every network of the bench keeps to, whatever its name."""

import json
from dataclasses import fields, replace
from typing import get_args

import pytest
import torch

import catnet
from catnet.config import ModelSettings, Run
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.model.catnet import CATNet
from catnet.model.encoder import Encoded
from catnet.model.loss import Objective
from catnet.model.networks import NETWORKS, build_network, initial_model, load_network
from catnet.train import build_objective, build_optimizer

everywhere = pytest.mark.parametrize("name", NETWORKS)
close = {"rtol": 1e-4, "atol": 1e-4}
TINY = {"encoder": "tu-test_resnet", "dim": 32}


def unreached(objective, episode):
    """Parameters that the loss does not reach, but for the noise of rounding."""
    names, parameters = zip(*objective.named_parameters(), strict=True)
    gradients = torch.autograd.grad(objective(episode).total, parameters, allow_unused=True)
    pairs = zip(names, gradients, strict=True)
    return [name for name, part in pairs if part is None or part.abs().max() < 1e-7]


def test_the_settings_know_every_network_and_each_its_own_name():
    assert list(NETWORKS) == list(get_args(ModelSettings.model_fields["name"].annotation))
    assert all(network.name == name for name, network in NETWORKS.items())
    assert ModelSettings().name == "catnet"


@everywhere
@pytest.mark.parametrize(("shots", "output_stride"), [(1, 16), (2, 8)])
def test_gradient_reaches_every_parameter(name, shots, output_stride, network, episodes):
    """The encoder's last stage among them, which a process group insists on."""
    model = network(name, encoder="tu-resnet18", output_stride=output_stride)
    objective, episode = Objective(model.train(), alignment=1.0, early=1.0), episodes(shots=shots)
    assert unreached(objective, episode) == []
    absent = replace(episode, query_mask=torch.zeros_like(episode.query_mask))
    assert unreached(objective, absent) == []


@everywhere
@torch.no_grad()
def test_a_batch_equals_its_episodes_one_at_a_time(name, network, episodes):
    model, batch = network(name), episodes(batch=3, shots=2)
    together = model(batch)
    for at in range(3):
        alone = model(batch[at : at + 1])
        for ours, theirs in zip(alone.logits, together.logits, strict=True):
            torch.testing.assert_close(ours[0], theirs[at], **close)
        torch.testing.assert_close(alone.support[0], together.support[at], **close)
        torch.testing.assert_close(alone.query[0], together.query[at], **close)
    assert 0 < (together.probability > 0.5).sum() < together.probability.numel()


@everywhere
@torch.no_grad()
def test_the_loss_of_a_batch_is_the_mean_of_its_episodes_losses(name, headless, episodes):
    objective = Objective(headless(name), alignment=0.5, early=1.0)
    batch = episodes(batch=3, shots=2)
    alone = [objective(batch[i : i + 1]).total.item() for i in range(3)]
    assert objective(batch).total.item() == pytest.approx(sum(alone) / 3, abs=1e-4)
    assert max(alone) - min(alone) > 0.01


@everywhere
@torch.no_grad()
def test_swapping_two_episodes_swaps_the_outputs(name, network, episodes):
    model, batch = network(name), episodes()
    swapped = Episode(*(getattr(batch, field.name).flip(0) for field in fields(Episode)))
    expected = model(batch).probability
    torch.testing.assert_close(model(swapped).probability, expected.flip(0), **close)
    assert not torch.allclose(expected[0], expected[1], atol=0.01)


@everywhere
@pytest.mark.parametrize("field", ["support", "support_mask", "query"])
@torch.no_grad()
def test_every_input_changes_the_output_and_the_answer_does_not(name, field, network, episodes):
    model, one = network(name), episodes()
    other = replace(one, **{field: getattr(episodes(seed=1), field)})
    before, after = model(one).probability, model(other).probability
    assert ((before - after).abs().amax(dim=(1, 2)) > 1e-3).all()
    read = replace(one, query_mask=1 - one.query_mask)
    assert torch.equal(model(read).probability, before)


@everywhere
@torch.no_grad()
def test_the_same_shot_three_times_says_what_it_says_once(name, headless, episodes):
    model, once = headless(name), episodes()
    thrice = replace(
        once,
        support=once.support.repeat(1, 3, 1, 1, 1),
        support_mask=once.support_mask.repeat(1, 3, 1, 1),
    )
    expected = model(once).probability
    if name == "alpnet":  # three times the cells weigh more beside the one class-level prototype
        assert (model(thrice).probability - expected).abs().mean() < 0.05
    else:
        torch.testing.assert_close(model(thrice).probability, expected, **close)
    assert not torch.allclose(expected, model(episodes(shots=3)).probability, atol=0.01)


@everywhere
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("field", ["support_mask", "query_mask"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks_give_finite_losses_and_gradients(
    name, training, field, value, headless, episodes
):
    episode = episodes(height=32, width=48, shots=2)
    getattr(episode, field)[0] = value
    objective = Objective(headless(name).train(training), alignment=1.0, early=1.0)
    losses = objective(episode)
    parameters = list(objective.parameters())
    gradients = torch.autograd.grad(losses.total, parameters, allow_unused=True)
    assert losses.total.isfinite()
    assert losses.prediction.probability.isfinite().all()
    assert all(part is None or part.isfinite().all() for part in gradients)


@everywhere
@pytest.mark.parametrize("field", ["support", "query"])
def test_black_slices_give_finite_losses_and_gradients(name, field, network, episodes):
    episode = episodes()
    getattr(episode, field).zero_()
    objective = Objective(network(name).train(), alignment=1.0, early=1.0)
    total = objective(episode).total
    assert total.isfinite()
    assert all(g.isfinite().all() for g in torch.autograd.grad(total, list(objective.parameters())))


@pytest.mark.parametrize("counts", [[4], [3, 1]])
@everywhere
@torch.no_grad()
def test_a_support_encoded_once_serves_many_queries(name, network, episodes, counts):
    model, batch = network(name), episodes(batch=4, shots=2)
    some = len(counts)
    shots = model.encode(batch.support[:some].flatten(0, 1))
    support = Encoded(*(part.unflatten(0, (some, 2)) for part in (shots.feature, shots.deep)))
    got = model.segment(support, batch.support_mask[:some], model.encode(batch.query), counts)
    rows = [row for row, count in enumerate(counts) for _ in range(count)]
    masks = batch.support_mask[rows]
    expected = model(replace(batch, support=batch.support[rows], support_mask=masks))
    torch.testing.assert_close(got.probability, expected.probability, **close)


@everywhere
def test_bfloat16_is_finite_and_says_about_the_same(name, network, episodes):
    model, episode = network(name), episodes(shots=2)
    with torch.autocast("cpu", torch.bfloat16):
        assert Objective(model, alignment=1.0, early=1.0)(episode).total.isfinite()
        prediction = model(episode)
    assert prediction.probability.dtype == torch.float32
    assert (prediction.probability - model(episode).probability).abs().mean() < 0.03


@everywhere
@torch.no_grad()
def test_a_saved_network_says_the_same_when_it_is_restored(name, network, episodes, tmp_path):
    model, episode = network(name), episodes()
    model.save_pretrained(tmp_path)
    expected = model(episode).probability
    for restored in (load_network(str(tmp_path)), NETWORKS[name].from_pretrained(tmp_path)):
        assert type(restored) is NETWORKS[name]
        assert not restored.training
        assert restored.settings == model.settings
        assert torch.equal(restored(episode).probability, expected)


@everywhere
def test_another_network_is_not_restored_or_built(name, network, tmp_path):
    network(name).save_pretrained(tmp_path)
    for other, kind in NETWORKS.items():
        if other == name:
            continue
        words = f"settings of the network '{name}', not of '{other}'"
        with pytest.raises(UserError, match=f"^{tmp_path}/model.json: .*{words}"):
            kind.from_pretrained(tmp_path)
        with pytest.raises(UserError, match=words):
            kind(ModelSettings(name=name, **TINY))


def test_a_folder_from_before_the_others_came_holds_a_catnet(network, tmp_path):
    network().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    for later in ("name", "grid", "refinement"):
        del content[later]
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert type(load_network(tmp_path)) is CATNet
    assert catnet.load_network is load_network


def test_one_seed_gives_every_network_the_same_encoder():
    states = [
        initial_model(ModelSettings(name=name, **TINY), seed=3).encoder.state_dict()
        for name in NETWORKS
    ]
    for state in states[1:]:
        assert all(torch.equal(state[key], value) for key, value in states[0].items())
        assert state.keys() == states[0].keys()


@everywhere
def test_networks_are_built_by_name_and_decided_by_the_seed(name):
    settings = ModelSettings(name=name, **TINY)
    assert type(build_network(settings)) is NETWORKS[name]
    one, same, other = (initial_model(settings, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(same[key], value) for key, value in one.items())
    assert not all(torch.equal(other[key], value) for key, value in one.items())


def test_catnet_begins_and_is_trained_as_before_the_others_came():
    """Initial weights, and two steps of training, as recorded when it was the only network."""
    model = {"encoder": "tu-test_resnet", "dim": 32, "rounds": 2}
    train = {"early": 0.7, "alignment": 0.6}
    run = Run.model_validate({"seed": 5, "model": model, "train": train})
    objective = build_objective(run)
    weights = {name: value.double().abs().sum() for name, value in objective.state_dict().items()}
    assert len(weights) == GOLDEN["tensors"]
    assert float(sum(weights.values())) == pytest.approx(GOLDEN["weights"], rel=1e-6)
    optimizer, totals = build_optimizer(objective, run.train), []
    for _ in range(2):
        losses = objective(golden_episode())
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        totals += [losses.total.item(), losses.segmentation.item(), losses.alignment.item()]
    assert totals == pytest.approx(GOLDEN["losses"], rel=1e-4)


def golden_episode():
    """Stripes of one width and masks of another: the same on every machine."""
    places = torch.arange(64.0)
    grid = places[:, None] + 2 * places
    images = torch.stack([torch.sin(grid / pace) for pace in (3, 4, 5, 7, 9, 11)])
    masks = torch.stack([((grid + 9 * k) % 80 < 40).float() for k in range(6)])
    images = (images + 2 * masks).reshape(2, 3, 64, 64)
    masks = masks.reshape(2, 3, 64, 64)
    return Episode(images[:, 1:, None], masks[:, 1:], images[:, :1], masks[:, 0])


GOLDEN = {  # of commit c95234c
    "tensors": 153,
    "weights": 24044.99169261032,
    "losses": [2.844848633, 1.901424646, 1.572373390, 2.820015430, 1.886526227, 1.555815101],
}


@everywhere
def test_the_loss_falls(name, episodes):
    model = {"name": name, "output_stride": 8, **TINY}
    run = Run.model_validate({"model": model, "train": {"optimizer": "adamw", "rate": 3e-3}})
    objective, episode = build_objective(run), episodes()
    optimizer, losses = build_optimizer(objective, run.train), []
    for _ in range(20):
        losses.append(objective(episode).total)
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses
