import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from catnet.data.volume import Grid, centered, standard_grid
from catnet.predict.geometry import pull_back, way_back


def scan_grid():
    affine = np.array([[0, 0, -2.5, 40], [0.9, 0, 0, -7], [0, -1.3, 0, 3], [0, 0, 0, 1.0]])
    return Grid((30, 27, 21), affine)


def prepared_grid(spacing=(2.0, 1.1, 3.1), size=(32, 32)):
    standard = standard_grid(scan_grid(), orientation="LAS", spacing=spacing)
    center = tuple((n - 1) / 2 for n in standard.shape[:2])
    return centered(standard, size=size, center=center)


def stacks(probability, sizes):
    """The prepared slices in batches of these sizes, over and over."""
    start, turn = 0, 0
    while start < probability.shape[1]:
        stop = start + sizes[turn % len(sizes)]
        yield probability[:, start:stop]
        start, turn = stop, turn + 1


def filled(way, scan, probability, sizes):
    """Every organ on the scan's grid, and how many slices came at a time."""
    found = np.full((len(probability), *scan.shape), np.nan, np.float32)
    most = 0
    for piece in pull_back(way, stacks(probability, sizes)):
        view = found[piece.organ].transpose(way.order)
        assert np.isnan(view[piece.slices]).all()  # no slice comes twice
        view[piece.slices] = piece.probability
        most = max(most, len(piece.slices))
    assert not np.isnan(found).any()
    return found, most


@pytest.mark.parametrize("sizes", [[1], [3, 2], [50]])
@pytest.mark.parametrize("spacing", [(2.0, 1.1, 3.1), (None, None, None), (9.0, 0.7, 0.8)])
def test_slab_by_slab_is_linear_interpolation_of_the_whole_volume(sizes, spacing):
    scan, prepared = scan_grid(), prepared_grid(spacing, size=(96, 96))
    width, height, depth = prepared.shape
    probability = np.random.default_rng(0).random((2, depth, height, width), dtype=np.float32)
    way = way_back(prepared, scan)
    found, most = filled(way, scan, probability, sizes)
    assert most <= 8
    index = np.stack(np.meshgrid(*map(np.arange, scan.shape), indexing="ij"), axis=-1)
    world = index @ scan.affine[:3, :3].T + scan.affine[:3, 3]
    inverse = np.linalg.inv(prepared.affine)
    x, y, z = np.moveaxis(world @ inverse[:3, :3].T + inverse[:3, 3], -1, 0)
    for organ, volume in enumerate(probability):
        slow = map_coordinates(volume.astype(np.float64), [z, y, x], order=1, mode="nearest")
        np.testing.assert_allclose(found[organ], slow, atol=2e-5)


def test_nothing_is_found_outside_of_the_prepared_plane():
    scan, prepared = scan_grid(), prepared_grid((None, None, None), size=(32, 32))
    prepared = prepared.moved(start=(12, 13, 0), shape=(6, 5, prepared.shape[2]))
    way = way_back(prepared, scan)
    found, _ = filled(way, scan, np.ones((1, *prepared.shape[::-1]), np.float32), [4])
    assert set(np.unique(found)) == {0, 1}
    assert found.sum() == np.prod(prepared.shape)


def test_grids_that_agree_give_every_probability_back_as_it_was():
    scan, prepared = scan_grid(), prepared_grid((None, None, None), size=(32, 32))
    probability = np.random.default_rng(1).random((1, *prepared.shape[::-1]), dtype=np.float32)
    found, _ = filled(way_back(prepared, scan), scan, probability, [5])
    assert np.isin(found, probability).all()


def test_the_outermost_slices_reach_to_the_end_of_the_scan():
    """Eight slices of 1 mm become one of 7 mm: half a millimeter is left at both ends."""
    scan = Grid((4, 4, 8), np.diag([-1.0, 1.0, 1.0, 1.0]))
    prepared = standard_grid(scan, orientation="LAS", spacing=(1.0, 1.0, 7.0))
    assert prepared.shape == (4, 4, 1)
    found, _ = filled(way_back(prepared, scan), scan, np.ones((1, 1, 4, 4), np.float32), [8])
    assert found.all()
