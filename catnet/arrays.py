"""The arrays that data and reports speak in, which need no torch; the axes are those of `types`."""

from jaxtyping import Bool, Float, Integer
from numpy import ndarray

Volume = Float[ndarray, "d h w"]
LabelVolume = Integer[ndarray, "d h w"]
MaskVolume = Bool[ndarray, "d h w"]
Affine = Float[ndarray, "4 4"]
