"""The papers' complexity formulas against the multiply-adds that are counted.

Counted are matrix products and convolutions. n tokens of x, m of the context, c channels; the
papers state the forms with m = n.
"""

import pytest
import torch

from catnet.model.attention import ATTENTION, build_attention
from catnet.model.attention.twins_gsa import REDUCTIONS
from catnet.model.measure import multiply_adds

DIM = 64
HEADS = 8
X, CONTEXT = (16, 32), (8, 48)
N, M = 16 * 32, 8 * 48


def counted(name, *, dim=DIM, x=X, context=None, **options):
    maps = [torch.zeros(1, dim, *size) for size in (x, context) if size]
    return multiply_adds(build_attention(name, dim, options), *maps)


def masked(n, m, c):
    """VOLO and Twins write 4 n c^2 + 2 n^2 c of it: queries and output of x, keys and values."""
    return 2 * (n + m) * c**2 + 2 * n * m * c


def lsa(n, c, *, window):
    """VOLO: 4 HW C^2 + 2 HW K^2 C; Twins counts the second term alone."""
    return 4 * n * c**2 + 2 * n * window**2 * c


def outlook(n, c, *, heads, kernel):
    """VOLO: HW C (2 C + N K^4) + HW K^2 C, with N heads.

    The last term is the weights times the values, and the paper takes a K x K window for it. But
    every one of the K^2 places of a window takes from all K^2, before the overlaps are summed (a
    sum is no multiply-add): K^2 times as much, in the authors' code as well.
    """
    paper = n * c * (2 * c + heads * kernel**4) + n * kernel**2 * c
    return paper + n * c * kernel**2 * (kernel**2 - 1)


def gsa(n, m, c, *, ratio, reduce="average"):
    """Twins counts 2 n m c / r^2, the two products alone; c^2 are projections.

    The last term is what makes a cell one position; a mean has no multiply-adds.
    """
    cells = m // ratio**2
    reducing = {"convolution": m * c**2, "depthwise": m * c, "average": 0}[reduce]
    return 2 * n * c**2 + 2 * cells * c**2 + 2 * n * cells * c + reducing


@pytest.mark.parametrize("size", [(4, 4), (8, 6), (16, 24)], ids=str)
@pytest.mark.parametrize("dim", [8, 64])
def test_self_attention_is_4nc2_and_2n2c(dim, size):
    n = size[0] * size[1]
    assert counted("masked", dim=dim, x=size) == 4 * n * dim**2 + 2 * n**2 * dim


@pytest.mark.parametrize("window", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (16, 24)], ids=str)
def test_grouped_attention_is_4nc2_and_2k2nc(size, window):
    n = size[0] * size[1]
    assert counted("lsa", x=size, window=window) == lsa(n, DIM, window=window)


def test_grouped_attention_pays_for_whole_windows():
    """Projections are of the 5 x 7 tokens, products of the 8 x 8 that four windows hold."""
    expected = 4 * 35 * DIM**2 + 2 * 64 * 4**2 * DIM
    assert counted("lsa", x=(5, 7), window=4) == expected


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("heads", [1, 4])
def test_outlook_attention_is_the_paper_s_formula_with_all_places_of_the_window(heads, kernel):
    expected = outlook(N, DIM, heads=heads, kernel=kernel)
    assert counted("outlook", heads=heads, kernel=kernel) == expected


@pytest.mark.parametrize("stride", [2, 3])
def test_stride_of_outlook_attention_saves_centers_but_no_projection(stride):
    centers = -(-16 // stride) * -(-32 // stride)
    every = outlook(centers, DIM, heads=HEADS, kernel=3) - 2 * centers * DIM**2
    assert counted("outlook", stride=stride) == 2 * N * DIM**2 + every


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("ratio", [2, 4, 8])
def test_subsampled_attention_is_2nmc_a_cell_beside_its_projections(ratio, reduce):
    expected = gsa(N, N, DIM, ratio=ratio, reduce=reduce)
    assert counted("gsa", ratio=ratio, reduce=reduce) == expected
    expected = gsa(N, M, DIM, ratio=ratio, reduce=reduce)
    assert counted("gsa", context=CONTEXT, ratio=ratio, reduce=reduce) == expected


@pytest.mark.parametrize("size", [(32, 32), (5, 9), (3, 20)], ids=str)
def test_the_padding_of_windows_is_in_the_formula(size):
    """The docstring's N: the tokens of whole windows, of which the last ones are filled up."""
    high, wide = min(7, size[0]), min(7, size[1])
    whole = -(-size[0] // high) * high * (-(-size[1] // wide) * wide)
    n = size[0] * size[1]
    assert counted("lsa", dim=256, x=size) == 4 * n * 256**2 + 2 * whole * high * wide * 256
    if size == (32, 32):
        assert counted("lsa", dim=256, x=size) / 1e6 == pytest.approx(299.2, abs=0.05)


@pytest.mark.parametrize("context", [None, CONTEXT])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_stride_of_second_order_pooling_saves_its_first_layer_too(stride, context):
    """The docstring's M c d + M d^2 + 4 d^2 + 4 d c."""
    few, d = (M if context else N) // stride**2, 16
    expected = few * DIM * d + few * d**2 + 4 * d**2 + 4 * d * DIM
    assert counted("gsop", channels=d, stride=stride, context=context) == expected


@pytest.mark.parametrize(("context", "maps"), [(None, N), (CONTEXT, N + M)])
def test_spatial_second_order_pooling_reduces_every_map_once(context, maps):
    """The docstring's (n + m) c d + 64^2 d + 8 x 64^2, with n for n + m in self-attention."""
    d = 16
    expected = maps * DIM * d + 64**2 * d + 8 * 64**2
    assert counted("gsop", mode="spatial", channels=d, context=context) == expected


def pair_cost(side, *, dim, window):
    """LSA and GSA with windows and cells of one size."""
    size = (side, side)
    options = {"window": window, "ratio": window, "reduce": "average", "heads": 1}
    return counted("lsa-gsa", dim=dim, x=size, **options)


def divisors(side):
    return [window for window in range(1, side + 1) if side % window == 0]


def cheapest(side, *, dim):
    return min(divisors(side), key=lambda window: pair_cost(side, dim=dim, window=window))


@pytest.mark.parametrize("side", [16, 36, 64, 81])
def test_pair_is_cheapest_with_windows_of_the_root_of_the_map(side):
    """Twins: H^2 W^2 d / (k1 k2) + k1 k2 H W d has its minimum at k1 k2 = sqrt(H W)."""
    assert cheapest(side, dim=8) ** 2 == side


@pytest.mark.parametrize("side", [16, 24, 36])
def test_the_paper_s_sum_is_what_is_counted_less_the_projections(side):
    n = side**2
    for window in divisors(side):
        cells = n // window**2
        projections = 4 * n * DIM**2 + 2 * n * DIM**2 + 2 * cells * DIM**2
        expected = 2 * (n**2 * DIM // window**2 + window**2 * n * DIM)
        assert pair_cost(side, dim=DIM, window=window) - projections == expected


def test_keys_and_values_of_the_cells_ask_for_larger_windows_where_channels_outnumber_tokens():
    """They add 2 n c^2 / k^2, so the minimum is at k1 k2 = sqrt(H W + c); the paper leaves it out.

    On 16 x 16 tokens, windows of 8 are cheaper than of 4 from c = 768 on.
    """
    assert {dim: cheapest(16, dim=dim) for dim in (256, 760, 776)} == {256: 4, 760: 4, 776: 8}


def pair(n, m, c):
    """The context takes its local step too where there is one."""
    near = lsa(n, c, window=4) + (lsa(m, c, window=4) if m != n else 0)
    return near + gsa(n, m, c, ratio=4, reduce="convolution")


def clo(n, m, c, *, share=1 / 2, kernel=7, window=2):
    """Half of the heads in one local branch, half in the global one."""
    near = n * (3 * share * c**2 + 3 * share * c * kernel**2 + 2 * share**2 * c**2)
    cells = m / window**2
    return near + share * c * (n * c + 2 * cells * c + 2 * n * cells) + n * c**2


def stripe(n, c, *, window=8, stripe=8 * X[1] // 4, down=4):
    """The formula of the docstring, and 512 hidden units a relative position, whatever n is."""
    products = n * c * window**2 + 2 * n * c * stripe / down**2
    places = (2 * window - 1) ** 2 + 2 * ((8 + 2 - 1) * (X[1] // 4 + X[1] // 16 - 1))
    return 4 * n * c**2 + n * c**2 / (2 * down**2) + products + places * 512 * (2 + 4)


# Options, and the counted part of the module's "Cost:" where it stands for x and a context. Where
# x and context are aligned, the context is first resized to the n tokens of x.
COSTS = {
    "none": ({}, lambda n, m, c: 0),
    "masked": ({}, masked),
    "lsa": ({"window": 4}, lambda n, m, c: lsa(n, c, window=4)),
    "outlook": ({}, lambda n, m, c: outlook(n, c, heads=8, kernel=3)),
    "gsa": ({}, lambda n, m, c: gsa(n, m, c, ratio=4, reduce="convolution")),
    "lsa-gsa": ({"window": 4}, pair),
    "a2": ({}, lambda n, m, c: c**2 // 2 * (n + m) + (c // 4) ** 2 * (n + m)),
    "nonlocal": ({}, lambda n, m, c: (n + m) * c**2 + n * m * c // 4),
    "refiner": ({}, lambda n, m, c: masked(n, m, c) + n * m * 8 * 3 * (2 * 8 + 3**2)),
    "gc": ({}, lambda n, m, c: 2 * m * c + c**2 // 2),
    "se": ({}, lambda n, m, c: 2 * c**2 // 16),
    "eca": ({}, lambda n, m, c: 3 * c),
    "cbam": ({}, lambda n, m, c: 2 * 2 * c**2 // 16 + 2 * 7**2 * n),
    "gsop": ({}, lambda n, m, c: m * c * 128 + m * 128**2 + 4 * 128**2 + 4 * 128 * c),
    "clo": ({}, clo),
    "stripe": ({}, lambda n, m, c: stripe(n, c)),
}


def test_every_cost_is_checked():
    assert COSTS.keys() == ATTENTION.keys()


@pytest.mark.parametrize("name", COSTS)
def test_cost_is_what_the_module_says(name):
    options, formula = COSTS[name]
    assert counted(name, **options) == formula(N, N, DIM)
    if ATTENTION[name].cross:
        assert counted(name, context=CONTEXT, **options) == formula(N, M, DIM)
