"""No file can make the program run code: neither by what the sources call, nor by what it loads."""

import ast
import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from trials import complaint

from catnet.errors import UserError
from catnet.model.encoder import read_weights
from catnet.strict import read_yaml

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "catnet").rglob("*.py"))
NEVER = {
    "pickle",
    "cPickle",
    "marshal",
    "shelve",
    "dill",
    "cloudpickle",
    "joblib",
    "code",
    "codeop",
}
BUILTIN = {"eval", "exec", "compile", "__import__"}
ATTRIBUTES = {"unsafe_load", "full_load", "load_all", "system", "popen", "read_pickle", "to_pickle"}
MUST_SAY = {  # a call -> the word and the value that it has to be given
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
NAMED_BY_SETTINGS = {"import_module"}  # of names that stand in the sources


def faults(text):
    """(line, what) of everything in a source that could run what a file says."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, n.name) for n in node.names if n.name.split(".")[0] in NEVER)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in NEVER:
            names = [alias.name for alias in node.names]
            if names != ["UnpicklingError"]:
                yield node.lineno, f"from {node.module} import {', '.join(names)}"
        elif isinstance(node, ast.Call):
            yield from call_faults(node)


def call_faults(node):
    """What is wrong with one call."""
    called = ast.unparse(node.func)
    last = called.rpartition(".")[2]
    said = {word.arg: word.value for word in node.keywords}
    if called in BUILTIN or ("." in called and last in ATTRIBUTES):
        yield node.lineno, called
    if called in MUST_SAY:
        word, value = MUST_SAY[called]
        if not (isinstance(said.get(word), ast.Constant) and said[word].value is value):
            yield node.lineno, f"{called} without {word}={value}"
    if called == "yaml.load" and [ast.unparse(a) for a in node.args[1:]] != ["PlainLoader"]:
        yield node.lineno, "yaml.load with another loader"
    if "shell" in said or (last == "load" and called.split(".")[0] in {"pickle", "joblib"}):
        yield node.lineno, f"{called}, which runs code"
    if last in NAMED_BY_SETTINGS and not named_here(node.args[0]):
        yield node.lineno, f"{called}({ast.unparse(node.args[0])})"


def named_here(argument):
    """Whether the name of a module is written in the source: whole, or behind `catnet.`."""
    if isinstance(argument, ast.Constant):
        return True
    if isinstance(argument, ast.JoinedStr):
        first = argument.values[0]
        return isinstance(first, ast.Constant) and str(first.value).startswith("catnet.")
    return ast.unparse(argument) == "HOMES[name]"  # a literal dict in catnet/__init__.py


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_source_runs_what_a_file_says(path):
    assert list(faults(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.numpy_pickle",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.save(path, array)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=PlainLoader)",
        "yaml.unsafe_load(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "pd.read_pickle(path)",
        "import_module(settings.name)",
        "importlib.import_module(f'{name}.x')",
    ],
)
def test_the_walk_finds_what_it_looks_for(line):
    assert list(faults(line))


class Bomb:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self):
        return Path.write_text, (Path("exploded"), "")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of the test's own, in which nothing has exploded when the test ends."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not (tmp_path / "exploded").exists()


def test_the_bomb_is_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Bomb()))
    assert (tmp_path / "exploded").exists()


def bombs():
    """A pickle as weights may come: plain, as torch writes it today and before 2020."""
    for legacy in (True, False):
        buffer = io.BytesIO()
        torch.save({"conv1.weight": Bomb()}, buffer, _use_new_zipfile_serialization=not legacy)
        yield buffer.getvalue()
    yield pickle.dumps(Bomb())


@pytest.mark.parametrize("content", list(bombs()), ids=["legacy", "zip", "plain"])
@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_a_pickle_as_a_weight_file(ending, content, here):
    path = here / f"weights.{ending}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"weights\.\w+: (damaged|not a readable)"):
        read_weights(path)


def test_objects_in_a_prepared_case(here, tiny_home, tiny, monkeypatch, capsys):
    shutil.copytree(tiny_home / "data", here / "data")
    monkeypatch.setenv("CATNET_DATA", str(here / "data"))
    np.save(here / "data/tiny/1/image.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (here / "data/tiny/1/supervoxels.json").unlink()
    assert "image.npy: cannot be read" in complaint(["supervoxels", "tiny"], capsys)


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:pathlib.Path.write_text [exploded, '']",
        "!!python/object/new:os.system [touch exploded]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        "!!python/object:catnet.config.Run {}",
        "!<tag:yaml.org,2002:python/object/apply:os.system> [touch exploded]",
    ],
)
def test_tags_of_python_in_yaml(tag, here):
    path = here / "card.yml"
    path.write_text(f"name: {tag}\n")
    with pytest.raises(UserError, match=r"card\.yml: not valid YAML at line 1 .*constructor"):
        read_yaml(path)
