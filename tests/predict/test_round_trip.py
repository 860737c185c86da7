"""An object that is known in world coordinates comes back to its place, whatever the storage."""

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nibabel.affines import apply_affine
from scenes import CODES, affine_of, level, make_card, oracle_session, write_scan

from catnet.predict.query import Target, predict_query
from catnet.predict.scans import prepare_scan

FEW = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def go_around(folder, card, *, codes, spacing, rotation=(0, 0, 0), extent=(96, 88, 104)):
    """Image file -> predict -> label file; gives the label's image and the prepared spacing."""
    lengths = [extent[next(n for n, p in enumerate(("LR", "PA", "IS")) if c in p)] for c in codes]
    shape = tuple(max(3, round(mm / step)) for mm, step in zip(lengths, spacing, strict=True))
    affine = affine_of(codes, spacing=spacing, shape=shape, rotation=rotation)
    path = write_scan(folder / "scan.nii.gz", affine, shape)
    prepared = prepare_scan(card, path)
    target = Target(folder, "scan")
    told = []
    predict_query(
        oracle_session(card, prepared.grid), path, target, lambda *so_far: told.append(so_far)
    )
    assert told == sorted(told)
    assert told[-1] == (told[0][1], told[0][1])  # every slice, whatever the storage
    found = nib.load(target.label)
    assert found.shape == shape
    np.testing.assert_array_equal(found.affine, nib.load(path).affine)
    return found, prepared.grid.spacing


def assert_within_half_a_voxel(found, *others):
    """No voxel on the wrong side that lies further from the surface than half a voxel's diagonal.

    The distance is that of the coarser of the grids; the centroid has to agree twice as well.
    """
    mask = np.asarray(found.dataobj) == 1
    points = apply_affine(found.affine, np.moveaxis(np.indices(mask.shape), 0, -1))
    distance = level(points)
    spacings = (np.array(found.header.get_zooms()), *map(np.array, others))
    half = 0.5 * max(np.linalg.norm(spacing) for spacing in spacings)
    assert mask.any()
    assert distance[mask].max() <= half
    assert distance[~mask].min() >= -half
    truth = points[distance < 0].mean(axis=0)
    largest = 0.25 * max(spacing.max() for spacing in spacings)
    assert np.abs(points[mask].mean(axis=0) - truth).max() <= largest


def test_there_are_48_orientations():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_comes_back_voxel_by_voxel(codes, tmp_path):
    found, _ = go_around(tmp_path, make_card(size=(64, 64)), codes=codes, spacing=(3.0, 2.5, 4.0))
    mask = np.asarray(found.dataobj) == 1
    points = apply_affine(found.affine, np.moveaxis(np.indices(mask.shape), 0, -1))
    np.testing.assert_array_equal(mask, level(points) < 0)  # its own spacing: no interpolation


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_comes_back_through_another_spacing(codes, tmp_path):
    card = make_card(spacing=(2.0, 2.0, 5.0), orientation="RAS")
    found, prepared = go_around(tmp_path, card, codes=codes, spacing=(3.0, 2.5, 4.0))
    assert_within_half_a_voxel(found, prepared)


@FEW
@given(
    codes=st.sampled_from(CODES),
    own=st.tuples(*[st.floats(1.5, 7.0)] * 3),
    wanted=st.tuples(*[st.one_of(st.none(), st.floats(1.6, 6.0))] * 3),
    rotation=st.tuples(*[st.floats(-44, 44)] * 3),
    turned=st.sampled_from(["LAS", "RAS", "LPI", "RPS"]),
)
def test_oblique_and_anisotropic_scans_come_back(tmp_path, codes, own, wanted, rotation, turned):
    card = make_card(spacing=wanted, orientation=turned, size=(128, 128))
    found, prepared = go_around(tmp_path, card, codes=codes, spacing=own, rotation=rotation)
    assert_within_half_a_voxel(found, prepared)


def test_a_wrong_flip_would_be_noticed(tmp_path):
    """The object is unlike its mirror images, so the tests above can fail."""
    found, prepared = go_around(tmp_path, make_card(), codes="LAS", spacing=(3.0, 2.5, 4.0))
    for axis in range(3):
        flipped = nib.Nifti1Image(np.flip(np.asarray(found.dataobj), axis), found.affine)
        with pytest.raises(AssertionError):
            assert_within_half_a_voxel(flipped, prepared)
