"""The public releases by their cards, from folders laid out as they are shipped."""

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from series import write_series

from catnet.data.card import load_card
from catnet.data.prepare import prepare
from catnet.data.store import open_cases
from catnet.data.volume import read_volume

AFFINE = np.diag([-1.5, 1.5, 3.0, 1.0])
SHAPE = (40, 36, 5)


def boxes(numbers):
    """A label with a box of every number, and an image where each stands out."""
    label = np.zeros(SHAPE, dtype=np.uint16)
    for index, number in enumerate(numbers):
        label[6 + 7 * index : 11 + 7 * index, 8 : 14 + index, 1:4] = number
    image = np.full(SHAPE, -1000, dtype=np.int16)
    image[3:37, 3:33] = 20
    for index, number in enumerate(numbers):
        image[label == number] = 60 + 20 * index
    return image, label


def volume(path, voxels):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, AFFINE), path)


def sabs(folder, image, label):
    volume(folder / "img" / "img0001.nii.gz", image)
    volume(folder / "label" / "label0001.nii.gz", label.astype(np.uint8))


def cmr(folder, image, label):
    volume(folder / "patient1_C0.nii.gz", image)
    volume(folder / "patient1_C0_manual.nii.gz", label)


def amos(folder, image, label):
    for case in ("0001", "0507"):
        volume(folder / "imagesTr" / f"amos_{case}.nii.gz", image)
        volume(folder / "labelsTr" / f"amos_{case}.nii.gz", label.astype(np.uint8))


def totalsegmentator(folder, image, label):
    volume(folder / "s0001" / "ct.nii.gz", image)
    names = {"liver": 1, "kidney_right": 2, "kidney_left": 3, "spleen": 4, "heart": 99}
    for name, number in names.items():
        mask = (label == number).astype(np.uint8)
        volume(folder / "s0001" / "segmentations" / f"{name}.nii.gz", mask)


RELEASES = {
    "sabs": (sabs, "0001"),
    "cmr": (cmr, "1"),
    "amos": (amos, "0001"),
    "amos_mr": (amos, "0507"),
    "totalsegmentator": (totalsegmentator, "s0001"),
}


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_is_prepared_by_its_card(name, tmp_path):
    write, case = RELEASES[name]
    card = load_card(name)
    image, label = boxes(card.organs.values())
    write(tmp_path / "raw", image, label)
    assert list(prepare(card, tmp_path / "raw")) == [(case, 1, True)]
    found = open_cases(card)[0]
    spacing = np.prod(found.meta.spacing)
    for number in card.organs.values():
        volume_there = (found.label == number).sum() * spacing
        assert volume_there == pytest.approx((label == number).sum() * 1.5 * 1.5 * 3, rel=0.25)
        assert np.median(found.image[found.label == number]) > np.median(found.image)


def test_chaos_as_it_is_shipped_is_the_chaos_of_the_few_shot_papers(chaos, tmp_path):
    """Written back to DICOM slices and PNG masks, a real case is prepared to the same arrays."""
    (tmp_path / "nifti").mkdir()
    for kind in ("image", "label"):
        name = f"{kind}_1.nii.gz"
        (tmp_path / "nifti" / name).symlink_to(chaos / name)
    scan, truth = (nib.load(chaos / f"{kind}_1.nii.gz") for kind in ("image", "label"))
    assert nib.aff2axcodes(scan.affine) == ("L", "A", "S")
    voxels = np.asarray(scan.dataobj)[:, ::-1]  # columns to the left, rows to the back
    numbers = np.asarray(truth.dataobj).astype(int)[:, ::-1]
    corner = nib.affines.apply_affine(scan.affine, (0, scan.shape[1] - 1, 0)) * (-1, -1, 1)
    columns, rows, step = nib.affines.voxel_sizes(scan.affine)
    series, ground = (tmp_path / "MR" / "1" / "T2SPIR" / n for n in ("DICOM_anon", "Ground"))
    write_series(
        series,
        voxels.transpose(2, 1, 0).astype(np.uint16),
        turn=np.array([[1.0, 0, 0], [0, 1.0, 0]]),
        spacing=(float(rows), float(columns)),
        ImagePositionPatient=lambda k: [float(v) for v in corner + np.array([0, 0, k * step])],
    )
    ground.mkdir()
    grey = np.array([0, 63, 126, 189, 252], np.uint8)[numbers.transpose(2, 1, 0)]
    for z, path in enumerate(read_volume(series).files):
        Image.fromarray(grey[z]).save(ground / f"{path.name}.png")
    nifti, raw = load_card("chaos_t2"), load_card("chaos_mr_raw")
    list(prepare(nifti, tmp_path / "nifti"))
    list(prepare(raw, tmp_path / "MR"))
    one, other = open_cases(nifti)[0], open_cases(raw)[0]
    np.testing.assert_array_equal(one.label, other.label)
    np.testing.assert_allclose(one.image, other.image, atol=1e-3)
    np.testing.assert_allclose(one.meta.affine, other.meta.affine, atol=1e-3)
    assert set(np.unique(other.label)) == {0, 1, 2, 3, 4}


def test_what_needs_no_account_can_be_fetched():
    free = ("chaos_mr_raw", "chaos_mr_raw_small", "amos", "amos_mr", "totalsegmentator")
    assert all(load_card(name).fetch for name in free)
    assert not any(load_card(name).fetch for name in ("sabs", "cmr"))
