import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from trials import untaught

from catnet.cli import main
from catnet.commands.attend import on_organ
from catnet.config import ModelSettings
from catnet.data.folds import split
from catnet.data.store import open_cases
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.evaluate.attend import Look, attend, choose_place, middle_of
from catnet.evaluate.heat import draw_attention, turned
from catnet.evaluate.predictors import NetworkPredictor
from catnet.evaluate.scene import find_scene
from catnet.model.attention.masked import MaskedAttention
from catnet.model.networks import initial_model
from catnet.model.trace import check_map, traced

SMALL = {"encoder": "tu-test_resnet", "dim": 16, "rounds": 2, "attention_options": {"heads": 2}}
CROSS = {"cross_attention_options": {"heads": 2}}
CPU = {"device": torch.device("cpu"), "precision": torch.float32}


def make_network(**changes):
    """An untrained network whose first mask keeps some of the positions."""
    model = initial_model(ModelSettings(**(SMALL | CROSS | changes)), seed=0).eval()
    with torch.no_grad():
        first = model(make_episode()).logits[0]
        last = model.mife.classify[-1]
        last.bias.copy_((last.bias - first.mean()) / first.std())
        last.weight.div_(first.std())
    return model


def make_episode():
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(1, 1, 64, 96)
    mask[..., 16:40, 24:64] = 1
    images = torch.randn(2, 1, 64, 96, generator=generator)
    return Episode(images[None, :1] + 2 * mask[:, :, None], mask, images[1:], mask[:, 0])


# The map of CAT-Net's own attention


@pytest.mark.parametrize("kept", [None, "some", "none"])
@pytest.mark.parametrize("how", ["multiply", "bias"])
def test_the_masked_map_applied_to_the_values_is_the_output(kept, how, generator):
    module = MaskedAttention(12, heads=3).double()
    x = torch.randn(2, 12, 3, 5, generator=generator, dtype=torch.float64)
    context = torch.randn(2, 12, 4, 2, generator=generator, dtype=torch.float64)
    keep = None if kept is None else torch.zeros(2, 4, 2, dtype=torch.float64)
    if kept == "some":
        keep[0, 1:3] = 1  # and nothing in the second episode
    weights = module.attention_map(x, context, keep=keep, how=how)
    value = module.projections(*module.tokens(x, context))[2]
    mixed = (weights @ value).transpose(1, 2).flatten(2)
    expected = module(x, context, keep=keep, how=how)
    torch.testing.assert_close(module.project(mixed).mT.reshape(expected.shape), expected)
    if how == "bias" or kept is None:
        some = torch.ones(2) if keep is None else keep.flatten(1).any(1)
        torch.testing.assert_close(weights.sum(-1), some.double()[:, None, None].expand(2, 3, 15))


# What is recorded


@pytest.mark.parametrize("attention", ["masked", "refiner", "outlook"])
@pytest.mark.parametrize("share_rounds", [False, True])
@pytest.mark.parametrize("share_streams", [False, True])
@torch.no_grad()
def test_the_trace_holds_what_the_query_looked_with(attention, share_rounds, share_streams):
    model = make_network(
        attention=attention, share_rounds=share_rounds, share_streams=share_streams
    )
    episode = make_episode()
    with traced(model) as trace:
        prediction = model(episode)
    assert torch.equal(trace.features[-1], prediction.query)
    assert len(trace.rounds) == 2
    for number, one in enumerate(trace.rounds):
        cmat = model.cmat[number % len(model.cmat)]
        place = cmat.self_query or cmat.self_support
        assert one.itself.mechanism is place.attention
        assert torch.equal(one.itself.given[0], one.streams.query)
        own, _ = place(one.streams.query, one.streams.maps[1])
        assert torch.equal(one.across.given[0], own)
        shots, _ = cmat.self_support(one.streams.support[:, 0], one.streams.maps[0])
        assert torch.equal(one.across.given[1], shots)
    assert torch.equal(trace.features[1], trace.rounds[1].streams.query)


@torch.no_grad()
def test_the_map_of_a_mechanism_that_hands_it_on_is_the_one_handed_on():
    model = make_network(attention="refiner")
    with traced(model) as trace:
        model(make_episode())
    first, second = trace.rounds
    assert torch.equal(first.itself.attention_map(), second.streams.maps[1])
    alone = replace(second.itself, given=(second.itself.given[0], None, None))
    assert not torch.allclose(second.itself.attention_map(), alone.attention_map(), atol=1e-4)


@torch.no_grad()
def test_a_traced_network_gives_the_same_and_is_left_without_hooks():
    model, episode = make_network(), make_episode()
    before = model(episode)
    with traced(model) as trace:
        during = model(episode)
        model(episode)
    assert len(trace.rounds) == 2
    model(replace(episode, query=-episode.query))
    assert torch.equal(trace.features[-1], before.query)
    assert torch.equal(before.probability, during.probability)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("mask_on", ["queries", "keys", "none"])
@pytest.mark.parametrize("direction", ["both", "query_to_support"])
@torch.no_grad()
def test_a_position_receives_exactly_where_the_cross_attention_changed_it(mask_on, direction):
    model, episode = make_network(mask_on=mask_on, direction=direction, rounds=1), make_episode()
    with traced(model) as trace:
        model(episode)
    (one,) = trace.rounds
    with traced(model) as other:
        deaf(model.cmat[0].cross)
        model(episode)
    changed = (one.left != other.rounds[0].left).any(dim=1)
    assert torch.equal(one.receives.bool(), changed)
    share = {"both": {"queries": "some"}}.get(direction, {}).get(mask_on)
    assert changed.any() == (direction == "both")
    assert changed.all() == (direction == "both" and share is None)


def deaf(cross):
    """What the mechanism gives becomes another value, so that every receiver shows."""
    with torch.no_grad():
        cross.attention.project.weight.mul_(-3)


# What is seen


@pytest.fixture
def saved(tiny):
    """`saved("model.rounds=3")`: a run folder with weights, as after training."""

    def make(*settings):
        folder = tiny("model.dim=16", *settings)
        untaught(folder)
        return folder

    return make


def look_at(folder, *, number=8, organ="liver", place=None, model=None):
    predictor = NetworkPredictor(model or initial_model(folder.run.model, seed=0), **CPU)
    scene = find_scene(folder, case="2", number=number, organ=organ, support=None)
    return predictor, attend(predictor, scene, place=place)


def test_a_look_is_the_row_of_the_token_under_the_position(saved):
    folder = saved("model.mask_on=none")
    predictor, attention = look_at(folder, place=(17, 42))
    scene = attention.scene
    mask = torch.from_numpy(scene.support_mask)[None, None]
    images = [torch.from_numpy(x)[None, None] for x in (scene.support_image, scene.image)]
    with traced(predictor.model) as trace, torch.no_grad():
        predictor.model(Episode(images[0][None], mask, images[1], mask[0]))
        for looks, place, truth in (
            (attention.itself, "itself", scene.truth),
            (attention.across, "across", scene.support_mask),
        ):
            for seen, one in zip(looks, trace.rounds, strict=True):
                maps = getattr(one, place).attention_map()[0]
                token = (17 // 8) * 8 + 42 // 8  # 64 x 64 pixels, 8 x 8 tokens
                row = sum(head[token] for head in maps) / len(maps)
                np.testing.assert_allclose(seen.heat, 64 * row.reshape(8, 8), rtol=1e-4)
                assert seen.heat.mean() == pytest.approx(1, abs=1e-4)
                fine = seen.heat.repeat(8, axis=0).repeat(8, axis=1)
                assert seen.on_organ == pytest.approx(fine[truth > 0].sum() / fine.sum(), rel=1e-4)


def test_with_the_mask_on_the_keys_nothing_but_the_organ_is_seen(saved):
    _, attention = look_at(saved("model.mask_on=keys"))
    mask = attention.scene.support_mask.reshape(8, 8, 8, 8).any(axis=(1, 3))
    for seen in attention.across:
        assert (seen.heat[mask] > 0).all()
        assert not seen.heat[~mask].any()


@pytest.mark.parametrize(("bias", "heard"), [(50.0, True), (-50.0, False)])
def test_a_position_that_the_mask_drops_receives_nothing(bias, heard, saved):
    folder = saved("model.rounds=1")
    model = initial_model(folder.run.model, seed=0)
    with torch.no_grad():
        model.mife.classify[-1].bias.fill_(bias)
    _, attention = look_at(folder, model=model)
    assert len(attention.itself) == 1
    assert attention.itself[0].heat.any()
    assert [bool(seen.heat.any()) for seen in attention.across] == [True] * heard
    assert (attention.across == ()) == (not heard)
    assert ("model.mask_on=queries) are empty" in attention.silence) == (not heard)


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("model.cross_attention=se", "se weighs no single positions and has no map"),
        ("model.direction=query_to_support", "with model.direction=query_to_support the query"),
    ],
)
def test_without_a_map_or_a_receiver_there_is_one_line_alone(setting, why, saved):
    _, attention = look_at(saved(setting))
    assert attention.across == ()
    assert attention.silence.startswith(why)
    figure = draw_attention(attention, names=("masked", "se"), flip=False)
    assert [axes.get_ylabel() for axes in figure.axes].count("self: masked") == 1
    assert not any("cross" in axes.get_ylabel() for axes in figure.axes)


# Where it looks from


def test_the_middle_of_a_crescent_lies_inside():
    mask = np.ones((9, 9), np.float32)
    mask[0:7, 2:7] = 0
    row, column = middle_of(mask)
    assert mask[row, column]
    mask = np.zeros((9, 9), np.float32)
    mask[2:7, 1:6] = 1
    assert middle_of(mask) == (4, 3)
    corner = np.zeros((9, 9), np.float32)
    corner[:3, :3] = 1
    assert middle_of(corner) == (1, 1)


def test_without_the_organ_the_predicted_mask_serves(saved):
    folder = saved()
    scene = find_scene(folder, case="2", number=0, organ="spleen", support=None)
    assert not scene.truth.any()
    predicted = np.zeros_like(scene.truth)
    predicted[10:15, 20:25] = 0.9
    assert choose_place(scene, predicted) == (12, 22)
    slices = np.flatnonzero(scene.query.meta.pixels["spleen"])
    with pytest.raises(UserError) as caught:
        choose_place(scene, 0 * predicted)
    expected = f"spleen is not on slice 0 of case 2.*from {slices[0]} to {slices[-1]}"
    caught.match(expected)


def test_the_support_slice_is_that_of_the_protocol(saved):
    folder = saved()
    scene = find_scene(folder, case="2", number=8, organ="liver", support="4")
    shown = np.flatnonzero(scene.support.meta.pixels["liver"])
    wanted = np.flatnonzero(scene.query.meta.pixels["liver"])
    chunk = int(np.flatnonzero([8 in part for part in thirds(wanted)])[0])
    assert scene.support_number == shown[int((2 * chunk + 1) * len(shown) / 6)]
    assert scene.support.name == "4"
    assert find_scene(folder, case="2", number=8, organ=None, support=None).support.name == "3"
    assert find_scene(folder, case="3", number=8, organ="liver", support=None).support.name == "1"


def thirds(slices):
    edges = [int(len(slices) * k / 3) for k in range(4)]
    return [slices[edges[k] : edges[k + 1]] for k in range(3)]


def test_the_largest_organ_is_the_default(saved):
    folder = saved()
    scene = find_scene(folder, case="2", number=8, organ=None, support=None)
    counts = {organ: (scene.query.label[8] == n).sum() for organ, n in folder.card.organs.items()}
    assert counts[scene.organ] == max(counts.values()) > 0
    narrow = saved("data.group=kidneys")
    assert "kidney" in find_scene(narrow, case="2", number=3, organ=None, support=None).organ


# The picture


@pytest.mark.parametrize("flip", [False, True])
def test_the_picture_stands_front_up_and_its_rows_count_from_the_top(flip, saved):
    _, attention = look_at(saved("model.mask_on=none"), place=(17, 42))
    figure = draw_attention(attention, names=("masked", "masked"), flip=flip)
    grid = [axes for axes in figure.axes if axes.images]
    assert len(grid) == 2 * (1 + 2)
    up = np.flipud if flip else np.asarray
    row = 63 - 17 if flip else 17
    for number, axes in enumerate(grid):
        assert axes.get_ylim() == (63.5, -0.5)  # bottom, top
        marks = {tuple(np.ravel(line.get_xydata())) for line in axes.lines}
        assert marks == ({(42.0, row)} if number < 3 else set())
    assert np.array_equal(grid[0].images[0].get_array(), up(attention.scene.image))
    assert np.array_equal(grid[3].images[0].get_array(), up(attention.scene.support_image))
    for axes, seen in zip(grid[1:3], attention.itself, strict=True):
        assert np.array_equal(axes.images[-1].get_array(), up(seen.heat))
        assert axes.images[-1].get_extent() == [-0.5, 63.5, 63.5, -0.5]
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels.count("weight, times the even share") == 2
    assert f"Where row {row}, column 42 looks" in figure.get_suptitle()


@pytest.mark.parametrize("flip", [False, True])
def test_a_place_in_the_picture_and_in_the_array_are_each_others_inverse(flip):
    there = turned((3, 5), rows=64, flip=flip)
    assert there == ((60, 5) if flip else (3, 5))
    assert turned(there, rows=64, flip=flip) == (3, 5)


def drawn(attention, *heats):
    looks = tuple(Look(np.array(heat, np.float32), math.nan) for heat in heats)
    attention = replace(attention, itself=looks)
    figure = draw_attention(attention, names=("refiner", "masked"), flip=False)
    panels = [axes for axes in figure.axes if axes.images and not axes.axison]
    bars = [axes for axes in figure.axes if axes.get_ylabel() == "weight, times the even share"]
    return [axes.images[-1] for axes in panels], bars


@pytest.mark.parametrize(
    ("heats", "ends"),
    [
        ([[[0.5, 2.0]], [[0.25, 1.0]]], (0.0, 8.0)),
        ([[[0.99, 1.01]], [[1.0, 1.0]]], (0.0, 8.0)),
        ([[[-3.0, 2.0]], [[0.0, 1.0]]], (-8.0, 8.0)),
        ([[[0.0, 90.0]], [[0.25, 1.0]]], (0.0, 90.0)),
        ([[[0.0, -90.0]], [[0.25, 1.0]]], (-90.0, 90.0)),
    ],
)
def test_all_rounds_and_lines_share_one_scale(heats, ends, saved):
    _, attention = look_at(saved("model.mask_on=none"))
    images, bars = drawn(attention, *heats)
    assert {(image.norm.vmin, image.norm.vmax) for image in images[:2]} == {ends}
    assert {(image.norm.vmin, image.norm.vmax) for image in images[2:]} == {(0.0, ends[1])}
    assert len(bars) == 2


def test_an_even_map_looks_even_and_a_sharp_one_sharp(saved):
    _, attention = look_at(saved("model.mask_on=none"))
    images, _ = drawn(attention, [[0.98, 1.02]], [[0.0, 8.0]])
    even, sharp = (image.cmap(image.norm(image.get_array()))[0] for image in images[:2])
    assert abs(even[0] - even[1]).max() < 0.02
    assert abs(sharp[0] - sharp[1]).max() > 0.7


def test_where_nothing_is_received_there_is_no_color_bar(saved):
    _, attention = look_at(saved("model.mask_on=none"))
    _, bars = drawn(attention, [[0.0, 0.0]], [[0.0, 0.0]])
    assert len(bars) == 1  # that of the support


@pytest.mark.parametrize(
    ("fill", "said"),
    [(0.1, "predicted: nothing"), (0.9, "predicted: everywhere"), (None, "orange")],
)
def test_the_title_promises_no_contour_that_is_not_there(fill, said, saved):
    _, attention = look_at(saved("model.mask_on=none"))
    predicted = np.full_like(attention.predicted, fill or 0.1)
    predicted[:9] = fill or 0.9
    figure = draw_attention(replace(attention, predicted=predicted), names=("a", "b"), flip=False)
    assert said in figure.get_suptitle()
    assert "true liver: blue" in figure.get_suptitle()


# The command


def test_the_command_draws_and_says_what_it_drew(saved, tmp_path, capsys):
    folder = saved("model.mask_on=keys")
    target = tmp_path / "new" / "liver.png"
    given = ["--case", "2", "--slice", "8", "--organ", "liver", "--at", "17,42"]
    main(["attend", str(folder.path), *given, "--support", "4", "-o", str(target)])
    said = capsys.readouterr().out
    assert "query 2, slice 8, from row 17, column 42; support 4, slice" in said
    assert "weight on the liver, self (masked): round 1" in said
    assert f"picture: {target}" in said
    pixels = imread(target)[..., :3]
    assert pixels.shape[1] > pixels.shape[0] > 300
    assert (np.ptp(pixels, axis=2) > 0.3).mean() > 0.005  # heat has color, slices have none


def test_without_a_name_the_picture_goes_into_the_runs_folder(saved, capsys):
    folder = saved("data.group=kidneys")
    main(["attend", folder.path.name, "--case", "2", "--slice", "3", "--at", "3,4"])
    (path,) = (folder.path / "attention").glob("*.png")
    assert path.name.startswith("2_slice3_")
    assert path.name.endswith("-kidney_at3-4_by_3.png")
    assert str(path) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--case", "9", "--slice", "5"], "--case '9' is no prepared case; there are 1, 2, 3, 4"),
        (["--case", "2", "--slice", "12"], "--slice 12 is not in case 2, which has 0 to 11"),
        (["--case", "2", "--slice", "-1"], "--slice -1 is not in case 2, which has 0 to 11"),
        (["--case", "2", "--slice", "8", "--organ", "heart"], "'heart' is not in card tiny; it"),
        (["--case", "2", "--slice", "8", "--at", "64,3"], "--at 64,3 is outside of the slice"),
        (["--case", "2", "--slice", "8", "--at", "3"], "--at '3' is no position; write a row"),
        (["--case", "2", "--slice", "8", "--at", "-1,5"], "both from 0, such as --at 40,62"),
        (["--case", "2", "--slice", "8", "--at=-1,5"], "--at -1,5 is outside of the slice; rows"),
        (["--case", "2", "--slice", "8", "--support", "2"], "--support 2 is the query itself"),
        (["--case", "2", "--slice", "8", "--support", "0"], "--support '0' is no prepared case"),
        (["--case", "2", "--slice", "8", "-o", "a.jpg"], "a.jpg: the picture is a PNG; choose"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, sentence, saved, capsys):
    folder = saved("model.rounds=1")
    refuse(folder, arguments, sentence, capsys)


def refuse(folder, arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["attend", str(folder.path), *arguments])
    said = capsys.readouterr().err.strip()
    assert stopped.value.code == 2
    assert said.startswith("catnet: ")
    assert sentence in said
    assert "\n" not in said


PLAIN = ["--case", "2", "--slice", "8"]


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("model.attention=se", "those that have: a2, clo, gc, gsa, lsa, masked, nonlocal, outlook"),
        ("model.rounds=0", "model.rounds=0 has no attention to show"),
    ],
)
def test_a_run_without_maps_is_refused(setting, sentence, saved, capsys):
    refuse(saved(setting), PLAIN, sentence, capsys)


def test_a_mechanism_whose_options_leave_no_map_is_refused(saved, capsys):
    options = "model.attention_options={group_split: [8, 0]}"
    sentence = "CloAttention with these options has no head with a map"
    refuse(saved("model.attention=clo", options), PLAIN, sentence, capsys)


def test_a_run_that_is_not_trained_is_refused(tiny, capsys):
    refuse(tiny(), PLAIN, "training has not ended", capsys)


def test_a_slice_without_the_organ_and_without_a_prediction_is_refused(saved, capsys):
    folder = saved("model.score=threshold", "model.rounds=1")
    model = initial_model(folder.run.model, seed=0)
    with torch.no_grad():
        model.head.threshold.fill_(100)
    untaught(folder, model)
    arguments = ["--case", "5", "--slice", "5", "--organ", "spleen"]
    refuse(folder, arguments, "the spleen is not on slice 5 of case 5", capsys)
    main(["attend", str(folder.path), *arguments, "--at", "3,3"])
    assert "the spleen is not on the query slice" in capsys.readouterr().out


def test_a_support_without_the_organ_is_refused(saved, capsys):
    number = str(find_scene(saved(), case="2", number=8, organ=None, support=None).number)
    arguments = ["--case", "2", "--slice", number, "--organ", "spleen", "--support", "5"]
    refuse(saved(), arguments, "--support 5 does not show the spleen", capsys)


def test_the_mechanisms_with_a_map_pass():
    for name in ("masked", "refiner", "outlook", "stripe", "a2"):
        check_map(name)


def test_a_share_that_is_not_there_has_a_reason():
    heat = np.ones((2, 2), np.float32)
    assert on_organ((Look(heat, 0.25), Look(0 * heat, math.nan), Look(-heat, math.nan))) == (
        "round 1 25.0%, round 2 nothing (outside of the mask), round 3 no part (negative weights)"
    )


def test_a_row_on_the_command_line_is_one_of_the_picture(saved, tmp_path, capsys):
    """The tiny card's slices run from back to front, so the first row of a picture is the last."""
    folder = saved("model.mask_on=none")
    assert folder.card.orientation[1] == "A"
    arguments = ["--case", "2", "--slice", "8", "--organ", "liver"]
    main(["attend", str(folder.path), *arguments, "--at", "46,42", "-o", str(tmp_path / "a.png")])
    said = capsys.readouterr().out
    assert "from row 46, column 42" in said
    _, attention = look_at(folder, place=(17, 42))
    assert f"self (masked): {on_organ(attention.itself)}" in said


def test_a_query_that_the_run_may_have_trained_on_gets_a_remark(saved, tmp_path, capsys):
    folder = saved("model.rounds=1")
    tested = split(folder.card, open_cases(folder.card), 0).tested
    for case in ("2", "5"):
        target = str(tmp_path / f"{case}.png")
        main(["attend", str(folder.path), "--case", case, "--slice", "6", "-o", target])
        said = capsys.readouterr().out
        remark = f"case {case} is not tested in fold 0: the network may have been trained on it"
        assert (remark in said) == (case not in {one.name for one in tested})


def test_under_a_mask_on_the_keys_a_mechanism_of_the_zoo_has_its_line(saved, capsys):
    folder = saved("model.cross_attention=gsa", "model.mask_on=keys", "model.rounds=1")
    main(["attend", str(folder.path), "--case", "2", "--slice", "8", "--organ", "liver"])
    said = capsys.readouterr().out
    assert "cross (gsa): round 1 " in said
    assert "no line for the support slice" not in said
    folder = saved("model.cross_attention=se", "model.mask_on=keys", "model.rounds=1")
    main(["attend", str(folder.path), "--case", "2", "--slice", "8", "--organ", "liver"])
    assert "no line for the support slice: se weighs no single" in capsys.readouterr().out
