"""Labels of every kind, from the raw releases to the prepared case."""

import struct
import zlib

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from highdicom.sr.coding import CodedConcept
from PIL import Image
from pydicom.uid import generate_uid
from series import write_series

from catnet.data.labels import read_label
from catnet.data.prepare import prepare
from catnet.data.store import open_cases
from catnet.data.volume import read_volume
from catnet.errors import UserError

SHAPE = (6, 32, 40)  # slice, row, column
GREY = {"liver": 63, "spleen": 252}
CHAOS = {"image": "{case}/DICOM_anon", "label": "{case}/Ground", "label_values": GREY}


@pytest.fixture
def organs():
    """Numbers (slice, row, column) that no flip and no turn leaves alone."""
    label = np.zeros(SHAPE, dtype=np.uint8)
    label[1:4, 3:20, 5:15] = 1
    label[2:6, 4:9, 20:33] = 4
    label[4, 25:30, 2:4] = 4
    return label


@pytest.fixture
def stored(organs):
    noise = np.random.default_rng(0).integers(90, 110, SHAPE)
    return (noise + 50 * (organs == 1) + 90 * (organs == 4)).astype(np.uint16)


@pytest.fixture
def series(tmp_path, stored):
    """The raw folder with one case, 7, whose slices lie obliquely."""
    write_series(tmp_path / "raw" / "7" / "DICOM_anon", stored, spacing=(2.0, 2.0), step=4.0)
    return tmp_path / "raw" / "7" / "DICOM_anon"


def draw(folder, planes, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name, plane in zip(names, planes, strict=True):
        Image.fromarray(plane).save(folder / f"{name}.png")


def grey(organs):
    return np.array([0, 63, 0, 0, 252], dtype=np.uint8)[organs]


def refusal(call, *arguments, **options):
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def numbers_of(card, label, image):
    scan = read_volume(image)
    truth = read_label(card, label, scan=scan)
    np.testing.assert_allclose(truth.grid.affine, scan.grid.affine, atol=1e-4)
    return truth.voxels.transpose(2, 1, 0)


def test_png_masks_go_with_the_slices_of_their_names(make_card, series, organs):
    names = [path.stem for path in read_volume(series).files]
    draw(series.parent / "Ground", grey(organs), names)
    found = numbers_of(make_card(**CHAOS), series.parent / "Ground", series)
    np.testing.assert_array_equal(found, organs)


def test_png_masks_of_other_names_go_by_their_order(make_card, series, organs):
    files = read_volume(series).files
    ranked = sorted(range(6), key=lambda k: files[k].name)
    names = {k: f"liver_GT_{rank:03}" for rank, k in enumerate(ranked)}
    draw(series.parent / "Ground", grey(organs), [names[k] for k in range(6)])
    found = numbers_of(make_card(**CHAOS), series.parent / "Ground", series)
    np.testing.assert_array_equal(found, organs)


def test_chaos_as_it_is_shipped_becomes_a_prepared_case(make_card, series, organs):
    draw(series.parent / "Ground", grey(organs), [p.stem for p in read_volume(series).files])
    card = make_card(**CHAOS, size=(64, 64), spacing=[2.0, 2.0, 4.0])
    assert list(prepare(card, series.parents[1])) == [("7", 1, True)]
    case = open_cases(card)[0]
    for number in (1, 4):
        assert (case.label == number).sum() == (organs == number).sum()
        inside, outside = case.image[case.label == number], case.image[case.label == 0]
        assert np.median(inside) > np.median(outside)
    assert list(prepare(card, series.parents[1])) == [("7", 1, False)]
    next((series.parent / "Ground").glob("*.png")).touch()
    assert list(prepare(card, series.parents[1])) == [("7", 1, False)]
    picture = next((series.parent / "Ground").glob("*.png"))
    Image.fromarray(np.full((32, 40), 63, np.uint8)).save(picture)
    assert list(prepare(card, series.parents[1])) == [("7", 1, True)]


def test_a_grey_value_that_the_card_does_not_know(make_card, series, organs):
    draw(series.parent / "Ground", grey(organs) // 63 * 60, "abcdef")
    sentence = refusal(numbers_of, make_card(**CHAOS), series.parent / "Ground", series)
    assert "[60, 240]" in sentence
    assert "label_values" in sentence


def bomb(path, *, side):
    """A PNG of a few bytes that says it is `side` pixels wide and high."""

    def chunk(kind, data):
        sum_ = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + sum_

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(bytes(1 << 20))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + body)


PICTURES = {
    "bomb": (lambda path: bomb(path, side=60000), "readable PNG|is 60000 x 60000 pixels"),
    "large": (lambda path: bomb(path, side=9000), "is 9000 x 9000 pixels, its slice 40 x 32"),
    "color": (lambda path: Image.new("RGB", (40, 32)).save(path), r"colored \(RGB\)"),
    "text": (lambda path: path.write_text("a text"), "not a readable PNG"),
    "turned": (lambda path: Image.new("L", (32, 40)).save(path), "is 32 x 40 pixels"),
    "gone": (lambda path: path.unlink(), "has 5 PNG masks for 6 slices"),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_is_no_mask_is_named(make_card, series, organs, name):
    spoil, words = PICTURES[name]
    draw(series.parent / "Ground", grey(organs), "abcdef")
    spoil(series.parent / "Ground" / "c.png")
    with pytest.raises(UserError, match=words):
        numbers_of(make_card(**CHAOS), series.parent / "Ground", series)


def test_png_masks_need_dicom_slices(make_card, tmp_path, write_scan, organs):
    draw(tmp_path / "Ground", grey(organs), "abcdef")
    scan = write_scan(tmp_path / "scan.nii.gz", organs.transpose(2, 1, 0))
    sentence = refusal(numbers_of, make_card(**CHAOS), tmp_path / "Ground", scan)
    assert "PNG masks need a DICOM series" in sentence


def write_seg(path, folder, masks, *, slices=slice(None), kind="BINARY"):
    """A DICOM SEG of named masks (slice, row, column), by highdicom from the series' files."""
    files = [pydicom.dcmread(file) for file in read_volume(folder).files][slices]
    organ = CodedConcept("10200004", "SCT", "Liver")
    tissue = CodedConcept("85756007", "SCT", "Tissue")
    algorithm = hd.AlgorithmIdentificationSequence("t", CodedConcept("1", "99T", "x"), "1")
    described = [
        hd.seg.SegmentDescription(number, name, tissue, organ, "AUTOMATIC", algorithm)
        for number, name in enumerate(masks, start=1)
    ]
    stack = np.stack([mask[slices] for mask in masks.values()], axis=-1)
    hd.seg.Segmentation(
        files,
        stack.astype(np.float32) if kind == "FRACTIONAL" else stack.astype(np.uint8),
        kind,
        described,
        generate_uid(),
        5,
        generate_uid(),
        1,
        "m",
        "m",
        "1",
        "1",
    ).save_as(path)
    return path


SEG = {"image": "{case}/DICOM_anon", "label": "{case}/seg.dcm"}


@pytest.mark.parametrize("slices", [slice(None), slice(1, 6)])
def test_segments_go_to_organs_by_name(make_card, series, organs, slices):
    masks = {"Spleen": organs == 4, "Liver": organs == 1, "other": organs == 0}
    path = write_seg(series.parent / "seg.dcm", series, masks, slices=slices)
    np.testing.assert_array_equal(numbers_of(make_card(**SEG), path, series), organs)
    card = make_card(**SEG, label_values={"liver": 1, "spleen": 2})
    np.testing.assert_array_equal(numbers_of(card, path, series), np.array([0, 4, 0, 0, 1])[organs])


def test_a_segmentation_lies_where_pydicom_says(make_card, series, organs):
    """A voxel's place from the frames of the file, without highdicom and without our geometry."""
    path = write_seg(series.parent / "seg.dcm", series, {"liver": organs == 1})
    scan = read_volume(series)
    truth = read_label(make_card(**SEG), path, scan=scan)
    ours = nib.affines.apply_affine(scan.grid.affine, np.argwhere(truth.voxels == 1))
    data = pydicom.dcmread(path)
    shared = data.SharedFunctionalGroupsSequence[0]
    turn = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    theirs = []
    for frame, plane in zip(data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True):
        corner = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        for j, i in np.argwhere(plane):
            theirs.append((corner + turn[:3] * columns * i + turn[3:] * rows * j) * (-1, -1, 1))
    theirs = np.array(theirs)
    assert len(theirs) == len(ours) == (organs == 1).sum()
    theirs, ours = (points[np.lexsort(np.round(points, 2).T)] for points in (theirs, ours))
    np.testing.assert_allclose(theirs, ours, atol=1e-3)


def test_segments_that_the_card_does_not_name(make_card, series, organs):
    path = write_seg(series.parent / "seg.dcm", series, {"heart": organs == 1})
    sentence = refusal(numbers_of, make_card(**SEG), path, series)
    assert "has segments heart, none of card tiny" in sentence


def test_probabilities_and_images_are_no_segmentation(make_card, series, organs):
    path = write_seg(series.parent / "s.dcm", series, {"liver": organs == 1}, kind="FRACTIONAL")
    assert "holds probabilities" in refusal(numbers_of, make_card(**SEG), path, series)
    first = next(series.iterdir())
    (series.parent / "i.dcm").write_bytes(first.read_bytes())
    sentence = refusal(numbers_of, make_card(**SEG), series.parent / "i.dcm", series)
    assert "not a readable DICOM SEG" in sentence


def test_segments_that_overlap_are_counted(make_card, series, organs):
    both = {"liver": organs == 1, "spleen": organs > 0}
    path = write_seg(series.parent / "seg.dcm", series, both)
    truth = read_label(make_card(**SEG), path, scan=read_volume(series))
    np.testing.assert_array_equal(truth.voxels.transpose(2, 1, 0), organs)
    assert f"{(organs == 1).sum()} of its voxels belong to an organ" in truth.remarks[0]


def test_a_label_as_nrrd_beside_dicom(make_card, series, organs):
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(series)))
    image = SimpleITK.GetImageFromArray(organs)
    image.CopyInformation(reader.Execute())
    path = series.parent / "label.nrrd"
    SimpleITK.WriteImage(image, str(path), useCompression=True)
    np.testing.assert_array_equal(numbers_of(make_card(), path, series), organs)


ONE_EACH = {
    "image": "{case}/ct.nii.gz",
    "label": "{case}/segmentations/{organ}.nii.gz",
    "label_values": {"spleen": "spleen_left"},
}


@pytest.fixture
def one_each(tmp_path, write_scan, image, label):
    """Two cases as TotalSegmentator lays them out."""
    for case in ("s1", "s2"):
        folder = tmp_path / "raw" / case
        write_scan(folder / "ct.nii.gz", image)
        masks = folder / "segmentations"
        write_scan(masks / "liver.nii.gz", (label == 1).astype(np.uint8))
        write_scan(masks / "spleen_left.nii.gz", (label == 4).astype(np.uint8))
        write_scan(masks / "heart.nii.gz", (label == 0).astype(np.uint8))
    return tmp_path / "raw"


def test_one_mask_an_organ(make_card, one_each, label):
    card = make_card(**ONE_EACH)
    assert len(list(prepare(card, one_each))) == 2
    for case in open_cases(card):
        np.testing.assert_array_equal(case.label, label.transpose(2, 1, 0))
    (one_each / "s2" / "segmentations" / "liver.nii.gz").unlink()
    assert list(prepare(card, one_each)) == [("s1", 2, False), ("s2", 2, True)]
    assert "has no mask of liver" in open_cases(card)[1].meta.remarks[0]
    (one_each / "s1" / "segmentations" / "liver.nii.gz").unlink()
    sentence = refusal(list, prepare(card, one_each))
    assert "no case has a mask of 'liver'" in sentence


def test_masks_on_two_grids(make_card, one_each, write_scan, label):
    moved = np.diag([-2.0, 2.0, 5.0, 1.0])
    path = one_each / "s1" / "segmentations" / "spleen_left.nii.gz"
    write_scan(path, (label == 4).astype(np.uint8), moved)
    assert "spleen_left.nii.gz: its affine puts" in refusal(
        list, prepare(make_card(**ONE_EACH), one_each)
    )


WRONG = {
    "an organ that is none": {"label_values": {"heart": 3}},
    "one way for two": {"label_values": {"liver": 4}},
    "one of the others": {"label_values": {"liver": 7}},
    "in the image": {"image": "{case}_{organ}.nii"},
    "upwards": {"label": "../{case}.nii"},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_card_that_says_no_way(make_card, name):
    with pytest.raises(ValueError, match=r"label_values|\{organ\}|without \.\."):
        make_card(**WRONG[name])


def test_values_are_swapped_at_once(make_card, one, image, label):
    """A grey value may be another organ's number."""
    card = make_card(label_values={"liver": 4, "spleen": 1})
    list(prepare(card, one(image, label)))
    swapped = np.array([0, 4, 0, 0, 1])[label.transpose(2, 1, 0)]
    np.testing.assert_array_equal(open_cases(card)[0].label, swapped)
    named = make_card(label_values={"liver": "liver"})
    assert "give the number that stands" in refusal(list, prepare(named, one(image, label)))


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16, np.uint32, np.float64])
def test_labels_of_every_number_type(make_card, one, image, label, kind):
    list(prepare(make_card(), one(image, label.astype(kind))))
    np.testing.assert_array_equal(open_cases(make_card())[0].label, label.transpose(2, 1, 0))


def test_one_mistyped_name_does_not_shift_the_others(make_card, series, organs):
    names = [path.stem for path in read_volume(series).files]
    draw(series.parent / "Ground", grey(organs), ["typo", *names[1:]])
    sentence = refusal(numbers_of, make_card(**CHAOS), series.parent / "Ground", series)
    assert "typo.png: has the name of no slice" in sentence


def test_masks_paired_by_order_are_remarked_on(make_card, series, organs):
    draw(series.parent / "Ground", grey(organs), "abcdef")
    truth = read_label(make_card(**CHAOS), series.parent / "Ground", scan=read_volume(series))
    assert "a.png with IM0000 and so on" in truth.remarks[0]


def test_two_segments_of_one_name_are_a_question(make_card, series, organs):
    masks = {"Liver": organs == 1, "liver": organs == 4}
    path = write_seg(series.parent / "seg.dcm", series, masks)
    sentence = refusal(numbers_of, make_card(**SEG), path, series)
    assert "2 of its segments are called liver" in sentence
    assert "[1, 2]" in sentence
    found = numbers_of(make_card(**SEG, label_values={"liver": 2}), path, series)
    np.testing.assert_array_equal(found, organs == 4)


def test_a_segmentation_of_another_examination_is_refused(make_card, series, organs):
    path = write_seg(series.parent / "seg.dcm", series, {"liver": organs == 1})
    data = pydicom.dcmread(path)
    data.FrameOfReferenceUID = "1.2.3"
    data.save_as(path)
    sentence = refusal(numbers_of, make_card(**SEG), path, series)
    assert "belongs to another examination" in sentence


def test_a_text_is_no_segmentation(make_card, series):
    (series.parent / "seg.dcm").write_text("this is a text")
    sentence = refusal(numbers_of, make_card(**SEG), series.parent / "seg.dcm", series)
    assert "not a readable DICOM SEG" in sentence
