"""The table of a sweep's runs: waiting, running, done or failed, with last loss and time left."""

from collections import Counter

from rich import box
from rich.markup import escape
from rich.table import Table

from catnet.question import describe
from catnet.sweep.jobs import Job, State, States, error_of, progress_of
from catnet.sweep.store import Sweep

COLUMNS = ("#", "variant", "fold", "seed", "state", "steps", "loss", "left", "run")
NUMBERS = {"#", "fold", "seed", "steps", "loss", "left"}
STYLE: dict[State, str] = {
    "waiting": "dim",
    "running": "bold cyan",
    "done": "green",
    "failed": "bold red",
}


def board(sweep: Sweep, states: States) -> Table:
    """A line a run; below the failed ones, their error and their log."""
    counts = Counter(states.values())
    summary = ", ".join(f"{counts[state]} {state}" for state in STYLE if counts[state])
    title = f"{sweep.question.name}, {len(states)} runs: {summary}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in NUMBERS else "left")
    for job in sweep.jobs:
        state = states[job.number]
        table.add_row(str(job.number), *cells(job, state), style=STYLE[state])
        if state == "failed":
            table.add_row("", escape(f"{error_of(job)}\nlog: {job.log}"), style=STYLE[state])
    return table


def cells(job: Job, state: State) -> tuple[str, ...]:
    """What is known of a run."""
    run, now = job.folder.run, progress_of(job)
    step = now.steps if job.folder.trained else now.step
    return (
        escape("; ".join(dict.fromkeys(variant.label for variant in job.variants))),
        str(run.data.fold),
        str(run.seed),
        state,
        f"{step}/{now.steps}",
        "" if now.loss is None else f"{now.loss:.3f}",
        clock(now.left) if state == "running" and now.left is not None else "",
        job.folder.path.name,
    )


def clock(seconds: float) -> str:
    """`2:05` for two minutes and five seconds, `1:00:00` for an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def line(job: Job, state: State, *, of: int) -> str:
    """What is said of a run where there is no terminal to draw on."""
    values = "; ".join(map(describe, job.variants))
    text = f"run {job.number} of {of} {state}: {values} ({job.folder.path.name})"
    return f"{text}: {error_of(job)}; log: {job.log}" if state == "failed" else text
