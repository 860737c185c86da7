"""How well a volume is segmented: overlap in percent, distance of the surfaces in mm.

With T the true voxels, P the predicted ones, and a surface the voxels of a mask that touch its
outside by a face (beyond the volume is outside):

    dice = 2 |P and T| / (|P| + |T|)        iou = |P and T| / |P or T|
    hd95 = max over both directions of the 95th percentile of the distance of a surface voxel to
           the other surface
    surface_dice = share of the voxels of both surfaces within `tolerance` of the other one

Scores are those of MONAI, whose metrics give nan where a side is empty; these never do. MONAI
itself is left to the tests, which compare: its import alone takes longer than a case.
HD95: "Comparing Images Using the Hausdorff Distance", Huttenlocher et al., TPAMI 1993. Surface
Dice: "Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy", Nikolov et
al., 2021, arXiv 1809.04430, counted here in surface voxels, not in areas.
"""

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage
from scipy.spatial import KDTree

from catnet.arrays import MaskVolume

ASKED, GROWN = 20, 3  # what a voxel of either surface costs in a tree, in voxels of a transform


def measure(
    prediction: MaskVolume,
    truth: MaskVolume,
    *,
    spacing: tuple[float, float, float],
    tolerance: float = 2.0,
) -> dict[str, float]:
    """Dice, IoU and surface Dice in percent, HD95 in mm, of one organ in one volume.

    `spacing` is mm between voxels along d, h, w; `tolerance` is mm. Never nan:

    - truth empty: raises ValueError; an organ that a case lacks is no row, never a 0 or a 100;
    - prediction empty: dice, iou and surface_dice are 0, hd95 is the diagonal of the whole volume
      (voxels times spacing), so a missed organ costs more than any found one.
    """
    if not truth.any():
        raise ValueError("the truth is empty: an organ that the case lacks has no score")
    if not prediction.any():
        diagonal = float(np.linalg.norm(np.multiply(truth.shape, spacing)))
        return {"dice": 0.0, "iou": 0.0, "hd95": diagonal, "surface_dice": 0.0}

    # Beyond the box lies background only, which no score counts; a box edge counts as outside.
    (box,) = ndimage.find_objects((prediction | truth).view(np.uint8))
    return measure_found(prediction[box], truth[box], spacing=spacing, tolerance=tolerance)


def measure_found(
    prediction: MaskVolume,
    truth: MaskVolume,
    *,
    spacing: tuple[float, float, float],
    tolerance: float,
) -> dict[str, float]:
    """The four scores of two masks that both hold a voxel; units as in `measure`."""
    edges = [mask ^ ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    there, back = surface_distances(*edges, spacing=spacing)
    within = (there <= tolerance).sum() + (back <= tolerance).sum()
    both, either = np.count_nonzero(prediction & truth), np.count_nonzero(prediction | truth)
    return {
        "dice": 100 * float(np.float32(2 * both) / np.float32(both + either)),  # as MONAI rounds
        "iou": 100 * float(np.float32(both) / np.float32(either)),
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "surface_dice": 100 * float(within / (there.size + back.size)),
    }


def surface_distances(
    prediction: MaskVolume, truth: MaskVolume, *, spacing: tuple[float, float, float]
) -> tuple[Float[ndarray, " p"], Float[ndarray, " t"]]:
    """Distance in mm of every surface voxel of one mask to the surface of the other, both ways.

    A tree of one surface's voxels is asked for a few of the other's; for many, such as the
    scattered masks of an untrained network, a distance transform costs less.
    """
    return (
        distances(prediction, truth, spacing=spacing),
        distances(truth, prediction, spacing=spacing),
    )


def distances(
    asking: MaskVolume, others: MaskVolume, *, spacing: tuple[float, float, float]
) -> Float[ndarray, " n"]:
    """Distance in mm of every voxel of one mask to the nearest of the other."""
    voxels, near = np.argwhere(asking), np.argwhere(others)
    if ASKED * len(voxels) + GROWN * len(near) > asking.size:
        return ndimage.distance_transform_edt(~others, sampling=spacing)[asking]
    _, found = KDTree(near * spacing).query(voxels * spacing)
    # From whole voxels, as the transform does it: a distance of one voxel is exactly its size.
    return np.sqrt((((voxels - near[found]) * spacing) ** 2).sum(axis=1))
