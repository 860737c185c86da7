"""GRL's windows and stripes: the authors' numbers and geometry, and the slow equation."""

import math

import pytest
import torch
from einops import rearrange
from golden import read
from golden_stripe import (
    agree,
    build_stripe,
    build_window,
    cases,
    load,
    size,
    split_qkv,
    window_size,
)

from catnet.model.attention.stripe_geometry import (
    Tiling,
    anchor_grid,
    penalty,
    regions,
    relative_positions,
)
from catnet.model.attention.stripe_window import (
    AnchoredStripeAttention,
    WindowAttention,
    tile_grid,
)

LIKE = torch.empty(0)  # CPU, float32: what the geometry is asked for


@torch.no_grad()
@pytest.mark.parametrize(("path", "dtype"), cases("grl_window_attention"))
def test_window_attention_is_the_authors(path, dtype):
    golden = read(path, dtype)
    query, key, value = split_qkv(golden)
    agree(load(build_window(golden), golden)(query, key=key, value=value), golden)


@torch.no_grad()
@pytest.mark.parametrize(("path", "dtype"), cases("grl_anchor_stripe_attention"))
def test_stripe_attention_is_the_authors(path, dtype):
    golden = read(path, dtype)
    query, key, value = split_qkv(golden)
    anchor = rearrange(golden.inputs["anchor"], "b h w c -> b c h w")
    module = load(build_stripe(golden), golden)
    agree(module(query, key=key, value=value, anchor=anchor), golden)


def stripe_tiling(golden, *, vertical):
    """The stripes of a file, shifted: the authors store masks of the shift only."""
    order = slice(None, None, -1 if vertical else 1)
    stripes = AnchoredStripeAttention(
        1,
        stripe=golden.kwargs["stripe_size"][order],
        groups=golden.kwargs["stripe_groups"][order],
        shift=True,
        down=golden.kwargs["anchor_window_down_factor"],
        distance="cosine",
    )
    return stripes.tiling(size(golden))


def window_geometry(golden):
    side = window_size(golden)
    tiling = Tiling((side, side), (side // 2, side // 2))
    here = regions(size(golden), tiling=tiling, device=LIKE.device)
    grid = tile_grid(tiling.tile)
    return relative_positions(grid, grid, like=LIKE), penalty(here, here)


def stripe_geometry(golden, *, vertical, anchors_ask):
    tiling, down = (
        stripe_tiling(golden, vertical=vertical),
        golden.kwargs["anchor_window_down_factor"],
    )
    small = tuple(length // down for length in size(golden))
    here = regions(size(golden), tiling=tiling, device=LIKE.device)
    there = regions(small, tiling=tiling.smaller(down), device=LIKE.device)
    grid, anchors = tile_grid(tiling.tile), anchor_grid(tiling.tile, down=down, up=anchors_ask)
    if anchors_ask:
        return relative_positions(anchors, grid, like=LIKE), penalty(there, here)
    return relative_positions(grid, anchors, like=LIKE), penalty(here, there)


@pytest.mark.parametrize(
    ("path", "dtype"),
    cases(
        "grl_window_attention",
        "grl_anchor_stripe_attention",
        "grl_mixed_attention",
        "grl_block",
        dtypes=(torch.float32,),
    ),
)
def test_tables_indices_and_masks_are_the_authors(path, dtype):
    """Inputs are `table`, `index`, `mask` + `_w`, `_s`, `_sh`, `_sv` or nothing + the direction."""
    golden = read(path, dtype)
    endings = [name.removeprefix("index") for name in golden.inputs if name.startswith("index")]
    assert endings
    for ending in endings:
        if ending.endswith(("a2w", "w2a")):
            (table, index), lost = stripe_geometry(
                golden, vertical="_sv" in ending, anchors_ask=ending.endswith("a2w")
            )
        else:
            (table, index), lost = window_geometry(golden)
        stem = ending.removesuffix("_a2w").removesuffix("_w2a")
        stored = golden.inputs["table_s" if f"table{stem}" not in golden.inputs else f"table{stem}"]
        torch.testing.assert_close(table, stored[0], atol=1e-6, rtol=0)
        assert torch.equal(index, golden.inputs[f"index{ending}"])
        if f"mask{ending}" in golden.inputs:
            assert torch.equal(lost[:, 0], golden.inputs[f"mask{ending}"])


def position(difference, greatest):
    scaled = 8 * difference / max(greatest, 1)
    return math.copysign(math.log2(1 + abs(scaled)) / 3, scaled)


def slow_attention(module, query, keys, values, *, positions, lost):
    """One query, one head after the other; `positions` and `lost` per key."""
    scale = module.logit_scale.exp().clamp(max=100).flatten()
    mixed = []
    for head, (q, ks, vs) in enumerate(zip(query, keys, values, strict=True)):
        logits = []
        for k, place, loss in zip(ks, positions, lost, strict=True):
            bias = 16 * module.bias(torch.tensor(place, dtype=q.dtype))[head].sigmoid()
            logits.append(scale[head] * (q @ k) / (q.norm() * k.norm()) + bias + loss)
        mixed.append(torch.stack(logits).softmax(dim=0) @ vs)
    return torch.stack(mixed)


def heads_of(x, place):
    return rearrange(x[:, place[0], place[1]], "(heads d) -> heads d", heads=2)


@torch.no_grad()
@pytest.mark.parametrize("shift", [False, True])
def test_windows_of_an_odd_map_are_the_slow_equation(generator, shift):
    """A 5 x 7 map under windows of 4: every token attends to the real tokens of its window."""
    module = WindowAttention(2, window=4, shift=shift, distance="cosine").double()
    query, key, value = torch.randn(3, 6, 5, 7, generator=generator, dtype=torch.float64)
    ours = module(query[None], key=key[None], value=value[None])[0]
    moved = 2 if shift else 0
    tokens = [(h, w) for h in range(5) for w in range(7)]
    home = {(h, w): ((h - moved) % 8, (w - moved) % 8) for h, w in tokens}
    for token in tokens:
        row, column = home[token]
        seen = [t for t in tokens if (home[t][0] // 4, home[t][1] // 4) == (row // 4, column // 4)]
        expected = slow_attention(
            module.attend,
            heads_of(query, token),
            torch.stack([heads_of(key, t) for t in seen], dim=1),
            torch.stack([heads_of(value, t) for t in seen], dim=1),
            positions=[
                (position(row - home[t][0], 3), position(column - home[t][1], 3)) for t in seen
            ],
            lost=[
                -100.0 * any((token[axis] < moved) != (t[axis] < moved) for axis in (0, 1))
                for t in seen
            ],
        )
        torch.testing.assert_close(heads_of(ours, token), expected, atol=1e-9, rtol=0)


@torch.no_grad()
def test_stripes_of_an_odd_map_are_the_slow_equation(generator):
    """A 5 x 7 map, stripes of 4 x 6 and anchors of 2 x 2 cells: 2 x 2 stripes, 3 x 4 anchors."""
    module = AnchoredStripeAttention(
        2, stripe=(4, 6), groups=(None, None), shift=False, down=2, distance="cosine"
    ).double()
    query, key, value = torch.randn(3, 6, 5, 7, generator=generator, dtype=torch.float64)
    anchor = torch.randn(6, 3, 4, generator=generator, dtype=torch.float64)
    ours = module(query[None], key=key[None], value=value[None], anchor=anchor[None])[0]
    tokens = [(h, w) for h in range(5) for w in range(7)]
    cells = [(h, w) for h in range(3) for w in range(4)]
    for token in tokens:
        stripe = (token[0] // 4, token[1] // 6)
        seen = [t for t in tokens if (t[0] // 4, t[1] // 6) == stripe]
        anchors = [a for a in cells if (a[0] // 2, a[1] // 3) == stripe]
        keys, values = (
            torch.stack([heads_of(part, t) for t in seen], dim=1) for part in (key, value)
        )
        gathered = [
            slow_attention(
                module.gather,
                heads_of(anchor, a),
                keys,
                values,
                positions=[
                    (position(a[0] % 2 + 1 - t[0] % 4, 2), position(a[1] % 3 + 2 - t[1] % 6, 4))
                    for t in seen
                ],
                lost=[0.0] * len(seen),
            )
            for a in anchors
        ]
        expected = slow_attention(
            module.distribute,
            heads_of(query, token),
            torch.stack([heads_of(anchor, a) for a in anchors], dim=1),
            torch.stack(gathered, dim=1),
            positions=[
                (position(token[0] % 4 - a[0] % 2 - 1, 2), position(token[1] % 6 - a[1] % 3 - 1, 4))
                for a in anchors
            ],
            lost=[0.0] * len(anchors),
        )
        torch.testing.assert_close(heads_of(ours, token), expected, atol=1e-9, rtol=0)
