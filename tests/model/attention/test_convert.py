"""The authors' weights under our names: nothing lost but what cancels, nothing left over."""

import re

import pytest
import torch
from golden import FOLDER, read

from catnet.errors import UserError
from catnet.model.attention import ATTENTION, build_attention, convert, load_published

# name: channels, options, and the files whose weights are taken, by their prefix
AUTHORS = {
    "a2": (32, {"features": 16, "maps": 8}, {"": "a2_gjylt/c1_C32_m16n8"}),
    "cbam": (32, {"reduction": 4}, {"": "cbam_official/c1_C32r4"}),
    "clo": (
        32,
        {"heads": 4, "group_split": [3, 1], "kernels": [3], "window": 8},
        {"": "cloformer_attention/c1_d32h4_3+1_k3_ws8"},
    ),
    "eca": (32, {"kernel": 3}, {"": "eca_official/c1_C32k3"}),
    "gc": (32, {}, {"": "gc_block/c1_att_add"}),
    "gsa": (32, {"heads": 2}, {"": "twins_gsa/c1_d32h2_sr4"}),
    "gsop": (32, {"channels": 16, "stride": 2}, {"": "gsop_channel/c1_C32_d16_stride2"}),
    "lsa": (48, {"heads": 3, "window": 4, "qkv_bias": False}, {"": "twins_lsa/c2_d48h3_ws4"}),
    "lsa-gsa": (
        32,
        {"heads": 2},
        {
            "0.": "twins_svt_block/c1_lsa_d32h2_ws7",
            "1.": "twins_svt_block/c2_gsa_d32h2_sr4",
        },
    ),
    "nonlocal": (32, {}, {"": "nonlocal_embedded_gaussian/c1_C32_sub_bn"}),
    "outlook": (32, {"heads": 2}, {"": "volo_outlook_attention/c1_d32h2_k3s1"}),
    "refiner": (
        32,
        {"heads": 4, "bias": True, "expansion": 6},
        {"": "refiner_attention/c2_d32h4_exp6_prev"},
    ),
    "se": (32, {"reduction": 4}, {"": "se_moskomule/c1_C32r4"}),
    "stripe": (
        32,
        {"window_heads": 2, "stripe_heads": 2, "anchor": "patchmerging", "anchor_down": 2},
        {"": "grl_mixed_attention/c5_d32_patchmerging"},
    ),
}
WITHOUT = ["masked", "none"]
CANCELS = r"(convB|conv_mask|phi(\.0)?)\.bias"  # a constant in front of a softmax
ELSEWHERE = {  # the authors' feed-forward is not a mechanism's, ours ends with a layer of its own
    "lsa-gsa": (r"\d\.(mlp|norm2)\..*", r""),
    "a2": (r"", r"expand\..*"),
}


def authors(name):
    params = {}
    for prefix, path in AUTHORS[name][2].items():
        file = FOLDER / f"{path}.npz"
        if not file.exists():
            pytest.skip(f"no golden vectors {file}")
        params |= {prefix + key: value for key, value in read(file, torch.float32).params.items()}
    return params


def numbers(tensors):
    flat = [tensor.double().flatten() for tensor in tensors]
    return torch.cat(flat).sort().values


def test_every_mechanism_is_listed():
    """The rule of CONTRIBUTING: golden numbers of published code, or a word that there is none."""
    listed = {*AUTHORS, *WITHOUT}
    for name in ATTENTION:
        assert name in listed, (
            f"{name}: add a line to AUTHORS in tests/model/attention/test_convert.py, which names "
            "its golden file; where no code was published, add the name to WITHOUT"
        )
    assert listed == set(ATTENTION), "a name here is not in the zoo's dict"
    for name, kind in ATTENTION.items():
        assert hasattr(kind, "convert") == (name in AUTHORS), (
            f"{name}: a mechanism of AUTHORS has a static method `convert`, one of WITHOUT has none"
        )
        assert bool(kind.published) == (name in AUTHORS), (
            f"{name}: give it `published`, the authors' parameters and their shapes"
        )


@pytest.mark.parametrize("name", AUTHORS)
def test_weights_go_over_whole_and_come_back(name):
    dim, options, _ = AUTHORS[name]
    theirs = authors(name)
    untouched = {key: value.clone() for key, value in theirs.items()}
    ours = convert(name, theirs)
    torch.testing.assert_close(theirs, untouched, rtol=0, atol=0)
    left_out, added = ELSEWHERE.get(name, (r"", r""))
    module = build_attention(name, dim, options)
    keys = module.load_state_dict(ours, strict=False)
    assert not keys.unexpected_keys
    assert all(re.fullmatch(added, key) for key in keys.missing_keys), keys.missing_keys
    kept = [
        value
        for key, value in theirs.items()
        if not re.fullmatch(CANCELS, key) and not re.fullmatch(left_out, key)
    ]
    restored = module.state_dict()
    assert torch.equal(numbers(restored[key] for key in ours), numbers(kept))
    for key, value in ours.items():
        assert torch.equal(restored[key], value.to(restored[key].dtype)), key


@pytest.mark.parametrize("name", WITHOUT)
def test_where_the_authors_published_nothing_there_is_nothing_to_convert(name):
    with pytest.raises(UserError, match=f"{name!r} has no authors' weights"):
        convert(name, {})


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="did you mean 'outlook'"):
        convert("outlok", {})


# What is said of weights that are not the authors'


def module_of(name):
    dim, options, _ = AUTHORS[name]
    return build_attention(name, dim, options)


def of_effect(name, key):
    left_out, _ = ELSEWHERE.get(name, (r"", r""))
    return not re.fullmatch(CANCELS, key) and not re.fullmatch(left_out, key)


@pytest.mark.parametrize("name", AUTHORS)
def test_loaded_into_a_mechanism_they_are_its_weights(name):
    module = module_of(name)
    load_published(module, authors(name))
    for key, value in convert(name, authors(name)).items():
        assert torch.equal(module.state_dict()[key], value.to(module.state_dict()[key].dtype))


@pytest.mark.parametrize("name", AUTHORS)
def test_a_parameter_that_is_missing_is_named(name, unchecked):
    theirs = authors(name)
    for key in theirs:
        rest = {other: value for other, value in theirs.items() if other != key}
        if not of_effect(name, key):
            load_published(module_of(name), rest)
            continue
        with pytest.raises(UserError, match=f"^attention {name!r}, authors' weights: "):
            load_published(module_of(name), rest)


@pytest.mark.parametrize("name", AUTHORS)
@pytest.mark.parametrize("unknown", ["foo", "foo.weight", "0.foo.weight", "1.attn.foo", ""])
def test_a_parameter_that_is_unknown_is_named(name, unknown, unchecked):
    with pytest.raises(UserError, match="foo.* is unknown" if unknown else "is unknown"):
        convert(name, authors(name) | {unknown: torch.zeros(3)})


@pytest.mark.parametrize("name", AUTHORS)
def test_a_prefix_is_cut_by_the_user(name, unchecked):
    for prefix in ("module.", "backbone.blocks.3."):
        with pytest.raises(UserError, match=f"cut the prefix '{re.escape(prefix)}"):
            convert(name, {prefix + key: value for key, value in authors(name).items()})


@pytest.mark.parametrize("name", AUTHORS)
def test_another_shape_is_one_sentence(name, unchecked):
    theirs = authors(name)
    for key, value in theirs.items():
        wrong = [torch.zeros(2, 3, 5, 7, 11), torch.zeros(())]
        wrong += [torch.cat([value, value[:1]])] if value.ndim else []
        for tensor in wrong:
            if tensor.shape == value.shape or not of_effect(name, key):
                continue
            with pytest.raises(UserError, match=f"^attention {name!r}, authors' weights") as caught:
                load_published(module_of(name), theirs | {key: tensor})
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", AUTHORS)
@pytest.mark.parametrize("state", [{}, {"weight": 3}, {3: torch.zeros(2)}], ids=repr)
def test_what_is_no_state_dict_is_refused(name, state, unchecked):
    with pytest.raises(UserError, match="authors' weights: "):
        convert(name, state)


def test_weights_of_other_options_are_refused_with_both_shapes():
    theirs = authors("gsa")
    with pytest.raises(UserError, match=r"reduce\.weight, 32 x 32 x 4 x 4 in the weights, is 32 x"):
        load_published(build_attention("gsa", 32, {"heads": 2, "ratio": 2}), theirs)
    with pytest.raises(UserError, match="does not exist here; build the mechanism"):
        load_published(build_attention("gsa", 32, {"heads": 2, "ratio": 1}), theirs)
    few = {key: value for key, value in theirs.items() if not key.startswith("sr.")}
    with pytest.raises(UserError, match="is not among the weights"):
        load_published(build_attention("gsa", 32, {"heads": 2}), few)


def test_of_two_blocks_the_wrong_one_is_named():
    for number, step in (("0", "near"), ("1", "far")):
        with pytest.raises(UserError, match=rf"in block {number}\.\* \({step}\): .*foo"):
            convert("lsa-gsa", authors("lsa-gsa") | {f"{number}.attn.foo.weight": torch.zeros(2)})
    with pytest.raises(UserError, match="two blocks are expected"):
        convert("lsa-gsa", authors("lsa-gsa") | {"2.norm1.weight": torch.zeros(32)})
