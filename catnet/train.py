"""Training: one loop, top to bottom; step k is a pure function of (seed, k).

Nothing random is kept between steps, so a run that is killed and started again ends bit for bit as
if it had never stopped: weights, optimizer state and the number of finished steps are all there is.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from catnet.checkpoint import checkpoints, file_name, load_checkpoint, save_checkpoint
from catnet.config import Run, TrainSettings
from catnet.data.episodes import EpisodeSource, open_source
from catnet.data.folds import split
from catnet.data.store import Case, open_cases
from catnet.engine import Engine, start_engine
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.guard import Guard
from catnet.journal import Journal, Progress
from catnet.loading import episodes, place_cases, whole_batch
from catnet.model.loss import Losses, Objective
from catnet.model.networks import initial_model
from catnet.runs import PROVENANCE, RunFolder, check_unchanged, provenance, write_json


def train(
    folder: RunFolder, *, report: Callable[[Progress], None], say: Callable[[str], None]
) -> None:
    """Train a run to its end, from its last checkpoint where it has one, and save the network.

    `report` is told how far it is, `say` what a person should know; both by one process only.
    Raises `UserError` where the data, the settings or a checkpoint do not allow it.
    """
    run = folder.run
    cases, source = open_training(folder)
    engine = start_engine(run)
    if engine.first:
        for case in source.cases:
            case.check_content("image", source.sampler.array)
    source = place_cases(source, run, engine=engine)
    objective = engine.place(build_objective(run))
    optimizer = build_optimizer(objective, run.train)
    done = resume(folder, objective, optimizer, say=say if engine.first else ignore)
    if engine.world > 1:
        objective.model.encoder.fix_unused(folder.card.size)
    forward = engine.wrap(objective)
    journal = Journal(folder, engine=engine, done=done, report=report)
    guard = Guard(
        folder, engine=engine, redraw=lambda step: whole_batch(source, run, engine, step=step)
    )
    if engine.first:
        write_json(folder.path / PROVENANCE, provenance(folder, cases))

    for step, episode in enumerate(episodes(source, run, engine=engine, start=done), start=done):
        losses, norm = find_gradient(
            forward,
            episode,
            optimizer,
            engine=engine,
            clip=run.train.clip,
            draw=(run.seed, step),
        )
        guard.check(step + 1, loss=losses.total, norm=norm, model=objective)
        set_rate(optimizer, learning_rate(run.train, step))
        optimizer.step()
        journal.after(step + 1, losses, episode, rate=learning_rate(run.train, step))
        if (step + 1) % run.machine.checkpoint_every == 0 and engine.first:
            check_finite(folder, objective)
            save_checkpoint(
                folder.checkpoints, objective, optimizer, step=step + 1, run=folder.identity
            )
    journal.close(objective.model)
    check_finite(folder, objective)
    if engine.first:
        objective.model.save_pretrained(folder.model)
    engine.stop()


def find_gradient(
    forward: nn.Module,
    episode: Episode,
    optimizer: torch.optim.Optimizer,
    *,
    engine: Engine,
    clip: float,
    draw: tuple[int, int],
) -> tuple[Losses, Float[Tensor, ""]]:
    """The losses of a step and the norm that its gradient had before it was clipped.

    What an encoder draws at random in it, such as the layers that it leaves out, follows from
    `draw`: the seed of the run, and the step counted from 0.
    """
    optimizer.zero_grad()  # first, so that the last gradient takes no room beside this pass
    seeded = seeded_layers(*draw, engine.rank, device=engine.device)
    with seeded, engine.autocast(), engine.compiling():
        losses = forward(episode)
    losses.total.backward()
    norm = nn.utils.clip_grad_norm_(forward.parameters(), clip or math.inf)
    return losses, norm


@contextmanager
def seeded_layers(*place: int, device: torch.device) -> Iterator[None]:
    """Layers of libraries draw from torch's own generator, which is left as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        yield


def check_finite(folder: RunFolder, objective: Objective) -> None:
    """Raise `UserError` where a weight is no number: nobody could go on from there."""
    if not all(value.isfinite().all() for value in objective.state_dict().values()):
        raise UserError(
            f"{folder.path}: training ended in weights that are no numbers; lower train.rate and "
            "start a new run"
        )


def open_training(folder: RunFolder) -> tuple[tuple[Case, ...], EpisodeSource]:
    """All prepared cases, and the episodes of those that train; raises `UserError` as `train`."""
    cases = open_cases(folder.card)
    if folder.begun:
        check_unchanged(folder, cases, training=True)
    training = split(folder.card, cases, folder.run.data.fold).training
    return cases, open_source(folder.card, training, folder.run.data, seed=folder.run.seed)


def build_objective(run: Run) -> Objective:
    """The network with its initial weights, and what it is trained for."""
    model = initial_model(run.model, seed=run.seed)
    objective = Objective(model, alignment=run.train.alignment, early=run.train.early).train()
    if run.train.batch_norm == "frozen":
        model.encoder.freeze_statistics()
    return objective


def build_optimizer(objective: Objective, settings: TrainSettings) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; the rate is set before every step."""
    parameters = [weight for weight in objective.parameters() if weight.requires_grad]
    same = {"lr": settings.rate, "weight_decay": settings.weight_decay, "fused": True}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **same)
    return torch.optim.SGD(parameters, momentum=settings.momentum, **same)


def resume(
    folder: RunFolder,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    *,
    say: Callable[[str], None],
    last: int | None = None,
) -> int:
    """Restore the newest checkpoint that can be read; returns the number of finished steps.

    With `last`, those after more steps than that are left out.
    """
    found = checkpoints(folder.checkpoints)
    if last is not None:
        found = [path for path in found if path.name <= file_name(str(last))]
    for path in reversed(found):
        try:
            done = load_checkpoint(path, objective, optimizer, run=folder.identity)
        except UserError as error:
            if path == found[0]:
                raise
            say(f"{error}; trying the checkpoint before it")
            continue
        say(f"going on from step {done} ({path})")
        return done
    return 0


def learning_rate(settings: TrainSettings, step: int) -> float:
    """The rate of a step, counted from 0."""
    warm = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return warm * settings.rate
    if settings.schedule == "cosine":
        return warm * settings.rate * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return warm * settings.rate * settings.decay ** (step * settings.batch // settings.decay_every)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group of parameters this rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def ignore(text: str) -> None:
    """What the processes other than the first one say."""
