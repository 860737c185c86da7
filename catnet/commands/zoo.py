"""Measure every mechanism of the attention zoo on one random map, beside its paper.

Each has its default options and attends to itself, at batch 1; CMAT's defaults are 256 channels on
32 x 32 tokens.

mult-adds   of matrix products and convolutions in one forward pass; not counted are sums, pooling,
            softmax, norms, products element by element, and moving values (unfold, fold)
memory      the most that one forward and backward pass holds at a time: activations, scratch space
            and gradients, but neither the weights nor the map
time        median of N forward and backward passes; OMP_NUM_THREADS=1 takes one thread
cross       whether it can receive from a second map, as the cross place of CMAT asks; aligned: if
            both maps show about the same place at the same position

--options prints what the mechanisms can be told instead: every option with its type, default and
meaning, and whether there is a cross form, an attention map (for `catnet attend`) and a converter
of published weights. A run is told by model.attention_options and model.cross_attention_options,
such as model.attention_options={heads: 4, scale: null}; what is None here is null there.

All of them run under torch.compile, torch.export and bfloat16 autocast: the tests hold that, this
command does not measure it.

example:
  catnet zoo --dim 128 --size 32x48 --csv zoo.csv
  catnet zoo masked gsa lsa --repeat 50
  catnet zoo outlook --options
"""

import argparse
import os
import statistics
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catnet.commands.output import try_file
from catnet.commands.progress import progress_bar
from catnet.config import MachineSettings
from catnet.engine import choose_device
from catnet.errors import UserError
from catnet.files import write_text
from catnet.model.attention import ATTENTION, build_attention, find
from catnet.model.attention.layers import Mechanism
from catnet.model.measure import Cost, measure
from catnet.model.options import WIDEST, describe
from catnet.types import Features

SILENT = "99"  # above all levels at which the profiler's backend speaks on standard error
SCREEN = 100  # columns
LONGEST = 2**15  # tokens to a side


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="which ones (default: all)")
    parser.add_argument(
        "--options", action="store_true", help="print their options instead, and measure nothing"
    )
    parser.add_argument("--dim", type=int, default=256, metavar="C", help="channels (default 256)")
    parser.add_argument(
        "--size", default="32", metavar="H[xW]", help="height and width of the map (default 32)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument(
        "--device", choices=("cpu", "gpu", "auto"), default="auto", help="where (default auto)"
    )
    parser.add_argument(
        "--repeat", type=int, default=10, metavar="N", help="passes that are timed (default 10)"
    )


def run(options: argparse.Namespace) -> None:
    """Measure, then print the table; or print the options."""
    names = list(options.names or ATTENTION)
    kinds = {name: find(name) for name in names}
    if options.options:
        for name, kind in kinds.items():
            print_options(name, kind)
        return
    for option, most in (("dim", WIDEST), ("repeat", 10**6)):
        if not 1 <= getattr(options, option) <= most:
            raise UserError(
                f"--{option} {getattr(options, option)} is out of reason; choose 1 to {most}"
            )
    if options.csv:
        try_file(options.csv)
    if options.device == "gpu" and not torch.cuda.is_available():
        raise UserError("--device gpu: torch sees no GPU here; use cpu or auto")
    height, width = parse_size(options.size)
    device = choose_device(MachineSettings(accelerator=options.device))
    where = f"{options.dim} channels, {height} x {width} tokens, {device.type}"
    with enough_memory(where):
        zoo = {name: build(name, dim=options.dim) for name in names}
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, options.dim, height, width, generator=generator).to(device)
    os.environ.setdefault("KINETO_LOG_LEVEL", SILENT)
    rows = measure_all(zoo, x, repeat=options.repeat)
    if options.csv:
        write_text(options.csv, rows.to_csv(index=False))
    Console(width=SCREEN).print(cost_table(rows, title=where))
    print(f"\ngood for\n{good_for(kinds)}")


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of `32` or `32x48`; raises `UserError` for anything else."""
    height, cross, width = text.partition("x")
    sides = (height, width if cross else height)
    if not all(side.isascii() and side.isdigit() for side in sides):
        raise UserError(f"--size {text!r} is no size; write 32, or 32x48 for height and width")
    height, width = (int(side[:9]) for side in sides)
    if not 2 <= min(height, width) <= max(height, width) <= LONGEST:
        raise UserError(f"--size {text!r} is out of reason; a side has 2 to {LONGEST} tokens")
    return height, width


def build(name: str, *, dim: int) -> Mechanism:
    """A mechanism with its default options; raises `UserError` where `dim` does not suit them."""
    try:
        return build_attention(name, dim, {})
    except UserError as error:
        raise UserError(f"--dim {dim} does not suit every default: {error}") from None


def measure_all(zoo: Mapping[str, Mechanism], x: Features, *, repeat: int) -> pd.DataFrame:
    """The figures of every mechanism, a row each."""
    rows = []
    with progress_bar("measuring", "{task.fields[name]}") as bar:
        task = bar.add_task("", total=len(zoo), name="")
        for name, mechanism in zoo.items():
            bar.update(task, name=name)
            cost = measure_one(mechanism.to(x.device), x, name=name, repeat=repeat)
            rows.append({"name": name, **row(mechanism, cost, x)})
            bar.advance(task)
    return pd.DataFrame(rows)


def measure_one(mechanism: Mechanism, x: Features, *, name: str, repeat: int) -> Cost:
    """As `measure`; raises `UserError` where the memory does not suffice."""
    tokens = " x ".join(map(str, x.shape[2:]))
    with enough_memory(f"{name} on {tokens} tokens"):
        return measure(mechanism, x, repeat=repeat)


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Around what may not fit; raises `UserError` where the memory does not suffice."""
    try:
        yield
    except RuntimeError as error:  # torch has no type of its own for the CPU's
        if "memory" not in str(error):
            raise
        raise UserError(
            f"{what}: more memory is needed than there is; choose a smaller --size or --dim, or "
            "name the mechanisms to measure"
        ) from None


def row(mechanism: Mechanism, cost: Cost, x: Features) -> dict[str, object]:
    """What was measured, and under which conditions; sizes in tokens, times in seconds."""
    return {
        "paper": mechanism.paper,
        "dim": x.shape[1],
        "height": x.shape[2],
        "width": x.shape[3],
        "device": x.device.type,
        "threads": torch.get_num_threads(),
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "peak_bytes": cost.peak_bytes,
        "seconds": statistics.median(cost.seconds),
        "seconds_min": min(cost.seconds),
        "seconds_max": max(cost.seconds),
        "cross": mechanism.cross,
        "aligned": mechanism.aligned,
        "good_for": mechanism.good_for,
    }


def cost_table(rows: pd.DataFrame, *, title: str) -> Table:
    """A line a mechanism."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("paper (arXiv)", no_wrap=True)
    for figure in ("parameters", "mult-adds\nM", "memory\nMiB", "time\nms"):
        table.add_column(figure, justify="right", no_wrap=True)
    table.add_column("cross", no_wrap=True)
    for figures in rows.itertuples():
        table.add_row(
            figures.name,
            figures.paper.replace(", arXiv", ""),
            f"{figures.parameters:,}",
            f"{figures.multiply_adds / 1e6:,.2f}",
            f"{figures.peak_bytes / 2**20:,.1f}",
            f"{figures.seconds * 1e3:,.1f}",
            cross_form(figures),
        )
    return table


def cross_form(kind: object) -> str:
    """The column `cross` of a mechanism."""
    return ("yes, aligned" if kind.aligned else "yes") if kind.cross else "no"


def good_for(kinds: Mapping[str, type[Mechanism]]) -> str:
    """A line a mechanism: what it can and cannot do."""
    return "\n".join(f"{name:<8} {kind.good_for}" for name, kind in kinds.items())


def print_options(name: str, kind: type[Mechanism]) -> None:
    """What a mechanism is, and what it can be told."""
    has = {True: "yes", False: "no"}
    print(f"{name}: {kind.paper}\n  {kind.good_for}")
    print(
        f"  cross form: {cross_form(kind)}; attention map: {has[hasattr(kind, 'attention_map')]}; "
        f"converter of published weights: {has[hasattr(kind, 'convert')]}"
    )
    table = Table(box=None, padding=(0, 2, 0, 2), show_header=False)
    for column in ("option", "type", "default", "meaning"):
        table.add_column(column, no_wrap=column != "meaning")
    for option in describe(kind):
        table.add_row(option.name, escape(option.kind), str(option.default), option.meaning)
    if table.rows:
        Console(width=SCREEN, highlight=False).print(table)
    print()
