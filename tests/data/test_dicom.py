"""DICOM series against pydicom's own headers and SimpleITK's reader."""

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from series import OBLIQUE, write_series, write_slice

from catnet.data.volume import read_volume, write_volume
from catnet.errors import UserError

STORED = np.random.default_rng(0).integers(0, 900, (7, 6, 5)).astype(np.uint16)
STRAIGHT = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def itk(folder):
    """The same folder read by ITK, and where it puts a voxel (RAS)."""
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return (
        image,
        lambda index: (
            np.array(image.TransformContinuousIndexToPhysicalPoint([float(i) for i in index]))
            * (-1, -1, 1)
        ),
    )


@pytest.mark.parametrize("turn", [OBLIQUE, STRAIGHT, STRAIGHT[::-1], -STRAIGHT])
def test_voxels_and_places_are_those_of_simpleitk(tmp_path, turn):
    write_series(tmp_path / "ein Ordner ä", STORED, turn=turn)
    scan = read_volume(tmp_path / "ein Ordner ä")
    image, place = itk(tmp_path / "ein Ordner ä")
    np.testing.assert_array_equal(
        scan.voxels.transpose(2, 1, 0), SimpleITK.GetArrayFromImage(image)
    )
    for index in [(0, 0, 0), (4, 5, 6), (1, 2, 3)]:
        ours = nib.affines.apply_affine(scan.grid.affine, index)
        np.testing.assert_allclose(ours, place(index), atol=1e-4)
    assert scan.voxels.dtype == np.int16
    assert scan.modality == "MR"


def test_files_are_named_slice_by_slice_and_stand_at_their_headers_place(tmp_path):
    write_series(tmp_path, STORED)
    scan = read_volume(tmp_path)
    assert len(set(scan.files)) == 7
    for z, path in enumerate(scan.files):
        data = pydicom.dcmread(path)
        np.testing.assert_array_equal(scan.voxels[..., z], data.pixel_array.T)
        corner = nib.affines.apply_affine(scan.grid.affine, (0, 0, z))
        lps = np.array(data.ImagePositionPatient, dtype=float)
        np.testing.assert_allclose(corner, lps * (-1, -1, 1), atol=1e-6)


def test_written_as_nifti_it_lies_where_simpleitk_reads_both(tmp_path):
    write_series(tmp_path / "series", STORED)
    scan = read_volume(tmp_path / "series")
    write_volume(tmp_path / "out.nii.gz", scan.voxels, scan.grid.affine)
    theirs = SimpleITK.ReadImage(str(tmp_path / "out.nii.gz"))
    image, _ = itk(tmp_path / "series")
    for index in [(0, 0, 0), (4, 5, 6)]:
        here = theirs.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(here, image.TransformIndexToPhysicalPoint(index), atol=1e-3)
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(theirs), SimpleITK.GetArrayFromImage(image)
    )


def test_slopes_and_intercepts_of_every_slice_count(tmp_path):
    slopes = {"RescaleSlope": lambda k: 0.5 + k, "RescaleIntercept": -3.25}
    write_series(tmp_path, STORED, **slopes)
    scan = read_volume(tmp_path)
    assert scan.voxels.dtype == np.float32
    expected = STORED * (0.5 + np.arange(7))[:, None, None] - 3.25
    np.testing.assert_allclose(scan.voxels.transpose(2, 1, 0), expected, rtol=1e-6)


def test_hounsfield_units_stay_small_whole_numbers(tmp_path):
    write_series(tmp_path, STORED, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    scan = read_volume(tmp_path)
    assert (scan.voxels.dtype, scan.modality) == (np.int16, "CT")
    np.testing.assert_array_equal(scan.voxels.transpose(2, 1, 0), STORED.astype(int) - 1024)


def compress(path, folder):
    """Rewrite a slice in lossless JPEG, which SimpleITK can write and pydicom cannot read."""
    writer = SimpleITK.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    data = pydicom.dcmread(path)
    writer.Execute(SimpleITK.GetImageFromArray(data.pixel_array[None]))
    packed = pydicom.dcmread(folder / "packed.dcm")
    data.file_meta.TransferSyntaxUID = packed.file_meta.TransferSyntaxUID
    data.PixelData = packed.PixelData
    data["PixelData"].is_undefined_length = True
    data.save_as(path)


@pytest.mark.parametrize("intercept", [-1024, -3.5])
def test_lossless_jpeg_is_read_as_if_it_were_not_packed(tmp_path, intercept):
    stored = np.random.default_rng(0).integers(0, 4000, (3, 32, 48)).astype(np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": intercept}
    paths = write_series(tmp_path / "series", stored, **rescale)
    plain = read_volume(tmp_path / "series")
    for path in paths:
        compress(path, tmp_path)
    packed = read_volume(tmp_path / "series")
    np.testing.assert_array_equal(packed.voxels, plain.voxels)
    np.testing.assert_array_equal(packed.grid.affine, plain.grid.affine)
    assert packed.voxels.dtype == plain.voxels.dtype


def test_packed_pixels_that_were_cut_off_are_named(tmp_path):
    stored = np.random.default_rng(0).integers(0, 4000, (3, 32, 48)).astype(np.uint16)
    paths = write_series(tmp_path / "series", stored)
    for path in paths:
        compress(path, tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:-1500])
    assert f"{paths[1]}: its pixels cannot be read" in refusal(tmp_path / "series")


def test_products_that_32_bits_do_not_hold_do_not_wrap_around(tmp_path):
    write_series(tmp_path, STORED, RescaleSlope=100_000, RescaleIntercept=7)
    expected = STORED.astype(float) * 100_000 + 7
    np.testing.assert_allclose(read_volume(tmp_path).voxels.transpose(2, 1, 0), expected, rtol=1e-6)


def test_what_16_bits_do_not_hold_gets_32(tmp_path):
    stored = STORED.copy()
    stored[3, 0, 0] = 60000
    write_series(tmp_path, stored)
    np.testing.assert_array_equal(read_volume(tmp_path).voxels.transpose(2, 1, 0), stored)


def test_the_largest_series_is_read_and_named(tmp_path):
    write_series(tmp_path, STORED, SeriesDescription="T2 SPIR")
    write_series(tmp_path / "more", STORED[:3], SeriesDescription="survey")
    big = np.zeros((9, 64, 64), np.uint16)
    write_series(tmp_path / "plan", big, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    (tmp_path / "notes").write_text("no DICOM")
    (tmp_path / "DICOMDIR").write_text("an index")
    scan = read_volume(tmp_path)
    assert scan.grid.shape == (5, 6, 7)
    assert scan.remarks[0].startswith(f"{tmp_path}: of 3 series ")
    assert "(T2 SPIR, 7 slices) is read" in scan.remarks[0]


def test_slices_whose_series_was_anonymized_away_are_one_series(tmp_path):
    write_series(tmp_path, STORED, SeriesInstanceUID=lambda k: f"1.2.{k + 1}")
    assert read_volume(tmp_path).grid.shape == (5, 6, 7)


def test_a_tilted_gantry_keeps_its_step(tmp_path):
    places = {"ImagePositionPatient": lambda k: [0.0, 1.5 * k, 4.0 * k]}
    write_series(tmp_path, STORED, turn=STRAIGHT, **places)
    np.testing.assert_allclose(read_volume(tmp_path).grid.affine[:3, 2], [0, -1.5, 4.0])


def position(*heights):
    return {"turn": STRAIGHT, "ImagePositionPatient": lambda k: [0.0, 0.0, heights[k]]}


ASIDE = {"ImagePositionPatient": lambda k: [4.0 * (k == 3), 0.0, 3.0 * k]}
RGB = np.zeros((7, 6, 5, 3), np.uint8)
COLOR = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
WRONG = {
    "missing": (STORED, position(0, 3, 6, 15, 18, 21, 24), ["2 slices are missing", "9 mm, 3"]),
    "uneven": (STORED, position(0, 3, 6, 10, 13, 17, 21), ["3 to 4 mm apart", "even steps"]),
    "twice": (STORED, position(0, 3, 6, 6, 9, 12, 15), ["one place", "echoes"]),
    "color": (RGB, COLOR, ["RGB, not intensities"]),
    "slope 0": (STORED, {"RescaleSlope": 0}, ["slope 0", "no intensities"]),
    "slope huge": (STORED, {"RescaleSlope": 1e30}, ["no intensities"]),
    "no place": (STORED, {"ImagePositionPatient": None}, ["ImagePositionPatient is missing"]),
    "no direction": (STORED, {"ImageOrientationPatient": None}, ["ImageOrientationPatient is"]),
    "no spacing": (STORED, {"PixelSpacing": None}, ["PixelSpacing is missing"]),
    "one slope": (STORED, {"RescaleSlope": lambda k: 1 if k else None}, ["only some slices"]),
    "patients": (STORED, {"PatientID": lambda k: "ab"[k > 3]}, ["PatientID differs", "'b'"]),
    "modalities": (STORED, {"Modality": lambda k: "MC"[k > 3] + "R"}, ["Modality differs"]),
    "spacings": (STORED, {"PixelSpacing": lambda k: [1, 1 + (k > 3)]}, ["PixelSpacing differs"]),
    "frames": (STORED, {"NumberOfFrames": 2}, ["2 frames", "dcm2niix"]),
    "aside": (STORED, {**position(*range(0, 21, 3)), **ASIDE}, ["lies 4 mm beside the line"]),
    "CT slope": (STORED, {"Modality": "CT", "RescaleSlope": lambda k: 1 + (k == 3)}, ["2 and 0"]),
    "slope below 0": (STORED, {"RescaleSlope": -1}, ["slope -1"]),
    "long": (STORED, {"turn": 1.1 * STRAIGHT}, ["no two directions"]),
    "askew": (STORED, {"turn": np.array([[1.0, 0, 0], [0.28, 0.96, 0]])}, ["no two directions"]),
    "no gap": (STORED, {"PixelSpacing": [0, 1]}, ["no distance"]),
    "one slice": (STORED[:1], {}, ["a single slice each"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_series_that_is_no_volume_gets_one_sentence(tmp_path, name):
    stored, changes, words = WRONG[name]
    write_series(tmp_path, stored, **changes)
    sentence = refusal(tmp_path)
    assert sentence.startswith(str(tmp_path))
    assert all(word in sentence for word in words), sentence


def test_two_series_of_one_size_are_a_question(tmp_path):
    write_series(tmp_path / "a", STORED, SeriesDescription="in phase")
    write_series(tmp_path / "b", STORED, SeriesDescription="out of phase")
    sentence = refusal(tmp_path)
    assert "mixes two series of one size" in sentence
    assert "in phase" in sentence
    assert "out of phase" in sentence


def test_sizes_that_differ_within_a_series(tmp_path):
    paths = write_series(tmp_path, STORED)
    data = pydicom.dcmread(paths[2])
    values = {e.keyword: e.value for e in data if e.keyword not in {"PixelData", "Rows"}}
    write_slice(paths[2], np.zeros((8, 5), np.uint16), {**values, "Rows": 8})
    assert "Rows differs" in refusal(tmp_path)


def test_a_slice_that_was_cut_off_is_named(tmp_path):
    path = write_series(tmp_path, STORED)[3]
    path.write_bytes(path.read_bytes()[:-20])
    assert f"{path}: its pixels cannot be read" in refusal(tmp_path)


def test_a_file_that_only_calls_itself_dicom(tmp_path):
    write_series(tmp_path, STORED)
    (tmp_path / "slice.dcm").write_text("this is a text")
    assert "slice.dcm: is called DICOM and is not" in refusal(tmp_path)


def test_a_single_file_is_no_series(tmp_path):
    (tmp_path / "one.dcm").touch()
    assert "give the folder of its series" in refusal(tmp_path / "one.dcm")


def test_frames_beside_a_scout_are_not_left_out_in_silence(tmp_path):
    write_series(tmp_path / "scout", STORED[:3])
    write_series(tmp_path / "frames", STORED[:1], NumberOfFrames=40)
    assert "40 frames" in refusal(tmp_path)


@pytest.mark.parametrize("keep", [300, None])
def test_a_slice_at_the_end_is_not_lost_with_its_header(tmp_path, keep):
    last = write_series(tmp_path, STORED, SeriesInstanceUID="1.2.3")[-1]
    content = last.read_bytes()
    last.write_bytes(content[:keep] if keep else content[:128] + b"XXXX" + content[132:])
    assert refusal(tmp_path).startswith(f"{last}: ")


def test_a_stack_that_may_lack_slices_is_remarked_on(tmp_path):
    jump = {"InstanceNumber": lambda k: k + 1 + (k > 3)}
    write_series(tmp_path / "jump", STORED, **jump)
    assert "jump from 4 to 6" in read_volume(tmp_path / "jump").remarks[0]
    write_series(tmp_path / "half", STORED, SpacingBetweenSlices=1.5)
    assert (
        "3 mm apart, SpacingBetweenSlices says 1.5 mm" in read_volume(tmp_path / "half").remarks[0]
    )
    every = {"InstanceNumber": lambda k: 100 - 2 * k, "SpacingBetweenSlices": 3}
    write_series(tmp_path / "second", STORED, **every)
    assert read_volume(tmp_path / "second").remarks == ()


BROKEN = {
    "ImagePositionPatient": ["abc", "nan\\0\\0", "1\\2"],
    "ImageOrientationPatient": ["x", "1\\0\\0"],
    "PixelSpacing": ["x\\y", "1"],
    "NumberOfFrames": ["x"],
}


@pytest.mark.parametrize("name", BROKEN)
def test_values_that_are_none_get_one_sentence(tmp_path, name):
    for number, text in enumerate(BROKEN[name]):
        folder = tmp_path / str(number)
        for path in write_series(folder, STORED):
            data = pydicom.dcmread(path)
            element = pydicom.DataElement(name, "LO", text)
            data[name] = element
            data.save_as(path, implicit_vr=False, little_endian=True)
        assert str(folder) in refusal(folder)


def test_a_size_that_no_slice_has_takes_no_memory(tmp_path):
    write_series(tmp_path, STORED, Rows=60000, Columns=60000)
    assert "its pixels cannot be read" in refusal(tmp_path)
