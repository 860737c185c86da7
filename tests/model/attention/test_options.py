"""The door of the zoo: what is said of a name, an option or a value that it does not know."""

import pytest
import torch
from zoo import DIM, FEW, build, everywhere, features

from catnet.config import ModelSettings
from catnet.errors import UserError
from catnet.model.attention import (
    ATTENTION,
    build_attention,
    build_cross_attention,
    check_places,
    options_of,
)
from catnet.model.options import describe

HEADED = [
    (name, option)
    for name, kind in ATTENTION.items()
    for option in options_of(kind)
    if option.endswith("heads")
]


@pytest.mark.parametrize(
    ("name", "nearest"), [("outlok", "outlook"), ("mask", "masked"), ("?", "")]
)
def test_an_unknown_name_lists_the_known_ones_and_the_nearest(name, nearest):
    for act in (build_attention, build_cross_attention):
        with pytest.raises(UserError, match="is unknown") as caught:
            act(name, DIM, {})
        assert all(known in str(caught.value) for known in [repr(name), *ATTENTION])
        assert (f"did you mean {nearest!r}?" in str(caught.value)) == bool(nearest)


@everywhere
def test_an_unknown_option_lists_those_that_there_are(name):
    with pytest.raises(UserError, match=f"^attention {name!r} has no option 'hedas'") as caught:
        build_attention(name, DIM, {"hedas": 4})
    listed = str(caught.value).partition("known: ")[2].rstrip(")").split(", ")
    assert listed == (sorted(options_of(ATTENTION[name])) or ["none"])
    if "heads" in options_of(ATTENTION[name]):
        assert "did you mean 'heads'?" in str(caught.value)


@everywhere
def test_a_value_of_the_wrong_type_is_an_error_that_names_the_option(name):
    for option in options_of(ATTENTION[name]):
        with pytest.raises(UserError, match=f"^attention {name!r}: {option}=") as caught:
            build_attention(name, DIM, {option: {"a": 1}})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("masked", "heads", "8"),
        ("masked", "heads", 8.0),
        ("masked", "heads", True),
        ("gsa", "scale", float("nan")),
        ("lsa", "qkv_bias", "no"),
        ("cbam", "pools", "avg"),
        ("clo", "kernels", [7.5]),
        ("stripe", "stripe", 8),
    ],
)
def test_nothing_is_made_of_a_value_that_almost_fits(name, option, value):
    with pytest.raises(UserError, match=f"{option}=.* is no "):
        build_attention(name, DIM, {option: value})


@everywhere
def test_options_may_come_as_a_file_gives_them(name):
    """Lists where the defaults are tuples, and the defaults themselves, change nothing."""
    options = {
        option: list(value) if isinstance(value, tuple) else value
        for option, value in options_of(ATTENTION[name]).items()
    }
    x, few = features(), FEW.get(name, {})
    assert torch.equal(build(name, **(options | few))(x), build(name)(x))


@pytest.mark.parametrize(("name", "option"), HEADED)
@pytest.mark.parametrize("heads", [5, 0, -2])
def test_heads_that_do_not_divide_the_channels_are_refused(name, option, heads):
    with pytest.raises(UserError, match=rf"{option}.*{heads}.*dim"):
        build_attention(name, DIM, {option: heads})


@everywhere
@pytest.mark.parametrize(
    "dim", [0, -8, None, "32", 32.0, True, 10**11, float("nan"), [32]], ids=repr
)
def test_a_number_of_channels_is_a_whole_number_in_reason(name, dim, unchecked):
    with pytest.raises(UserError, match=f"^attention {name!r}: dim=.* is no number of channels"):
        build_attention(name, dim, {})


@pytest.mark.parametrize("name", [None, 3, ("se",), ["se"], {}], ids=repr)
def test_what_is_no_name_is_an_unknown_name(name, unchecked):
    with pytest.raises(UserError, match="is unknown; "):
        build_attention(name, DIM, {})


@pytest.mark.parametrize("key", [None, 3, ("heads",), True], ids=repr)
def test_what_is_no_option_s_name_is_an_unknown_option(key, unchecked):
    with pytest.raises(UserError, match="has no option"):
        build_attention("masked", DIM, {key: 4})


@pytest.mark.parametrize("options", [None, ["heads"], "heads", 3], ids=repr)
def test_options_are_a_mapping(options, unchecked):
    with pytest.raises(UserError, match="options are `name: value` pairs"):
        build_attention("masked", DIM, options)


def numbers(option):
    """Values far out of reason for an option that takes a number, or several."""
    if option.kind.startswith("Sequence[int"):
        many = len(option.default)
        return [[10**9] * many, [10**30] * many, [-(10**9)] * many]
    if option.kind.startswith("int"):
        return [10**9, 10**30, -(10**9)]
    if option.kind.startswith("float"):
        return [1e300, -1e300]
    return []


OVERSIZED = [
    (name, option.name, value)
    for name, kind in ATTENTION.items()
    for option in describe(kind)
    for value in numbers(option)
]


@pytest.mark.parametrize(("name", "option", "value"), OVERSIZED, ids=str)
@torch.no_grad()
def test_a_number_out_of_reason_is_refused_or_costs_nothing(name, option, value, unchecked):
    """Such as a window: one larger than the map is the map."""
    options = FEW.get(name, {}) | {option: value}
    if option in {"window", "stripe", "groups"} and build_or_none(name, options):
        assert build_attention(name, DIM, options).eval()(features((5, 6))).isfinite().all()
        return
    with pytest.raises(UserError, match=f"{option}|kernel") as caught:
        build_attention(name, DIM, options)
    assert "\n" not in str(caught.value)


def build_or_none(name, options):
    try:
        return build_attention(name, DIM, options)
    except UserError:
        return None


@everywhere
def test_every_option_says_what_it_means(name):
    for option in describe(ATTENTION[name]):
        assert option.meaning, f"{name}: give {option.name} a Field(description=...)"
        assert option.default == options_of(ATTENTION[name])[option.name]
        assert "." not in option.kind


# The places of CMAT, looked at before anything is built


@everywhere
@pytest.mark.parametrize("rounds", [0, 4])
def test_places_that_can_be_built_pass_and_nothing_is_drawn(name, rounds):
    crossed = name if ATTENTION[name].cross else "masked"
    state = torch.get_rng_state()
    check_places(ModelSettings(rounds=rounds, attention=name, cross_attention=crossed))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("rounds", [0, 4])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attention": "outlok"}, "did you mean 'outlook'"),
        ({"cross_attention": "none"}, "has no cross form"),
        ({"attention_options": {"hads": 4}}, "has no option 'hads'"),
        ({"cross_attention_options": {"heads": 5}}, "heads=5 does not divide dim=256"),
        ({"attention": "refiner", "attention_options": {"share": True}}, "leave its option share"),
        (
            {"cross_attention": "refiner", "cross_attention_options": {"share": True}},
            "leave its option share",
        ),
    ],
)
def test_a_place_that_cannot_be_built_is_refused_even_without_rounds(changes, said, rounds):
    with pytest.raises(UserError, match=said):
        check_places(ModelSettings(rounds=rounds, **changes))
