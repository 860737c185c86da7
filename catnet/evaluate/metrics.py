"""How well a volume is segmented: overlap in percent, distance of the surfaces in mm.

With T the true voxels, P the predicted ones, and a surface the voxels of a mask that touch its
outside by a face (beyond the volume is outside):

    dice = 2 |P and T| / (|P| + |T|)        iou = |P and T| / |P or T|
    hd95 = max over both directions of the 95th percentile of the distance of a surface voxel to
           the other surface
    surface_dice = share of the voxels of both surfaces within `tolerance` of the other one

Overlaps and surfaces are MONAI's, whose metrics give nan where a side is empty; these never do.
HD95: "Comparing Images Using the Hausdorff Distance", Huttenlocher et al., TPAMI 1993. Surface
Dice: "Clinically Applicable Segmentation of Head and Neck Anatomy for Radiotherapy", Nikolov et
al., 2021, arXiv 1809.04430, counted here in surface voxels, not in areas.
"""

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from numpy import ndarray
from scipy import ndimage

from catnet.arrays import MaskVolume


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
    # Late, because MONAI takes seconds to import.
    from monai import metrics

    pair = [
        rearrange(torch.from_numpy(mask.astype(np.float32)), "d h w -> 1 1 d h w")
        for mask in (prediction, truth)
    ]
    edges = metrics.utils.get_mask_edges(prediction, truth, crop=False)
    there, back = surface_distances(*edges, spacing=spacing)
    within = (there <= tolerance).sum() + (back <= tolerance).sum()
    return {
        "dice": 100 * metrics.compute_dice(*pair).item(),
        "iou": 100 * metrics.compute_iou(*pair).item(),
        "hd95": float(max(np.percentile(there, 95), np.percentile(back, 95))),
        "surface_dice": 100 * float(within / (there.size + back.size)),
    }


def surface_distances(
    prediction: MaskVolume, truth: MaskVolume, *, spacing: tuple[float, float, float]
) -> tuple[Float[ndarray, " p"], Float[ndarray, " t"]]:
    """Distance in mm of every surface voxel of one mask to the surface of the other, both ways.

    One distance transform a side, whose time depends on the box alone; the tree search inside
    MONAI's own metrics takes up to 20 s for the scattered masks of an untrained network. The tests
    compare the scores with MONAI's.
    """
    to_truth = ndimage.distance_transform_edt(~truth, sampling=spacing)
    to_prediction = ndimage.distance_transform_edt(~prediction, sampling=spacing)
    return to_truth[prediction], to_prediction[truth]
