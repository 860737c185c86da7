"""The raw files of a card, where its license lets one download them without an account.

A transfer that broke off goes on where it stopped (HTTP range requests, RFC 9110, 14). Whenever the
process ends, the same command finishes: what has come stays until its checksum was compared, and
the archive until its files are in place.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pooch
import requests

from catnet.data.card import Card, digest
from catnet.data.place import clear, finish, has_begun, is_done, move, temporary_of
from catnet.data.room import check_room
from catnet.data.unpack import unpack
from catnet.errors import UserError, writing

ATTEMPTS = 5  # one after the other without getting further than ever before
BLOCK = 1 << 15  # bytes; what of a block came before a transfer broke off is lost
PATIENCE = (10, 60)  # seconds to connect, and between two bytes

Watch = Callable[[int, int], None]  # is told how many bytes are there, and how many there will be


def ignore(held: int, total: int) -> None:
    """Watch nothing."""


def fetch(card: Card, raw: Path, *, watch: Watch = ignore) -> bool:
    """Download and unpack the archive of `card` into `raw`; whether there was work.

    Afterwards `raw` is what `prepare` is given. Raises `UserError` where the card has no `fetch`,
    the transfer breaks off, the archive is not the one that the card means, or a member of it would
    leave the folder.
    """
    if card.fetch is None:
        raise UserError(
            f"card {card.name} has no fetch; get its data by hand ({card.source}), in the form "
            "that datasets/README.md says, or use a card that has one, such as chaos_mr_raw"
        )
    mark = digest([card.fetch.checksum, card.fetch.folder])[:16]
    done, temporary = raw / f".fetched-{mark}", temporary_of(raw, mark=mark)
    archive = raw / f".fetch-{card.fetch.checksum.partition(':')[2][:16]}"
    with writing(raw):
        raw.mkdir(parents=True, exist_ok=True)
        fresh = not is_done(done)
        clear(raw)
    if fresh and not has_begun(temporary):
        download(card.fetch.url, archive, checksum=card.fetch.checksum, watch=watch)
        unpack(archive, temporary, only=card.fetch.folder)
    with writing(raw):
        if fresh:
            move(temporary)
            finish(temporary, done)
        archive.unlink(missing_ok=True)
    return fresh


def download(url: str, archive: Path, *, checksum: str, watch: Watch) -> None:
    """Make `archive` the one at `url`, whole and checked."""
    part = archive.with_name(f"{archive.name}.part")
    with writing(archive.parent):
        if archive.is_file() and agrees(archive, checksum):
            return
        continue_download(url, part, watch=watch)
        if not agrees(part, checksum):
            part.unlink()
            raise UserError(
                f"{url}: its checksum is not the card's, so it was changed or damaged, and thrown "
                "away; try again, or get it by hand"
            )
        os.replace(part, archive)


def agrees(path: Path, checksum: str) -> bool:
    """Whether a file has this checksum, such as `sha256:0123...`."""
    algorithm, _, known = checksum.partition(":")
    return pooch.file_hash(path, alg=algorithm) == known


def continue_download(url: str, part: Path, *, watch: Watch) -> None:
    """Write `url` to `part`, from where an earlier attempt ended."""
    failures, furthest, why = 0, part.stat().st_size if part.exists() else 0, ""
    while failures < ATTEMPTS:
        try:
            if transfer(url, part, watch=watch):
                return
        except requests.HTTPError as error:
            status = error.response.status_code
            raise UserError(f"{url}: the server says {status}; check the card's url") from None
        except (requests.TooManyRedirects, requests.exceptions.InvalidSchema, ValueError) as error:
            raise UserError(f"{url}: {reason(error)}; check the card's url") from None
        except requests.RequestException as error:
            why = f" ({reason(error)})"  # the next attempt goes on where this one ended
        after = part.stat().st_size if part.exists() else 0
        failures = 0 if after > furthest else failures + 1
        furthest = max(furthest, after)
    raise UserError(
        f"{url}: the transfer broke off after {after} bytes{why}; the same command goes on from "
        "there, once the network and the card's url are right"
    )


def reason(error: Exception) -> str:
    """Why nothing came, in words."""
    if isinstance(error, requests.TooManyRedirects):
        return "the server sends from one place to another without end"
    if isinstance(error, ValueError) and not isinstance(error, requests.ConnectionError):
        return "it is, or leads to, no address of the web"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not to be trusted"
    text = repr(error)
    if "NameResolutionError" in text:
        return "no server of this name is found"
    if "ConnectionRefused" in text or "Connection refused" in text:
        return "the server refuses the connection"
    return "the connection was lost"


def transfer(url: str, part: Path, *, watch: Watch) -> bool:
    """Append what is missing of `url` to `part`; whether it is whole now."""
    held = part.stat().st_size if part.exists() else 0
    wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(url, headers=wanted, stream=True, timeout=PATIENCE) as answer:
        if answer.status_code == requests.codes.requested_range_not_satisfiable:
            if answer.headers.get("Content-Range") == f"bytes */{held}":
                return True
            part.unlink(missing_ok=True)  # it is longer than the file, so it is of another one
            return False
        answer.raise_for_status()
        goes_on = answer.status_code == requests.codes.partial_content
        said = answer.headers.get("Content-Length", "")
        total = (int(said) if said.isdecimal() else 0) + (held if goes_on else 0)
        check_room(part.parent, total - held)
        with part.open("ab" if goes_on else "wb") as file:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                watch(file.tell(), total)
    return part.stat().st_size >= total
