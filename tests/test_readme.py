"""What the README shows runs as it stands there."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_the_python_example_prints_the_shape_that_it_says(capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in example.splitlines() if line]) == 9
    exec(example, {})
    assert "(1, 256, 256)" in capsys.readouterr().out.replace("[", "(").replace("]", ")")


def test_every_link_leads_somewhere():
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text()):
            assert (ROOT / target).exists(), f"{document.name} links to {target}"


def test_conda_installs_what_pip_does():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--constraint constraints.txt", "--editable .[dev]"]
