"""What is packed for the page comes back: the same values, in the same place of the world."""

import base64
import gzip

import nibabel as nib
import numpy as np
import pytest

from catnet.data.volume import Grid, ScanFile
from catnet.view import volumes as module
from catnet.view.volumes import pack_contour, pack_image, pack_labels, steps

AFFINE = np.array([[0, -2.0, 0, 40], [0, 0, 3.0, -7], [-1.5, 0, 0, 12], [0, 0, 0, 1]])


def scan_of(voxels):
    return ScanFile(voxels, Grid(voxels.shape, AFFINE))


def unpack(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_whole_numbers_come_back_exactly():
    voxels = np.random.default_rng(0).integers(-1024, 3000, (7, 6, 5)).astype(np.float64)
    image = pack_image(scan_of(voxels))
    found = unpack(image.volume)
    assert found.get_data_dtype() == np.int16
    np.testing.assert_array_equal(found.get_fdata(), voxels)
    np.testing.assert_allclose(found.affine, AFFINE)
    assert image.window == module.SOFT_TISSUE, "below -500 are Hounsfield units"


def test_real_numbers_come_back_within_half_a_step():
    voxels = np.random.default_rng(0).uniform(-2, 5, (9, 8, 7))
    image = pack_image(scan_of(voxels))
    found = unpack(image.volume)
    assert found.get_data_dtype() == np.uint8
    low, high = np.percentile(voxels, module.RANGE)
    np.testing.assert_allclose(found.get_fdata(), voxels.clip(low, high), atol=0.51 * 7 / 255)
    assert image.window == pytest.approx(tuple(np.percentile(voxels, (1, 99.5))))


def test_whole_numbers_too_large_for_16_bits_are_no_reason_to_wrap_around():
    voxels = np.linspace(0, 60000, 216).round().reshape(6, 6, 6)
    found = unpack(pack_image(scan_of(voxels)).volume).get_fdata()
    assert np.abs(found - voxels).max() < 300


def test_labels_get_the_numbers_of_the_page():
    voxels = np.array([0, 5, 600, 7] * 6).reshape(4, 3, 2)
    found = np.asarray(
        unpack(pack_labels("x", scan_of(voxels), numbers={600: 1, 5: 2}).volume).dataobj
    )
    np.testing.assert_array_equal(found, np.select([voxels == 600, voxels == 5], [1, 2], 0))
    assert found.dtype == np.uint8


def test_thinned_voxels_stay_in_their_place(monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", 40)
    voxels = np.arange(8 * 9 * 5).reshape(8, 9, 5).astype(float)
    found = unpack(pack_image(scan_of(voxels)).volume)
    assert np.prod(found.shape) <= 40
    assert found.shape != voxels.shape
    for index in np.ndindex(found.shape):
        place = nib.affines.apply_affine(np.linalg.inv(AFFINE) @ found.affine, index)
        assert found.dataobj[index] == voxels[tuple(np.rint(place).astype(int))]


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((512, 512, 400), 2**24, (2, 2, 2)),
        ((200, 20, 20), 30_000, (3, 1, 1)),
        ((30, 20, 20), 12_000, (1, 1, 1)),
    ],
)
def test_the_longest_axis_is_thinned_first(shape, most, expected, monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", most)
    assert steps(shape) == expected


def test_a_contour_is_the_border_in_the_plane_of_the_slices():
    voxels = np.zeros((6, 12, 12), dtype=np.uint8)
    voxels[1:5, 3:9, 2:9] = 4  # AFFINE: the second and third axes are 2 and 3 mm, the first 1.5
    found = np.asarray(unpack(pack_contour("t", scan_of(voxels), numbers={4: 1}).volume).dataobj)
    slow = np.zeros_like(voxels)
    for x, y, z in np.argwhere(voxels):
        around = voxels[x - 1 : x + 2, y - 1 : y + 2, z]  # the thickest axis is the third
        slow[x, y, z] = not (around == 4).all()
    np.testing.assert_array_equal(found, slow)
    assert 0 < found.sum() < (voxels > 0).sum()
