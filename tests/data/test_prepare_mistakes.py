import gzip
import os

import nibabel as nib
import numpy as np
import pytest

from catnet.data.prepare import prepare
from catnet.data.store import open_cases
from catnet.errors import UserError
from catnet.paths import data_home

AFFINE = np.diag([-2.0, 2.0, 4.0, 1.0])


def refusal(card, raw):
    with pytest.raises(UserError) as caught:
        list(prepare(card, raw))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def turned(degrees):
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


@pytest.mark.parametrize(
    "affine", [AFFINE + 3 * np.eye(4)[:, [1, 2, 3, 0]], np.diag([2.0, 2, 4, 1]), turned(0.25)]
)
def test_a_label_elsewhere_is_refused(make_card, one, image, label, affine):
    affine[3] = (0, 0, 0, 1)
    sentence = refusal(make_card(), one(image, label, label_affine=affine))
    assert "label_1.nii.gz: its affine puts voxels up to" in sentence
    assert "mm away" in sentence
    assert "copy the image's affine" in sentence


def mistakes(image, label):
    """Image, label, and what the sentence must say."""
    far = np.zeros_like(label)
    far[0, 0, 1] = 1
    nan, inf = image.copy(), image.copy()
    nan[3, 3, 3], inf[3, 3, 3:5] = np.nan, np.inf
    color = np.zeros((32, 32, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    halves = label * np.float32(0.5)
    return {
        "shape": (image, label[:, :, :5], ["label_1", "(32, 32, 5)", "(32, 32, 6)", "resample"]),
        "unknown number": (image, label * 2, ["label_1", "[2, 8]", "card tiny", "other_labels"]),
        "halves": (image, halves, ["label_1", "not whole", "0.5", "nearest neighbor"]),
        "one half": (image, np.full_like(halves, 0.5), ["label_1", "not whole", "0.5"]),
        "negative": (image, -label.astype(np.int16), ["label_1", "[-4, -1]", "tiny"]),
        "empty": (image, 0 * label, ["label_1", "the label is empty", "give one"]),
        "others only": (image, 7 * (label > 0), ["label_1", "none of the card's organs"]),
        "NaN": (nan, label, ["image_1", "1 voxels are NaN", "replace"]),
        "inf": (inf, label, ["image_1", "2 voxels are NaN or infinite", "replace"]),
        "NaN in label": (image, nan, ["label_1", "NaN", "replace"]),
        "4D": (np.stack([image, image], axis=-1), label, ["image_1", "4 axes", "one 3D volume"]),
        "RGB": (color, label, ["image_1", "voxels are", "real numbers"]),
        "constant": (np.full_like(image, 0.1), label, ["image_1", "0.1", "check the card's clip"]),
    }


@pytest.mark.parametrize("name", mistakes(np.zeros((32, 32, 6)), np.zeros((32, 32, 6))))
def test_a_mistake_gets_one_sentence_with_file_value_and_remedy(make_card, one, image, label, name):
    first, second, words = mistakes(image, label)[name]
    if second.dtype == np.int64:
        second = second.astype(np.int16)
    sentence = refusal(make_card(), one(first, second))
    assert all(word in sentence for word in words), sentence
    assert not data_home().exists()


def test_a_constant_image_under_a_window(make_card, one, image, label):
    for value in (0.1, 500.0, -500.0):
        sentence = refusal(
            make_card(clip={"window": [-125, 275]}), one(np.full_like(image, value), label)
        )
        assert "image_1.nii.gz: the cropped volume is constant; check the card's clip" in sentence


def test_organs_that_are_cropped_away(make_card, one):
    image = np.random.default_rng(0).normal(100, 10, (96, 96, 4)).astype(np.float32)
    label = np.zeros(image.shape, dtype=np.uint8)
    label[2:10, 2:10] = 1
    sentence = refusal(make_card(), one(image, label))
    assert "label_1.nii.gz: shows none of the card's organs; check organs and size" in sentence


BAD_FILES = {
    "text": lambda path: path.write_text("this is a text file"),
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", BAD_FILES)
@pytest.mark.parametrize("name", ["image_2.nii.gz", "label_2.nii.gz"])
def test_a_file_that_is_no_scan_is_named(make_card, raw, damage, name):
    BAD_FILES[damage](raw / name)
    assert f"{raw / name}: not a readable NIfTI file" in refusal(make_card(), raw)
    assert [case.name for case in open_cases(make_card())] == ["1"]


def test_a_header_that_claims_too_much_is_named(make_card, raw):
    header = nib.Nifti1Header()
    header.set_data_shape((3000, 3000, 3000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (raw / "image_2.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(5000)))
    assert "image_2.nii.gz: not a readable NIfTI file (its header claims" in refusal(
        make_card(), raw
    )


def test_a_missing_label_is_told_before_any_work(make_card, raw):
    (raw / "label_10.nii.gz").unlink()
    assert "label_10.nii.gz is not there; add it or mend the card" in refusal(make_card(), raw)
    assert not data_home().exists()


def test_a_missing_folder_and_an_empty_one(make_card, tmp_path):
    assert "no such folder" in refusal(make_card(), tmp_path / "nowhere")
    assert "no file named like image_{case}.nii.gz" in refusal(make_card(), tmp_path)


def test_a_folder_in_place_of_a_scan(make_card, raw):
    (raw / "image_2.nii.gz").unlink()
    (raw / "image_2.nii.gz").mkdir()
    assert "image_2.nii.gz: holds no DICOM image; give the" in refusal(make_card(), raw)


def test_no_case_is_a_sentence(make_card):
    with pytest.raises(UserError, match=r"no prepared case; run `catnet prepare tiny --raw DIR`"):
        open_cases(make_card())


def test_an_organ_that_gets_lost_is_remarked_on(make_card, one, image, label):
    small = np.where(label == 4, 0, label)
    small[2, 2, 2] = 4  # between the voxels of the coarser grid
    list(prepare(make_card(spacing=[6.0, 6.0, 4.0]), one(image, small)))
    remarks = open_cases(make_card(spacing=[6.0, 6.0, 4.0]))[0].meta.remarks
    assert "shows spleen, and nothing of it is left" in remarks[0]


def test_a_label_that_was_resampled_is_not_taken_without_a_word(make_card, one, image, label):
    moved = AFFINE.copy()
    moved[0, 3] = 3.0
    folder = one(image, label, label_affine=moved)
    list(prepare(make_card(), folder, resample_labels=True))
    assert [fresh for *_, fresh in prepare(make_card(), folder, resample_labels=True)] == [False]
    assert "mm away" in refusal(make_card(), folder)


def test_names_that_cannot_be_read_are_refused(make_card, raw):
    (raw / "a\nb").mkdir()
    (raw / "image_1.nii.gz").rename(raw / "a\nb" / "image.nii.gz")
    (raw / "label_1.nii.gz").rename(raw / "a\nb" / "label.nii.gz")
    card = make_card(image="{case}/image.nii.gz", label="{case}/label.nii.gz")
    assert "unreadable letters" in refusal(card, raw)


@pytest.mark.parametrize("dtype", [np.float64])
@pytest.mark.filterwarnings("error")
def test_huge_numbers_are_refused_without_a_warning(make_card, one, image, label, dtype):
    huge = image.astype(dtype)
    huge[0, 0, 0] = 1e300
    refusal(make_card(), one(huge, label))
    large = label.astype(dtype)
    large[0, 0, 0] = 1e30
    assert "not whole numbers" in refusal(make_card(), one(image, large))
