"""On a disk that is full or closed a command says so; with room again it ends as ever."""

import os
import shlex
import shutil
import subprocess

import pytest
from trials import complaint, end_of, run, weights_of

from catnet.data.store import open_cases
from catnet.question import load_run
from catnet.runs import find_run_folder

QUICK = "evaluate.protocols=[EP2] evaluate.baselines=[copy]"


class Disk:
    """A small file system in memory."""

    def __init__(self, path):
        self.path = path

    def fill(self):
        """Leave no byte free."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            while self.put(file):
                pass

    def put(self, file):
        try:
            return file.write(bytes(4096))
        except OSError:
            return 0

    def free(self):
        (self.path / "ballast").unlink()

    def close(self, *, how="ro"):
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.path)], check=True)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(path)]
    if os.getuid() or shutil.which("mount") is None:
        pytest.skip("only root can make a small disk")
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "-l", str(path)], check=True)


@pytest.fixture
def on_disk(disk, tiny_home, trained, monkeypatch, tiny, capsys):
    """`on_disk(command)`: its words, and what it made where there was room, and makes there."""
    ended = trained()
    assert end_of(["evaluate", ended.path, *QUICK.split()], capsys)[0] == 0
    words = {
        "prepare": f"prepare tiny --raw {tiny_home / 'raw'}",
        "train": f"train {tiny_home / 'tiny.yml'} name=new",
        "evaluate": f"evaluate {ended.path.name} {QUICK}",
        "report": f"report {ended.path.name} {QUICK}",
    }

    def results(name):
        if name == "prepare":
            folders = [case.folder for case in open_cases(ended.card)]
            return [(f / n).read_bytes() for f in folders for n in ("image.npy", "meta.json")]
        if name == "train":
            return weights_of(find_run_folder(load_run(tiny_home / "tiny.yml", ["name=new"])))
        pattern = "*/rows.csv" if name == "evaluate" else "dice.csv"
        folder = disk.path / "runs" / ended.path.name
        return [path.read_text() for path in (folder / f"{name}s").glob(pattern)] or [
            path.read_text() for path in (folder / "evaluations").glob("*/rows.csv")
        ]

    def use(name):
        expected = results(name) if name == "prepare" else None
        if name == "train":
            expected = weights_of(run(tiny("name=new")))
        if name in {"evaluate", "report"}:
            found = (ended.path / "evaluations").glob("*/rows.csv")
            expected = [path.read_text() for path in found]
        (disk.path / "data").mkdir()
        if name in {"evaluate", "report"}:
            shutil.copytree(ended.path, disk.path / "runs" / ended.path.name)
        if name == "evaluate":
            shutil.rmtree(disk.path / "runs" / ended.path.name / "evaluations")
        monkeypatch.setenv("CATNET_RUNS", str(disk.path / "runs"))
        if name == "prepare":
            monkeypatch.setenv("CATNET_DATA", str(disk.path / "data"))
        return shlex.split(words[name]), lambda: results(name), expected

    return use


@pytest.mark.parametrize("how", ["full", "closed"])
@pytest.mark.parametrize("name", ["prepare", "train", "evaluate", "report"])
def test_with_room_again_it_ends_as_ever(name, how, disk, on_disk, capsys):
    words, results, expected = on_disk(name)
    if how == "full":
        disk.fill()
    else:
        disk.close()
    said = complaint(words, capsys)
    assert str(disk.path) in said
    assert ("No space left" if how == "full" else "Read-only file system") in said
    assert "cannot be written (" in said
    assert not [path for path in disk.path.rglob(".*") if path.name != ".lock"]
    if how == "full":
        disk.free()
    else:
        disk.close(how="rw")
    status, _, err = end_of(words, capsys)
    assert status == 0, err
    assert results() == expected


def test_a_disk_that_fills_while_a_run_trains(disk, on_disk, capsys, monkeypatch):
    """The first checkpoint fits, the second one does not."""
    words, results, expected = on_disk("train")
    from catnet import checkpoint

    write = checkpoint.write_bytes

    def write_on_full(path, content):
        if path.name == "step-00000006.safetensors":
            disk.fill()
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_bytes", write_on_full)
    said = complaint([*words], capsys)
    assert "step-00000006.safetensors: cannot be written (No space left on device); free" in said
    disk.free()
    monkeypatch.setattr(checkpoint, "write_bytes", write)
    status, _, err = end_of(words, capsys)
    assert status == 0, err
    assert "going on from step 3" in err
    assert results() == expected
