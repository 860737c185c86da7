"""A hub is asked only where an address says so; here it is a fake."""

import sys
from types import SimpleNamespace

import pytest
import torch

from catnet import CATNet, load_network
from catnet.errors import UserError
from catnet.model.hub import local_folder


@pytest.fixture
def hub(monkeypatch):
    """`hub(folder)`: huggingface_hub gives this folder, or raises; the calls are listed."""
    calls = []

    def install(answer):
        def snapshot_download(name, *, revision, allow_patterns):
            calls.append((name, revision, allow_patterns))
            if isinstance(answer, Exception):
                raise answer
            return str(answer)

        fake = SimpleNamespace(snapshot_download=snapshot_download)
        monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
        return calls

    return install


def test_a_network_from_a_hub(trained, hub):
    folder = trained().model
    calls = hub(folder)
    wanted = load_network(folder).state_dict()
    assert calls == []
    for network in (
        load_network("hf://somebody/net"),
        CATNet.from_pretrained("hf://somebody/net@v1.0"),
    ):
        assert all(torch.equal(network.state_dict()[name], wanted[name]) for name in wanted)
    assert [call[:2] for call in calls] == [("somebody/net", None), ("somebody/net", "v1.0")]
    assert not any("bin" in pattern or "pt" in pattern for call in calls for pattern in call[2])


def test_a_local_folder_is_never_fetched(hub, tmp_path):
    calls = hub(AssertionError("asked"))
    assert local_folder(tmp_path) == tmp_path
    assert local_folder("somebody/net").parts == ("somebody", "net")
    assert calls == []


@pytest.mark.parametrize(
    "address", ["hf://", "hf://alone", "hf://a/b/c", "hf://a b/c", "hf://a/b@"]
)
def test_an_address_that_is_none(address, hub):
    hub(AssertionError("asked"))
    with pytest.raises(UserError, match="no address on a hub; write hf://OWNER/NAME"):
        local_folder(address)


def test_a_hub_that_cannot_give_it(hub):
    hub(OSError("404 Client Error\nmore lines"))
    with pytest.raises(UserError, match=r"cannot be fetched \(404 Client Error\); check") as caught:
        local_folder("hf://a/b")
    assert "\n" not in str(caught.value)


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install huggingface_hub"):
        local_folder("hf://a/b")
