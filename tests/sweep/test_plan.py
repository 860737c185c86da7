"""What makes no sense as a question is refused before anything begins."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from trials import complaint

from catnet.errors import UserError
from catnet.paths import runs_home
from catnet.question import load_question
from catnet.runs import write_settings
from catnet.sweep.jobs import plan_jobs
from catnet.sweep.store import Sweep


@pytest.fixture
def ask(asked):
    """The tiny question with other settings that vary, and others that do not."""

    def write(vary, **content):
        known = yaml.safe_load(asked.read_text())
        known["model"] = {**known["model"], **content.pop("model", {})}
        asked.write_text(yaml.safe_dump({**known, **content, "vary": vary}))
        return asked

    return write


def same(first, second, why):
    return f"{first} and {second} are the same network, since {why}"


@pytest.mark.parametrize(
    ("vary", "model", "words"),
    [
        (
            {"model.mask_how": ["multiply", "bias"]},
            {"mask_on": "none"},
            same("model.mask_how=multiply", "model.mask_how=bias", "mask_how is about a mask"),
        ),
        (
            {"model.rounds": [1], "model.mask_how": ["multiply", "bias"]},
            {"mask_on": "queries"},
            "are the same network, since mask_how is about a mask on the keys; leave one",
        ),
        ({"model.mask_on": ["queries", "keys"]}, {"rounds": 0}, "without a round there is no CMAT"),
        ({"model.direction": ["both", "support_to_query"]}, {"rounds": 0}, "without a round"),
        ({"model.attention": ["masked", "gc"]}, {"rounds": 0}, "without a round there is no CMAT"),
        ({"model.share_rounds": [False, True]}, {"rounds": 1}, "no second round to share with"),
        ({"model.keep_threshold": [0.4, 0.5]}, {"mask_on": "none"}, "without a mask there is"),
        ({"evaluate.protocols": [["EP1"], ["EP1", "EP2"]]}, {}, "have other protocols"),
        ({"data.fold": [0, 2]}, {}, "data.fold 2 is not there; card tiny has 0 to 1"),
        ({"data.group": ["lungs"]}, {}, "data.group 'lungs' is not in card tiny"),
        ({"data.card": ["tiny", "nowhere"]}, {}, "card 'nowhere' is not in"),
    ],
)
@pytest.mark.parametrize("listed", [True, False])
def test_it_is_refused_with_the_file_and_leaves_nothing(ask, vary, model, words, listed, capsys):
    path = ask(vary, model=model)
    sentence = complaint(["sweep", path, *(["--list"] if listed else [])], capsys)
    assert sentence.startswith(f"{path}: ")
    assert words in sentence
    assert not runs_home().exists()


@pytest.mark.parametrize(
    ("vary", "model", "count"),
    [
        ({"model.mask_how": ["multiply", "bias"]}, {"mask_on": "keys"}, 2),
        ({"model.mask_on": ["queries", "keys", "none"]}, {"rounds": 1}, 3),
        ({"model.rounds": [0, 1, 2], "seed": [0, 1]}, {}, 6),
        ({"evaluate.shots": [1, 2]}, {"rounds": 0}, 1),
        ({"evaluate.protocols": [["EP1", "EP2"], ["EP2", "EP1"]]}, {}, 1),
    ],
)
def test_what_differs_passes(ask, vary, model, count):
    assert len(plan_jobs(load_question(ask(vary, model=model)))) == count


def test_settings_of_another_network_are_not_judged(ask):
    path = ask({"model.name": ["catnet", "panet"]}, model={"rounds": 0})
    assert len(Sweep(load_question(path)).jobs) == 2


def test_a_file_that_asks_nothing_is_refused(ask, tmp_path):
    path = ask({"seed": [0, 1]}, question="")
    with pytest.raises(UserError, match="asks nothing; add a line such as `question: "):
        plan_jobs(load_question(path))
    (tmp_path / "above.yml").write_text("base: rounds.yml\n")
    ask({"seed": [0, 1]}, question="Another?")
    with pytest.raises(UserError, match=r"above\.yml: asks nothing"):
        plan_jobs(load_question(tmp_path / "above.yml"))


def test_where_cards_are_looked_for_is_told_in_full(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("CATNET_CARDS")
    monkeypatch.chdir(tmp_path)
    sentence = complaint(["sweep", asked, "--list"], capsys)
    assert f"card 'tiny' is not in {tmp_path / 'datasets'} (there: none)" in sentence
    assert "`datasets` in the current folder" in sentence


def test_the_runs_that_are_there_are_listed_once_for_all_variants(asked, monkeypatch):
    for settings in ((), ("name=other", "seed=0")):
        for job in plan_jobs(load_question(asked, settings)):
            write_settings(job.folder)
    assert len(list(runs_home().iterdir())) == 4, "those of another name have done as well"
    listed = []

    def counted(list_folder):
        return lambda self, *given: listed.append(self) or list_folder(self, *given)

    for name in ("glob", "iterdir"):
        monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    assert len(plan_jobs(load_question(asked, ()))) == 4
    assert listed.count(runs_home()) == 1


def test_of_several_folders_of_one_network_that_which_is_trained_is_taken(asked):
    job, *_ = plan_jobs(load_question(asked, ()))

    def same(name):
        return runs_home() / f"{name}-{job.folder.identity}"

    def taken():
        return plan_jobs(load_question(asked, ()))[0].folder.path

    for name in ("b", "a"):
        write_settings(replace(job.folder, path=same(name)))
        (same(name) / "run.yml").touch()
    (runs_home() / job.folder.identity).mkdir()
    (runs_home() / f"a-x{job.folder.identity}").mkdir()
    same("0").mkdir()
    assert taken() == same("a"), "without settings a folder is no run"
    job.folder.path.mkdir()
    assert taken() == job.folder.path
    for name in ("b", "a"):
        (same(name) / "model").mkdir()
        (same(name) / "model" / "model.safetensors").touch()
        assert taken() == same(name)
    (job.folder.path / "model").mkdir()
    (job.folder.path / "model" / "model.safetensors").touch()
    assert taken() == job.folder.path
