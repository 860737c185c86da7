"""Scans and labels that are none: name -> (maker, command, what the sentence says)."""

import gzip
import os
import struct
import zlib

import nibabel as nib
import numpy as np
import pydicom
import yaml
from pydicom.filebase import DicomBytesIO
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless
from series import write_series

SHAPE = (8, 8, 4)
TERA = 10**12
PREPARE = "prepare tiny --raw {home}/raw"
LOOK = "view {home}/%s {home}/raw/label_1.nii.gz -o {home}/page.html"
NIFTI, SERIES = LOOK % "scan.nii", LOOK % "series"
LIKE = (
    "predict --model copy --support {home}/%s {home}/raw/label_1.nii.gz "
    "--query {home}/raw/image_2.nii.gz -o {home}/out"
)
QUERY = (
    "predict --model copy --support {home}/raw/image_1.nii.gz {home}/raw/label_1.nii.gz "
    "--query {home}/scan.nii -o {home}/out"
)
MASKS = "prepare {home}/card.yml --raw {home}"


def nifti_bytes(*, data=None, extension=bytes(4), **fields):
    """A small NIfTI file with these values in its header, whatever they mean."""
    header = nib.Nifti1Header()
    header.set_data_shape(SHAPE)
    header["magic"], header["vox_offset"], header["sform_code"] = b"n+1", 352, 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4, dtype=np.float32)[:3]
    for name, value in fields.items():
        header[name] = value
    voxels = np.arange(256, dtype=np.float32).tobytes() if data is None else data
    return header.binaryblock + extension + voxels


def nifti(**fields):
    return lambda home: (home / "scan.nii").write_bytes(nifti_bytes(**fields))


def put(name, content):
    return lambda home: (home / name).write_bytes(content)


def hole(name, content, size):
    """A file whose rest is a hole in the disk."""

    def make(home):
        (home / name).write_bytes(content)
        os.truncate(home / name, size)

    return make


def bomb(name, content, size):
    """Gzip of a header, and of many zeros after it."""

    zeros = gzip.compress(bytes(1 << 20))
    return put(name, gzip.compress(content) + (size >> 20) * zeros)


def dims(*sizes):
    return [len(sizes), *sizes, *[1] * (7 - len(sizes))]


def cut(name, keep):
    """The first bytes of a file that was right."""
    return lambda home: os.truncate(home / name, int((home / name).stat().st_size * keep))


SINGULAR = np.zeros(4, np.float32)
VOLUMES = {
    "NIfTI: a header alone": (put("scan.nii", nifti_bytes()[:352]), NIFTI, "claims .* voxels"),
    "NIfTI: half a header": (put("scan.nii", nifti_bytes()[:200]), NIFTI, "not a readable NIfTI"),
    "NIfTI: 10^12 voxels": (
        nifti(dim=dims(10000, 10000, 10000)),
        NIFTI,
        "more than any scanner makes",
    ),
    "NIfTI: 10^9 voxels": (
        nifti(dim=dims(1000, 1000, 1000)),
        NIFTI,
        "its header claims .* the file holds fewer",
    ),
    "NIfTI: 10^12 voxels and a hole for them": (
        hole("scan.nii", nifti_bytes(dim=dims(10000, 10000, 10000)), 4 * TERA + 1000),
        NIFTI,
        "more than any scanner makes",
    ),
    "NIfTI: 10^12 voxels for a query": (
        hole("scan.nii", nifti_bytes(dim=dims(10000, 10000, 10000)), 4 * TERA + 1000),
        LIKE % "scan.nii",
        "more than any scanner makes",
    ),
    "NIfTI: 1 GB behind a small volume": (
        bomb("raw/image_1.nii.gz", nifti_bytes(), 1 << 30),
        PREPARE,
        "image_1.nii.gz: not a readable NIfTI file .*far more than its header claims",
    ),
    "NIfTI: no axes": (nifti(dim=[0] * 8), NIFTI, "has 1 axes"),
    "NIfTI: 255 axes": (nifti(dim=[255, *[1] * 7]), NIFTI, "not a readable NIfTI"),
    "NIfTI: 7 axes": (nifti(dim=[7, 8, 8, 4, 1, 1, 1, 1]), NIFTI, "has 7 axes"),
    "NIfTI: negative sizes": (nifti(dim=dims(-8, -8, 4)), NIFTI, "not a readable NIfTI"),
    "NIfTI: no slices": (nifti(dim=dims(8, 8, 0)), NIFTI, r"has 3 axes, \(8, 8, 0\)"),
    "NIfTI: unknown type": (nifti(datatype=77), NIFTI, "not a readable NIfTI"),
    "NIfTI: bits": (nifti(datatype=1), NIFTI, "not a readable NIfTI"),
    "NIfTI: complex": (nifti(datatype=32, data=bytes(2048)), NIFTI, "of real numbers"),
    "NIfTI: colors": (nifti(datatype=128), NIFTI, "of real numbers"),
    "NIfTI: data before the file": (nifti(vox_offset=-400), NIFTI, "not a readable NIfTI"),
    "NIfTI: data behind the file": (nifti(vox_offset=99_968), NIFTI, "not a readable NIfTI"),
    "NIfTI: data nowhere": (nifti(vox_offset=np.nan), NIFTI, "not a readable NIfTI"),
    "NIfTI: data at 10^30": (nifti(vox_offset=1e30), NIFTI, "not a readable NIfTI"),
    "NIfTI: data within the header": (nifti(vox_offset=16), NIFTI, "not a readable NIfTI"),
    "NIfTI: a slope beyond numbers": (nifti(scl_slope=3e38), QUERY, "are extreme|NaN or infinite"),
    "NIfTI: an affine of NaN": (nifti(srow_x=np.full(4, np.nan)), NIFTI, "maps voxels to no place"),
    "NIfTI: an affine of zeros": (nifti(srow_z=SINGULAR), NIFTI, "maps voxels to no place"),
    "NIfTI: an impossible quaternion": (
        nifti(sform_code=0, qform_code=1, quatern_b=3),
        NIFTI,
        "not a readable NIfTI",
    ),
    "NIfTI: voxels of a micrometer": (
        nifti(srow_x=[1e-3, 0, 0, 0], srow_y=[0, 1e-3, 0, 0], srow_z=[0, 0, 1e-3, 0]),
        LIKE % "scan.nii",
        "mm need a card",
    ),
    "NIfTI: without its second file": (
        put("scan.hdr", nifti_bytes(magic=b"ni1")[:352]),
        LOOK % "scan.hdr",
        "no such file|not a readable NIfTI",
    ),
    "NIfTI: an extension without end": (
        nifti(vox_offset=416, extension=struct.pack("<4Bii", 1, 0, 0, 0, 1 << 30, 6)),
        NIFTI,
        "not a readable NIfTI|exceeds the memory",
    ),
    "NIfTI: an extension of negative size": (
        nifti(vox_offset=416, extension=struct.pack("<4Bii", 1, 0, 0, 0, -16, 6)),
        NIFTI,
        "not a readable NIfTI",
    ),
    "NIfTI: not packed": (put("raw/image_1.nii.gz", nifti_bytes()), PREPARE, "not a readable NIf"),
    "NIfTI: packed without saying so": (
        put("scan.nii", gzip.compress(nifti_bytes())),
        NIFTI,
        "not a readable NIfTI",
    ),
    "NIfTI: packed twice": (
        put("raw/image_1.nii.gz", gzip.compress(gzip.compress(nifti_bytes()))),
        PREPARE,
        "not a readable NIfTI",
    ),
    "NIfTI: rubbish after the packed data": (
        put("raw/image_1.nii.gz", gzip.compress(nifti_bytes()) + b"rubbish"),
        PREPARE,
        "not a readable NIfTI",
    ),
    "NIfTI: a wrong checksum": (
        put("raw/image_1.nii.gz", gzip.compress(nifti_bytes())[:-8] + bytes(8)),
        PREPARE,
        "not a readable NIfTI .*CRC",
    ),
    "Analyze, which knows no sides": (
        lambda home: nib.save(nib.AnalyzeImage(np.ones(SHAPE, np.int16), None), home / "scan.hdr"),
        LOOK % "scan.hdr",
        "scan.hdr: is an Analyze file, .*; convert it to NIfTI",
    ),
    "NRRD: rubbish": (put("scan.nrrd", b"NRRD0004\n\xff\xfe"), LOOK % "scan.nrrd", "readable NRRD"),
    "MHA: rubbish": (
        put("scan.mha", b"ObjectType = Image\n\n"),
        LOOK % "scan.mha",
        "readable Meta",
    ),
}


def nrrd(body=bytes(512), **fields):
    """A small NRRD file with these lines in its header."""
    known = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "8 8 4",
        "space directions": "(1,0,0) (0,1,0) (0,0,1)",
        "encoding": "raw",
        "endian": "little",
        "space origin": "(0,0,0)",
    } | {key.replace("_", " "): value for key, value in fields.items()}
    lines = [f"{key}: {value}" for key, value in known.items() if value is not None]
    return put("scan.nrrd", "\n".join(["NRRD0004", *lines, "", ""]).encode() + body)


def mha(body=bytes(512), *, name="scan.mha", **fields):
    """A small MetaImage with these lines in its header."""
    known = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "DimSize": "8 8 4",
        "ElementType": "MET_SHORT",
        "ElementDataFile": "LOCAL",
    } | fields
    lines = [f"{key} = {value}" for key, value in known.items() if value is not None]
    return put(name, "\n".join([*lines, ""]).encode() + body)


NRRD, MHA, MHD = (LOOK % f"scan.{ending}" for ending in ("nrrd", "mha", "mhd"))
ITK = {
    "NRRD: 10^12 voxels": (nrrd(sizes="10000 10000 10000"), NRRD, "its header claims"),
    "NRRD: negative sizes": (nrrd(sizes="-8 8 4"), NRRD, "not a readable NRRD"),
    "NRRD: sizes in words": (nrrd(sizes="8 eight 4"), NRRD, "not a readable NRRD"),
    "NRRD: 99 axes": (nrrd(dimension="99"), NRRD, "has '99' axes"),
    "NRRD: an unknown type": (nrrd(type="quaternion"), NRRD, "not a readable NRRD"),
    "NRRD: packed rubbish": (nrrd(b"rubbish" * 9, encoding="gzip"), NRRD, "not a readable NRRD"),
    "NRRD: directions of zeros": (
        nrrd(space_directions="(0,0,0) (0,1,0) (0,0,1)"),
        NRRD,
        "not a readable NRRD|maps voxels to no place",
    ),
    "NRRD: directions of NaN": (
        nrrd(space_directions="(nan,0,0) (0,1,0) (0,0,1)"),
        NRRD,
        "not a readable NRRD|maps voxels to no place|which way its axes point",
    ),
    "MHA: 10^12 voxels": (mha(DimSize="10000 10000 10000"), MHA, "its header claims"),
    "MHA: negative sizes": (mha(DimSize="-8 8 4"), MHA, "its header claims"),
    "MHA: 1000 axes": (mha(NDims="1000"), MHA, "has '1000' axes"),
    "MHA: an unknown type": (mha(ElementType="MET_SOUND"), MHA, "not a readable MetaImage"),
    "MHA: spacing of zero": (mha(ElementSpacing="0 1 1"), MHA, "MetaImage|to no place"),
    "MHA: a matrix of zeros": (
        mha(TransformMatrix="0 0 0 0 0 0 0 0 0"),
        MHA,
        "not a readable MetaImage|maps voxels to no place",
    ),
    "MHD: a data file that is itself": (
        mha(name="scan.mhd", ElementDataFile="scan.mhd", DimSize="900 900 900"),
        MHD,
        "scan.mhd: ",
    ),
    "MHD: a data file that is not there": (
        mha(name="scan.mhd", ElementDataFile="none.raw"),
        MHD,
        "not a readable MetaImage",
    ),
    "MHD: 10^12 voxels": (
        mha(name="scan.mhd", ElementDataFile="none.raw", DimSize="10000 10000 10000"),
        MHD,
        "more than any scanner makes",
    ),
}


def series(**changes):
    """Three slices whose headers hold these values."""
    stored = np.arange(3 * 64, dtype=np.int16).reshape(3, 8, 8)
    return lambda home: write_series(home / "series", stored, **changes)


def in_file(change):
    """Three slices, and what `change(data)` makes of the first one's data set."""

    def make(home):
        path = sorted(series()(home))[0]
        data = pydicom.dcmread(path)
        data = change(data) or data
        data.save_as(path, enforce_file_format=True)

    return make


def in_bytes(change):
    """Three slices, and what `change(content)` makes of the first one's bytes."""

    def make(home):
        path = sorted(series()(home))[0]
        path.write_bytes(change(path.read_bytes()))

    return make


def instead_of(tag, vr, value):
    """The file with an element's value replaced by bytes that pydicom would not write."""

    def change(content):
        place = content.index(struct.pack("<HH", *tag) + vr)
        (length,) = struct.unpack("<H", content[place + 6 : place + 8])
        head = content[: place + 6] + struct.pack("<H", len(value))
        return head + value + content[place + 8 + length :]

    return change


def nested(content):
    """Sequences in sequences, none of which ends."""
    return content + (struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0\xff\xff\xff\xff"
                      + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000  # fmt: skip


def unfolding(content):
    """A deflated data set of 1 GB."""
    data = pydicom.dcmread(DicomBytesIO(content), stop_before_pixels=True)
    data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    buffer = DicomBytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    head = buffer.getvalue()
    start = 144 + struct.unpack("<I", head[140:144])[0]
    plain = zlib.decompress(head[start:], -zlib.MAX_WBITS)
    packer = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    packed = packer.compress(plain + b"\xe0\x7f\x10\x00OW\0\0\xff\xff\xff\x7f")
    packed += packer.flush(zlib.Z_FULL_FLUSH)
    zeros = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head[:start] + packed + zeros * 1024 + packer.flush()


def packed(data):
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f\xff\x51 no picture"])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True


POSITION, ROWS = (0x0020, 0x0032), (0x0028, 0x0010)
DICOM = {
    "DICOM: 65535 x 65535 pixels in a small file": (
        series(Rows=65535, Columns=65535),
        SERIES,
        "its pixels cannot be read",
    ),
    "DICOM: no rows": (series(Rows=0), SERIES, "has no rows or no columns"),
    "DICOM: no pixels": (series(PixelData=None), SERIES, "its pixels cannot be read"),
    "DICOM: 7 bits": (series(BitsAllocated=7), SERIES, "its pixels cannot be read"),
    "DICOM: a place of two numbers": (
        series(ImagePositionPatient=[1, 2]),
        SERIES,
        "does not say where it lies",
    ),
    "DICOM: a place in words": (
        in_bytes(instead_of(POSITION, b"DS", b"here\\and\\there ")),
        SERIES,
        "not a readable DICOM|does not say where",
    ),
    "DICOM: a place of NaN": (
        in_bytes(instead_of(POSITION, b"DS", b"nan\\nan\\nan ")),
        SERIES,
        "does not say where it lies",
    ),
    "DICOM: a direction of five numbers": (
        series(ImageOrientationPatient=[1, 0, 0, 0, 1]),
        SERIES,
        "does not say where it lies",
    ),
    "DICOM: directions of zeros": (
        series(ImageOrientationPatient=[0] * 6),
        SERIES,
        "does not say where it lies|show one place",
    ),
    "DICOM: no distance between pixels": (
        series(PixelSpacing=[0, 0]),
        SERIES,
        "mm apart, which is no distance",
    ),
    "DICOM: one distance": (series(PixelSpacing=[1]), SERIES, "does not say where it lies"),
    "DICOM: rows in words": (
        in_bytes(instead_of(ROWS, b"US", b"many")),
        SERIES,
        "not a readable DICOM",
    ),
    "DICOM: frames in words": (
        in_file(lambda data: setattr(data, "NumberOfFrames", "2")),
        SERIES,
        "holds 2 frames",
    ),
    "DICOM: sequences in sequences": (in_bytes(nested), SERIES, "cannot be read .*recursion"),
    "DICOM: 1 GB deflated": (in_bytes(unfolding), SERIES, "deflated; convert it"),
    "DICOM: half a header": (in_bytes(lambda c: c[:400]), SERIES, "is cut off, it has no rows"),
    "DICOM: zeros after the preamble": (
        in_bytes(lambda c: c[:132] + bytes(2000)),
        SERIES,
        "is cut off, it has no rows",
    ),
    "DICOM: a packed picture that is none": (in_file(packed), SERIES, "its pixels cannot be read"),
    "DICOM: a slope in words": (
        in_file(lambda data: setattr(data, "RescaleSlope", "1e300")),
        SERIES,
        "only some slices|give no intensities",
    ),
}


def masked(make):
    """A DICOM series of one case with a card for it; `make(folder)` writes its masks."""

    def write(home):
        stored = np.arange(3 * 1024, dtype=np.int16).reshape(3, 32, 32)
        for case in "12":
            write_series(home / "scans" / case, stored)
            (home / "masks" / case).mkdir(parents=True)
            make(home / "masks" / case)
        card = yaml.safe_load((home / "card.yml").read_text())
        card |= {"name": "masked", "image": "scans/{case}", "label": "masks/{case}"}
        (home / "card.yml").write_text(yaml.safe_dump(card))

    return write


def png(width=32, height=32, *, bits=8, color=0, body=None, extra=b""):
    """A grey PNG of these sizes, whatever its data hold."""
    pixels = zlib.compress(bytes(33 * 32)) if body is None else body
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    chunks = (chunk(b"IHDR", head), extra, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def pictures(content):
    """Three masks, all of them this."""

    def make(folder):
        for number in range(3):
            (folder / f"{number}.png").write_bytes(content)

    return masked(make)


LAUGHS = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200 << 20)))
LABELS = {
    "PNG: a picture of 60000 x 60000": (
        pictures(png(60000, 60000)),
        MASKS,
        "2.png: (is 60000 x 60000 pixels, its slice 32 x 32|not a readable PNG)",
    ),
    "PNG: 200 MB of text": (pictures(png(extra=LAUGHS)), MASKS, "2.png: not a readable PNG"),
    "PNG: cut off": (pictures(png()[:45]), MASKS, "2.png: not a readable PNG"),
    "PNG: rubbish for pixels": (pictures(png(body=b"rub")), MASKS, "2.png: not a readable PNG"),
    "PNG: a wrong checksum": (
        pictures(png().replace(b"IDAT", b"IDAQ")),
        MASKS,
        "2.png: not a readable PNG",
    ),
    "PNG: another picture by its name": (pictures(b"GIF89a" + bytes(99)), MASKS, "not a readable"),
    "PNG: 3 bits": (pictures(png(bits=3)), MASKS, "2.png: not a readable PNG"),
    "PNG: empty files": (pictures(b""), MASKS, "2.png: not a readable PNG"),
    "SEG: a picture series as its label": (
        masked(lambda folder: write_series(folder, np.ones((1, 32, 32), np.int16))),
        MASKS,
        "not a readable DICOM SEG",
    ),
    "SEG: rubbish": (
        masked(lambda folder: (folder / "seg.dcm").write_bytes(bytes(999))),
        MASKS,
        "seg.dcm: not a readable DICOM SEG",
    ),
    "label: 10^12 voxels": (
        bomb("raw/label_1.nii.gz", nifti_bytes(dim=dims(10000, 10000, 10000)), 1 << 20),
        PREPARE,
        "label_1.nii.gz: not a readable NIfTI file .*claims",
    ),
    "label: cut off": (cut("raw/label_1.nii.gz", 0.9), PREPARE, "label_1.nii.gz: not a readable"),
    "label: an image": (
        lambda home: (home / "raw/label_1.nii.gz").write_bytes(
            (home / "raw/image_1.nii.gz").read_bytes()
        ),
        PREPARE,
        "label_1.nii.gz: label",
    ),
}

SCANS = {**VOLUMES, **ITK, **DICOM, **LABELS}
