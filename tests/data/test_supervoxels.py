"""Supervoxels equal the paper's algorithm written slowly, and repeat themselves bit for bit."""

from hashlib import sha256
from time import perf_counter

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from catnet.data.supervoxels import body_mask, purity, segment, supervoxels, to_grey
from catnet.errors import UserError

ORGANS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}


@pytest.fixture(scope="module")
def case(chaos):
    """Z-scored volume and organ labels (d, h, w) of one real case."""
    image, label = (nibabel.load(chaos / f"{kind}_1.nii.gz") for kind in ("image", "label"))
    volume = np.asarray(image.dataobj).T
    volume = (volume - volume.mean()) / volume.std()
    return volume.astype(np.float32), np.asarray(label.dataobj).T.astype(np.int16)


@pytest.fixture
def grey():
    return noise((4, 5, 6), levels=12)


def noise(shape, *, levels, seed=0):
    return np.random.default_rng(seed).integers(levels, size=shape).astype(np.uint8)


def blobs(shape):
    """Overlapping cubes of whole-number grey, from arithmetic alone: the same on every machine."""
    place = np.indices(shape)
    coarse = sum(weight * (axis // 4) for weight, axis in zip((5, 11, 17), place, strict=True))
    fine = sum(weight * axis for weight, axis in zip((3, 7, 13), place, strict=True))
    return (coarse * coarse % 97 + fine % 5 + 40).astype(np.float32)


def edges_of(grey, body):
    """All pairs of body voxels that share a face, in the order that breaks ties."""
    for axis in range(3):
        for voxel in np.ndindex(grey.shape):
            other = tuple(index + (axis == which) for which, index in enumerate(voxel))
            if other[axis] < grey.shape[axis] and body[voxel] and body[other]:
                yield abs(int(grey[voxel]) - int(grey[other])), voxel, other


def slowly(grey, body, *, min_size, scale):
    """The paper's algorithm on sets of voxels, one edge at a time."""
    home = {voxel: {voxel} for voxel in np.ndindex(grey.shape) if body[voxel]}
    inner = dict.fromkeys(home, 0)
    edges = sorted(edges_of(grey, body), key=lambda edge: edge[0])

    def tolerance(segment):
        return inner[min(segment)] + scale / len(segment)

    def join(one, other, weight):
        both = one | other
        inner[min(both)] = weight
        home.update(dict.fromkeys(both, both))

    for weight, a, b in edges:
        if home[a] is not home[b] and weight <= min(tolerance(home[a]), tolerance(home[b])):
            join(home[a], home[b], weight)
    for weight, a, b in edges:
        if home[a] is not home[b] and min(len(home[a]), len(home[b])) < min_size:
            join(home[a], home[b], weight)

    labels, count = np.zeros(grey.shape, dtype=np.int32), 0
    for voxel in sorted(home):
        if voxel == min(home[voxel]) and len(home[voxel]) >= min_size:
            count += 1
            labels[tuple(np.transpose(sorted(home[voxel])))] = count
    return labels


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("min_size", "scale"), [(1, 0.0), (1, 3.0), (4, 1.0), (9, 20.0)])
def test_equals_the_slow_paper(seed, min_size, scale):
    grey = noise((4, 5, 6), levels=12, seed=seed)
    body = noise((4, 5, 6), levels=5, seed=seed + 100) > 0
    ours = segment(grey, body, min_size=min_size, scale=scale)
    slow = slowly(grey, body, min_size=min_size, scale=scale)
    assert np.array_equal(ours, slow)
    assert ours.max() > 1


def test_scale_counts_against_segment_size():
    row = np.array([[[0, 0, 3, 3]]], dtype=np.uint8)
    body = np.ones(row.shape, dtype=bool)
    apart = segment(row, body, min_size=1, scale=5.9)
    together = segment(row, body, min_size=1, scale=6.0)
    assert apart.tolist() == [[[1, 1, 2, 2]]]
    assert together.tolist() == [[[1, 1, 1, 1]]]


def test_small_segment_joins_over_its_lightest_edge():
    row = np.array([[[10, 10, 10, 40, 60, 60, 60]]], dtype=np.uint8)
    labels = segment(row, np.ones(row.shape, dtype=bool), min_size=2, scale=0.0)
    assert labels.tolist() == [[[1, 1, 1, 2, 2, 2, 2]]]


def test_tie_goes_to_the_earlier_axis_then_to_the_earlier_voxel():
    grey = np.array([[[2, 2], [0, 4]], [[0, 0], [6, 6]]], dtype=np.uint8)
    labels = segment(grey, grey > 0, min_size=2, scale=0.0)
    assert labels.tolist() == [[[1, 1], [0, 2]], [[0, 0], [2, 2]]]
    row = np.array([[[2, 2, 4, 6, 6]]], dtype=np.uint8)
    labels = segment(row, np.ones(row.shape, dtype=bool), min_size=2, scale=0.0)
    assert labels.tolist() == [[[1, 1, 1, 2, 2]]]


def test_same_labels_on_every_machine():
    labels = supervoxels(blobs((10, 33, 47)), min_size=50)
    assert labels.dtype == np.int32
    assert sha256(labels.astype("<i4").tobytes()).hexdigest()[:16] == "106038d1e8f3fefe"


def test_gain_and_offset_do_not_matter():
    volume = np.random.default_rng(0).integers(1021, size=(6, 40, 40)).astype(np.float32)
    normal = ((volume - volume.mean()) / volume.std()).astype(np.float32)
    assert np.array_equal(to_grey(volume), to_grey(normal))
    assert np.array_equal(to_grey(volume), to_grey(volume.astype(np.float64) * 0.1 - 7))


def test_labels_are_connected_ordered_and_large_enough():
    labels = supervoxels(blobs((10, 33, 47)), min_size=60)
    present, first = np.unique(labels, return_index=True)
    present, first = present[present > 0], first[present > 0]
    assert present.tolist() == list(range(1, labels.max() + 1))
    assert len(present) > 5
    assert (np.diff(first) > 0).all()
    assert np.bincount(labels.ravel())[1:].min() >= 60
    assert all(ndimage.label(labels == number)[1] == 1 for number in present)


def test_constant_volume_is_one_supervoxel():
    labels = supervoxels(np.full((3, 8, 9), -0.7, dtype=np.float32), min_size=5)
    assert (labels == 1).all()


def test_one_slice():
    halves = np.zeros((1, 12, 12), dtype=np.float32)
    halves[:, 1:-1, 1:6], halves[:, 1:-1, 6:-1] = 1.0, 2.0
    labels = supervoxels(halves, min_size=10)
    assert labels.shape == halves.shape
    assert np.array_equal(labels, halves.astype(np.int32))


def test_air_is_no_candidate_but_a_dark_hole_is():
    volume = np.zeros((3, 20, 20), dtype=np.float32)
    volume[:2, 4:16, 4:16] = 100.0
    volume[:2, 8:11, 8:11] = 0.0
    volume[:2, 1, 1] = 100.0
    labels = supervoxels(volume, min_size=4)
    trunk = np.zeros(volume.shape, dtype=bool)
    trunk[:2, 4:16, 4:16] = True
    assert np.array_equal(labels > 0, trunk)
    assert np.array_equal(labels == 2, trunk & (volume == 0))


def test_island_below_min_size_is_no_candidate():
    grey = np.full((1, 3, 9), 50, dtype=np.uint8)
    body = np.zeros(grey.shape, dtype=bool)
    body[..., :5], body[..., 7:] = True, True
    labels = segment(grey, body, min_size=7, scale=1.0)
    assert (labels[..., :5] == 1).all()
    assert (labels[..., 5:] == 0).all()


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_non_finite_volume_is_refused(poison):
    volume = blobs((3, 16, 16))
    volume[1, 5, 5] = poison
    with pytest.raises(UserError, match="NaN or infinity"):
        supervoxels(volume, min_size=5)


def test_min_size_beyond_the_body_is_refused():
    with pytest.raises(UserError, match="min_size=5000"):
        supervoxels(blobs((3, 16, 16)), min_size=5000)


def test_purity_by_hand():
    labels = np.array([[[0, 0, 1, 1, 1, 2, 2, 3]]])
    organs = np.array([[[4, 4, 4, 0, 7, 7, 7, 9]]], dtype=np.uint8)
    found = purity(labels, organs, {"a": 4, "b": 7, "whole": 9, "absent": 5, "beyond": 12})
    assert found == pytest.approx({"a": 2 / 6, "b": 4 / 5, "whole": 1.0})
    assert purity(labels, organs, {}) == {}


def test_purity_never_counts_what_is_no_candidate():
    organs = np.array([[[1, 1, 0]]])
    assert purity(np.array([[[0, 0, 1]]]), organs, {"organ": 1}) == {"organ": 0.0}
    assert purity(np.array([[[0, 0, 0]]]), organs, {"organ": 1}) == {"organ": 0.0}


def test_purity_equals_dice_of_every_pair(grey):
    labels, organs = (grey % 5).astype(np.int32), (noise(grey.shape, levels=4, seed=3)).astype(int)
    found = purity(labels, organs, {"one": 1, "two": 2, "three": 3})
    slow = [
        max(dice(labels == segment, organs == organ) for segment in range(1, 5))
        for organ in (1, 2, 3)
    ]
    assert list(found.values()) == pytest.approx(slow)


def dice(one, other):
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_speed():
    volume = blobs((36, 256, 256))
    supervoxels(volume[:2], min_size=100)
    start = perf_counter()
    supervoxels(volume, min_size=5000)
    assert perf_counter() - start < 5


def test_real_scan(case):
    volume, organs = case
    labels = supervoxels(volume, min_size=5000)
    found = purity(labels, organs, ORGANS)
    assert found["right kidney"] > 0.8
    assert found["left kidney"] > 0.8
    assert np.bincount(labels.ravel())[1:].min() >= 5000
    assert np.mean(labels[organs > 0] > 0) > 0.95


def test_real_scan_has_air(case):
    volume, _ = case
    body = body_mask(to_grey(volume))
    assert 0.4 < body.mean() < 0.7
    assert volume[body].mean() > volume[~body].mean() + 1
