"""Nothing but `catnet fetch`, an hf:// address and a named Ray cluster opens a connection."""

import shutil
import socket

import pytest
from trials import complaint, end_of

from catnet.sweep.cluster import check_reachable

QUICK = ("evaluate.baselines=[copy]", "evaluate.predictions=no", "machine.accelerator=cpu")


class OutsideError(AssertionError):
    """Somebody tried to leave this machine."""


@pytest.fixture
def island(monkeypatch):
    """No connection and no look-up of a name leaves this machine; returns what was tried."""
    tried, connect, find = [], socket.socket.connect, socket.getaddrinfo

    def guarded(self, address):
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            tried.append(address)
            raise OutsideError(f"connects to {address}")
        return connect(self, address)

    def looked_up(host, *rest, **more):
        if host not in {None, "127.0.0.1", "::1", "localhost"}:
            tried.append(host)
            raise OutsideError(f"looks up {host}")
        return find(host, *rest, **more)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)
    return tried


def test_the_island_is_one(island):
    with pytest.raises(OutsideError):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(OutsideError):
        socket.create_connection(("example.org", 80), timeout=1)
    with pytest.raises(OutsideError):
        check_reachable("192.0.2.1:6379")
    assert len(island) == 3


def test_the_whole_way_stays_at_home(island, tiny, tiny_home, tmp_path, monkeypatch, capsys):
    raw, file = tiny_home / "raw", tiny_home / "tiny.yml"
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data"))
    question = tmp_path / "question.yml"
    question.write_text(f"question: Which seed?\nbase: {file}\nvary: {{seed: [0, 1]}}\n")
    for command in (
        ["prepare", "tiny", "--raw", raw],
        ["supervoxels", "tiny"],
        ["check", "tiny"],
        ["train", file, "train.steps=1", "name=home", *QUICK],
    ):
        status, _, err = end_of(command, capsys)
        assert status == 0, err
    run = next((tmp_path / "runs-home").glob("home-*"))
    pair = ("--support", raw / "image_1.nii.gz", raw / "label_1.nii.gz")
    for command in (
        ["evaluate", run, "evaluate.predictions=no"],
        ["report", run],
        ["view", run],
        ["sweep", question, "train.steps=1", "--only", "1", *QUICK],
        [
            "predict",
            "--model",
            "copy",
            *pair,
            "--query",
            raw / "image_3.nii.gz",
            "-o",
            tmp_path / "p",
        ],
        ["predict", "--model", run, *pair, "--query", raw / "image_3.nii.gz", "-o", tmp_path / "q"],
        ["view", tmp_path / "p"],
        ["export", run, tmp_path / "shared"],
    ):
        status, _, err = end_of(command, capsys)
        assert status == 0, f"{command}: {err}"
    assert island == []
    assert (tmp_path / "shared").is_dir()


def test_what_says_so_does_leave(island, tiny_home, tiny, tmp_path, capsys):
    """The guard sees what it is there for: an address of a hub, or of a data set."""
    shutil.copy(tiny_home / "cards" / "tiny.yml", tmp_path / "card.yml")
    with (tmp_path / "card.yml").open("a") as file:
        file.write(f"fetch: {{url: 'http://192.0.2.1/a.zip', checksum: 'sha256:{'0' * 64}'}}\n")
    with pytest.raises(OutsideError):
        end_of(["fetch", tmp_path / "card.yml", "--raw", tmp_path / "new"], capsys)
    assert island


def test_a_card_fetches_over_http_alone(tiny_home, tiny, tmp_path, capsys):
    shutil.copy(tiny_home / "cards" / "tiny.yml", tmp_path / "card.yml")
    with (tmp_path / "card.yml").open("a") as file:
        file.write(f"fetch: {{url: 'ftp://192.0.2.1/a.zip', checksum: 'sha256:{'0' * 64}'}}\n")
    said = complaint(["fetch", tmp_path / "card.yml", "--raw", tmp_path / "new"], capsys)
    assert "fetch.url" in said
