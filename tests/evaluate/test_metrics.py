import subprocess
import sys

import numpy as np
import pytest
import torch
from monai import metrics
from scipy import ndimage

from catnet.evaluate.metrics import measure, measure_found

SPACING = (7.7, 1.25, 0.8)


def surface(mask):
    """Voxels of the mask with a face neighbor outside; beyond the volume is outside."""
    padded = np.pad(mask, 1)
    points = []
    for place in np.argwhere(padded):
        steps = [sign * np.eye(3, dtype=int)[axis] for axis in range(3) for sign in (-1, 1)]
        if not all(padded[tuple(place + step)] for step in steps):
            points.append(place - 1)
    return np.array(points)


def nearest(points, others, *, spacing):
    """Distance in mm of each point to the nearest of the others, one pair at a time."""
    return np.array(
        [min(np.linalg.norm((point - other) * spacing) for other in others) for point in points]
    )


def slowly(prediction, truth, *, spacing, tolerance):
    both, total = (prediction & truth).sum(), prediction.sum() + truth.sum()
    ours, theirs = surface(prediction), surface(truth)
    there = nearest(ours, theirs, spacing=spacing)
    back = nearest(theirs, ours, spacing=spacing)
    within = (there <= tolerance).sum() + (back <= tolerance).sum()
    return {
        "dice": 100 * 2 * both / total,
        "iou": 100 * both / (total - both),
        "hd95": max(np.percentile(there, 95), np.percentile(back, 95)),
        "surface_dice": 100 * within / (len(ours) + len(theirs)),
    }


def blob(shape, *, seed, sigma=1.5):
    noise = np.random.default_rng(seed).normal(size=shape)
    return ndimage.gaussian_filter(noise, sigma) > 0.05


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("tolerance", [0.9, 2.0, 7.7])
def test_measure_equals_the_formulas_written_slowly(seed, tolerance):
    prediction, truth = blob((5, 9, 11), seed=seed), blob((5, 9, 11), seed=seed + 100)
    got = measure(prediction, truth, spacing=SPACING, tolerance=tolerance)
    assert got == pytest.approx(
        slowly(prediction, truth, spacing=SPACING, tolerance=tolerance), rel=1e-5
    )


@pytest.mark.filterwarnings("ignore:monai:FutureWarning")
@pytest.mark.parametrize("sigma", [1.5, 4])
def test_distances_equal_those_of_monai(sigma):
    masks = [blob((12, 40, 50), seed=seed, sigma=sigma) for seed in (1, 2)]
    pair = [torch.from_numpy(mask)[None, None].float() for mask in masks]
    got = measure(*masks, spacing=SPACING, tolerance=3.0)
    hd95 = metrics.compute_hausdorff_distance(*pair, percentile=95, spacing=SPACING)
    within = metrics.compute_surface_dice(
        *pair, class_thresholds=[3.0], include_background=True, spacing=SPACING
    )
    assert got["hd95"] == pytest.approx(hd95.item(), rel=1e-5)
    assert got["surface_dice"] == pytest.approx(100 * within.item(), rel=1e-5)


def test_measure_of_two_boxes_by_hand():
    truth, prediction = np.zeros((4, 8, 8), bool), np.zeros((4, 8, 8), bool)
    truth[1, 2:4, 2:4] = True
    prediction[1, 2:4, 3:5] = True
    got = measure(prediction, truth, spacing=(5.0, 1.0, 3.0), tolerance=2.0)
    # Half of each box lies 3 mm (one column) from the other box, the other half on it.
    expected = {"dice": 50.0, "iou": 100 / 3, "hd95": 3.0, "surface_dice": 50.0}
    assert got == pytest.approx(expected)


def test_spacing_is_in_the_order_of_the_axes():
    truth = np.zeros((6, 6, 6), bool)
    truth[2, 2, 2] = True
    for axis, step in enumerate((7.0, 3.0, 1.0)):
        prediction = np.roll(truth, 2, axis=axis)
        got = measure(prediction, truth, spacing=(7.0, 3.0, 1.0), tolerance=2.0)
        assert got["hd95"] == pytest.approx(2 * step)
        assert got["surface_dice"] == (100 if 2 * step <= 2 else 0)


def test_a_perfect_prediction():
    truth = blob((6, 12, 12), seed=3)
    perfect = {"dice": 100.0, "iou": 100.0, "hd95": 0.0, "surface_dice": 100.0}
    assert measure(truth, truth, spacing=SPACING) == perfect


def at_the_border(shape):
    truth, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    truth[:2, :4, -4:] = True
    prediction[:3, 2:6, -3:] = True
    return prediction, truth


def in_opposite_corners(shape):
    truth, prediction = np.zeros(shape, bool), np.zeros(shape, bool)
    truth[0, 0, 0] = prediction[-1, -1, -1] = True
    return prediction, truth


@pytest.mark.parametrize("place", [at_the_border, in_opposite_corners])
def test_cropping_changes_nothing_at_the_border(place):
    prediction, truth = place((6, 14, 15))
    got = measure(prediction, truth, spacing=SPACING)
    assert got == measure_found(prediction, truth, spacing=SPACING, tolerance=2.0)
    assert got == pytest.approx(slowly(prediction, truth, spacing=SPACING, tolerance=2.0), rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_cropping_and_room_around_change_nothing(seed):
    prediction, truth = blob((4, 8, 9), seed=seed), blob((4, 8, 9), seed=seed + 50)
    roomy = [np.pad(mask, ((2, 5), (7, 3), (4, 6))) for mask in (prediction, truth)]
    got = measure(*roomy, spacing=SPACING)
    assert got == measure(prediction, truth, spacing=SPACING)
    assert got == measure_found(*roomy, spacing=SPACING, tolerance=2.0)


def test_an_empty_prediction_costs_the_diagonal_of_the_whole_volume():
    truth = np.zeros((3, 4, 5), bool)
    truth[1, 1, 1] = True
    got = measure(np.zeros_like(truth), truth, spacing=(4.0, 1.0, 3.2))
    expected = {"dice": 0.0, "iou": 0.0, "hd95": (144 + 16 + 256) ** 0.5, "surface_dice": 0.0}
    assert got == pytest.approx(expected)


def test_a_missed_organ_costs_more_than_the_worst_found_one():
    prediction, truth = in_opposite_corners((3, 4, 5))
    missed = measure(np.zeros_like(truth), truth, spacing=SPACING)["hd95"]
    assert measure(prediction, truth, spacing=SPACING)["hd95"] < missed


@pytest.mark.parametrize("fill", [False, True])
def test_an_empty_truth_has_no_score(fill):
    with pytest.raises(ValueError, match="truth is empty"):
        measure(np.full((3, 4, 5), fill), np.zeros((3, 4, 5), bool), spacing=SPACING)


def test_importing_the_module_does_not_import_monai():
    code = "import sys, catnet.evaluate.metrics; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_volume_of_full_size_is_measured_as_its_crop():
    row, column = np.ogrid[:256, :256]
    truth = np.zeros((36, 256, 256), bool)
    prediction = np.zeros_like(truth)
    truth[10:14] = (row - 90) ** 2 + (column - 100) ** 2 < 15**2
    prediction[11:15] = (row - 92) ** 2 + (column - 97) ** 2 < 14**2
    crop = (slice(8, 18), slice(60, 130), slice(70, 130))
    got = measure(prediction, truth, spacing=(7.7, 1.25, 1.25))
    assert got == measure(prediction[crop], truth[crop], spacing=(7.7, 1.25, 1.25))
