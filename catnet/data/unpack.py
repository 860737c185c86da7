"""Zip and tar archives unpacked so that no member leaves its folder.

Only plain files and folders with relative names come out, no more bytes than an honest archive of
that size holds, and all of them or none.
"""

import lzma
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from catnet.data.room import check_room
from catnet.errors import UserError, writing
from catnet.files import HOLDER, LOCK

OURS = {LOCK, HOLDER}  # in the folder while the files move there
MOST_MEMBERS = 2_000_000
MOST_PACKED = 300  # bytes out of one; label maps reach about 200
SMALL = 1 << 30  # bytes that any archive may hold
BLOCK = 1 << 20
MOST_REMARKS = 1 << 20  # bytes of what a tar says of one member
REMARKS = {
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
}
PACKINGS = {b"\x1f\x8b": "r:gz", b"BZh": "r:bz2", b"\xfd7zXZ\0": "r:xz", b"\x5d\0\0": "r:xz"}
LONGEST = 255  # bytes of a file's name
BROKEN = (EOFError, OSError, RuntimeError, ValueError, tarfile.TarError, lzma.LZMAError, zlib.error)


class Member(NamedTuple):
    """A file in an archive: its name, its size, and what opens it."""

    name: str
    size: int
    source: zipfile.ZipInfo | tarfile.TarInfo


def unpack(archive: Path, folder: Path, *, only: str = "") -> None:
    """Unpack into a new `folder`; `only` what a folder of the archive holds.

    `folder` is gone again unless all came out. Raises `UserError` for an archive that is none or
    damaged, a member that is a link or would lie elsewhere, and one that unfolds beyond reason.
    """
    with writing(folder):
        folder.mkdir(parents=True)
    try:
        extract(archive, folder, only=PurePosixPath(only))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def extract(archive: Path, folder: Path, *, only: PurePosixPath) -> None:
    """Write the files of an archive below `folder`, after all its members were looked at."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                members = list(checked(archive, zip_members(archive, opened)))
                write_members(below(archive, members, only), folder, opener=opened.open)
            return
        with tarfile.open(archive, packing(archive), tarinfo=Header) as opened:
            members = list(checked(archive, tar_members(archive, opened)))
            check_end(opened)
            write_members(below(archive, members, only), folder, opener=opened.extractfile)
    except (*BROKEN, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and error.errno:
            with writing(folder):
                raise
        why = " ".join(str(error).split())
        raise UserError(f"{archive}: cannot be unpacked ({why}); get it again") from None


class Header(tarfile.TarInfo):
    """What stands before a member of a tar; its remarks are read whole, so they have an end."""

    @classmethod
    def frombuf(cls, buf: bytes, encoding: str, errors: str) -> "Header":
        """A header of 512 bytes; raises `tarfile.ReadError` for what may take any memory."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in REMARKS and found.size > MOST_REMARKS:
            raise tarfile.ReadError(f"remarks of {found.size} bytes on one member")
        if found.type == tarfile.GNUTYPE_SPARSE:
            raise tarfile.ReadError(f"{found.name!r} is a file with holes")
        return found


def packing(archive: Path) -> str:
    """How tarfile is to open an archive; by its first bytes, as guessing takes without end."""
    with archive.open("rb") as file:
        start = file.read(6)
    return next((mode for magic, mode in PACKINGS.items() if start.startswith(magic)), "r:")


def zip_members(archive: Path, opened: zipfile.ZipFile) -> Iterator[Member]:
    """The files of a zip; raises `UserError` for a link or a device."""
    for info in opened.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise UserError(f"{archive}: member {info.filename!r} is a link; do not trust it")
        if info.is_dir():
            yield Member(info.filename, -1, info)
        else:
            yield Member(info.filename, info.file_size, info)


def tar_members(archive: Path, opened: tarfile.TarFile) -> Iterator[Member]:
    """The files of a tar; raises `UserError` for a link or a device."""
    for info in opened:
        if not (info.isfile() or info.isdir()):
            raise UserError(f"{archive}: member {info.name!r} is a link; do not trust it")
        yield Member(info.name, info.size if info.isfile() else -1, info)


def check_end(opened: tarfile.TarFile) -> None:
    """Raise `ValueError` where anything but zeros follows the last member that could be read.

    tarfile takes a damaged header for the end of the archive, as it does empty blocks between two
    members, and a file that was cut off there.
    """
    opened.fileobj.seek(opened.offset)
    first = opened.fileobj.read(tarfile.BLOCKSIZE)
    if len(first) < tarfile.BLOCKSIZE:
        raise ValueError("it breaks off between two members")
    if first.strip(b"\0") or any(
        block.strip(b"\0") for block in iter(lambda: opened.fileobj.read(BLOCK), b"")
    ):
        raise ValueError("a member is damaged, and what follows cannot be found")


def checked(archive: Path, members: Iterator[Member]) -> Iterator[Member]:
    """The files among `members`; raises `UserError` for a name or a size that is not to be had."""
    total, most, seen = 0, max(SMALL, MOST_PACKED * archive.stat().st_size), set()
    for count, member in enumerate(members, start=1):
        parts = PurePosixPath(member.name.replace("\\", "/"))
        if member.size >= 0 or parts.parts:  # else it is the root itself
            check_name(archive, member.name)
        drive = any(part[1:2] == ":" for part in parts.parts)  # as Windows reads it
        if drive or parts.is_absolute() or ".." in parts.parts:
            raise UserError(
                f"{archive}: member {member.name!r} would leave the folder; get another"
            )
        total += max(0, member.size)
        if total > most or count > MOST_MEMBERS:
            raise UserError(
                f"{archive}: unfolds to more than {most / 1e9:.0f} GB or {MOST_MEMBERS} files; do "
                "not trust it"
            )
        if member.size >= 0:
            if parts in seen:
                raise UserError(
                    f"{archive}: holds {member.name!r} twice, and one would be lost; get another"
                )
            seen.add(parts)
            yield member
    if not seen:
        raise UserError(f"{archive}: holds no file; check the card's url")
    if within := next((parts for parts in seen if seen & set(parts.parents)), None):
        raise UserError(f"{archive}: {str(within)!r} lies within a file; get another archive")


def below(archive: Path, members: list[Member], only: PurePosixPath) -> list[Member]:
    """The members that lie in the folder `only`, named from there; not those named like ours."""
    named = [(PurePosixPath(member.name.replace("\\", "/")), member) for member in members]
    kept = [
        member._replace(name=str(path.relative_to(only)))
        for path, member in named
        if only in path.parents and path.relative_to(only).parts[0] not in OURS
    ]
    if not kept:
        raise UserError(f"{archive}: has no folder {only}; check the card's fetch.folder")
    return kept


def check_name(archive: Path, name: str) -> None:
    """Raise `UserError` for a name that no file can have, or that nobody can read."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or not name.isprintable():
        raise UserError(f"{archive}: member {name!r} has a name that cannot be read; get another")
    if max(len(os.fsencode(part)) for part in parts) > LONGEST:
        raise UserError(
            f"{archive}: the name of member {name[:60]!r}... is longer than {LONGEST} bytes; get "
            "another"
        )


def write_members(
    members: list[Member], folder: Path, *, opener: Callable[..., BufferedIOBase]
) -> None:
    """Write every file, no further than its announced size."""
    check_room(folder.parent, sum(member.size for member in members))
    for member in members:
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with opener(member.source) as source, path.open("wb") as target:
            copy(source, target, size=member.size)


def copy(source: BufferedIOBase, target: BufferedIOBase, *, size: int) -> None:
    """Copy `size` bytes; raises `ValueError` where there are more or fewer."""
    while block := source.read(BLOCK):
        size -= len(block)
        if size < 0:
            raise ValueError("a member is longer than it says")
        target.write(block)
    if size:
        raise ValueError("a member is shorter than it says")
