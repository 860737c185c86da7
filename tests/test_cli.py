import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
from trials import complaint, end_of, raising

import catnet
from catnet.cli import COMMANDS, Parser, main
from catnet.commands.evaluate import demand_margin, remarks
from catnet.commands.settings import list_settings
from catnet.config import Run
from catnet.data.store import open_cases
from catnet.errors import UserError
from catnet.question import load_run
from catnet.runs import PROVENANCE, provenance, write_json

ROOT = Path(__file__).parents[1]
OPTIONS = {
    "phantom": ["CARD", "--raw DIR", "--cases N", "--seed S"],
    "prepare": ["CARD", "--raw DIR", "--jobs N", "--keep-going", "--resample-labels"],
    "cards": ["new", "DIR", "--name NAME", "--cases N", "-o FILE.yml, --output FILE.yml"],
    "fetch": ["CARD", "--raw DIR"],
    "supervoxels": ["CARD", "--purity"],
    "train": ["FILE", "key=value"],
    "evaluate": ["RUN", "key=value", "--again", "--beat-copy POINTS"],
    "predict": [
        "--model RUN|DIR|copy",
        "--support IMAGE LABEL",
        "--organ N[=NAME] [N[=NAME] ...]",
        "--query IMAGE [IMAGE ...]",
        "-o DIR, --output DIR",
        "--card CARD",
        "--probability",
        "--dicom-seg",
        "--resample-labels",
        "--again",
        "--keep-going",
        "--device {cpu,gpu,auto}",
        "--jobs N",
    ],
    "export": ["RUN", "DIR", "--again"],
    "sweep": ["FILE", "key=value", "--jobs N", "--ray [ADDRESS]", "--list", "--only NUMBER"],
    "report": ["SWEEP|RUN", "-o DIR, --output DIR", "key=value"],
    "attend": [
        "RUN",
        "--case NAME",
        "--slice N",
        "--organ NAME",
        "--at [ROW,COLUMN]",
        "--support NAME",
        "-o FILE.png, --output FILE.png",
    ],
    "check": ["CARD", "-o FILE.png, --output FILE.png", "--strict"],
    "view": [
        "RUN|PREDICTION|IMAGE LABEL",
        "-o FILE.html, --output FILE.html",
        "--case NAME",
        "--support NAME",
        "--organ NAME",
    ],
    "doctor": ["--json"],
    "similarity": ["RUN", "-o DIR, --output DIR"],
    "replay": ["FILE|RUN", "--step K", "--exact"],
    "zoo": [
        "NAME",
        "--options",
        "--dim C",
        "--size H[xW]",
        "--csv FILE",
        "--device {cpu,gpu,auto}",
        "--repeat N",
    ],
}


def test_help_lists_every_command(capsys):
    for command in ([], ["-h"], ["--help"]):
        status, out, err = end_of(command, capsys)
        assert (status, err) == (0, "")
        for name, summary in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", out, re.MULTILINE)
        for folder in ("CATNET_DATA", "CATNET_RUNS", "CATNET_CARDS", "example:"):
            assert folder in out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_manual_page(name, capsys):
    status, out, err = end_of([name, "--help"], capsys)
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: catnet {name} ")
    assert re.search(rf"^example:\n  catnet {name}\b", out, re.MULTILINE)
    arguments = re.findall(r"^  (\S.*)\n(?=(.*))", out.partition("\noptions:")[2], re.MULTILINE)
    assert len(arguments) >= 1
    for argument, below in arguments:
        assert "  " in argument or below.startswith(" " * 8), f"{argument} has no help"


@pytest.mark.parametrize("name", OPTIONS)
def test_the_manual_names_every_option(name, capsys):
    _, out, _ = end_of([name, "--help"], capsys)
    for option in OPTIONS[name]:
        assert re.search(rf"^  {re.escape(option)}\s+\S", out, re.MULTILINE), option
    offered = set(re.findall(r"^  (--[a-z-]+)", out, re.MULTILINE))
    assert offered == {option.split()[0] for option in OPTIONS[name] if option.startswith("--")}


PAGES = "".join(import_module(f"catnet.commands.{name}").__doc__ for name in COMMANDS)


@pytest.mark.parametrize("line", re.findall(r"^  (catnet .*)$", PAGES, re.MULTILINE))
def test_every_example_is_understood(line):
    _, name, *words = shlex.split(line)
    parser = Parser()
    import_module(f"catnet.commands.{name}").add_arguments(parser)
    options = parser.parse_args(words)
    if name == "train":
        load_run(ROOT / options.file, options.settings)


def test_help_lists_the_settings_with_their_defaults(capsys):
    _, train, _ = end_of(["train", "--help"], capsys)
    _, evaluate, _ = end_of(["evaluate", "--help"], capsys)
    lines = list_settings(Run())
    assert len(lines) > 50
    for line in lines:
        assert f"  {line}\n" in train
        assert (f"  {line}\n" in evaluate) == line.startswith("evaluate.")
    assert re.search(r"^  model.rounds +4 +CMAT rounds", train, re.MULTILINE)
    undescribed = [line for line in lines if len(line.split()) < 3 and "question" not in line]
    assert not undescribed


def test_a_demand_that_is_not_met_shows_the_table_first(places, capsys):
    quick = "evaluate.baselines=[copy] evaluate.pictures=no evaluate.protocols=[EP1]"
    words = shlex.split(places(f"evaluate {{run}} --beat-copy 100 {quick}"))
    status, out, err = end_of(words, capsys)
    assert status == 2
    assert err.count("\n") == 1
    assert re.search("^catnet: EP1: .* points from copying .*100 were demanded", err)
    assert "tiny, fold 0, setting 1" in out
    assert "rows, predictions and pictures: " in out


def test_what_is_there_is_not_evaluated_again(places, capsys, monkeypatch):
    quick = "evaluate {run} evaluate.baselines=[] evaluate.pictures=no evaluate.protocols=[EP1]"
    words = shlex.split(places(quick))
    status, first, _ = end_of(words, capsys)
    assert status == 0
    monkeypatch.setattr("catnet.commands.evaluate.evaluate", raising(AssertionError))
    assert end_of(words, capsys) == (0, first, "")
    for more in (["--again"], ["evaluate.batch=2"], ["evaluate.tolerance=1"]):
        with pytest.raises(AssertionError):
            main([*words, *more])


def test_runs_of_one_question_share_a_table(tiny, trained_home, capsys):
    """Two folds of one question are one table, over the cases of both."""
    quick = ["evaluate.baselines=[copy]", "evaluate.pictures=no", "evaluate.protocols=[EP1]"]
    folders = [tiny(*changes) for changes in ([], ["data.fold=1", "seed=3"], ["train.rate=0.5"])]
    for folder in folders:
        shutil.copytree(trained_home / "model", folder.model)
        write_json(folder.path / PROVENANCE, provenance(folder, open_cases(folder.card)))
    first, second, other = (folder.path for folder in folders)
    status, out, _ = end_of(["evaluate", first, second, *quick], capsys)
    assert status == 0
    assert "tiny, folds 0, 1, setting 1" in out
    assert out.count("rows, predictions and pictures: ") == 2
    rows = [pd.read_csv(next(path.rglob("rows.csv"))) for path in (first, second)]
    dice = pd.concat(rows).query("metric == 'dice' and model == 'copy' and organ == 'liver'")
    assert len(dice) == 2 + 3
    assert f"{dice['value'].mean():.1f}±{dice['value'].std():.1f}" in out
    said = complaint(["evaluate", first, other, *quick], capsys)
    assert "the runs differ in more than fold and seed" in said


def margin_rows(**means):
    return pd.DataFrame(
        [
            {"protocol": protocol, "model": model, "support": "1", "query": "2", "organ": "liver"}
            | {"metric": "dice", "value": value}
            for model, values in means.items()
            for protocol, value in zip(("EP1", "EP2"), values, strict=True)
        ]
    )


def test_a_margin_is_demanded_under_every_protocol():
    rows = margin_rows(copy=[40, 30], catnet=[60, 35])
    demand_margin(rows, model="catnet", points=5.0)
    with pytest.raises(UserError, match=r"^EP2: mean Dice 35.0 is \+5.0 points from copying"):
        demand_margin(rows, model="catnet", points=5.1)
    with pytest.raises(UserError, match=r"^EP2: mean Dice 25.0 is -5.0 points"):
        demand_margin(margin_rows(copy=[40, 30], catnet=[60, 25]), model="catnet", points=0.0)
    with pytest.raises(UserError, match="needs the baseline"):
        demand_margin(margin_rows(catnet=[60, 25]), model="catnet", points=0.0)


def loaded_by(code):
    """The modules that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys; print('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("loaded ")[2].split())


def test_neither_the_package_nor_the_list_of_commands_loads_torch():
    assert not {"torch", "numpy"} & loaded_by("import catnet")
    listed = "import catnet.cli\ntry: catnet.cli.main(['--help'])\nexcept SystemExit: pass"
    assert not {"torch", "numpy"} & loaded_by(listed)


def test_the_public_names_are_there():
    from catnet.model.catnet import CATNet

    assert catnet.CATNet is CATNet
    for name in catnet.__all__:
        assert getattr(catnet, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'CatNet'"):
        catnet.CatNet  # noqa: B018


def test_a_column_of_zeros_is_explained():
    rows = pd.DataFrame(
        [("EP1", "catnet", 0.0), ("EP1", "copy", 9.0), ("EP2", "catnet", 1.0)],
        columns=["protocol", "model", "value"],
    ).assign(metric="dice")
    (remark,) = remarks(rows)
    assert remark == "note: under EP1 no mask of catnet meets its organ; train longer"
