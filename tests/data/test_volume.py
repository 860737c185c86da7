import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import apply_affine
from scipy.spatial.transform import Rotation

from catnet.data.volume import (
    Grid,
    centered,
    resample,
    standard_grid,
)

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(["LR", "AP", "SI"])
    for codes in itertools.product(*axes)
]
SPACINGS = [(2.0, 2.0, 2.0), (1.3, 2.1, 5.0), (4.0, 1.7, 1.1)]
UPRIGHT = np.eye(3)
OBLIQUE = Rotation.from_euler("xyz", (12, -17, 9), degrees=True).as_matrix()
FIELD = np.array([88.0, 74.0, 62.0])  # mm along left-right, front-back and head-feet
PLACE = np.array([13.0, -31.0, 207.0])  # mm, of the middle of the field of view
everywhere = pytest.mark.parametrize("codes", ORIENTATIONS)


def make_grid(codes, *, spacing, rotation):
    """A grid around `PLACE` with axes in the order and direction of `codes`."""
    order = [next(i for i, axis in enumerate(("LR", "AP", "SI")) if c in axis) for c in codes]
    directions = np.zeros((3, 3))
    for column, (axis, code) in enumerate(zip(order, codes, strict=True)):
        directions[axis, column] = 1 if code in "RAS" else -1
    shape = tuple(round(FIELD[axis] / mm) for axis, mm in zip(order, spacing, strict=True))
    affine = np.eye(4)
    affine[:3, :3] = rotation @ directions * spacing
    affine[:3, 3] = PLACE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def body_coordinates(grid, *, rotation):
    """Millimeters from `PLACE` along the oblique body's right, front and head, at every voxel."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return (apply_affine(grid.affine, index) - PLACE) @ rotation


def draw(grid, *, rotation):
    """1 is an ellipsoid on the patient's right, 2 a small one in front, left and up."""
    mm = body_coordinates(grid, rotation=rotation)
    first = (((mm - (17, 5, -4)) / (14, 19, 16)) ** 2).sum(axis=-1) < 1
    second = (((mm - (-20, 20, 12)) / (10, 8, 11)) ** 2).sum(axis=-1) < 1
    return (first + 2 * second).astype(np.uint16)


def centroid(labels, number):
    return np.argwhere(labels == number).mean(axis=0)


@everywhere
@pytest.mark.parametrize("rotation", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
@pytest.mark.parametrize("spacing", SPACINGS, ids=str)
def test_there_and_back_on_every_scanners_grid(codes, rotation, spacing):
    raw = make_grid(codes, spacing=spacing, rotation=rotation)
    labels = draw(raw, rotation=rotation)
    standard = standard_grid(raw, orientation="LAS", spacing=(1.5, 1.5, 3.0))
    center = tuple((n - 1) / 2 for n in standard.shape[:2])
    prepared = centered(standard, size=(64, 64), center=center)
    there = resample(labels, raw, prepared, order=0)
    assert nib.aff2axcodes(prepared.affine) == ("L", "A", "S")
    assert prepared.spacing == pytest.approx((1.5, 1.5, 3.0))
    assert there.dtype == labels.dtype
    back = resample(there, prepared, raw, order=0)
    assert back.shape == labels.shape
    truth = draw(prepared, rotation=rotation)
    for number in (1, 2):
        assert np.abs(centroid(there, number) - centroid(truth, number)).max() < 0.5
        assert np.abs(centroid(back, number) - centroid(labels, number)).max() < 0.5
    assert (there == truth).mean() > 0.985
    assert (back == labels).mean() > 0.985


@everywhere
@pytest.mark.parametrize("rotation", [UPRIGHT, OBLIQUE], ids=["upright", "oblique"])
def test_turning_the_axes_alone_keeps_every_bit(codes, rotation):
    raw = make_grid(codes, spacing=(1.3, 2.1, 5.0), rotation=rotation)
    voxels = np.random.default_rng(0).normal(size=raw.shape).astype(np.float32)
    standard = standard_grid(raw, orientation="RAS", spacing=(None, None, None))
    size = (standard.shape[0] + 6, standard.shape[1] + 8)
    center = tuple((n - 1) / 2 for n in standard.shape[:2])
    prepared = centered(standard, size=size, center=center)
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(raw.affine), nib.orientations.axcodes2ornt("RAS")
    )
    turned = nib.orientations.apply_orientation(voxels, turn)
    for order in (0, 1):
        there = resample(voxels, raw, prepared, order=order, fill=-7.0)
        np.testing.assert_array_equal(there[3:-3, 4:-4], turned)
        assert (there[:3] == -7).all()
        assert (there[:, -4:] == -7).all()
        np.testing.assert_array_equal(resample(there, prepared, raw, order=order), voxels)


@everywhere
@pytest.mark.parametrize("orientation", ["LAS", "RAS", "LPI"])
def test_right_stays_right_in_world_coordinates(codes, orientation):
    raw = make_grid(codes, spacing=(3.0, 2.0, 4.0), rotation=OBLIQUE)
    labels = draw(raw, rotation=OBLIQUE)
    standard = standard_grid(raw, orientation=orientation, spacing=(2.0, 2.0, None))
    there = resample(labels, raw, standard, order=0)
    where = apply_affine(standard.affine, centroid(there, 1))
    expected = apply_affine(raw.affine, centroid(labels, 1))
    assert np.linalg.norm(where - expected) < 1.0
    right, front, _ = (where - PLACE) @ OBLIQUE
    assert right > 10  # x of NIfTI's world runs to the right
    assert front > 0
    low = centroid(there, 1)[0] < (standard.shape[0] - 1) / 2
    assert low == (orientation[0] == "L")  # an axis to the left starts on the right


@pytest.mark.parametrize("turned", [False, True])
def test_an_intensity_ramp_is_interpolated_without_a_shift(turned):
    raw = make_grid("PIR", spacing=(1.3, 2.1, 5.0), rotation=OBLIQUE)
    ramp = body_coordinates(raw, rotation=OBLIQUE) @ (1.0, 2.0, -3.0)
    target = standard_grid(raw, orientation="LAS", spacing=(2.0, 1.0, 1.7))
    if turned:
        target = make_grid("LAS", spacing=(2.0, 1.0, 1.7), rotation=UPRIGHT)
    there = resample(ramp, raw, target, order=1, fill=np.nan)
    expected = body_coordinates(target, rotation=OBLIQUE) @ (1.0, 2.0, -3.0)
    inside = np.isfinite(there)
    assert inside.mean() > 0.5
    np.testing.assert_allclose(there[inside], expected[inside], atol=1e-3)


@pytest.mark.parametrize("codes", ["LAS", "SRP"])
def test_a_single_slice_stays_one(codes):
    plane = codes.index("S")
    shape = tuple(1 if axis == plane else 24 for axis in range(3))
    grid = Grid(shape, make_grid(codes, spacing=(2.0, 2.0, 2.0), rotation=UPRIGHT).affine)
    voxels = np.random.default_rng(0).normal(size=shape)
    standard = standard_grid(grid, orientation="LAS", spacing=(1.0, 1.0, None))
    assert standard.shape == (48, 48, 1)
    there = resample(voxels, grid, standard, order=0)
    assert there.shape == (48, 48, 1)
    np.testing.assert_array_equal(resample(there, standard, grid, order=0), voxels)


def test_a_thick_slice_is_not_lost_where_voxels_grow():
    grid = Grid((8, 8, 1), np.diag([2.0, 2.0, 2.0, 1.0]))
    assert standard_grid(grid, orientation="RAS", spacing=(50.0, 2.0, 7.7)).shape == (1, 8, 1)


def test_a_spacing_rounded_in_the_header_is_no_reason_to_interpolate():
    grid = Grid((8, 8, 4), np.diag([1.2501, 1.2499, 7.7001, 1.0]))
    standard = standard_grid(grid, orientation="RAS", spacing=(1.25, 1.25, 7.7))
    np.testing.assert_array_equal(standard.affine, grid.affine)
    assert standard_grid(grid, orientation="RAS", spacing=(1.2, 1.25, 7.7)).shape == (8, 8, 4)


def test_a_grid_keeps_its_middle_where_spacing_changes():
    grid = make_grid("LPS", spacing=(1.3, 2.1, 5.0), rotation=OBLIQUE)
    other = standard_grid(grid, orientation="RAS", spacing=(2.0, 2.0, 2.0))
    middle = apply_affine(other.affine, (np.array(other.shape) - 1) / 2)
    np.testing.assert_allclose(middle, PLACE, atol=1e-9)


@pytest.mark.parametrize(
    ("shape", "size", "start"),
    [((4, 4), (4, 4), (0, 0)), ((2, 6), (4, 4), (-1, 1)), ((5, 5), (3, 7), (1, -1))],
)
def test_crop_and_pad_around_the_middle(shape, size, start):
    grid = Grid((*shape, 3), np.diag([-2.0, 3.0, 4.0, 1.0]))
    middle = tuple((n - 1) / 2 for n in shape)
    cut = centered(grid, size=size, center=middle)
    assert cut.shape == (*size, 3)
    np.testing.assert_array_equal(cut.affine[:3, 3], (-2 * start[0], 3 * start[1], 0))
    voxels = np.random.default_rng(0).normal(size=grid.shape)
    there = resample(voxels, grid, cut, order=1, fill=9.0)
    for index in np.ndindex(*cut.shape):
        source = (index[0] + start[0], index[1] + start[1], index[2])
        inside = all(0 <= i < n for i, n in zip(source, grid.shape, strict=True))
        assert there[index] == (voxels[source] if inside else 9.0)
