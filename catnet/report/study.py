"""Runs that are looked at together: one frame of tidy rows, and what tells the runs apart."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from catnet.errors import UserError
from catnet.evaluations import ROWS, Evaluation, evaluation_folder, finished_evaluation
from catnet.question import REPEATS, look_up, name_variant
from catnet.report.rows import check_lines, read_text
from catnet.runs import COST, RunFolder

NOWHERE = ("protocol", "support", "query", "organ")  # what a cost has not


@dataclass(frozen=True)
class Member:
    """One evaluated run: the label of its variant, and its values of the settings that vary."""

    folder: RunFolder
    label: str
    values: Mapping[str, object]

    @property
    def evaluation(self) -> Path:
        """Folder of the run's evaluation."""
        return evaluation_folder(self.folder)


@dataclass(frozen=True)
class Study:
    """A question in words, the settings that vary, and the runs that answer it."""

    name: str
    question: str
    varied: tuple[str, ...]
    members: tuple[Member, ...]
    command: str = ""  # that made the runs, where it is known

    def rows(self) -> pd.DataFrame:
        """Everything measured on any of the runs; raises `UserError` for one not evaluated."""
        cards = {member.folder.card.name: member.folder for member in self.members}
        for member in self.members:
            same = cards[member.folder.card.name]
            if member.folder.card.identity() != same.card.identity():
                raise UserError(
                    f"{member.folder.path} and {same.path}: were trained by different versions of "
                    f"card {same.card.name}, whose folds may hold other cases; report them apart"
                )
        again = f"give `{self.command}` again" if self.command else ""
        parts = [member_rows(member, question=self.name, remedy=again) for member in self.members]
        return pd.concat(parts, ignore_index=True)


def member_rows(member: Member, *, question: str, remedy: str = "") -> pd.DataFrame:
    """The rows of one run: its evaluation's, then what it cost, with what varies before them.

    Raises `UserError` where there are none; `remedy` is what brings them, if not `catnet evaluate`.
    """
    measured = evaluated(member.folder, remedy=remedy).rows
    rows = pd.concat([measured, cost_rows(member.folder)], ignore_index=True)
    known = {"question": question, "variant": member.label}
    varied = {key: flat(value) for key, value in member.values.items() if key not in REPEATS}
    front = pd.DataFrame([known | varied], index=rows.index)
    return pd.concat([front, rows], axis=1)


def parted(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was measured on cases, and what training took, which has no case: for two files."""
    costs = rows["protocol"] == ""
    return rows[~costs], rows[costs].drop(columns=list(NOWHERE))


def evaluated(folder: RunFolder, *, remedy: str = "") -> Evaluation:
    """The evaluation that the run's settings ask for.

    Raises `UserError` where it is not there, or damaged; `remedy` brings it.
    """
    done = finished_evaluation(folder)
    if done is None:
        name = folder.path.name
        remedy = (
            remedy or f"run `catnet evaluate {name}` with the evaluate.* settings that you want"
        )
        check_whole(folder, remedy=remedy)
        raise UserError(
            f"{folder.path}: has no whole evaluation {folder.run.evaluate.name()}; {remedy}"
        )
    return done


def check_whole(folder: RunFolder, *, remedy: str) -> None:
    """Raise `UserError` that names file and line where an evaluation is there and damaged."""
    path = evaluation_folder(folder)
    if not (path / "settings.json").is_file():
        return  # it never ended
    check_lines(path / ROWS, read_text(path / ROWS, remedy=remedy), remedy=remedy)
    raise UserError(f"{path}: its {ROWS} and settings.json do not fit each other; {remedy}")


def cost_rows(folder: RunFolder) -> pd.DataFrame:
    """What training the run cost, as rows of no protocol, case or organ; none where unknown."""
    try:
        cost = json.loads((folder.path / COST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        cost = {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.path / COST}: cannot be read ({error}); delete it") from None
    return pd.DataFrame([
        {
            "run": folder.path.name,
            "card": folder.card.name,
            "fold": folder.run.data.fold,
            "seed": folder.run.seed,
            "setting": folder.run.data.setting,
            "policy": folder.run.evaluate.support,
            "shots": folder.run.evaluate.shots,
            "model": folder.run.model.name,
            **dict.fromkeys(NOWHERE, ""),
            "metric": name,
            "value": float(value),
        }
        for name, value in cost.items()
    ])  # fmt: skip


def flat(value: object) -> object:
    """A number, a word or a truth value as it is; anything else as text."""
    return value if isinstance(value, int | float | str) else json.dumps(value)


def study_of_runs(folders: Sequence[RunFolder]) -> Study:
    """Runs that no sweep has put together: what differs between them is what varies."""
    flattened = [leaves(folder.run.model_dump(mode="json")) for folder in folders]
    ignored = {"name", "question", "evaluate.batch", "evaluate.predictions", "evaluate.pictures"}
    varied = tuple(
        key
        for key in dict.fromkeys(key for settings in flattened for key in settings)
        if key not in ignored
        and not key.startswith("machine.")
        and len({json.dumps(settings.get(key)) for settings in flattened}) > 1
    )
    named = [key for key in varied if key not in REPEATS]
    members = tuple(
        Member(
            folder,
            name_variant(folder.run, named),
            {key: look_up(folder.run, key) for key in varied},
        )
        for folder in folders
    )
    questions = dict.fromkeys(folder.run.question for folder in folders)
    if len(folders) == 1:  # what its file asks may be about others, which are not here
        questions = {describe_run(folders[0]): None}
    name = "+".join(dict.fromkeys(folder.run.name for folder in folders))
    return Study(name, " / ".join(filter(None, questions)), varied, members)


def describe_run(folder: RunFolder) -> str:
    """A run alone, by what it is."""
    run = folder.run
    return f"The run {folder.path.name}: {run.model.name}, fold {run.data.fold}, seed {run.seed}"


def leaves(settings: dict, prefix: str = "") -> dict[str, object]:
    """Nested settings by their dotted names; `*_options` are values."""
    found: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, dict) and not key.endswith("_options"):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
