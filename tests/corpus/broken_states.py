"""Networks, runs, prepared cases and archives that are broken: name -> (maker, command, hint)."""

import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import torch
from broken_texts import changed, huge, text
from safetensors.torch import load_file, save_file

EVALUATE = "evaluate {home}/run --again"
TRAIN = "train {home}/run.yml"
CUT = "supervoxels tiny"
REPORT = "report {home}/run -o {home}/report"
VIEW = "view {home}/run -o {home}/page.html"
FETCH = "fetch {home}/card.yml --raw {home}/new"
DEEP = "[" * 100_000
WEIGHTS, SETTINGS = "run/model/model.safetensors", "run/model/model.json"
IMAGE, META = "data/tiny/1/image.npy", "data/tiny/1/meta.json"


class Bomb:
    """Runs code where a pickle is loaded."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def setting(**changes):
    """`model.json` with other values."""

    def make(home):
        path = home / SETTINGS
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def tensors(change):
    """`model.safetensors` with what `change(state)` does to it."""

    def make(home):
        state = load_file(home / WEIGHTS)
        change(state)
        save_file(state, home / WEIGHTS)

    return make


def raw_tensors(header, body=b"", *, length=None):
    """A safetensors file of this header, whatever it claims."""
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content) if length is None else length) + content + body


def one(kind, shape, start, end):
    return {"a": {"dtype": kind, "shape": shape, "data_offsets": [start, end]}}


def kept(content):
    """A weight file that a training names."""

    def make(home):
        changed("run.yml", model={"encoder": "tu-test_resnet", "encoder_weights": "w.pth"})(home)
        content(home / "w.pth")

    return make


def dump(what):
    return lambda path: torch.save(what, path)


def stored(path):
    """A state dict in a zip whose records are deflated zeros."""
    torch.save({"conv1.weight": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name, content in records.items():
            with file.open(name, "w", force_zip64=True) as record:
                record.write(content)
                for _ in range(600 if "/data/" in name else 0):
                    record.write(bytes(1 << 20))


MODELS = {
    "settings of a network: lists in lists": (text(SETTINGS, DEEP), EVALUATE, "model.json: cannot"),
    "settings of a network: a list": (text(SETTINGS, "[1]"), EVALUATE, "model.json: holds no"),
    "settings of a network: NaN": (text(SETTINGS, '{"dim": NaN}'), EVALUATE, "model.json: dim: "),
    "settings of a network: a number of 5000 digits": (
        text(SETTINGS, f'{{"dim": {"9" * 5000}}}'),
        EVALUATE,
        "model.json: cannot be read .*4300 digits",
    ),
    "settings of a network: zeros": (text(SETTINGS, bytes(99)), EVALUATE, "model.json: cannot be"),
    "settings of a network: 1 GB": (huge(SETTINGS), EVALUATE, "model.json: .*larger than"),
    "settings of a network: 50 GB of weights": (
        setting(dim=8192, rounds=8, share_rounds=False, share_streams=False),
        EVALUATE,
        "model.safetensors: weights of another architecture",
    ),
    "settings of a network: an unknown encoder": (
        setting(encoder="tu-../../evil"),
        EVALUATE,
        "model.json: model.encoder .*cannot be built",
    ),
    "weights: text": (text(WEIGHTS, "no weights"), EVALUATE, "model.safetensors: cannot be read"),
    "weights: a header of 10^18 bytes": (
        text(WEIGHTS, raw_tensors({}, length=10**18)),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: a header that is no JSON": (
        text(WEIGHTS, raw_tensors(b"{" * 5000)),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: 10^12 numbers": (
        text(WEIGHTS, raw_tensors(one("F32", [10**12], 0, 4 * 10**12))),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: a shape that overflows": (
        text(WEIGHTS, raw_tensors(one("F32", [2**40, 2**40], 0, 0))),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: offsets that overlap": (
        text(
            WEIGHTS,
            raw_tensors(one("F32", [2], 0, 8) | {"b": one("F32", [2], 4, 12)["a"]}, bytes(12)),
        ),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: a kind of number that is none": (
        text(WEIGHTS, raw_tensors(one("F99", [2], 0, 8), bytes(8))),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: a pickle": (
        text(WEIGHTS, pickle.dumps(Bomb())),
        EVALUATE,
        "model.safetensors: cannot be read",
    ),
    "weights: whole numbers": (
        tensors(lambda state: state.update({k: v.long() for k, v in state.items()})),
        EVALUATE,
        "model.safetensors: .*of another kind",
    ),
    "weights: NaN": (
        tensors(
            lambda state: next(v for v in state.values() if v.is_floating_point()).fill_(np.nan)
        ),
        EVALUATE,
        "model.safetensors: .*no finite numbers",
    ),
    "weight file: a bomb": (kept(dump(Bomb())), TRAIN, "w.pth: damaged, or holds more than tens"),
    "weight file: an old bomb": (
        kept(lambda path: path.write_bytes(pickle.dumps(Bomb()))),
        TRAIN,
        "w.pth: (damaged|not a readable)",
    ),
    "weight file: 600 MB of zeros in a small zip": (kept(stored), TRAIN, "w.pth: (not a rea|dama)"),
    "weight file: an empty zip": (
        kept(lambda path: zipfile.ZipFile(path, "w").close()),
        TRAIN,
        "w.pth: (damaged|not a readable weight file)",
    ),
    "weight file: lists in lists": (
        kept(lambda path: path.write_bytes(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")),
        TRAIN,
        "w.pth: ",
    ),
    "weight file: words": (
        kept(dump({"conv1.weight": "words"})),
        TRAIN,
        "w.pth: not the weights of this encoder",
    ),
}


def array(change):
    """`image.npy` of a prepared case, as `change(voxels)` makes it."""

    def make(home):
        np.save(home / IMAGE, change(np.load(home / IMAGE)), allow_pickle=True)

    return make


def npy(shape, kind="<f4"):
    """The header of an array file, whatever it claims."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def meta(**changes):
    def make(home):
        path = home / META
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return make


def uncut(make):
    """The first case has no supervoxels yet, so the command reads it."""

    def write(home):
        (home / "data/tiny/1/supervoxels.json").unlink()
        make(home)

    return write


CASES = {
    "case: zeros for its description": (text(META, bytes(99)), CUT, "meta.json: cannot be read"),
    "case: lists in lists": (text(META, DEEP), CUT, "meta.json: cannot be read"),
    "case: a description of 1 GB": (huge(META), CUT, "meta.json: .*larger than"),
    "case: an affine of 2 x 2": (meta(affine=[[1, 2], [3, 4]]), CUT, "meta.json: affine"),
    "case: an affine of zeros": (meta(raw_affine=[[0] * 4] * 4), CUT, "meta.json: raw_affine"),
    "case: a negative shape": (meta(shape=[-1, 64, 64]), CUT, "meta.json: shape.0"),
    "case: another shape than its image": (meta(shape=[12, 64, 32]), CUT, "image.npy: .*meta.json"),
    "case: 10^12 voxels": (text(IMAGE, npy((10**4,) * 3)), CUT, "image.npy: cannot be read"),
    "case: an image of objects": (
        array(lambda voxels: np.array([Bomb()], dtype=object)),
        CUT,
        "image.npy: cannot be read",
    ),
    "case: an image of words": (array(lambda voxels: voxels.astype(str)), CUT, "image.npy: holds"),
    "case: a flat image": (array(lambda voxels: voxels[0]), CUT, "image.npy: holds"),
    "case: a header of code": (
        text(IMAGE, npy("__import__('os').mkdir('exploded')")),
        CUT,
        "image.npy: cannot be read",
    ),
    "case: an archive for an image": (
        lambda home: np.savez((home / IMAGE).open("wb"), a=np.ones(3)),
        CUT,
        "image.npy: ",
    ),
    "case: a name that leads out of the folder": (meta(case="../../evil"), CUT, "meta.json: case"),
}


PREPARED = {name: (uncut(make), *rest) for name, (make, *rest) in CASES.items()}


def evaluated(make):
    """A run with what an evaluation records for the page, one file of which `make(path)` breaks."""

    def write(home):
        folder = next((home / "run" / "evaluations").iterdir()) / "browser"
        make(sorted(folder.glob("*.npz"))[0])

    return write


def case_file(change):
    """The file of a case in the page, with what `change(arrays)` does to it."""

    def make(path):
        with np.load(path) as file:
            arrays = dict(file)
        change(arrays)
        np.savez(path, **arrays)

    return evaluated(make)


def evaluation(name, change):
    """A file of the evaluation itself, as `change(content)` makes it."""

    def make(home):
        (path,) = (home / "run" / "evaluations").glob(f"*/{name}")
        path.write_bytes(change(path.read_bytes()))

    return make


def vast(path):
    """An array that claims 10^12 pixels."""
    with zipfile.ZipFile(path) as file:
        records = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in (records | {"images.npy": npy((10**4,) * 3, "|u1")}).items():
            file.writestr(name, content)


RUNS = {
    "run: settings of zeros": (text("run/run.yml", bytes(99)), EVALUATE, "run.yml: not valid YAML"),
    "run: a card of zeros": (text("run/card.yml", bytes(99)), EVALUATE, "card.yml: not valid YAML"),
    "run: no provenance": (text("run/provenance.json", "{"), EVALUATE, "provenance.json: damaged"),
    "run: provenance is a list": (text("run/provenance.json", "[]"), EVALUATE, "json: damaged"),
    "page: a case of rubbish": (
        evaluated(lambda path: path.write_bytes(b"rubbish")),
        REPORT,
        "npz: no readable views",
    ),
    "page: half a case": (
        evaluated(lambda path: os.truncate(path, path.stat().st_size // 2)),
        REPORT,
        "npz: no readable views",
    ),
    "page: 10^12 pixels": (evaluated(vast), REPORT, "npz: no readable views"),
    "page: objects": (
        case_file(lambda arrays: arrays.update(organs=np.array([Bomb()], dtype=object))),
        REPORT,
        "npz: no readable views",
    ),
    "page: a field is missing": (
        case_file(lambda arrays: arrays.pop("truth")),
        REPORT,
        "npz: no readable views",
    ),
    "page: no version": (case_file(lambda arrays: arrays.pop("format")), REPORT, "no readable vie"),
    "sweep: lists in lists": (
        text("sweep/sweep.json", DEEP),
        "report {home}/sweep",
        "sweep.json: cannot be read",
    ),
    "sweep: a run that is a number": (
        text("sweep/sweep.json", '{"name": "a", "question": "", "varied": [], "runs": [5]}'),
        "report {home}/sweep",
        "sweep.json: cannot be read",
    ),
    "prediction: lists in lists": (
        text("out/summary.json", DEEP),
        "view {home}/out",
        "summary.json: no readable summary",
    ),
    "rows: cut off": (
        evaluation("rows.csv", lambda content: content[:-9]),
        REPORT,
        r"rows.csv, line \d+: is cut off; run `catnet evaluate run`",
    ),
    "rows: of another evaluation": (
        evaluation("rows.csv", lambda content: content.replace(b",dice,", b",dise,")),
        REPORT,
        "rows.csv and settings.json do not fit each other; run `catnet evaluate run`",
    ),
    "rows: lists in lists for their settings": (
        evaluation("settings.json", lambda content: DEEP.encode()),
        REPORT,
        "rows.csv and settings.json do not fit each other; run `catnet evaluate run`",
    ),
    "data set: lists in lists": (
        text("raw/imagesTr/../dataset.json", DEEP),
        "cards new {home}/raw -o {home}/new.yml",
        "dataset.json: names no labels",
    ),
}


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    def make(home):
        with zipfile.ZipFile(home / "archive", "w", method) as file:
            for name, content in members:
                file.writestr(name, content)

    return make


def tarred(*members, mode="w:gz", form=tarfile.PAX_FORMAT):
    def make(home):
        with tarfile.open(home / "archive", mode, format=form) as file:
            for info, content in members:
                info.size = len(content) if content is not None else info.size
                file.addfile(info, None if content is None else io.BytesIO(content))

    return make


def member(name, **facts):
    info = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    return info


def patched(make, old, new):
    """An archive with some bytes replaced, wherever they stand."""

    def write(home):
        make(home)
        content = (home / "archive").read_bytes()
        assert old in content
        (home / "archive").write_bytes(content.replace(old, new))

    return write


def long_header(home):
    """A tar whose first header says that 1 GB of remarks follow, and they do."""
    info = member("remarks", type=tarfile.XHDTYPE, size=1 << 30)
    head = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT))
    (home / "archive").write_bytes(head + 1024 * gzip.compress(bytes(1 << 20)))


def overlapping(home):
    """A zip all of whose 2000 members are the same bytes, so that little unfolds to very much."""
    zipped(("0000", bytes(4 << 20)))(home)
    content = (home / "archive").read_bytes()
    start = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    entry = content[start:end]
    table = b"".join(entry[:46] + f"{n:04}".encode() + entry[50:] for n in range(2000))
    tail = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, 2000, 2000, len(table), start, 0)
    (home / "archive").write_bytes(content[:start] + table + tail)


SIZE = struct.pack("<I", 3333)
ARCHIVES = {
    f"archive: {name}": (make, FETCH, hint)
    for name, make, hint in (
        ("text", text("archive", "no archive"), "cannot be unpacked"),
        ("empty", text("archive", ""), "cannot be unpacked"),
        ("1 GB of zeros", huge("archive"), "holds no file; check the card's url"),
        ("many copies of a few bytes", overlapping, "unfolds to more than .*; do not trust it"),
        ("1 GB of remarks", long_header, "cannot be unpacked .*remarks"),
        ("a name that climbs", zipped(("a/../../evil", b"x")), "would leave the folder"),
        ("a name of the system's", tarred((member("/etc/evil"), b"x")), "would leave the folder"),
        ("a name with a bell", zipped(("a\x07", b"x")), "a name that cannot be read"),
        ("a name without end", zipped(("x" * 5000, b"x")), "longer than 255 bytes"),
        (
            "a link",
            tarred((member("a", type=tarfile.SYMTYPE, linkname="/etc"), None)),
            "is a link; do not trust it",
        ),
        (
            "a link, and a file behind it",
            tarred((member("a", type=tarfile.SYMTYPE, linkname=".."), None), (member("a/b"), b"x")),
            "is a link; do not trust it",
        ),
        (
            "a file, and a file below it",
            zipped(("a", b"x"), ("a/b", b"x")),
            "lies within a file",
        ),
        (
            "a size of 10^12",
            tarred((member("a", size=10**12), None), mode="w"),
            "unfolds to more than",
        ),
        (
            "a sparse file of 10^12",
            tarred(
                (
                    member(
                        "a",
                        pax_headers={
                            "GNU.sparse.major": "1",
                            "GNU.sparse.minor": "0",
                            "GNU.sparse.name": "a",
                            "GNU.sparse.realsize": str(10**12),
                        },
                    ),
                    b"1\n0\n1\n" + bytes(506),
                )
            ),
            "unfolds to more than|cannot be unpacked",
        ),
        (
            "more than it says",
            patched(zipped(("a", bytes(3333))), SIZE, struct.pack("<I", 10)),
            "cannot be unpacked",
        ),
        (
            "a way of packing that is none",
            patched(
                zipped(("a", bytes(3333))),
                b"\x14\0\0\0\x08\0",
                b"\x14\0\0\0\x63\0",
            ),
            "cannot be unpacked .*compression",
        ),
        (
            "locked by a password",
            patched(zipped(("a", bytes(3333))), b"\x14\0\0\0\x08", b"\x14\0\x01\0\x08"),
            "cannot be unpacked .*(encrypted|password)",
        ),
    )
}
