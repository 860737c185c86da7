import gzip
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from catnet.data.volume import (
    read_volume,
    write_volume,
)
from catnet.errors import UserError


def test_written_and_read_again(tmp_path):
    voxels = np.random.default_rng(0).integers(0, 5, (5, 6, 4)).astype(np.uint8)
    affine = np.array([[0, 0.3, 4.9, -40], [-1.3, 0, 0, 60], [0, -2.1, 0.7, 10], [0, 0, 0, 1]])
    path = tmp_path / "new folder" / "größe 1.nii.gz"
    write_volume(path, voxels, affine)
    scan = read_volume(path)
    np.testing.assert_array_equal(scan.voxels, voxels)
    np.testing.assert_allclose(scan.grid.affine, affine, atol=1e-4)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "prediction.nii.gz"
    write_volume(path, np.zeros((2, 3, 4), np.uint8), np.eye(4))
    before = path.read_bytes()

    def full_disk(_, target):
        target.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", full_disk)
    with pytest.raises(UserError, match=r"prediction\.nii\.gz: .*No space left.*free space"):
        write_volume(path, np.ones((2, 3, 4), np.uint8), np.eye(4))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("type_", [np.uint8, ">i2", "<i2", ">f4", np.float64, np.int32])
def test_every_number_type_and_byte_order_reads_the_same(tmp_path, write_scan, type_):
    voxels = np.arange(24).reshape(2, 3, 4)
    header = nib.Nifti1Header(endianness=">" if str(type_).startswith(">") else "<")
    header.set_data_dtype(np.dtype(type_))
    path = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(voxels.astype(type_), np.eye(4), header), path)
    np.testing.assert_array_equal(read_volume(path).voxels, voxels)


def test_the_headers_scale_is_applied(tmp_path):
    image = nib.Nifti1Image(np.array([-10.5, 0.0, 1000.0]).reshape(3, 1, 1), np.eye(4))
    image.header.set_data_dtype(np.int16)
    nib.save(image, tmp_path / "scan.nii")
    read = read_volume(tmp_path / "scan.nii").voxels.ravel()
    np.testing.assert_allclose(read, [-10.5, 0, 1000], atol=0.02)


def test_a_fourth_axis_of_one_is_dropped(tmp_path, write_scan):
    path = write_scan(tmp_path / "scan.nii.gz", np.ones((2, 3, 4, 1), np.float32))
    assert read_volume(path).voxels.shape == (2, 3, 4)


def complaint(path):
    with pytest.raises(UserError) as caught:
        read_volume(path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ")
    assert "\n" not in sentence
    return sentence


COLOR = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
UNFIT = {
    "4D": (np.ones((2, 3, 4, 5), np.float32), ["4 axes", "(2, 3, 4, 5)", "give one 3D volume"]),
    "2D": (np.ones((2, 3), np.float32), ["2 axes", "give one 3D volume"]),
    "color": (np.zeros((2, 3, 4), COLOR), ["voxels are", "real numbers"]),
    "complex": (np.ones((2, 3, 4), np.complex64), ["complex64", "real numbers"]),
    "NaN": (np.full((2, 3, 4), np.nan, np.float32), ["24 voxels are NaN or inf", "replace"]),
    "inf": (np.full((1, 1, 2), -np.inf, np.float32), ["2 voxels are NaN or inf", "replace"]),
    "no slice": (np.ones((2, 3, 0), np.float32), ["axes", "give one 3D volume"]),
}


@pytest.mark.parametrize("name", UNFIT)
def test_a_volume_that_is_none_is_refused(tmp_path, write_scan, name):
    voxels, words = UNFIT[name]
    sentence = complaint(write_scan(tmp_path / "scan.nii.gz", voxels))
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("name", ["color", "complex"])
def test_a_slope_over_what_is_no_number_is_refused(tmp_path, write_scan, name):
    voxels, words = UNFIT[name]
    plain = write_scan(tmp_path / "scan.nii", voxels)
    content = bytearray(plain.read_bytes())
    content[112:116] = np.float32(2).tobytes()  # scl_slope
    plain.write_bytes(content)
    sentence = complaint(plain)
    assert all(word in sentence for word in words), sentence


@pytest.mark.parametrize("affine", [np.diag([0.0, 0, 0, 1]), np.diag([np.nan, 1, 1, 1])])
def test_an_affine_that_is_none_is_refused(tmp_path, affine):
    image = nib.Nifti1Image(np.ones((2, 3, 4), np.float32), np.eye(4))
    header = image.header
    header["sform_code"], header["qform_code"] = 1, 0
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        header[name] = affine[row]
    path = tmp_path / "scan.nii"
    path.write_bytes(header.binaryblock + b"\0" * 4 + np.ones(24, np.float32).tobytes())
    assert "its affine maps voxels to no place" in complaint(path)


NOISE = nib.Nifti1Image(np.random.default_rng(0).normal(size=(20, 20, 20)), np.eye(4)).to_bytes()
PACKED = gzip.compress(NOISE)
NO_SCANS = {
    "text.nii.gz": b"this is a text file\n",
    "text.nii": b"this is a text file\n" * 100,
    "empty.nii.gz": b"",
    "cut.nii.gz": PACKED[: len(PACKED) // 2],
    "cut in the checksum.nii.gz": PACKED[:-6],
    "header.nii.gz": gzip.compress(NOISE[:352]),
    "plain.nii": NOISE[:10000],
    "garbled.nii.gz": PACKED[:500] + b"\xff" * 500 + PACKED[1000:],
    "one bit.nii.gz": PACKED[:30000] + bytes([PACKED[30000] ^ 1]) + PACKED[30001:],
    "scan.txt": PACKED,
}


@pytest.mark.parametrize("name", NO_SCANS)
def test_a_file_that_is_no_scan_is_refused(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(NO_SCANS[name])
    assert "not a readable NIfTI file" in complaint(path)


def test_a_path_that_is_no_file_is_refused(tmp_path):
    assert "no such file" in complaint(tmp_path / "nowhere.nii.gz")
    assert "holds no DICOM image" in complaint(tmp_path)


@pytest.mark.parametrize("name", ["scan.nii", "scan.nii.gz"])
@pytest.mark.parametrize("shape", [(700, 700, 700), (32000, 32000, 32000)])
def test_a_header_that_claims_too_much_costs_no_memory(tmp_path, name, shape):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", 352
    content = header.binaryblock + bytes(5000)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    tracemalloc.start()
    sentence = complaint(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(shape) in sentence
    assert peak < 10e6


def test_the_smallest_file_that_gzip_can_make_is_still_read(tmp_path):
    content = nib.Nifti1Image(np.zeros((128, 128, 128), np.float32), np.eye(4)).to_bytes()
    path = tmp_path / "zeros.nii.gz"
    path.write_bytes(gzip.compress(content, 9))
    assert path.stat().st_size < len(content) / 1000
    assert read_volume(path).voxels.shape == (128, 128, 128)


def test_no_byte_of_a_header_can_do_more_than_be_refused(tmp_path, caplog):
    path = tmp_path / "scan.nii"
    write_volume(path, np.arange(120, dtype=np.int16).reshape(5, 6, 4), np.eye(4))
    whole, refused = path.read_bytes(), 0
    caplog.set_level("CRITICAL")
    for place in range(352):
        for value in (0x00, 0x7F, 0xFF):
            path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])
            try:
                read_volume(path)
            except UserError:
                refused += 1
    assert refused > 30


def make_header(path, *, shape=(4, 5, 6), qform=None, **fields):
    """A file whose header says `fields` word for word."""
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(shape), AFFINE)
    image.set_sform(AFFINE, 1)
    image.set_qform(AFFINE if qform is None else qform, 1)
    content = image.to_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + content[348:])
    return path


AFFINE = np.diag([-2.0, 2.0, 3.0, 1.0])
TILTED = np.array([[0.6, -0.8, 0, 0], [0.8, 0.6, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
ODD = {
    "mirrored": ({"qform": np.diag([2.0, 2, 3, 1])}, "qform (RAS) and sform (LAS) point"),
    "turned": ({"qform": TILTED @ AFFINE @ np.diag([-1, -1, 1, 1])}, "point different ways"),
    "meters": ({"xyzt_units": 1}, "in meters (xyzt_units)"),
    "micrometers": ({"xyzt_units": 3 + 8}, "in micrometers"),
    "slope": ({"scl_slope": np.inf}, "scl_slope or scl_inter is infinite"),
    "no size": ({"sform_code": 0, "pixdim": [1, 2, 0, 3, 1, 1, 1, 1]}, "2 x 0 x 3 mm (pixdim)"),
    "below 0": ({"sform_code": 0, "pixdim": [1, 2, -2, 3, 1, 1, 1, 1]}, "2 x -2 x 3 mm"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_header_that_leaves_open_where_voxels_lie_is_refused(tmp_path, name):
    changes, words = ODD[name]
    assert words in complaint(make_header(tmp_path / "scan.nii", **changes))


def test_two_places_in_one_header_are_remarked_on(tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] = 7.5
    scan = read_volume(make_header(tmp_path / "scan.nii", qform=shifted))
    assert "lie up to 7.5 mm apart; the sform is taken" in scan.remarks[0]
    scan = read_volume(make_header(tmp_path / "nan.nii", scl_slope=np.nan))
    assert "no number" in scan.remarks[0]
    assert read_volume(make_header(tmp_path / "sound.nii")).remarks == ()


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage])
def test_analyze_does_not_say_how_it_lies(tmp_path, kind):
    nib.save(kind(np.zeros((4, 5, 6), np.int16), AFFINE), tmp_path / "scan.img")
    assert "Analyze file" in complaint(tmp_path / "scan.img")
