"""Make torchvision importable where its compiled operators do not fit the installed torch.

A CUDA build of torchvision beside a CPU build of torch fails at import with "operator
torchvision::nms does not exist", and timm and segmentation-models-pytorch import it. Nothing here
uses those operators, so declaring them is enough.
"""

import sys

import torch


def guard_torchvision() -> None:
    """Import torchvision, declaring its missing operators where that is why it fails."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        declare_operators()
        import torchvision


def declare_operators() -> None:
    """Declare torchvision's compiled operators and forget its half-finished import."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", schema)
