"""Where the numbers of a study come from: commits, versions, machines, data, commands."""

import platform
from collections.abc import Iterable

from catnet.data.store import natural
from catnet.report.grid import Grid, Line
from catnet.report.study import Member, Study
from catnet.runs import PROVENANCE, commit, read_provenance

SHOWN = 16  # digits of a hash
RUN = ("run", "variant", "fold", "seed", "commit", "machine")


def facts(study: Study, *, command: str) -> tuple[tuple[str, str], ...]:
    """What holds for the whole study, by name."""
    found = [origin for _, origin in origins(study)]
    versions = [
        f"{name} {number}"
        for origin in found
        for name, number in {"python": origin.get("python"), **origin.get("versions", {})}.items()
    ]
    return (
        *((("runs made by", study.command),) if study.command else ()),
        ("report made by", command),
        ("report written by", f"commit {commit()}, Python {platform.python_version()}"),
        ("trained by", f"commit {listed(origin.get('commit') for origin in found)}"),
        ("versions", listed(versions)),
        ("hardware", listed(origin.get("machine") for origin in found)),
        ("seeds", listed(member.folder.run.seed for member in study.members)),
        ("license of the data", listed(member.folder.card.license for member in study.members)),
    )


def cautions(study: Study) -> tuple[str, ...]:
    """What a reader should know before he believes the numbers."""
    commits = {origin.get("commit", "unknown") for _, origin in origins(study)}
    found = []
    if any(name.endswith("-dirty") for name in commits):
        found.append("Some runs were trained by code with changes that no commit holds.")
    if len(commits) > 1:
        found.append("The runs were trained by different commits of the code.")
    if "unknown" in commits:
        found.append("Of some runs it is not known which commit trained them.")
    return tuple(found)


def grids(study: Study) -> tuple[Grid, Grid]:
    """The runs, and the files that their cases were prepared from."""
    runs = [
        (
            member.folder.path.name,
            member.label,
            member.folder.run.data.fold,
            member.folder.run.seed,
            origin.get("commit", "unknown"),
            origin.get("machine", "unknown"),
        )
        for member, origin in origins(study)
    ]
    known = [files for _, origin in origins(study) for files in origin.get("data", {}).items()]
    kinds = list(dict.fromkeys(kind for _, files in known for kind in files))
    data = {(case, *(files.get(kind, "")[:SHOWN] for kind in kinds)) for case, files in known}
    return (
        words("The runs", RUN, runs),
        words(
            f"SHA-256 of what the cases were prepared from, the first {SHOWN} digits",
            ("case", *kinds),
            sorted(data, key=lambda line: natural(line[0])),
        ),
    )


def words(caption: str, heads: tuple[str, ...], lines: Iterable[tuple[object, ...]]) -> Grid:
    """A table of words alone."""
    return Grid(
        heads,
        (),
        tuple(Line(tuple(map(str, line)), floor=False, cells=()) for line in lines),
        caption,
    )


def origins(study: Study) -> list[tuple[Member, dict]]:
    """Every run with what it wrote down of its origin."""
    return [(member, read_provenance(member.folder.path / PROVENANCE)) for member in study.members]


def listed(values: Iterable[object]) -> str:
    """Every value once, in the order of the runs; those that are missing are called unknown."""
    return ", ".join(dict.fromkeys("unknown" if v is None else str(v) for v in values))
