"""Measure the library against a plain reference, in pairs, in one run.

Plain is what the public code of the field does, with the same weights: one episode at a time in
float32, augmented on the CPU in float64, support and query encoded apart, attention as two matrix
products, every slice and organ of a volume by a call of its own. Every row is plain, library,
plain, library, ...: medians, and the smallest and largest ratio of a pair.

It makes its own data, synthetic abdomens in a temporary folder, and leaves yours alone. The whole
takes about ten minutes on two cores that have nothing else to do; --quick is a small form of it
that shows whether everything runs, and says nothing about speed.

example:
  catnet bench -o bench
  catnet bench --rows sampling evaluation
"""

import argparse
import difflib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console

from catnet.bench.document import Found, write_found
from catnet.bench.machine import describe_machine
from catnet.bench.pairs import Row
from catnet.bench.rows import ROWS
from catnet.bench.scene import FULL, QUICK, Scene, open_scene
from catnet.bench.speed import measure_speed
from catnet.bench.table import note_lines, speed_lines, terminal_table
from catnet.commands.output import try_file
from catnet.commands.progress import progress_bar
from catnet.errors import UserError

SCREEN = 110  # columns
SPEED = "operations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "-o", dest="folder", type=Path, metavar="DIR", help="write bench.json and bench.md there"
    )
    parser.add_argument("--quick", action="store_true", help="small data, a small network, seconds")
    parser.add_argument(
        "--rows",
        nargs="*",
        default=[*ROWS, SPEED],
        metavar="NAME",
        help=f"only these: {', '.join([*ROWS, SPEED])}; none without a name",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where (default cpu)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print, write."""
    check_names(options.rows)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out")
    if options.folder:
        try_file(options.folder / "bench.json")
    device = torch.device(options.device)
    size = QUICK if options.quick else FULL
    machine = describe_machine(device, ["catnet", *sys.argv[1:]])
    with open_scene(size, device=device) as scene:
        rows = measure_rows(scene, options.rows)
        speed = measure_speed(scene) if SPEED in options.rows else None
    found = Found(machine, size.name, rows, speed)
    show(found)
    if options.folder:
        print(*write_found(options.folder, found), sep="\n")


def check_names(names: Sequence[str]) -> None:
    """Raise `UserError` for a row that is not there."""
    known = [*ROWS, SPEED]
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
            raise UserError(f"--rows {name}: there is no such row; {hint}")


def measure_rows(scene: Scene, names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the table's order."""
    wanted = [name for name in ROWS if name in names]
    rows = []
    with progress_bar("measuring", "{task.fields[name]}") as bar:
        task = bar.add_task("", total=len(wanted), name="")
        for name in wanted:
            bar.update(task, name=name)
            start = time.monotonic()
            rows += ROWS[name](scene)
            bar.advance(task)
            if bar.disable:
                print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows


def show(found: Found) -> None:
    """The table and the sentences."""
    console = Console(width=SCREEN, highlight=False)
    if found.rows:
        console.print(terminal_table(found.rows))
    lines = note_lines(found.rows) + (speed_lines(found.speed) if found.speed else [])
    for line in lines:
        console.print(f"- {line}")
