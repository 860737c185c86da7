import math

import pytest
import torch

from catnet.errors import UserError
from catnet.model.position import POSITION


def encode_slowly(place, width):
    """The equation for one place in (0, 1], which `width` channels encode."""
    half = width // 2
    angles = [2 * math.pi * place / 10000 ** (2 * i / width) for i in range(half)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


def test_sine_adds_the_row_to_half_of_the_channels_and_the_column_to_the_others(generator):
    x = torch.randn(2, 12, 3, 5, generator=generator)
    added = POSITION["sine"](12)(x) - x
    for row in range(3):
        for column in range(5):
            expected = encode_slowly((row + 1) / 3, 6) + encode_slowly((column + 1) / 5, 6)
            for episode in range(2):
                got = added[episode, :, row, column].tolist()
                assert got == pytest.approx(expected, abs=1e-5)


def test_sine_needs_no_weights_and_leaves_none_behind():
    module = POSITION["sine"](12)
    assert not list(module.parameters())
    assert not module.state_dict()


def test_sine_keeps_the_precision_of_the_map():
    assert (
        POSITION["sine"](8)(torch.zeros(1, 8, 2, 2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    )


def test_none_leaves_the_map_as_it_is(generator):
    x = torch.randn(1, 6, 2, 3, generator=generator)
    assert torch.equal(POSITION["none"](6)(x), x)


def test_sine_needs_channels_divisible_by_four():
    with pytest.raises(UserError, match="dim divisible by 4, not 10"):
        POSITION["sine"](10)
