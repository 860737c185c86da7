"""A DICOM SEG lies where its NIfTI lies: read by pydicom, highdicom, nibabel and SimpleITK."""

import json
import shutil

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from dicom_query import COLUMNS, COSINES, ROWS, points_of, write_series
from nibabel.affines import apply_affine
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from pydicom.sr.codedict import codes
from trials import complaint, end_of

from catnet.data.card import load_card
from catnet.data.labels import read_label
from catnet.data.volume import Grid, ScanFile, read_volume
from catnet.errors import UserError
from catnet.predict import scans
from catnet.predict.dicom_seg import describe_segment, read_series, write_segmentation
from catnet.predict.write import write_labels

DEPTH = 7
ORGANS = {2: "liver", 9: "Milz, groß"}
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def by_simpleitk(folder):
    """The series that SimpleITK finds largest, as a scan: an independent reader."""
    reader = SimpleITK.ImageSeriesReader()
    series = reader.GetGDCMSeriesIDs(str(folder))
    names = max((reader.GetGDCMSeriesFileNames(str(folder), one) for one in series), key=len)
    reader.SetFileNames(names)
    image = reader.Execute()
    linear = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    affine = TO_RAS @ nib.affines.from_matvec(linear, image.GetOrigin())
    voxels = np.transpose(SimpleITK.GetArrayFromImage(image))
    return ScanFile(voxels, Grid(voxels.shape, affine))


def turned(scan, codes):
    """The same scan as another reader might give it: axes in another order and direction."""
    turn = ornt_transform(nib.io_orientation(scan.grid.affine), axcodes2ornt(codes))
    affine = scan.grid.affine @ inv_ornt_aff(turn, scan.grid.shape)
    voxels = np.ascontiguousarray(apply_orientation(scan.voxels, turn))
    return ScanFile(voxels, Grid(voxels.shape, affine))


def labels_like(shape):
    labels = np.zeros(shape, np.uint8)
    labels[2:9, 3:5, 1:4], labels[-4:, -3:, -2:], labels[0, 0, 0] = 2, 9, 9
    return labels


def as_rows(points):
    return sorted(map(tuple, np.round(points, 2).tolist()))


@pytest.fixture
def series(tmp_path):
    """`series("oblique")`: a folder in no order, with a localiser, another series and a text."""

    def write(plane="axial"):
        voxels = np.random.default_rng(1).integers(0, 800, (DEPTH, ROWS, COLUMNS))
        folder = write_series(tmp_path / "Serie ñ", voxels, plane=plane)
        write_series(folder, voxels[:1, :8, :8], plane="coronal", prefix="LOC")
        write_series(folder / "other", voxels[:2] * 0, plane=plane, prefix="X")
        (folder / "README").write_text("no slice")
        return folder

    return write


@pytest.mark.parametrize("codes", ["LPS", "RAS", "SLA", "PIR"])
@pytest.mark.parametrize("plane", COSINES)
def test_all_readers_see_the_segments_at_the_same_places(plane, codes, series, tmp_path):
    folder = series(plane)
    scan = turned(by_simpleitk(folder), codes)
    labels = labels_like(scan.grid.shape)
    slices = read_series(folder, scan.grid)
    assert len(slices) == DEPTH
    path = tmp_path / "seg.dcm"
    write_segmentation(path, slices, labels, scan.grid, organs=ORGANS)
    write_labels(tmp_path / "label.nii.gz", labels, scan.grid, None)

    by_pydicom = points_of(path)
    image = nib.load(tmp_path / "label.nii.gz")
    mirror = SimpleITK.ReadImage(str(tmp_path / "label.nii.gz"))
    seg = highdicom.seg.segread(path)
    assert [seg.get_segment_description(n).SegmentLabel for n in (1, 2)] == list(ORGANS.values())
    for segment, number in enumerate(ORGANS, start=1):
        index = np.argwhere(np.asarray(image.dataobj) == number)
        wanted = as_rows(apply_affine(TO_RAS @ image.affine, index))
        assert as_rows(by_pydicom[segment]) == wanted
        index = np.argwhere(np.transpose(SimpleITK.GetArrayFromImage(mirror)) == number)
        found = [mirror.TransformIndexToPhysicalPoint([int(n) for n in one]) for one in index]
        assert as_rows(found) == wanted
        volume = seg.get_volume(segment_numbers=[segment], combine_segments=False)
        index = np.argwhere(volume.array[..., 0])
        assert as_rows(apply_affine(volume.affine, index)) == wanted


def test_it_refers_to_the_slices_of_the_query(series, tmp_path):
    folder = series()
    scan = by_simpleitk(folder)
    slices = read_series(folder, scan.grid)
    labels = labels_like(scan.grid.shape)
    write_segmentation(tmp_path / "seg.dcm", slices, labels, scan.grid, organs=ORGANS)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.Modality == "SEG"
    assert seg.StudyInstanceUID == slices[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == slices[0].FrameOfReferenceUID
    assert seg.PatientName == "Test^Höhe"
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == slices[0].SeriesInstanceUID


def test_organs_are_coded_with_their_side():
    coded = {
        "kidney_left": ("Kidney", "Left"),
        "right kidney": ("Kidney", "Right"),
        "Spleen": ("Spleen", None),
        "inferior vena cava": ("Inferior vena cava", None),
        "left ventricle": ("Left ventricle", None),
        "Milz": ("Organ", None),
    }
    for name, (meaning, side) in coded.items():
        segment = describe_segment(1, name, algorithm())
        (kind,) = segment.SegmentedPropertyTypeCodeSequence
        assert (kind.CodeMeaning, kind.CodingSchemeDesignator) == (meaning, "SCT")
        found = kind.get("SegmentedPropertyTypeModifierCodeSequence", [])
        assert [one.CodeMeaning for one in found] == ([side] if side else [])


def algorithm():
    family = codes.DCM.ArtificialIntelligence
    return highdicom.AlgorithmIdentificationSequence(name="x", version="1", family=family)


def test_a_query_in_which_nothing_was_found(series, tmp_path):
    folder = series()
    scan = by_simpleitk(folder)
    nothing = np.zeros(scan.grid.shape, np.uint8)
    slices = read_series(folder, scan.grid)
    write_segmentation(tmp_path / "seg.dcm", slices, nothing, scan.grid, organs=ORGANS)
    assert not sum(map(len, points_of(tmp_path / "seg.dcm").values()))


def test_a_grid_that_no_series_fills(series):
    folder = series()
    scan = by_simpleitk(folder)
    next(folder.glob("IM003")).unlink()
    with pytest.raises(UserError, match="no series of single-frame slices fills the volume"):
        read_series(folder, scan.grid)


@pytest.fixture
def reads_series(monkeypatch):
    """Folders are read by SimpleITK, whatever else reads them."""
    plain = scans.read_volume
    monkeypatch.setattr(
        scans, "read_volume", lambda path: by_simpleitk(path) if path.is_dir() else plain(path)
    )


def command(series, tmp_path, *more):
    folder = series("oblique")
    scan = by_simpleitk(folder)
    label = tmp_path / "label.nii.gz"
    nib.save(nib.Nifti1Image(labels_like(scan.grid.shape), scan.grid.affine), label)
    support = ("--support", folder, label)
    return ["predict", "--model", "copy", *support, "--query", folder, "-o", tmp_path / "o", *more]


def test_dicom_in_both_files_out(series, tmp_path, capsys, reads_series):
    status, _, err = end_of(command(series, tmp_path, "--dicom-seg"), capsys)
    assert status == 0, err
    image = nib.load(tmp_path / "o" / "Serie ñ_pred.nii.gz")
    points = points_of(tmp_path / "o" / "Serie ñ_pred.dcm")
    for segment, number in enumerate((2, 9), start=1):
        index = np.argwhere(np.asarray(image.dataobj) == number)
        assert len(index)
        assert as_rows(points[segment]) == as_rows(apply_affine(TO_RAS @ image.affine, index))
    assert int(image.header["sform_code"]) == 1
    assert image.header.get_xyzt_units()[0] == "mm"


def test_its_own_segmentation_is_a_label(series, tmp_path, capsys):
    """For predict, for view, and in a folder that a card is proposed for."""
    folder = series("oblique")
    scan = read_volume(folder)
    case = tmp_path / "raw" / "one"
    shutil.copytree(folder, case / "DICOM")
    slices = read_series(folder, scan.grid)
    labels = labels_like(scan.grid.shape)
    write_segmentation(case / "found.dcm", slices, labels, scan.grid, organs=ORGANS)
    support = ("--support", case / "DICOM", case / "found.dcm")
    words = ["predict", "--model", "copy", *support, "--query", folder, "-o", tmp_path / "o"]
    status, _, err = end_of(words, capsys)
    assert status == 0, err
    (record,) = json.loads((tmp_path / "o" / "summary.json").read_text()).values()
    assert {one["number"]: one["name"] for one in record["organs"]} == {1: "liver", 2: "Milz, groß"}
    words = ["view", case / "DICOM", case / "found.dcm", "-o", tmp_path / "x.html"]
    assert end_of(words, capsys)[0] == 0
    assert "Milz, groß" in (tmp_path / "x.html").read_text(encoding="utf-8")
    words = ["cards", "new", tmp_path / "raw", "-o", tmp_path / "mine.yml"]
    assert end_of(words, capsys)[0] == 0
    card = load_card(str(tmp_path / "mine.yml"))
    assert (card.image, card.label) == ("{case}/DICOM", "{case}/found.dcm")
    assert card.organs == {"Milz, groß": 1, "liver": 2}
    truth = read_label(card, case / "found.dcm", scan=scan)
    np.testing.assert_array_equal(truth.voxels == 2, labels == 2)
    assert "a DICOM SEG in the place of a label" in complaint(
        ["view", case / "found.dcm", case / "found.dcm"], capsys
    )


def test_a_former_segmentation_is_not_written_over(series, tmp_path, capsys, reads_series):
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "Serie ñ_pred.dcm").write_text("mine")
    sentence = complaint(command(series, tmp_path, "--dicom-seg"), capsys)
    assert "is there already; --again" in sentence


def test_which_series_was_read_reaches_the_user(tmp_path, raw, predict, capsys):
    voxels = np.random.default_rng(0).integers(0, 900, (9, 20, 24))
    write_series(tmp_path / "q" / "a", voxels)
    write_series(tmp_path / "q" / "b", voxels[:3], prefix="X")
    predict(tmp_path / "q")
    assert "warning: q: " in (said := capsys.readouterr().err)
    assert "of 2 series" in said
