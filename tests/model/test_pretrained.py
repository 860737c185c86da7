import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.model.catnet import CATNet
from catnet.model.networks import initial_model

variants = pytest.mark.parametrize(
    "changes",
    [
        {},
        {"share_streams": False, "score": "softmax"},
        {"share_rounds": True, "rounds": 3, "mask_on": "keys", "position": "none"},
        {"rounds": 0, "output_stride": 16},
    ],
)


@variants
def test_a_restored_network_predicts_the_same_bit_for_bit(changes, network, episodes, tmp_path):
    model = network(**changes)
    model.train()(episodes())  # the statistics of batch normalization belong to the weights
    model.eval().save_pretrained(tmp_path / "new" / "folder")
    restored = CATNet.from_pretrained(tmp_path / "new" / "folder")
    assert not restored.training
    assert restored.settings == model.settings
    assert restored.state_dict().keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(restored.state_dict()[key], value), key
    assert torch.equal(restored(episodes()).probability, model(episodes()).probability)


def test_saving_again_replaces_what_was_there(network, tmp_path):
    network().save_pretrained(tmp_path)
    network(rounds=1).save_pretrained(str(tmp_path))
    assert CATNet.from_pretrained(str(tmp_path)).settings.rounds == 1


def test_a_network_on_memory_of_another_layout_is_saved_too(network, episodes, tmp_path):
    model = network().to(memory_format=torch.channels_last)
    model.save_pretrained(tmp_path)
    restored = CATNet.from_pretrained(tmp_path)
    torch.testing.assert_close(restored(episodes()).probability, model(episodes()).probability)


def test_restoring_needs_no_encoder_weights_and_keeps_their_name(network, tmp_path):
    network().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text())
    content["encoder_weights"] = str(tmp_path / "long-gone.pth")
    (tmp_path / "model.json").write_text(json.dumps(content))
    restored = CATNet.from_pretrained(tmp_path)
    assert restored.settings.encoder_weights == str(tmp_path / "long-gone.pth")


def refused(folder, *, file):
    """The one sentence that refuses `folder`, which must begin with the file that is wrong."""
    with pytest.raises(UserError) as caught:
        CATNet.from_pretrained(folder)
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder / file}: ")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("file", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "folder"])
def test_a_missing_or_damaged_file_is_named(file, damage, network, tmp_path):
    network().save_pretrained(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"")
    refused(tmp_path, file=file)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("ruonds", 3, "did you mean 'rounds'"),
        ("rounds", 99, "rounds: .*8, not 99"),
        ("mask_on", "querys", "'queries'.*not 'querys'"),
        ("attention", "maskd", "did you mean 'masked'"),
        ("encoder", "tu-resnet999", "resnet999"),
        ("dim", 36, "heads=8 does not divide dim=36"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(key, value, problem, network, tmp_path):
    network().save_pretrained(tmp_path)
    content = json.loads((tmp_path / "model.json").read_text()) | {key: value}
    (tmp_path / "model.json").write_text(json.dumps(content))
    assert re.search(problem, refused(tmp_path, file="model.json"))


@pytest.mark.parametrize("content", ["[1, 2]", "3", "null", '"text"'])
def test_a_settings_file_that_holds_no_settings_is_refused(content, network, tmp_path):
    network().save_pretrained(tmp_path)
    (tmp_path / "model.json").write_text(content)
    refused(tmp_path, file="model.json")


@pytest.mark.parametrize(
    "changes", [{"rounds": 1}, {"rounds": 3}, {"dim": 64}, {"share_streams": False}]
)
def test_weights_of_another_architecture_are_refused(changes, network, tmp_path):
    network(**changes).save_pretrained(tmp_path / "other")
    network().save_pretrained(tmp_path)
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    sentence = refused(tmp_path, file="model.safetensors")
    assert "weights of another architecture" in sentence


@pytest.mark.parametrize("change", ["missing", "added", "reshaped"])
def test_one_wrong_tensor_is_enough_to_be_refused_and_is_named(change, network, tmp_path):
    network().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    state = load_file(path)
    name = "stranger" if change == "added" else "mife.mix_query.weight"
    state[name] = torch.zeros(3)
    if change == "missing":
        del state[name]
    save_file(state, path)
    assert f"first difference: {name}" in refused(tmp_path, file="model.safetensors")


def test_an_untrained_network_is_decided_by_its_seed_alone():
    settings = ModelSettings(encoder="tu-test_resnet", dim=32, rounds=1)
    before = torch.random.get_rng_state()
    one, same, other = (initial_model(settings, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    vectors = [nn.utils.parameters_to_vector(model.parameters()) for model in (one, same, other)]
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
