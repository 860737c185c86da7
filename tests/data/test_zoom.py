"""Interpolation axis by axis gives the very numbers of scipy's, which goes voxel by voxel."""

import numpy as np
import pytest
from scipy import ndimage

from catnet.data.zoom import zoom


def draw(seed):
    """A volume of some layout and type, a scaling that may leave it, and an output's shape."""
    generator = np.random.default_rng(seed)
    held, shape = (tuple(map(int, generator.integers(1, 14, 3))) for _ in range(2))
    kind = generator.choice([np.uint8, np.int16, np.float32, np.float64])
    voxels = generator.normal(100, 30, held).astype(kind)
    voxels = np.asfortranarray(voxels) if seed % 3 == 0 else voxels[::-1, :, ::-1]
    scale, offset = generator.uniform(0.3, 3, 3), generator.uniform(-3, 3, 3)
    if seed % 2:  # an axis whose voxels fall on voxels
        scale[2], offset[2] = 1, round(offset[2])
    if seed % 5 == 0:  # halves, where rounding decides
        scale[:2], offset[:2] = (1, 0.5), (0.5, -1.5)
    return voxels, scale, offset, shape


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("seed", range(20))
def test_the_same_as_voxel_by_voxel(seed, order):
    voxels, scale, offset, shape = draw(seed)
    kind = np.float32 if order else voxels.dtype
    found = zoom(voxels, scale=scale, offset=offset, shape=shape, order=order, fill=7.0, kind=kind)
    plain = ndimage.affine_transform(
        voxels,
        scale,
        offset=offset,
        output_shape=shape,
        output=kind,
        order=order,
        mode="grid-constant",
        cval=7,
        prefilter=False,
    )
    assert found.dtype == plain.dtype
    assert found.flags.f_contiguous
    np.testing.assert_array_max_ulp(found.astype(np.float32), plain.astype(np.float32), maxulp=1)


def test_what_is_outside_is_filled():
    voxels = np.full((2, 2, 2), 5, np.int16)
    step, start, kind = np.full(3, 1.5), np.full(3, 9.0), np.float32
    for order in (0, 1):
        far = zoom(
            voxels, scale=step, offset=start, shape=(3, 3, 3), order=order, fill=-4.0, kind=kind
        )
        assert (far == -4).all()
