"""The zoo's contract, over whatever the dict holds: shapes, gradients, finite numbers, papers.

The rules are those of CONTRIBUTING.md, "a mechanism"; where one is broken, the message names it.
"""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch
from zoo import CROSS, DIM, build, everywhere, features, where_crossed

from catnet.errors import UserError
from catnet.model import attention
from catnet.model.attention import ATTENTION, build_cross_attention

MAPPED = [name for name, kind in ATTENTION.items() if hasattr(kind, "attention_map")]
CONTROL = "none"
FILES = [p for p in Path(attention.__file__).parent.glob("*.py") if p.stem != "__init__"]
sizes = pytest.mark.parametrize("size", [(5, 7), (1, 9), (3, 2), (1, 1), (13, 10), (32, 32)])


@everywhere
@sizes
@torch.no_grad()
def test_any_map_keeps_its_shape_and_is_its_own_context(name, size):
    module, x = build(name), features(size)
    y = module(x)
    assert y.shape == x.shape, "rule: forward returns the shape of x, for any height and width"
    assert y.isfinite().all(), "rule: the result is finite"
    if module.cross:
        assert torch.equal(module(x, x), y), "rule: without a context it attends to x itself"


@where_crossed
@sizes
@torch.no_grad()
def test_a_context_may_have_a_size_of_its_own(name, size):
    module, x, context = build(name), features((6, 5)), features(size, seed=1)
    for one, other in ((x, context), (context, x)):
        y = module(one, other)
        assert y.shape == one.shape
        assert y.isfinite().all()


@everywhere
@pytest.mark.parametrize("crossed", [False, True])
def test_gradient_reaches_every_parameter_and_input(name, crossed):
    module = build(name)
    inputs = [features().requires_grad_()]
    if crossed and module.cross:
        inputs.append(features((8, 11), seed=1).requires_grad_())
    weights = features(seed=2)
    (module(*inputs) * weights).sum().backward()
    for key, tensor in [*module.named_parameters(), *enumerate(inputs)]:
        rule = f"rule: the result depends on x, the context and every parameter; not on {key}"
        assert tensor.grad is not None, rule
        assert tensor.grad.isfinite().all(), f"rule: gradients are finite; that of {key} is not"
        assert tensor.grad.abs().max() > 1e-7, rule


@everywhere
@torch.no_grad()
def test_episodes_do_not_leak_into_each_other(name):
    module, x, context = build(name), features(), features((8, 11), seed=1)
    inputs = [x, context] if module.cross else [x]
    y = module(*inputs)
    for number, tensor in enumerate(inputs):
        changed = tensor.clone()
        changed[1] += features(tensor.shape[-2:], seed=3)[1]
        got = module(*inputs[:number], changed, *inputs[number + 1 :])
        assert torch.equal(got[0], y[0]), "rule: every episode by itself; another one changed this"
        assert not torch.allclose(got[1], y[1]), "rule: the result depends on x and the context"
    alone = torch.cat([module(*(tensor[at : at + 1] for tensor in inputs)) for at in range(2)])
    torch.testing.assert_close(alone, y, rtol=1e-4, atol=1e-5)


@where_crossed
@torch.no_grad()
def test_both_the_map_and_its_context_matter(name):
    module, x, context = build(name), features(), features((8, 11), seed=1)
    y = module(x, context)
    for other in (module(x, features((8, 11), seed=2)), module(features(seed=3), context)):
        changed = ((y - other).abs().amax(dim=(1, 2, 3)) > 1e-3).all()
        assert changed, "rule: the result depends on x and on the context, in every episode"


@pytest.mark.parametrize("name", [name for name in ATTENTION if name not in CROSS])
def test_without_a_cross_form_a_context_is_an_error(name):
    with pytest.raises(UserError, match=rf"^{name}: .*cross"):
        build(name)(features(), features())
    with pytest.raises(UserError, match=f"{name!r} has no cross form") as caught:
        build_cross_attention(name, DIM, {})
    assert all(able in str(caught.value) for able in CROSS)


@where_crossed
def test_every_other_fits_the_cross_place(name):
    assert isinstance(build_cross_attention(name, DIM, {}), ATTENTION[name])


@everywhere
@pytest.mark.parametrize("what", ["zeros", "constant", "huge", "tiny", "channels alike"])
@pytest.mark.parametrize("training", [False, True])
def test_extreme_maps_stay_finite_and_so_do_their_gradients(name, what, training):
    module = build(name).train(training)
    x = {
        "zeros": torch.zeros(2, DIM, 5, 7),
        "constant": torch.full((2, DIM, 5, 7), 3.0),
        "huge": 1e6 * features(),
        "tiny": 1e-12 * features(),
        "channels alike": features()[:, :1].repeat(1, DIM, 1, 1),
    }[what].requires_grad_()
    y = module(x, x.flip(-1)) if module.cross else module(x)
    assert y.isfinite().all()
    (y / y.detach().abs().amax().clamp_min(1)).sum().backward()
    for key, tensor in [*module.named_parameters(), ("x", x)]:
        assert tensor.grad is None or tensor.grad.isfinite().all(), key


@everywhere
def test_mixed_precision_says_about_the_same(name):
    module, x, context = build(name), features().requires_grad_(), features((8, 11), seed=1)
    inputs = [x, context] if module.cross else [x]
    with torch.autocast("cpu", torch.bfloat16):
        y = module(*inputs)
        y.float().square().mean().backward()
    assert all(tensor.grad.isfinite().all() for tensor in [x, *module.parameters()])
    expected = module(*inputs).detach()
    assert (y.float() - expected).abs().mean() < 0.02 * expected.std()


@everywhere
@torch.no_grad()
def test_double_precision_stays_double(name):
    module, x = build(name).double(), features().double()
    assert module(x).dtype == torch.float64
    torch.testing.assert_close(module(x).float(), build(name)(x.float()), rtol=1e-3, atol=1e-4)


@everywhere
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_half_precision_stays_finite_and_says_about_the_same(name, dtype):
    module, x, context = build(name), features(), features((8, 11), seed=1)
    inputs = [x, context] if module.cross else [x]
    expected = module(*inputs)
    y = module.to(dtype)(*(tensor.to(dtype) for tensor in inputs))
    assert y.dtype == dtype
    assert y.isfinite().all()
    assert (y.float() - expected).abs().mean() < 0.03 * expected.std()


@where_crossed
@pytest.mark.parametrize("shape", [(1, DIM), (3, DIM), (2, 1), (2, DIM // 2)], ids=str)
@torch.no_grad()
def test_a_context_of_other_episodes_or_channels_is_an_error(name, shape, unchecked):
    """Neither a broadcast nor torch's own complaint: layers.seen, or align, looks at every one."""
    module, x, context = build(name), features(), torch.zeros(*shape, 8, 11)
    looks = [module] + ([module.attention_map] if hasattr(module, "attention_map") else [])
    for look in looks:
        with pytest.raises(UserError, match=r"the context has \d+ (episodes|channels)"):
            look(x, context)


@pytest.mark.parametrize("name", MAPPED)
@torch.no_grad()
def test_a_map_says_how_much_every_position_takes_of_every_other(name):
    module, x, context = build(name), features(), features((5, 8), seed=1)
    alone = module.attention_map(x)
    assert (alone.shape[0], *alone.shape[2:]) == (2, 90, 90)
    assert not torch.allclose(alone, module.attention_map(features(seed=4)))
    if module.cross:
        crossed = module.attention_map(x, context)
        assert (crossed.shape[0], *crossed.shape[1:3]) == (2, alone.shape[1], 90)
        assert crossed.shape[3] in ({40, 90} if module.aligned else {40})
        assert torch.equal(module.attention_map(x, x), alone)


@everywhere
def test_its_file_cites_the_paper_and_says_how_a_context_enters_and_what_it_costs(name):
    text = sys.modules[ATTENTION[name].__module__].__doc__
    assert re.search(r"\bCross form: ", text), "rule: the docstring says `Cross form:`"
    assert re.search(r"^Cost\b|Cost: ", text, re.MULTILINE), "rule: the docstring says `Cost:`"
    if name != CONTROL:
        number = re.search(r", arXiv (\d{4}\.\d{4,5})$", ATTENTION[name].paper)
        assert number, (
            f"rule: paper is `TITLE, arXiv NUMBER`, not {ATTENTION[name].paper!r}; without one "
            "cite the closest relative that has one, and say so"
        )
        assert number[1] in text, "rule: the docstring cites the number of `paper`"


@everywhere
def test_it_says_what_it_is_good_for_in_one_line(name):
    said = ATTENTION[name].good_for
    assert 0 < len(said) <= 88, f"rule: good_for has at most 88 letters; {name}'s has {len(said)}"
    assert "|" not in said, "rule: good_for stands in a table"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_of_the_zoo_opens_with_a_paper_and_an_equation(path):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert re.search(r"\n\n    +\S", text), (
        f"rule: {path.name} opens with its equation, indented by four spaces after an empty line"
    )
    cited = re.search(r"arXiv\s+\d{4}\.\d{4,5}", text) or path.stem == "identity"
    assert cited, f"rule: {path.name} cites a paper with its arXiv number"


@everywhere
def test_nothing_outside_is_touched_when_one_is_run(name):
    module, x = build(name), features()
    state, before = torch.get_rng_state(), x.clone()
    module(x)
    assert torch.equal(torch.get_rng_state(), state), "rule: no random number is drawn"
    assert torch.equal(x, before), "rule: x stays as it is"
