"""What the README shows runs as it stands there."""

import re
from pathlib import Path

import yaml

from catnet.model.attention import ATTENTION

ROOT = Path(__file__).parents[1]


EXAMPLES = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_python_example_prints_the_shape_that_it_says(capsys):
    assert len([line for line in EXAMPLES[0].splitlines() if line]) == 9
    exec(EXAMPLES[0], {})
    assert "(1, 256, 256)" in capsys.readouterr().out.replace("[", "(").replace("]", ")")


def test_the_authors_weights_are_in_the_network_of_the_example(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {}
    (example,) = EXAMPLES[1:]
    exec(example, names)
    for cmat in names["model"].cmat:
        for ours, theirs in (("query", "q"), ("key_value", "kv"), ("reduce", "sr")):
            weight = getattr(cmat.cross.attention, ours).weight
            assert weight.equal(names["theirs"][f"{theirs}.weight"])


def test_the_table_of_the_zoo_says_what_the_mechanisms_say_of_themselves():
    rows = re.findall(r"^\| `([\w-]+)` \| (.*) \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    rows = {name: rest.split(" | ") for name, rest in rows if name in ATTENTION}
    assert list(rows) == list(ATTENTION)
    for name, (paper, good_for, *_, crossed) in rows.items():
        kind = ATTENTION[name]
        assert good_for == kind.good_for
        assert crossed == (("yes, aligned" if kind.aligned else "yes") if kind.cross else "no")
        if name != "none":
            title, _, number = kind.paper.partition(", arXiv ")
            assert paper == f"[{title}](https://arxiv.org/abs/{number})"


def test_every_link_leads_somewhere():
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name} links to {target}"


def test_conda_installs_what_pip_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]
