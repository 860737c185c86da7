"""One step of training once more: its loss, its gradient, and where the first wrong number arises.

Step k is a pure function of (seed, k) and of the weights before it. Those lie in the file that a
run has ended with, or are those of a checkpoint, from which training can go on to the step.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from catnet.config import Run
from catnet.engine import Engine, choose_device, set_up_cpu
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.loading import training_batch, whole_batch
from catnet.model.loss import Losses, Objective
from catnet.model.weights import first_difference
from catnet.runs import SETTINGS, RunFolder, open_run_folder
from catnet.snapshot import Snapshot, load_snapshot
from catnet.train import (
    build_objective,
    build_optimizer,
    find_gradient,
    ignore,
    learning_rate,
    open_training,
    resume,
    set_rate,
)

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Replay:
    """What a step came to: `culprit` says where the first number that is none arises, if any."""

    losses: Losses
    norm: float
    culprit: str | None


def read_step(path: Path, *, report: Report) -> Snapshot:
    """The step that a run has ended with, from its file, with the weights before it.

    Where the file lacks them, the run that it lies in is trained on to there; `report` is told how
    far (steps done, steps in all).
    """
    snapshot = load_snapshot(path)
    if snapshot.weights is not None:
        return snapshot
    place = path.absolute().parent.parent
    if not (place / SETTINGS).is_file():
        raise UserError(
            f"{path}: holds no weights, and does not lie in the folder replay of its run, whose "
            "training gives them; move it back there"
        )
    folder = open_run_folder(place)
    again, _ = draw_step(folder, snapshot.step, exact=True, report=report)
    return replace(snapshot, weights=again.weights)


def draw_step(folder: RunFolder, step: int, *, exact: bool, report: Report) -> tuple[Snapshot, int]:
    """A step of a run, counted from 1, with its weights after some step before; and which that was.

    They are those of the nearest checkpoint, or the initial ones; with `exact` the run is trained
    on from there to the step, and `report` is told how far. Raises `UserError` for a step that the
    run does not have, and where its data has changed.
    """
    run = folder.run
    if not 1 <= step <= run.train.steps:
        raise UserError(f"{folder.path}: has the steps 1 to {run.train.steps}, and no {step}")
    engine = open_engine(run)
    _, source = open_training(folder)
    objective = build_objective(run).to(engine.device)
    optimizer = build_optimizer(objective, run.train)
    done = resume(folder, objective, optimizer, say=ignore, last=step - 1)
    for number in range(done, step - 1) if exact else ():
        episode = training_batch(source, run, engine=engine, step=number)
        find_gradient(
            objective,
            episode,
            optimizer,
            engine=engine,
            clip=run.train.clip,
            draw=(run.seed, number),
        )
        set_rate(optimizer, learning_rate(run.train, number))
        optimizer.step()
        report(number + 1 - done, step - 1 - done)
    episode = whole_batch(source, run, engine, step=step)
    return Snapshot(run, step, episode, objective.state_dict()), step - 1 if exact else done


def open_engine(run: Run) -> Engine:
    """One process, on a GPU where there is one and the run may use it."""
    set_up_cpu(run.machine)
    kind = "cpu" if run.machine.accelerator == "cpu" else "auto"
    device = choose_device(run.machine.model_copy(update={"accelerator": kind}))
    return Engine(device, 0, 1, mixed=run.train.precision == "bfloat16")


def replay(snapshot: Snapshot, *, source: Path) -> Replay:
    """Compute a step once more, from its weights.

    Raises `UserError`, which names the `source` of the step, where the weights do not fit its run.
    """
    engine = open_engine(snapshot.run)
    objective = build_objective(snapshot.run)
    weights = snapshot.weights or {}
    if name := first_difference(objective.state_dict(), weights):
        raise UserError(
            f"{source}: step {snapshot.step} has weights of another architecture ({name}); replay "
            "it with the version of catnet that wrote it, or train the run again"
        )
    objective.load_state_dict(weights)
    objective.to(engine.device)
    optimizer = build_optimizer(objective, snapshot.run.train)
    episode = snapshot.episode.to(engine.device)
    unsound = [*unsound_before(objective, episode)]
    with watched(objective) as found:
        losses, norm = find_gradient(
            objective,
            episode,
            optimizer,
            engine=engine,
            clip=0.0,
            draw=(snapshot.run.seed, snapshot.step - 1),
        )
    unsound += found
    unsound += [
        f"the gradient of {name}"
        for name, weight in objective.named_parameters()
        if weight.grad is not None and not sound(weight.grad)
    ]
    return Replay(losses, norm.item(), next(iter(unsound), None))


def unsound_before(objective: Objective, episode: Episode) -> Iterator[str]:
    """What is no number before anything is computed.

    The running statistics of batch normalization are left out: the step that a run has ended with
    has moved them already, and they do not enter a step.
    """
    if not sound(episode):
        yield "the episode itself"
    yield from (f"the weight {name}" for name, x in objective.named_parameters() if not sound(x))


@contextmanager
def watched(objective: nn.Module) -> Iterator[list[str]]:
    """Collects the modules whose output holds a number that is none, in the order they end in."""
    found: list[str] = []

    def watch(name: str, kind: str) -> Callable:
        def note(module: nn.Module, inputs: tuple, output: object) -> None:
            if not sound(output):
                found.append(f"the output of {name or 'the loss'} ({kind})")

        return note

    with ExitStack() as hooks:
        for name, module in objective.named_modules():
            hook = module.register_forward_hook(watch(name, type(module).__name__))
            hooks.callback(hook.remove)
        yield found


def sound(value: object) -> bool:
    """Whether all numbers in a tensor, or in a structure of tensors, are finite."""
    if isinstance(value, Tensor):
        return bool(value.isfinite().all())
    if is_dataclass(value):
        return all(sound(getattr(value, field.name)) for field in fields(value))
    return all(map(sound, value)) if isinstance(value, tuple | list) else True
