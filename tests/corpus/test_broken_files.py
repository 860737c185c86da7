"""Whatever is wrong with a file, the command says it in one sentence and leaves nothing behind."""

import re
import resource
import shlex
import shutil
import time

import pytest
import yaml
from broken_scans import SCANS
from broken_states import ARCHIVES, MODELS, PREPARED, RUNS, zipped
from broken_texts import CARDS, SETTINGS
from trials import complaint, end_of

from catnet.cli import main
from catnet.data import fetch

CORPUS = {**CARDS, **SETTINGS, **SCANS, **MODELS, **PREPARED, **RUNS, **ARCHIVES}
MEMORY = 400 << 20  # bytes that a command may take beyond what the process has
SECONDS = 20.0  # of this process, however busy the machine is
# Of a run that could not begin, what it was to be; and an archive with the right checksum.
SCAFFOLD = {".lock", "run.yml", "card.yml", f".fetch-{'0' * 16}"}
WHOLE = (
    "prepare {home}/card.yml --raw {home}/raw",
    "supervoxels tiny",
    "report {home}/run -o {home}/report",
    "fetch {home}/card.yml --raw {home}/new",
    "evaluate {home}/run --again",
)


@pytest.fixture(scope="session")
def evaluated_home(tiny_home, trained_home, tmp_path_factory):
    """The folder of a run that was evaluated; made once, never changed."""
    path = tmp_path_factory.mktemp("evaluated") / trained_home.name
    shutil.copytree(trained_home, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(tiny_home / "data"))
        patch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
        main(["evaluate", str(path)])
    return path


@pytest.fixture
def home(tmp_path, tiny_home, evaluated_home, monkeypatch):
    """A folder of everything, and all of it right: raw scans, a card, settings, a run.

    What `catnet fetch` would download is the file `archive`.
    """
    path = tmp_path / "home"
    shutil.copytree(tiny_home / "raw", path / "raw")
    shutil.copy(tiny_home / "cards" / "tiny.yml", path / "card.yml")
    shutil.copy(tiny_home / "tiny.yml", path / "run.yml")
    shutil.copytree(tiny_home / "data", path / "data")
    shutil.copytree(evaluated_home, path / "run")
    with (path / "card.yml").open("a") as file:
        yaml.safe_dump(
            {"fetch": {"url": "http://localhost/a", "checksum": "sha256:" + "0" * 64}}, file
        )

    def download(url, archive, **_):
        shutil.copy(path / "archive", archive)

    monkeypatch.setattr(fetch, "download", download)
    monkeypatch.setenv("CATNET_DATA", str(path / "data"))
    monkeypatch.setenv("CATNET_CARDS", str(tiny_home / "cards"))
    monkeypatch.chdir(path)
    return path


@pytest.fixture
def little_memory():
    """A bomb that unfolds in memory fails at once, instead of taking the machine with it."""
    before = resource.getrlimit(resource.RLIMIT_AS)

    def limit():
        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_AS, before)


def files_below(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CORPUS)
def test_a_broken_file_gets_one_sentence(name, home, tmp_path, capsys, little_memory):
    make, command, hint = CORPUS[name]
    make(home)
    before = files_below(tmp_path)
    begun = time.process_time()
    little_memory()
    said = complaint(shlex.split(command.format(home=home)), capsys)
    assert time.process_time() - begun < SECONDS
    assert re.search(hint, said), said
    assert len(said) < 1000
    left = files_below(tmp_path) - before
    assert {path for path in left if path.rpartition("/")[2] not in SCAFFOLD} == set()


def test_every_kind_of_file_is_in_the_corpus():
    assert len(CORPUS) >= 120
    assert len(CORPUS) == sum(map(len, (CARDS, SETTINGS, SCANS, MODELS, PREPARED, RUNS, ARCHIVES)))


def test_what_the_corpus_breaks_works_while_it_is_whole(home, capsys):
    zipped(("scan.nii", b"x"))(home)
    for command in WHOLE:
        status, _, err = end_of(shlex.split(command.format(home=home)), capsys)
        assert (status, err) == (0, ""), command
