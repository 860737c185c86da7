"""Downloads from a server in a thread, which breaks off, changes and lies."""

import hashlib
import io
import os
import shutil
import threading
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from catnet.cli import main
from catnet.data import fetch as module
from catnet.data import room
from catnet.data.fetch import BLOCK, fetch
from catnet.errors import UserError


class Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; each answer ends after the next number of `server.breaks`."""

    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        content = server.content
        start = 0
        if server.status:
            self.send_error(server.status)
            return
        if server.ranges and "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_response(416)
                if server.tells:
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop = server.breaks.pop(0) if server.breaks else None
        self.wfile.write(content[start:][:stop])
        self.close_connection = True

    def log_message(self, *_):
        pass


def packed(**files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(3 << 20)
CONTENT = packed(**{"scans/image 1.nii.gz": NOISE, "scans/sub/größe.txt": b"text"})


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.breaks, server.asked = CONTENT, [], []
    server.ranges, server.status, server.tells = True, 0, True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def card(make_card, server):
    url = f"http://127.0.0.1:{server.server_port}/raw%20data.zip"
    checksum = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
    return make_card(fetch={"url": url, "checksum": checksum})


def part_of(card, folder):
    return folder / f".fetch-{card.fetch.checksum.partition(':')[2][:16]}.part"


def held(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


WHOLE = {"scans/image 1.nii.gz", "scans/sub/größe.txt"}


def whole(folder):
    assert (folder / "scans" / "image 1.nii.gz").read_bytes() == NOISE
    marks = held(folder) - WHOLE
    return len(marks) == 1 and next(iter(marks)).startswith(".fetched-")


def test_an_archive_is_fetched_once(card, server, tmp_path):
    assert fetch(card, tmp_path)
    assert whole(tmp_path)
    assert not fetch(card, tmp_path)
    assert server.asked == [None]


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(card, server, tmp_path):
    server.breaks = [31 * BLOCK + 100, 5 * BLOCK, 1]
    assert fetch(card, tmp_path)
    assert whole(tmp_path)
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) for asked in server.asked[1:]]
    assert starts == [31 * BLOCK, 36 * BLOCK, 36 * BLOCK]


def test_the_next_command_goes_on_too(card, server, tmp_path):
    server.breaks = [31 * BLOCK + 100, *[0] * module.ATTEMPTS]
    with pytest.raises(UserError, match=f"broke off after {31 * BLOCK} bytes .*; the same"):
        fetch(card, tmp_path)
    assert not held(tmp_path) & WHOLE
    server.breaks, server.asked = [], []
    assert fetch(card, tmp_path)
    assert server.asked == [f"bytes={31 * BLOCK}-"]
    assert whole(tmp_path)


def test_a_server_that_cannot_go_on_begins_again(card, server, tmp_path):
    server.ranges, server.breaks = False, [1_000_000]
    assert fetch(card, tmp_path)
    assert whole(tmp_path)


def test_a_longer_remainder_of_another_file_is_thrown_away(card, server, tmp_path):
    part_of(card, tmp_path).write_bytes(b"x" * (len(CONTENT) + 5))
    assert fetch(card, tmp_path)
    assert whole(tmp_path)


def test_another_checksum_leaves_nothing(card, server, tmp_path):
    server.content = packed(evil=b"other")
    for _ in range(2):
        with pytest.raises(UserError, match=r"checksum is not the card's.*thrown away") as caught:
            fetch(card, tmp_path)
        assert "\n" not in str(caught.value)
        assert held(tmp_path) == set()
    server.content = CONTENT
    assert fetch(card, tmp_path)


@pytest.mark.parametrize("status", [403, 404, 500])
def test_what_a_server_refuses_is_said(card, server, tmp_path, status):
    server.status = status
    with pytest.raises(UserError, match=f"the server says {status}; check the card's url"):
        fetch(card, tmp_path)


def test_no_server_is_said(make_card, tmp_path, server):
    server.shutdown()
    server.server_close()
    url = f"http://127.0.0.1:{server.server_port}/raw.zip"
    with pytest.raises(UserError, match="broke off after 0 bytes"):
        fetch(make_card(fetch={"url": url, "checksum": "sha256:" + "0" * 64}), tmp_path)


def test_a_full_disk_is_said_before_the_transfer(card, tmp_path, monkeypatch):
    full = type("Usage", (), {"free": 10})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: full)
    with pytest.raises(UserError, match=r"3.1 MB are needed and 0.0 MB are free"):
        fetch(card, tmp_path)
    assert held(tmp_path) == set()


@pytest.mark.parametrize("short", [0, 1])
def test_of_a_transfer_that_goes_on_only_the_rest_needs_room(card, tmp_path, monkeypatch, short):
    part_of(card, tmp_path).write_bytes(CONTENT[: 40 * BLOCK])
    frees = [len(CONTENT) - 40 * BLOCK - short, 2 * len(CONTENT)]  # then, and to unpack
    usages = Mock(side_effect=[Mock(free=free) for free in frees])
    monkeypatch.setattr(room.shutil, "disk_usage", usages)
    if short:
        with pytest.raises(UserError, match=r"1.8 MB are needed and 1.8 MB are free"):
            fetch(card, tmp_path)
    else:
        assert fetch(card, tmp_path)
        assert whole(tmp_path)


def test_a_damaged_archive_of_an_earlier_command_is_fetched_again(card, server, tmp_path):
    archive = part_of(card, tmp_path).with_suffix("")
    archive.write_bytes(CONTENT[:-1] + b"x")
    assert fetch(card, tmp_path)
    assert server.asked == [None]
    assert whole(tmp_path)


def test_two_archives_may_come_into_one_folder(card, server, tmp_path, make_card):
    assert fetch(card, tmp_path)
    server.content = packed(other=b"other")
    checksum = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    second = make_card(fetch=card.fetch.model_dump() | {"checksum": checksum})
    assert fetch(second, tmp_path)
    assert held(tmp_path) >= {*WHOLE, "other"}
    assert not fetch(card, tmp_path)
    assert not fetch(second, tmp_path)


def test_a_card_without_fetch_says_where_the_data_are(make_card, tmp_path):
    with pytest.raises(UserError, match=r"has no fetch; .* by hand \(made by a test\)"):
        fetch(make_card(), tmp_path)


def test_the_command_says_the_license(write_card, card, tmp_path, capsys):
    path = write_card(fetch=card.fetch.model_dump())
    main(["fetch", str(path), "--raw", str(tmp_path / "raw")])
    out = capsys.readouterr().out
    assert "fetched into" in out
    assert "license: CC0-1.0" in out


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://a/b.zip", "http://a b", "/x.zip"])
def test_other_ways_are_no_url(make_card, url):
    with pytest.raises(ValueError, match="url"):
        make_card(fetch={"url": url, "checksum": "sha256:" + "0" * 64})


def test_folders_of_the_users_own_stay(card, tmp_path):
    mine = tmp_path / ".visit-999999999" / "scan"
    mine.mkdir(parents=True)
    (tmp_path / ".catnet-unpack-999999999").mkdir()
    assert fetch(card, tmp_path)
    assert mine.is_dir()
    assert not (tmp_path / ".catnet-unpack-999999999").exists()


def test_a_server_that_never_gets_further_is_given_up(card, server, tmp_path):
    server.ranges, server.breaks = False, [31 * BLOCK, 10 * BLOCK, 20 * BLOCK] * 20
    with pytest.raises(UserError, match="broke off"):
        fetch(card, tmp_path)
    assert len(server.asked) <= 2 * module.ATTEMPTS


def test_a_transfer_may_break_off_as_often_as_it_gets_further(card, server, tmp_path):
    server.breaks = [2 * BLOCK] * (2 * module.ATTEMPTS)
    assert fetch(card, tmp_path)
    assert len(server.asked) == 2 * module.ATTEMPTS + 1
    assert whole(tmp_path)


def test_why_nothing_came_is_said(make_card, server, tmp_path):
    port = server.server_port
    server.shutdown()
    server.server_close()
    for url, words in {
        f"http://127.0.0.1:{port}/a.zip": "the server refuses the connection",
        "http://no-such-host.invalid/a.zip": "no server of this name",
    }.items():
        with pytest.raises(UserError, match=words):
            fetch(make_card(fetch={"url": url, "checksum": "sha256:" + "0" * 64}), tmp_path)


@pytest.mark.parametrize("there", ["file:///etc/passwd", "raw%20data.zip"])
def test_a_redirect_to_nowhere_is_said_at_once(card, server, tmp_path, monkeypatch, there):
    def redirect(self):
        self.server.asked.append(None)
        self.send_response(302)
        self.send_header("Location", there)
        self.end_headers()

    monkeypatch.setattr(Handler, "do_GET", redirect)
    with pytest.raises(UserError, match="check the card's url"):
        fetch(card, tmp_path)
    assert len(server.asked) <= 40


@pytest.mark.parametrize("url", ["http://[::1/a.zip", "http://a:99999999/b.zip", "http:///b.zip"])
def test_an_address_without_a_server_is_refused(make_card, url):
    with pytest.raises(ValueError, match="url"):
        make_card(fetch={"url": url, "checksum": "sha256:" + "0" * 64})


def test_a_checksum_may_be_the_md5_that_archives_publish(card, server, tmp_path, make_card):
    md5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
    mine = make_card(fetch=card.fetch.model_dump() | {"checksum": md5})
    server.content = packed(evil=b"other")
    with pytest.raises(UserError, match="checksum is not the card's"):
        fetch(mine, tmp_path)
    server.content = CONTENT
    assert fetch(mine, tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("checksum", ["0" * 64, "md5:" + "0" * 64, "sha1:" + "0" * 40])
def test_a_checksum_says_which_it_is(make_card, checksum):
    with pytest.raises(ValueError, match="checksum"):
        make_card(fetch={"url": "http://a/b.zip", "checksum": checksum})


def test_one_folder_of_the_archive_is_what_raw_means(card, tmp_path, make_card):
    mine = make_card(fetch=card.fetch.model_dump() | {"folder": "scans/sub"})
    assert fetch(mine, tmp_path)
    assert "größe.txt" in held(tmp_path)
    assert len(held(tmp_path)) == 2  # and the mark
    assert not fetch(mine, tmp_path)
    wrong = make_card(fetch=card.fetch.model_dump() | {"folder": "scans/su"})
    with pytest.raises(UserError, match=r"has no folder scans/su; check the card's fetch\.folder"):
        fetch(wrong, tmp_path)


@pytest.mark.parametrize("folder", ["/scans", "../scans", "scans/../.."])
def test_the_folder_lies_in_the_archive(make_card, card, folder):
    with pytest.raises(ValueError, match="folder is a path within the archive"):
        make_card(fetch=card.fetch.model_dump() | {"folder": folder})


def test_a_watch_is_told_of_all_bytes(card, server, tmp_path):
    server.breaks = [31 * BLOCK]
    told = []
    fetch(card, tmp_path, watch=lambda *bytes_: told.append(bytes_))
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in told} == {len(CONTENT)}
    assert [held for held, _ in told] == sorted({held for held, _ in told})


class Killed(BaseException):
    """The end of a process, at a place that a test chose."""


@contextmanager
def killed_at(step):
    """End at the step-th time that a file is moved or removed; odd steps end after it."""
    left = [step]

    def ending(work):
        def run(*args, **options):
            left[0] -= 2
            if left[0] == -2:
                raise Killed
            result = work(*args, **options)
            if left[0] == -1:
                raise Killed
            return result

        return run

    with pytest.MonkeyPatch.context() as patch:
        for place, name in [(os, "replace"), (shutil, "rmtree"), (type(Path()), "unlink")]:
            patch.setattr(place, name, ending(getattr(place, name)))
        yield


def test_whenever_it_is_killed_the_same_command_finishes(make_card, server, tmp_path):
    server.content = packed(**{"a/1": b"1", "b": b"2", "c/d/3": b"3"})
    checksum = f"sha256:{hashlib.sha256(server.content).hexdigest()}"
    url = f"http://127.0.0.1:{server.server_port}/raw.zip"
    card, kills = make_card(fetch={"url": url, "checksum": checksum}), 0
    for step in range(60):
        raw, server.asked = tmp_path / str(step), []
        try:
            with killed_at(step):
                fetch(card, raw)
        except Killed:
            kills += 1
            fetch(card, raw)
        assert held(raw) >= {"a/1", "b", "c/d/3"}
        assert {path.name[:9] for path in raw.iterdir()} - {"a", "b", "c"} == {".fetched-"}, step
        assert server.asked[1:] in ([], [f"bytes={len(server.content)}-"])
        assert not fetch(card, raw)
    assert 12 <= kills < 60


def test_what_was_taken_away_of_a_move_that_was_cut_off_is_unpacked_again(card, tmp_path):
    with pytest.raises(Killed), killed_at(7):  # archive, journal and its temporary, scans
        fetch(card, tmp_path)
    shutil.rmtree(tmp_path / "scans")
    assert fetch(card, tmp_path)
    assert whole(tmp_path)


def test_a_checksum_that_is_interrupted_costs_no_download(card, server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module.pooch, "file_hash", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fetch(card, tmp_path)
    assert held(tmp_path) == {part_of(card, tmp_path).name}
    assert fetch(card, tmp_path)
    assert server.asked == [None, f"bytes={len(CONTENT)}-"]
    assert whole(tmp_path)


def test_a_server_that_does_not_tell_the_size_sends_again(card, server, tmp_path):
    server.tells = False
    part_of(card, tmp_path).write_bytes(CONTENT)
    assert fetch(card, tmp_path)
    assert server.asked == [f"bytes={len(CONTENT)}-", None]


def test_scans_that_were_taken_away_are_fetched_again(card, tmp_path):
    fetch(card, tmp_path)
    shutil.rmtree(tmp_path / "scans")
    (tmp_path / "mine.txt").write_text("mine")
    assert fetch(card, tmp_path)
    assert held(tmp_path) >= WHOLE


def test_what_is_there_is_not_overwritten(card, tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "mine.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(UserError, match="scans: is there already; move it away"):
            fetch(card, tmp_path)
        assert not [path for path in tmp_path.glob(".*") if path.is_dir()]
    assert {name for name in held(tmp_path) if name[0] != "."} == {"scans/mine.txt"}
    os.rename(tmp_path / "scans", tmp_path / "mine")
    assert fetch(card, tmp_path)
    assert held(tmp_path) >= WHOLE


@pytest.mark.parametrize("name", ["x" * 300 + ".zip", "a%00b.zip", "", "%2e%2e"])
def test_any_name_of_an_url_will_do(make_card, card, server, tmp_path, name):
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    assert fetch(make_card(fetch=card.fetch.model_dump() | {"url": url}), tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("folder", ["scans/sub", "scans/sub/", "./scans//sub", "scans/./sub"])
def test_a_folder_has_one_spelling(make_card, card, folder):
    mine = make_card(fetch=card.fetch.model_dump() | {"folder": folder})
    assert mine.fetch.folder == "scans/sub"
    assert make_card(fetch=card.fetch.model_dump() | {"folder": "./"}).fetch.folder == ""


@pytest.mark.parametrize("folder", ["a\nb", "a\\b", "a\x00b"])
def test_a_folder_can_be_read(make_card, card, folder):
    with pytest.raises(ValueError, match="letters that cannot be read, or a backslash"):
        make_card(fetch=card.fetch.model_dump() | {"folder": folder})
