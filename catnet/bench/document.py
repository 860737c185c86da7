"""What a benchmark leaves behind: `bench.json` with every sample, `bench.md` for a reader."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catnet.bench.fits import SLACK, Curve
from catnet.bench.pairs import Row
from catnet.bench.pictures import draw_curve
from catnet.bench.speed import Speed
from catnet.bench.table import markdown_curves, markdown_rows, speed_lines
from catnet.files import write_text
from catnet.report.style import svg
from catnet.runs import write_json

ABOUT = """\
Plain is what the public code of the field does, of the same weights: one episode at a time in
float32, augmented on the CPU in float64, support and query encoded apart, attention as two matrix
products, every slice and organ of a volume by a call of its own; where it trains or evaluates, in a
process whose memory is managed as the system manages it. A ratio is plain to library of one pair,
measured right after each other; above 1 the library needs less. Medians, smallest and largest
pair."""


GROWTH = f"""\
The exponent of a power law over the upper half of the range, with its 95 % interval; of every point
the quickest repetition. A cost grows within the exponent that it may have where the whole interval
is at most {SLACK:g} above that, WORSE where none of it is; it is unclear where the interval holds
both: then more places, or a quieter machine, would tell. Small networks, so that what surrounds
them shows."""


@dataclass(frozen=True)
class Found:
    """Everything that was measured."""

    machine: Mapping[str, object]
    size: str
    rows: list[Row] = field(default_factory=list)
    speed: Speed | None = None
    curves: list[Curve] = field(default_factory=list)


def files_of(folder: Path, curves: Iterable[str]) -> tuple[Path, ...]:
    """What `write_found` writes, by the names of the curves: data, text, and a picture a curve."""
    names = ("bench.json", "bench.md", *(f"{name}.svg" for name in curves))
    return tuple(folder / name for name in names)


def write_found(folder: Path, found: Found) -> tuple[Path, ...]:
    """Write both files, and a picture a curve; where they are."""
    data, text, *pictures = files_of(folder, [curve.name for curve in found.curves])
    write_json(data, as_data(found))
    for path, curve in zip(pictures, found.curves, strict=True):
        write_text(path, svg(draw_curve(curve)))
    write_text(text, as_markdown(found))
    return data, text, *pictures


def as_data(found: Found) -> dict[str, object]:
    """Every sample, and what it was measured on."""
    return {
        "machine": dict(found.machine),
        "size": found.size,
        "rows": [row.summary() for row in found.rows],
        "speed": found.speed.summary() if found.speed else None,
        "curves": [curve.summary() for curve in found.curves],
    }


def as_markdown(found: Found) -> str:
    """For a reader."""
    parts = [f"# Speed ({found.size} size)", machine_line(found.machine)]
    if found.rows:
        parts += [ABOUT, markdown_rows(found.rows)]
    if found.speed:
        parts.append("\n".join(f"- {line}" for line in speed_lines(found.speed)))
    if found.curves:
        pictures = [f"![{curve.name}]({curve.name}.svg)" for curve in found.curves]
        parts += ["# How cost grows", GROWTH, markdown_curves(found.curves), *pictures]
    return "\n\n".join(parts) + "\n"


def machine_line(machine: Mapping[str, object]) -> str:
    """What it was measured on, in one paragraph."""
    units: Sequence[str] = machine["instructions"]
    gpu = f", {machine['gpu']}" if machine["gpu"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {', '.join(units) or 'no vector units known'}"
        f"{gpu}, {machine['memory_gib']} GiB; torch {machine['torch']}, {machine['threads']} "
        f"threads; commit {machine['commit']}, {machine['date']}, load {machine['load']:.1f} at "
        f"the start: `{machine['command']}`"
    )
