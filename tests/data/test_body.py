import numpy as np
import pytest

from catnet.data.body import COARSE, coarse_grid, find_body
from catnet.data.volume import Grid

AIR, FLESH, LUNG, PLASTIC = -1000, 40, -850, -150
SHAPE = (60, 60)


def disc(shape, *, center, radii):
    x, y = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return ((x - center[0]) / radii[0]) ** 2 + ((y - center[1]) / radii[1]) ** 2 < 1


def make_scan(depth, *, gap):
    """A body with air inside, over a table `gap` voxels below it; and where the body is."""
    scan = np.full((*SHAPE, depth), AIR, dtype=np.float32)
    body = disc(SHAPE, center=(30, 26), radii=(22, 16))
    scan[body] = FLESH
    scan[disc(SHAPE, center=(24, 24), radii=(6, 5))] = LUNG
    scan[4:56, 42 + gap : 45 + gap] = PLASTIC
    return scan, np.broadcast_to(body[..., None], scan.shape)


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 12])
@pytest.mark.parametrize("gap", [1, 4])
def test_the_body_is_kept_with_its_air_and_the_table_is_not(depth, gap):
    scan, body = make_scan(depth, gap=gap)
    found = find_body(scan, threshold=-500.0)
    dice = 2 * (found & body).sum() / (found.sum() + body.sum())
    assert dice > 0.97
    table = found[4:56, 42 + gap : 45 + gap]
    assert table.mean() < 0.15
    assert not table[:10].any()


def test_a_thin_bridge_to_the_table_is_cut():
    scan, body = make_scan(12, gap=4)
    scan[30:33, 40:48] = PLASTIC
    found = find_body(scan, threshold=-500.0)
    assert found[body].mean() > 0.97
    table = found[4:56, 46:49]
    assert table.mean() < 0.15
    assert not table[:20].any()
    assert not table[32:].any()


def test_only_the_largest_body_is_kept():
    scan, body = make_scan(12, gap=4)
    scan[2:8, 2:9] = FLESH  # a bottle beside the patient
    found = find_body(scan, threshold=-500.0)
    assert not found[2:8, 2:9].any()
    assert found[body].mean() > 0.97


def test_everything_is_body_where_nothing_is_above_the_threshold():
    assert find_body(np.full((5, 6, 7), AIR, dtype=np.float32), threshold=-500.0).all()


@pytest.mark.parametrize("spacing", [(0.8, 0.8, 5.0), (2.5, 2.5, 1.0), (9.0, 4.0, 3.9)])
def test_the_coarse_grid_lies_on_voxels_of_the_fine_one(spacing):
    affine = np.diag([*spacing, 1.0]) @ np.array(
        [[0, -1.0, 0, 5], [1, 0, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1]]
    )
    shape = (31, 20, 9)
    every, coarse = coarse_grid(Grid(shape, affine))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    kept = index[every]
    assert kept.shape[:3] == coarse.shape
    world = kept @ affine[:3, :3].T + affine[:3, 3]
    places = np.stack(np.meshgrid(*map(np.arange, coarse.shape), indexing="ij"), axis=-1)
    np.testing.assert_allclose(places @ coarse.affine[:3, :3].T + coarse.affine[:3, 3], world)
    finest = np.array(Grid(shape, affine).spacing)
    assert (np.array(coarse.spacing) <= np.maximum(1.5 * COARSE, finest + 1e-9)).all()
