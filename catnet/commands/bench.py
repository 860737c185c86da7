"""Measure the library against a plain reference, in pairs, in one run.

Plain is what the public code of the field does, with the same weights: one episode at a time in
float32, augmented on the CPU in float64, support and query encoded apart, attention as two matrix
products, every slice and organ of a volume by a call of its own; where it trains or evaluates, in a
process whose memory is managed as the system manages it. Every row is plain, library, plain,
library, ...: medians, and the smallest and largest ratio of a pair.

It makes its own data, synthetic abdomens in a temporary folder, and leaves yours alone. The whole
takes about half an hour on two cores that have nothing else to do, the most of it for evaluation;
--quick is a small form of it that shows whether everything runs, and says nothing about speed.
--curves adds how cost grows with cases, slices, shots, rounds, pixels, batch, loader processes and
runs, and takes some minutes more.

example:
  catnet bench --curves -o bench
  catnet bench --rows sampling evaluation
"""

import argparse
import difflib
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from rich.console import Console

from catnet.bench.curves import CURVES, curve_names
from catnet.bench.document import Found, files_of, write_found
from catnet.bench.machine import describe_machine
from catnet.bench.ranges import SCENES
from catnet.bench.rows import ROWS
from catnet.bench.scene import FULL, QUICK, Scene
from catnet.bench.speed import measure_speed
from catnet.bench.stage import open_scene
from catnet.bench.table import note_lines, speed_lines, terminal_curves, terminal_table
from catnet.commands.output import try_file
from catnet.commands.progress import progress_bar
from catnet.errors import UserError

STOPPED = "what was measured is lost, and the same command begins anew"
SCREEN = 110  # columns
SPEED = "operations"
One = TypeVar("One")
Measure = Callable[[Scene], list]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument(
        "-o", dest="folder", type=Path, metavar="DIR", help="write bench.json and bench.md there"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small data, a small network, a minute or two"
    )
    parser.add_argument(
        "--rows",
        nargs="*",
        default=[*ROWS, SPEED],
        metavar="NAME",
        help=f"only these: {', '.join([*ROWS, SPEED])}; none without a name",
    )
    parser.add_argument(
        "--curves",
        nargs="*",
        metavar="NAME",
        help="also how cost grows, all or only these, with a picture a curve in DIR: "
        + ", ".join(CURVES),
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="where (default cpu)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, print, write."""
    check_names("--rows", options.rows, known=[*ROWS, SPEED])
    check_names("--curves", options.curves or (), known=list(CURVES))
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here; leave it out")
    curves = [] if options.curves is None else [*chosen(CURVES, options.curves or CURVES)]
    if not options.rows and not curves:
        raise UserError("--rows without a name measures nothing; name some, or give --curves")
    for path in files_of(options.folder, curve_names(curves)) if options.folder else ():
        try_file(path)
    found = measured(options, curves)
    show(found)
    if options.folder:
        print(*write_found(options.folder, found), sep="\n")


def measured(options: argparse.Namespace, curves: Sequence[str]) -> Found:
    """Everything that is asked for, each part on data of its own."""
    device = torch.device(options.device)
    size = QUICK if options.quick else FULL
    machine = describe_machine(device, ["catnet", *sys.argv[1:]])
    with open_scene(size, device=device) as scene:
        rows = measure_all(chosen(ROWS, options.rows), scene)
        speed = measure_speed(scene) if SPEED in options.rows else None
    found = Found(machine, size.name, rows, speed)
    if not curves:
        return found
    with open_scene(SCENES[size.name], device=device) as scene:
        return replace(found, curves=measure_all(chosen(CURVES, curves), scene))


def check_names(option: str, names: Sequence[str], *, known: Sequence[str]) -> None:
    """Raise `UserError` for a row or a curve that is not there."""
    for name in names:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
            raise UserError(f"{option} {name}: there is no such one; {hint}")


def chosen(table: Mapping[str, Measure], names: Iterable[str]) -> dict[str, Measure]:
    """What goes by these names, in the table's order."""
    return {name: measure for name, measure in table.items() if name in names}


def measure_all(wanted: Mapping[str, Callable[[Scene], list[One]]], scene: Scene) -> list[One]:
    """What these give, one after the other; where there is no bar, a line for each."""
    found = []
    with progress_bar("measuring", "{task.fields[name]}") as bar:
        task = bar.add_task("", total=len(wanted), name="")
        for name, measure in wanted.items():
            bar.update(task, name=name)
            start = time.monotonic()
            found += measure(scene)
            bar.advance(task)
            if bar.disable:
                print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return found


def show(found: Found) -> None:
    """The table and the sentences."""
    console = Console(width=SCREEN, highlight=False)
    if found.rows:
        console.print(terminal_table(found.rows))
    if found.curves:
        console.print(terminal_curves(found.curves))
    lines = note_lines(found.rows) + (speed_lines(found.speed) if found.speed else [])
    for line in lines:
        console.print(f"- {line}")
