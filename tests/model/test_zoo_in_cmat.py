"""Every mechanism of the zoo in a round of CMAT: what masks and shots do to what it receives."""

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from zoo import CROSS, DIM, FEW, where_crossed

from catnet.errors import UserError
from catnet.model.attention import ATTENTION, build_attention
from catnet.model.cmat import CrossAttention, Round, SelfAttention, Streams, erase

OPTIONS = [  # those of which the way that shots are seen depends
    ("cbam", {"pools": ["lp"]}),
    ("cbam", {"pools": ["avg", "lse"]}),
    ("gsa", {"ratio": 1}),
    ("gsop", {"mode": "both"}),
    ("gsop", {"stride": 2}),
    ("nonlocal", {"subsample": False}),
]
PLACED = [(name, {}) for name in CROSS] + OPTIONS
SEPARATE = [
    (name, options)
    for name, options in PLACED
    if (one := build_attention(name, DIM, FEW.get(name, {}) | options)).aligned or one.one_by_one
]
BLOCKING = [(name, how) for name in CROSS for how in ("multiply", "bias")]
BLOCKING.remove(("masked", "multiply"))  # the background keeps its share of the softmax there
hows = pytest.mark.parametrize("mask_how", ["multiply", "bias"])


@torch.no_grad()
def scatter(module):
    """No two weights alike, and none at its special starting value."""
    generator = torch.Generator().manual_seed(3)
    for parameter in module.parameters():
        scale = 0.5 * parameter[0].numel() ** -0.5
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module.double().eval()


def make_cross(name, *, mask_on, mask_how="multiply", given=None):
    torch.manual_seed(0)
    attention = build_attention(name, DIM, FEW.get(name, {}) | (given or {}))
    options = {"ffn": "mlp", "mlp_ratio": 1.5, "mask_on": mask_on, "mask_how": mask_how}
    return scatter(CrossAttention(dim=DIM, attention=attention, **options))


def make_round(name, *, mask_on="none", direction="both"):
    torch.manual_seed(0)
    attention = build_attention(name, DIM, FEW.get(name, {}))
    own = SelfAttention(dim=DIM, attention=attention, ffn="mlp", mlp_ratio=1.5)
    cross = make_cross(name if ATTENTION[name].cross else "masked", mask_on=mask_on)
    return scatter(Round(self_support=own, self_query=None, cross=cross, direction=direction))


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def exchange():
    """A map, two shots of a context below each other, and the masks of both."""
    x, context = normal(2, DIM, 8, 9), normal(2, DIM, 16, 9, seed=1)
    kept, context_kept = (normal(2, h, 9, seed=h) > 0 for h in (8, 16))
    return x, context, {"kept": kept.double(), "context_kept": context_kept.double()}


def make_streams(seed=0):
    kept = [(normal(2, *shape, seed=seed + 5) > 0).double() for shape in ((2, 8, 9), (8, 9))]
    support, query = normal(2, 2, DIM, 8, 9, seed=seed), normal(2, DIM, 8, 9, seed=seed + 1)
    return Streams(support, kept[0], query, kept[1])


@where_crossed
@torch.no_grad()
def test_nothing_but_the_cross_place_joins_the_streams_and_it_does(name):
    """The support reaches the query of a round by the exchange alone, and the other way round."""
    one = make_streams()
    others = {
        "support": replace(one, support=normal(2, 2, DIM, 8, 9, seed=8)),
        "query": replace(one, query=normal(2, DIM, 8, 9, seed=9)),
    }
    for direction in ("both", "support_to_query", "query_to_support"):
        module = make_round(name, direction=direction)
        support, query, _ = module(one)
        reached = ((module(others["support"])[1] - query).abs().amax(dim=(1, 2, 3)) > 1e-4).all()
        assert reached == (direction != "query_to_support")
        moved = ((module(others["query"])[0] - support).abs().amax(dim=(2, 3, 4)) > 1e-4).all()
        assert moved == (direction != "support_to_query")


@pytest.mark.parametrize(("name", "mask_how"), BLOCKING)
@torch.no_grad()
def test_on_keys_the_background_of_the_context_is_not_seen(name, mask_how, exchange):
    x, context, masks = exchange
    cross = make_cross(name, mask_on="keys", mask_how=mask_how)
    received = cross.attend(x, context, **masks)
    background = 1 - rearrange(masks["context_kept"], "b i j -> b 1 i j")
    other = context + 7 * background * normal(*context.shape, seed=4)
    torch.testing.assert_close(cross.attend(x, other, **masks), received, rtol=0, atol=1e-12)
    seen = context + (1 - background) * normal(*context.shape, seed=4)
    changed = (cross.attend(x, seen, **masks) - received).abs().amax(dim=(1, 2, 3))
    assert (changed > 1e-4).all()


@torch.no_grad()
def test_on_keys_multiplication_leaves_the_background_its_share_of_the_softmax(exchange):
    """Its values are gone, its keys are not: only the weights of what is kept may change."""
    x, context, masks = exchange
    cross = make_cross("masked", mask_on="keys", mask_how="multiply")
    background = 1 - rearrange(masks["context_kept"], "b i j -> b 1 i j")
    values = cross.attention.key_value
    values.weight[:DIM], values.bias[:DIM] = 0, 0  # all keys alike: now only values could differ
    other = context + 7 * background
    torch.testing.assert_close(
        cross.attend(x, other, **masks), cross.attend(x, context, **masks), rtol=0, atol=1e-12
    )


@where_crossed
@hows
@torch.no_grad()
def test_on_queries_the_positions_outside_receive_exactly_nothing(name, mask_how, exchange):
    x, context, masks = exchange
    cross = make_cross(name, mask_on="queries", mask_how=mask_how)
    received = cross.attend(x, context, **masks)
    kept = masks["kept"].bool()
    at = rearrange(received, "b c h w -> b h w c")
    assert (at[~kept] == 0).all()
    assert (at[kept].abs().amax(dim=-1) > 1e-6).all()
    free = make_cross(name, mask_on="none").attend(x, context, **masks)
    expected = rearrange(free, "b c h w -> b h w c")[kept]
    if (
        name == "masked"
    ):  # gathered tokens meet other blocks of a product, whose sums round otherwise
        torch.testing.assert_close(at[kept], expected)
    else:
        assert torch.equal(at[kept], expected)


@where_crossed
@pytest.mark.parametrize("mask_on", ["queries", "keys"])
@hows
def test_an_empty_mask_leaves_the_map_as_it_is(name, mask_on, mask_how, exchange):
    x, context, masks = exchange
    cross = make_cross(name, mask_on=mask_on, mask_how=mask_how)
    masks["kept" if mask_on == "queries" else "context_kept"][0] = 0
    x, context = x.requires_grad_(), context.requires_grad_()
    changed = cross(x, context, **masks)
    assert torch.equal(changed[0], x[0])
    assert not torch.allclose(changed[1], x[1])
    for gradient in torch.autograd.grad(changed.square().sum(), [x, context, *cross.parameters()]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("name", "options"), SEPARATE)
@pytest.mark.parametrize("mask_on", ["queries", "none"])
@torch.no_grad()
def test_two_shots_that_are_not_mixed_give_the_mean_of_both(name, options, mask_on, exchange):
    x, context, masks = exchange
    cross = make_cross(name, mask_on=mask_on, given=options)
    single = [
        cross.attend(x, part, kept=masks["kept"], context_kept=kept)
        for part, kept in zip(
            context.chunk(2, dim=2), masks["context_kept"].chunk(2, dim=1), strict=True
        )
    ]
    expected = (single[0] + single[1]) / 2
    torch.testing.assert_close(cross.attend(x, context, **masks), expected)
    assert not torch.allclose(single[0], single[1])


@pytest.mark.parametrize(("name", "options"), PLACED)
@pytest.mark.parametrize("size", [(5, 6), (8, 8), (7, 9)], ids=str)
@torch.no_grad()
def test_no_shot_is_mixed_with_the_next(name, options, size):
    """Their order does not matter, and one shot given twice is that shot: no cell has both."""
    x, one, other = (normal(2, DIM, *size, seed=seed) for seed in range(3))
    cross = make_cross(name, mask_on="none", given=options)
    received = cross.receive(x, torch.cat([one, other], dim=2))
    torch.testing.assert_close(cross.receive(x, torch.cat([other, one], dim=2)), received)
    alone = cross.receive(x, one)
    torch.testing.assert_close(cross.receive(x, torch.cat([one, one], dim=2)), alone)
    assert not torch.allclose(alone, received)


@pytest.mark.parametrize(
    ("name", "options", "exact"),
    [
        ("se", {}, True),
        ("eca", {}, True),
        ("cbam", {}, True),
        ("cbam", {"pools": ["lse"]}, False),
        ("gc", {"pooling": "average"}, True),
        ("gc", {}, False),
        ("gsop", {}, False),
        ("nonlocal", {}, False),
        ("gsa", {}, False),
        ("a2", {}, False),
        ("refiner", {}, False),
    ],
)
@torch.no_grad()
def test_for_which_mechanisms_an_erased_background_might_as_well_be_cut_off(name, options, exact):
    """What `erase` says: the context's lower half is background, or is not there."""
    x, context = normal(2, DIM, 8, 8), normal(2, DIM, 8, 8, seed=1)
    kept = torch.zeros(2, 8, 8, dtype=torch.float64)
    kept[:, :4] = 1
    attention = scatter(build_attention(name, DIM, FEW.get(name, {}) | options))
    cut = attention(x, context[:, :, :4])
    erased = attention(x, erase(context, kept=kept, how="bias"))
    assert torch.allclose(erased, cut, rtol=1e-9) == exact
    assert not torch.allclose(attention(x, erase(context, kept=kept, how="multiply")), cut)


@pytest.mark.parametrize(("how", "exact"), [("bias", True), ("multiply", False)])
@torch.no_grad()
def test_masked_removes_a_background_exactly_with_bias_alone(how, exact, exchange):
    x, context, _ = exchange
    kept = torch.zeros(2, 16, 9, dtype=torch.float64)
    kept[:, :6] = 1
    attention = scatter(build_attention("masked", DIM, {}))
    cut = attention(x, context[:, :, :6])
    assert torch.allclose(attention(x, context, keep=kept, how=how), cut) == exact


def test_with_a_convolution_behind_it_the_mask_restricts_the_attention_and_not_what_follows():
    """What the docstring says of `ffn: conv`: it reaches two positions beyond the mask."""
    x, context = normal(1, DIM, 9, 9), normal(1, DIM, 9, 9, seed=1)
    kept = torch.zeros(1, 9, 9, dtype=torch.float64)
    kept[:, 4, 4] = 1
    masks = {"kept": kept, "context_kept": torch.ones_like(kept)}
    attention = build_attention("masked", DIM, {})
    options = {"mlp_ratio": 1.5, "mask_on": "queries", "mask_how": "multiply"}
    for ffn, reached in (("mlp", 1), ("conv", 25)):
        cross = scatter(CrossAttention(dim=DIM, attention=attention, ffn=ffn, **options))
        with torch.no_grad():
            moved = (cross(x, context, **masks) != cross(x, -context, **masks)).any(dim=1)
        assert moved.sum() == reached
        assert moved[0, 4, 4]


@pytest.mark.parametrize("place", ["self", "cross"])
def test_a_mechanism_that_needs_a_map_is_refused_before_it_runs(place):
    shared = build_attention("refiner", DIM, {"share": True})
    options = {"dim": DIM, "attention": shared, "ffn": "mlp", "mlp_ratio": 1.5}
    crossed = {"mask_on": "none", "mask_how": "bias"} if place == "cross" else {}
    kind = CrossAttention if crossed else SelfAttention
    with pytest.raises(UserError, match="Refiner with these options needs the attention map"):
        kind(**options, **crossed)
