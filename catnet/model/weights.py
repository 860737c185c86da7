"""Weights of one architecture, told apart from those of another."""

from collections.abc import Mapping

from torch import Tensor


def first_difference(wanted: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str | None:
    """Name of a tensor that is missing, too many or of another shape; None where all fit."""
    for name, tensor in wanted.items():
        if name not in given or given[name].shape != tensor.shape:
            return name
    return next((name for name in given if name not in wanted), None)
