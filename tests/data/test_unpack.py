"""Archives that behave, and those that do not."""

import errno
import gzip
import io
import random
import shutil
import stat
import tarfile
import zipfile

import pytest
from trials import raising

from catnet.data import room
from catnet.data import unpack as module
from catnet.data.unpack import unpack
from catnet.errors import UserError


def make_zip(path, *members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            if content is LINK:
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = b"/etc/passwd"
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path, *members, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content in KINDS:
                info.type, info.linkname = KINDS[content], "../../outside"
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


LINK, HARD, DEVICE, PIPE = "link", "hard", "device", "pipe"
KINDS = {
    LINK: tarfile.SYMTYPE,
    HARD: tarfile.LNKTYPE,
    DEVICE: tarfile.CHRTYPE,
    PIPE: tarfile.FIFOTYPE,
}
MAKERS = {"zip": make_zip, "tar.gz": make_tar}
both = pytest.mark.parametrize("kind", MAKERS)


@pytest.fixture
def place(tmp_path):
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def names(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def refused(place, kind, *members):
    archive = MAKERS[kind](place.parent / f"a.{kind}", ("good.txt", b"good"), *members)
    with pytest.raises(UserError) as caught:
        unpack(archive, place / "new")
    assert "\n" not in str(caught.value)
    assert list(place.iterdir()) == []
    assert set(place.parent.iterdir()) == {place, archive}
    return str(caught.value)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz", "zip"])
def test_files_and_folders_come_out_whole(place, mode):
    members = [("a/größe 1.txt", b"x" * 5000), ("b.txt", b""), ("a/b/c.txt", b"c")]
    archive = place.parent / "archive"
    if mode == "zip":
        make_zip(archive, ("a/", b""), *members)
    else:
        make_tar(archive, *members, mode=mode)
    unpack(archive, place / "new")
    assert names(place / "new") == {name for name, _ in members}
    assert (place / "new" / "a" / "größe 1.txt").read_bytes() == b"x" * 5000
    assert set(place.iterdir()) == {place / "new"}


NAMES = ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "a/b/../../../evil"]
DRIVES = ["C:\\evil", "C:evil", "./C:\\evil", "a/C:/evil"]


@both
@pytest.mark.parametrize("name", [*NAMES, *DRIVES])
def test_nothing_leaves_the_folder(place, kind, name):
    assert "would leave the folder" in refused(place, kind, (name, b"evil"))


@both
def test_the_root_itself_is_no_member(place, kind):
    """As `tar -C dir -cz .` and some makers of zips write it."""
    if kind == "zip":
        archive = make_zip(place.parent / "a", ("./", b""), ("./a/", b""), ("./a/b.txt", b"b"))
    else:
        (place.parent / "dir" / "a").mkdir(parents=True)
        (place.parent / "dir" / "a" / "b.txt").write_bytes(b"b")
        archive = place.parent / "a"
        with tarfile.open(archive, "w:gz") as opened:
            opened.add(place.parent / "dir", arcname=".")
    unpack(archive, place / "new")
    assert names(place / "new") == {"a/b.txt"}


@both
def test_the_names_of_a_lock_are_left_out(place, kind):
    members = [("a/.lock", b"1"), ("a/.lock.json", b"2"), ("a/b/.lock", b"3"), ("a/c", b"4")]
    archive = MAKERS[kind](place.parent / "a", *members)
    unpack(archive, place / "new", only="a")
    assert names(place / "new") == {"b/.lock", "c"}


@both
def test_links_are_refused(place, kind):
    assert "'evil' is a link" in refused(place, kind, ("evil", LINK), ("evil/x", b"1"))


@pytest.mark.parametrize("content", [HARD, DEVICE, PIPE])
def test_neither_hard_links_nor_devices(place, content):
    assert "do not trust it" in refused(place, "tar.gz", ("evil", content))


@both
def test_a_bomb_is_refused_before_it_unfolds(place, kind, monkeypatch):
    monkeypatch.setattr(module, "SMALL", 1 << 16)
    assert "do not trust it" in refused(place, kind, ("bomb", bytes(30 << 20)))


@both
def test_too_many_members_are_refused(place, kind, monkeypatch):
    monkeypatch.setattr(module, "MOST_MEMBERS", 3)
    members = [(f"{number}", b"") for number in range(4)]
    assert "3 files; do not trust it" in refused(place, kind, *members)


def test_a_zip_that_lies_about_a_size(place):
    """The table says 10 bytes, the stream holds many."""
    archive = make_zip(place.parent / "a.zip", ("lie", bytes(100_000)))
    content = archive.read_bytes()
    size = (100_000).to_bytes(4, "little")
    assert content.count(size) == 2
    archive.write_bytes(content.replace(size, (10).to_bytes(4, "little")))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, place / "new")
    assert list(place.iterdir()) == []


@both
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.95])
def test_an_archive_that_was_cut_off(place, kind, keep):
    members = [(f"{number}", bytes([number]) * 5000) for number in range(40)]
    archive = MAKERS[kind](place.parent / f"a.{kind}", *members)
    content = archive.read_bytes()
    archive.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, place / "new")
    assert list(place.iterdir()) == []


THREE = [("a", b"1" * 600), ("b", b"2" * 600), ("c", b"3" * 600)]
MEMBER = 512 + 1024  # bytes in the archive
DAMAGE = {
    "header": lambda tar: tar[: MEMBER + 148] + b"x" + tar[MEMBER + 149 :],
    "zeros": lambda tar: tar[:MEMBER] + bytes(1024) + tar[MEMBER:],
    "cut off": lambda tar: tar[:MEMBER],
}


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_no_member_of_a_tar_is_lost_in_silence(place, name, mode):
    archive = make_tar(place.parent / "a.tar", *THREE, mode="w")
    content = DAMAGE[name](archive.read_bytes())
    archive.write_bytes(gzip.compress(content) if mode == "w:gz" else content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, place / "new")
    assert list(place.iterdir()) == []


@both
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_one_name_twice_would_lose_a_file(place, kind):
    assert "'good.txt' twice" in refused(place, kind, ("good.txt", b"other"))
    assert "'./good.txt' twice" in refused(place, kind, ("./good.txt", b"other"))


@both
def test_an_archive_without_a_file_is_refused(place, kind):
    archive = MAKERS[kind](place.parent / "empty")
    with pytest.raises(UserError, match="holds no file"):
        unpack(archive, place / "new")


ODD = {
    "\n": "cannot be read",
    ".": "cannot be read",
    "x" * 300: "longer than 255 bytes",
    "good.txt/a": "lies within a file",
}


@both
@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_said_to_be_odd(place, kind, name):
    assert ODD[name] in refused(place, kind, (name, b"content"))


def test_a_damaged_member_packed_by_lzma_is_one_sentence(place):
    archive = place.parent / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_LZMA) as opened:
        opened.writestr("a", bytes(range(256)) * 400)
    content = bytearray(archive.read_bytes())
    content[40:60] = b"\xff" * 20
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, place / "new")


@both
def test_a_folder_that_is_empty_has_a_name_like_others(place, kind):
    if kind == "zip":
        archive = make_zip(place.parent / "a", ("a", b"a"), ("x" * 300 + "/", b""))
    else:
        archive = place.parent / "a"
        with tarfile.open(archive, "w") as opened:
            for name, type_ in (("a", tarfile.REGTYPE), ("x" * 300, tarfile.DIRTYPE)):
                info = tarfile.TarInfo(name)
                info.type = type_
                opened.addfile(info, io.BytesIO())
    with pytest.raises(UserError, match="longer than 255 bytes"):
        unpack(archive, place / "new")


@both
def test_a_name_may_have_255_bytes_and_no_letter_more(place, kind):
    archive = MAKERS[kind](place.parent / f"a.{kind}", ("ö" * 127 + "x", b"1"))
    unpack(archive, place / "new")
    assert names(place / "new") == {"ö" * 127 + "x"}
    shutil.rmtree(place / "new")
    assert "longer than 255 bytes" in refused(place, kind, ("ö" * 128, b"1"))


@both
@pytest.mark.parametrize(("only", "before"), [("", "a/"), ("a", "")])
def test_a_backslash_is_a_slash(place, kind, only, before):
    wide = ["y" * 200, "z" * 200]
    members = [("a\\b\\c", b"1"), ("a\\d", b"2"), ("\\".join(["a", *wide]), b"3")]
    archive = MAKERS[kind](place.parent / "a", *members)
    found = {f"{before}{name}" for name in ("b/c", "d", "/".join(wide))}
    unpack(archive, place / "new", only=only)
    assert names(place / "new") == found


@both
def test_what_an_honest_archive_holds_comes_out_whatever_its_size(place, kind, monkeypatch):
    noise = random.Random(0).randbytes(50_000)
    small = MAKERS[kind](place.parent / "small", ("a", bytes(1_000_000)))
    assert module.MOST_PACKED * small.stat().st_size < 1_000_000
    unpack(small, place / "small")
    large = MAKERS[kind](place.parent / "large", ("a", noise))
    monkeypatch.setattr(module, "SMALL", 1000)
    unpack(large, place / "large")
    assert (place / "large" / "a").read_bytes() == noise


@both
def test_what_does_not_fit_the_disk_is_said_before_it_is_written(place, kind, monkeypatch):
    usage = type("Usage", (), {"free": 5003})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    archive = MAKERS[kind](place.parent / f"a.{kind}", ("a", bytes(5000)), ("b", b"123"))
    unpack(archive, place / "new")
    shutil.rmtree(place / "new")
    said = refused(place, kind, ("a", bytes(5000)))
    assert said.startswith(f"{place}: 0.0 MB are needed and 0.0 MB are free; ")


def test_a_disk_that_fills_meanwhile_is_not_the_fault_of_the_archive(place, monkeypatch):
    monkeypatch.setattr(module, "copy", raising(OSError(errno.ENOSPC, "No space left on device")))
    said = refused(place, "zip")
    assert "get it again" not in said
    assert "No space left on device" in said


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UserError("x")])
def test_what_was_unpacked_goes_however_it_ends(place, end, monkeypatch):
    archive = make_zip(place.parent / "a", ("a", b"1"), ("b", b"2"))
    monkeypatch.setattr(module, "copy", raising(end))
    with pytest.raises(type(end)):
        unpack(archive, place / "new")
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(("said", "words"), [(4, "longer than it says"), (6, "shorter than it")])
def test_a_member_is_as_long_as_it_says(said, words):
    target = io.BytesIO()
    module.copy(io.BytesIO(b"12345"), target, size=5)
    assert target.getvalue() == b"12345"
    with pytest.raises(ValueError, match=words):
        module.copy(io.BytesIO(b"12345"), io.BytesIO(), size=said)


def test_a_tar_does_not_say_megabytes_about_a_member(place):
    with tarfile.open(place.parent / "a", "w", format=tarfile.GNU_FORMAT) as opened:
        info = tarfile.TarInfo("x" * (module.MOST_REMARKS + 1))
        opened.addfile(info, io.BytesIO())
    with pytest.raises(UserError, match="remarks of 1048578 bytes on one member"):
        unpack(place.parent / "a", place / "new")


def test_a_file_with_holes_is_refused(place):
    with tarfile.open(place.parent / "a", "w", format=tarfile.GNU_FORMAT) as opened:
        info = tarfile.TarInfo("sparse")
        info.type = tarfile.GNUTYPE_SPARSE
        opened.addfile(info)
    with pytest.raises(UserError, match="'sparse' is a file with holes"):
        unpack(place.parent / "a", place / "new")


def test_a_damaged_member_packed_by_deflate_is_one_sentence(place):
    archive = make_zip(place.parent / "a.zip", ("a", bytes(range(256)) * 400))
    content = bytearray(archive.read_bytes())
    content[40:60] = b"\xff" * 20
    archive.write_bytes(content)
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack(archive, place / "new")
