"""Look for what may keep catnet from working here, and say what to do about it, a line each.

Looked at are Python, the machine, its devices and disks, the versions of packages, the cards of
$CATNET_CARDS, the prepared data of $CATNET_DATA and the runs of $CATNET_RUNS. Nothing is changed.

ok       as it should be
note     good to know; something may be slow, unfinished, or missing for a special purpose
problem  something does not work before it is mended

The exit status is 1 where there is a problem, and 0 otherwise.

example:
  catnet doctor --json
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib import import_module

from catnet.doctor.line import Line, ask

PROBES = (  # module, function, what it is called where it fails
    ("machine", "python", "python"),
    ("machine", "cores", "cores"),
    ("machine", "memory", "memory"),
    ("machine", "disks", "disks"),
    ("packages", "packages", "packages"),
    ("packages", "optional_packages", "optional"),
    ("packages", "torch_build", "torch"),
    ("packages", "devices", "devices"),
    ("data", "cards", "cards"),
    ("data", "prepared", "data"),
    ("runs", "runs", "runs"),
)
SIGNS = {"ok": "OK", "note": "note", "problem": "PROBLEM"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("--json", action="store_true", help="the lines as JSON, for scripts")


def run(options: argparse.Namespace) -> None:
    """Ask every probe."""
    lines = examine()
    found = list(lines) if options.json else [tell(line) for line in lines]
    count = sum(line.state == "problem" for line in found)
    if options.json:
        content = {"problems": count, "lines": [asdict(line) for line in found]}
        print(json.dumps(content, indent=2, ensure_ascii=False))
    else:
        print(f"\n{count} problem{'' if count == 1 else 's'}")
    if count:
        sys.exit(1)


def examine() -> Iterator[Line]:
    """The lines of all probes; what a probe needs is imported within it, since that may fail."""
    for module, function, subject in PROBES:
        yield from ask(subject, late(module, function))


def late(module: str, function: str) -> Callable[[], Iterable[Line]]:
    """A probe that imports its module when it is asked."""
    return lambda: getattr(import_module(f"catnet.doctor.{module}"), function)()


def tell(line: Line) -> Line:
    """Print a line, and hand it on."""
    remedy = f" -> {line.remedy}" if line.remedy else ""
    print(f"{SIGNS[line.state]:<8} {line.subject}: {line.what}{remedy}", flush=True)
    return line
