"""The door of the zoo: what is said of a name, an option or a value that it does not know."""

import pytest
import torch
from zoo import DIM, FEW, build, everywhere, features

from catnet.errors import UserError
from catnet.model.attention import (
    ATTENTION,
    build_attention,
    build_cross_attention,
    options_of,
)

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
