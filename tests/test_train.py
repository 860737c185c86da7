import io
import itertools
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from trials import end_of, events_of, log_of, run, scalars_of, weights_of

from catnet import journal
from catnet.commands import progress
from catnet.config import TrainSettings
from catnet.engine import Engine
from catnet.errors import UserError
from catnet.loading import training_batch
from catnet.model.networks import initial_model
from catnet.train import (
    build_objective,
    build_optimizer,
    learning_rate,
    open_training,
    seeded_layers,
)

CPU = torch.device("cpu")


def test_the_seed_decides_the_numbers_and_nothing_else_does(tiny):
    one = run(tiny("name=one"))
    torch.manual_seed(123)
    torch.rand(7)
    two = run(tiny("name=two", "machine.log_every=2", "evaluate.batch=3", "question=why"))
    assert weights_of(one) == weights_of(two)
    assert [line for line in log_of(one) if line["step"] % 2 == 0] == log_of(two)
    other = run(tiny("name=other", "seed=1", "train.steps=1"))
    assert log_of(other)[0]["loss"] != log_of(one)[0]["loss"]


def test_training_touches_no_global_random_state(tiny):
    before = torch.get_rng_state()
    run(tiny("train.steps=1"))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_bar_says_how_far_and_how_fast_in_steps(tiny, tiny_home, capsys, monkeypatch):
    halves = itertools.count(step=0.5)
    monkeypatch.setattr(journal, "time", SimpleNamespace(monotonic=lambda: next(halves)))
    screen = Console(file=io.StringIO(), force_terminal=True, record=True, width=120)
    monkeypatch.setattr(progress, "Console", lambda stderr: screen)
    assert end_of(["train", tiny_home / "tiny.yml", "train.steps=3"], capsys)[0] == 0
    shown = screen.export_text()
    assert "3/3 steps" in shown
    assert "2.00 steps/s" in shown


def test_steps_share_no_episode(tiny):
    folder = tiny("train.batch=2")
    _, source = open_training(folder)
    engine = Engine(CPU, 0, 1, mixed=False)
    queries = [
        query
        for step in range(4)
        for query in training_batch(source, folder.run, engine=engine, step=step).query
    ]
    for number, query in enumerate(queries):
        assert not any(torch.equal(query, other) for other in queries[:number])


@pytest.mark.parametrize(
    ("settings", "step", "expected"),
    [
        ({"schedule": "constant"}, 7, 0.5),
        ({"schedule": "constant", "warmup": 4}, 0, 0.125),
        ({"schedule": "constant", "warmup": 4}, 2, 0.375),
        ({"schedule": "constant", "warmup": 4}, 3, 0.5),
        ({"schedule": "constant", "warmup": 4}, 9, 0.5),
        ({"schedule": "cosine", "steps": 8}, 0, 0.5),
        ({"schedule": "cosine", "steps": 8}, 2, 0.25 * (1 + 0.5**0.5)),
        ({"schedule": "cosine", "steps": 8}, 4, 0.25),
        ({"schedule": "cosine", "steps": 8, "warmup": 10}, 4, 0.125),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10}, 9, 0.5),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10}, 10, 0.25),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10}, 29, 0.125),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10, "batch": 4}, 2, 0.5),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10, "batch": 4}, 3, 0.25),
        ({"schedule": "step", "decay": 0.5, "decay_every": 10, "batch": 40}, 1, 0.5 / 16),
        ({}, 29_999, 0.5 * 0.98**29),
    ],
)
def test_learning_rates_by_hand(settings, step, expected):
    assert learning_rate(TrainSettings(rate=0.5, **settings), step) == pytest.approx(expected)


def test_the_log_tells_the_rate_of_every_step(tiny):
    settings = ("train.warmup=3", "train.schedule=cosine", "train.rate=0.006", "train.steps=3")
    rates = [line["rate"] for line in log_of(run(tiny(*settings)))]
    assert rates == pytest.approx([0.002, 0.004 * 0.75, 0.006 * 0.25])


def update_norm(folder):
    """Length of the way that all parameters went together."""
    before = initial_model(folder.run.model, seed=folder.run.seed).named_parameters()
    after = load_file(run(folder).model / "model.safetensors")
    return torch.cat([(after[name] - value).flatten() for name, value in before]).norm().item()


def test_the_gradient_is_clipped_to_the_norm_of_all_parameters(tiny):
    settings = ("train.steps=1", "train.momentum=0", "train.weight_decay=0", "train.rate=0.5")
    clipped = update_norm(tiny("train.clip=0.01", *settings))
    assert clipped == pytest.approx(0.5 * 0.01, rel=1e-3)
    warm = update_norm(tiny("train.clip=0.01", "train.warmup=4", *settings))
    assert warm == pytest.approx(0.125 * 0.01, rel=1e-3)
    whole = update_norm(tiny("train.clip=0", *settings))
    assert whole > 10 * clipped
    generous = update_norm(tiny("train.clip=1000", *settings))
    assert generous == whole


def test_weight_decay_and_momentum_reach_the_optimizer(tiny):
    folder = tiny("train.momentum=0.7", "train.weight_decay=0.25")
    sgd = build_optimizer(build_objective(folder.run), folder.run.train)
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.7, 0.25)
    settings = folder.run.train.model_copy(update={"optimizer": "adamw"})
    adamw = build_optimizer(build_objective(folder.run), settings)
    assert isinstance(adamw, torch.optim.AdamW)
    assert adamw.defaults["weight_decay"] == 0.25


def test_bfloat16_rounds_and_stays_finite(tiny):
    exact, rounded = (
        log_of(run(tiny(f"train.precision={kind}", "train.steps=3")))
        for kind in ("float32", "bfloat16")
    )
    first = [line[0]["loss"] for line in (exact, rounded)]
    assert first[0] != first[1]
    assert first[1] == pytest.approx(first[0], rel=0.05)
    assert len(rounded) == 3


@pytest.mark.parametrize(
    "settings",
    [
        ("data.labels=organs", "data.group=kidneys"),
        ("data.labels=organs", "data.group=upper", "data.shots=2"),
        ("data.setting=2", "data.group=kidneys", "data.min_pixels=5"),
        ("data.setting=2-as-published", "data.group=upper"),
        ("data.fold=1", "model.rounds=0", "train.alignment=0"),
    ],
    ids=" ".join,
)
def test_every_kind_of_episode_trains(settings, tiny):
    folder = run(tiny("train.steps=2", *settings))
    assert folder.trained
    assert [line["step"] for line in log_of(folder)] == [1, 2]


def test_training_lowers_the_loss(tiny):
    log = log_of(run(tiny("train.steps=40", "train.optimizer=adamw", "train.rate=0.003")))
    losses = [line["loss"] for line in log]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


@pytest.mark.parametrize("every", [1, 100])
def test_a_loss_without_a_value_ends_the_run(every, tiny):
    folder = tiny("train.rate=1e30", "train.steps=4", f"machine.log_every={every}")
    with pytest.raises(UserError, match=r"the loss of step \d is (nan|inf); lower train.rate"):
        run(folder)
    assert not folder.trained


def test_tensorboard_has_scalars_and_pictures(tiny):
    folder = run(tiny("machine.picture_every=4", "machine.log_every=2"))
    events = events_of(folder)
    assert set(events.Tags()["scalars"]) == {"loss", "segmentation", "alignment", "rate"}
    expected = [(line["step"], pytest.approx(line["loss"])) for line in log_of(folder)]
    assert scalars_of(folder) == expected
    assert [step for step, _ in expected] == [2, 4, 6]
    (picture,) = events.Images("episode")
    assert picture.step == 4
    assert picture.width > 2 * picture.height  # support, M_0, M_1, M_2 side by side


def test_early_masks_and_alignment_weigh_what_the_run_says(tiny):
    folder = tiny("train.alignment=0.25", "train.early=0.5")
    objective = build_objective(folder.run)
    _, source = open_training(folder)
    engine = Engine(CPU, 0, 1, mixed=False)
    losses = objective(training_batch(source, folder.run, engine=engine, step=0))
    assert losses.total.item() == pytest.approx(
        losses.segmentation.item() + 0.25 * losses.alignment.item()
    )
    assert objective.early == 0.5
    assert objective.training


def test_episodes_are_augmented_as_the_run_says(tiny):
    """Support and query stay as they are read with a probability of 0; one of them moves with 1."""
    always, never = tiny("train.batch=4"), tiny("train.batch=4", "augment.probability=0")
    _, source = open_training(always)
    engine = Engine(CPU, 0, 1, mixed=False)
    plain = source.batch([source.generator(number) for number in range(8, 12)])
    moved, same = (
        training_batch(source, folder.run, engine=engine, step=2) for folder in (always, never)
    )
    assert torch.equal(same.support, plain.support)
    assert torch.equal(same.query, plain.query)
    for number in range(4):
        kept = [
            torch.equal(getattr(moved, side)[number], getattr(plain, side)[number])
            for side in ("support", "query")
        ]
        assert sorted(kept) == [False, True]


def test_layers_are_drawn_anew_for_every_step_and_process():
    def drawn(*place):
        with seeded_layers(*place, device=CPU):
            return tuple(torch.rand(3).tolist())

    torch.manual_seed(0)
    places = [(1, 0, 0), (1, 1, 0), (1, 2, 0), (1, 0, 1), (2, 0, 0)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert drawn(1, 2, 0) == drawn(1, 2, 0)
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(1))


def test_a_step_draws_layers_by_its_number_and_its_process(tiny, monkeypatch):
    folder = tiny("train.steps=2")
    places = []

    def remember(*place, device):
        places.append(place)
        return nullcontext()

    monkeypatch.setattr("catnet.train.seeded_layers", remember)
    run(folder)
    assert places == [(folder.run.seed, 0, 0), (folder.run.seed, 1, 0)]


def test_weights_are_trained_with_the_channels_last(tiny):
    placed = Engine(CPU, 0, 1, mixed=False).place(build_objective(tiny().run))
    weights = [weight for weight in placed.parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiler_that_fails_is_one_sentence(compiled):
    engine = Engine(CPU, 0, 1, mixed=False, compiled=compiled)
    error, words = (
        (UserError, "the step .no compiler.; install")
        if compiled
        else (
            RuntimeError,
            "no compiler\nto be found",
        )
    )
    with pytest.raises(error, match=words), engine.compiling():
        raise torch._dynamo.exc.TorchDynamoException("no compiler\nto be found")
