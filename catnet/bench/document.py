"""What a benchmark leaves behind: `bench.json` with every sample, `bench.md` for a reader."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from catnet.bench.pairs import Row
from catnet.bench.speed import Speed
from catnet.bench.table import markdown_rows, speed_lines
from catnet.files import write_text
from catnet.runs import write_json

ABOUT = """\
Plain is what the public code of the field does, of the same weights: one episode at a time in
float32, augmented on the CPU in float64, support and query encoded apart, attention as two matrix
products, every slice and organ of a volume by a call of its own. A ratio is plain to library of one
pair, measured right after each other; above 1 the library needs less. Medians, smallest and largest
pair."""


@dataclass(frozen=True)
class Found:
    """Everything that was measured."""

    machine: Mapping[str, object]
    size: str
    rows: list[Row] = field(default_factory=list)
    speed: Speed | None = None


def write_found(folder: Path, found: Found) -> tuple[Path, Path]:
    """Write both files; where they are."""
    data, text = folder / "bench.json", folder / "bench.md"
    write_json(data, as_data(found))
    write_text(text, as_markdown(found))
    return data, text


def as_data(found: Found) -> dict[str, object]:
    """Every sample, and what it was measured on."""
    return {
        "machine": dict(found.machine),
        "size": found.size,
        "rows": [row.summary() for row in found.rows],
        "speed": found.speed.summary() if found.speed else None,
    }


def as_markdown(found: Found) -> str:
    """For a reader."""
    parts = [f"# Speed ({found.size} size)", machine_line(found.machine)]
    if found.rows:
        parts += [ABOUT, markdown_rows(found.rows)]
    if found.speed:
        parts.append("\n".join(f"- {line}" for line in speed_lines(found.speed)))
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
