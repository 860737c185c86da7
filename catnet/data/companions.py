"""The files that hold the voxels of a header: .raw of .mhd and .nhdr, .img of .hdr."""

import re
from pathlib import Path

HEADER = 1 << 20  # bytes in which a header names its files
PAIRS = {".hdr": ".img", ".img": ".hdr"}
NAMED = {
    ".mhd": re.compile(r"(?im)^\s*ElementDataFile\s*=\s*(?P<first>.*?)\s*$(?P<rest>[\s\S]*)"),
    ".nhdr": re.compile(r"(?im)^data ?file:\s*(?P<first>.*?)\s*$(?P<rest>[\s\S]*)"),
}


def companions(path: Path) -> list[Path]:
    """What is read beside `path`, in the order of its header; none where it holds all itself.

    A file that is named and not there is left out: whoever reads the scan will miss it.
    """
    stem, ending = (path.name[:-3], ".gz") if path.suffix == ".gz" else (path.name, "")
    kind = Path(stem).suffix
    if kind.lower() in PAIRS:
        other = PAIRS[kind.lower()]
        other = other if kind.islower() else other.upper()
        found = [path.with_name(f"{Path(stem).stem}{other}{more}") for more in ("", ".gz", ending)]
        return [one for one in dict.fromkeys(found) if one.is_file()][:1]
    if kind.lower() not in NAMED or not path.is_file():
        return []
    with path.open("rb") as file:
        found = NAMED[kind.lower()].search(file.read(HEADER).decode("utf-8", "replace"))
    return named(path.parent, found["first"], found["rest"]) if found else []


def named(folder: Path, first: str, rest: str) -> list[Path]:
    """The files that a header names: one, a list on the next lines, or a numbered pattern."""
    names = [first]
    if first.split()[:1] == ["LIST"]:
        names = [line.strip() for line in rest.splitlines() if line.strip()]
    elif "%" in first:
        pattern = re.sub(r"%\d*[di]", "*", first.split()[0])
        names = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))
    return [folder / name for name in names if (folder / name).is_file()]
