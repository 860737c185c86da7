"""What a sweep leaves behind, and how it is found again.

$CATNET_RUNS/sweeps/NAME-HASH/sweep.json   the question and its runs
                             /rows.csv     everything measured, added to as runs finish
                             /costs.csv    what training took, likewise
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from catnet.config import EvaluateSettings, digest
from catnet.errors import UserError
from catnet.files import clear_cut_off
from catnet.paths import runs_home
from catnet.question import Question
from catnet.report.rows import append_rows, read_rows
from catnet.report.study import Member, Study, member_rows, parted
from catnet.runs import SETTINGS, open_run_folder, write_json
from catnet.strict import check, read_json
from catnet.sweep.jobs import Job, plan_jobs

SWEEP, ROWS, COSTS = "sweep.json", "rows.csv", "costs.csv"


@dataclass(frozen=True)
class Sweep:
    """A question and its jobs."""

    question: Question

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """One for each network, in the question's order."""
        return plan_jobs(self.question)

    @property
    def folder(self) -> Path:
        """Where the sweep over exactly these runs lies, or would lie."""
        runs = [
            (job.folder.identity, variant.run.evaluate.name(), variant.label)
            for job in self.jobs
            for variant in job.variants
        ]
        return (
            runs_home()
            / "sweeps"
            / f"{self.question.name}-{digest([self.question.varied, runs])[:10]}"
        )


def write_sweep(sweep: Sweep, *, command: str) -> None:
    """Write down which runs the question has, for whoever reports on them."""
    question = sweep.question
    clear_cut_off(sweep.folder)
    members = [
        {
            "run": job.folder.path.name,
            "label": variant.label,
            "values": dict(variant.values),
            "evaluate": variant.run.evaluate.model_dump(mode="json"),
        }
        for job in sweep.jobs
        for variant in job.variants
    ]
    facts = {"name": question.name, "question": question.text, "command": command}
    write_json(sweep.folder / SWEEP, {**facts, "varied": question.varied, "runs": members})


def open_sweep(folder: Path) -> Study:
    """The runs of a sweep; raises `UserError` where one is gone, or the file is damaged."""
    path = folder / SWEEP
    try:
        content = read_json(path)
        command = str(content["command"])
        check_there(folder, [entry["run"] for entry in content["runs"]], command=command)
        members = tuple(open_member(entry) for entry in content["runs"])
        varied = tuple(content["varied"])
        return Study(content["name"], content["question"], varied, members, command)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: cannot be read ({why}); give `catnet sweep` again") from None


def check_there(folder: Path, runs: list[str], *, command: str) -> None:
    """Raise `UserError` where a run of the sweep was never begun, or is gone."""
    lacking = [name for name in runs if not (runs_home() / name / SETTINGS).is_file()]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        raise UserError(
            f"{folder}: the sweep lacks run {lacking[0]}{more}; give `{command}` again, which "
            "makes what is missing, then report"
        )


def open_member(entry: dict) -> Member:
    """One run of a sweep, with the settings it was evaluated by there."""
    folder = open_run_folder(Path(entry["run"]))
    settings = check(EvaluateSettings, entry["evaluate"], source=str(folder.path))
    run = folder.run.model_copy(update={"evaluate": settings})
    return Member(replace(folder, run=run), entry["label"], entry["values"])


def check_rows(sweep: Sweep) -> None:
    """Raise `UserError` where a file that rows will be added to is damaged."""
    for path in (sweep.folder / ROWS, sweep.folder / COSTS):
        if path.exists():
            read_rows(path)


def add_rows(sweep: Sweep, job: Job) -> None:
    """Add a finished job's rows to those of the sweep, in the place of any it has of that run."""
    for variant, evaluated in zip(job.variants, job.evaluations, strict=True):
        member = Member(evaluated, variant.label, variant.values)
        rows, costs = parted(member_rows(member, question=sweep.question.name))
        append_rows(sweep.folder / ROWS, rows, instead=("run", "variant"))
        if len(costs):
            append_rows(sweep.folder / COSTS, costs, instead=("run", "variant"))
