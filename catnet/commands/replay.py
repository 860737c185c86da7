"""Compute one step of a training once more, to see where a number went wrong.

FILE is what a run has ended with when its loss or its gradient was no number: the episodes of that
step and the weights before it. The folder of a RUN and --step K give any other step: the episode is
always the very same, the weights are those of the nearest checkpoint before it (or the initial
ones: a run keeps its last two), and with --exact those that the run had then, for which it is
trained on from there. Layers that an encoder leaves out at random are those of the step where one
process trained the run.

Printed are the loss and its parts, the norm of the gradient, what the episodes hold, and the first
module whose output is no number; drawn, beside the file, are the episodes with every mask.

example:
  catnet replay ~/catnet/runs/baseline-0123456789 --step 1200
"""

import argparse
from io import BytesIO
from pathlib import Path

from torch import Tensor

from catnet.commands.progress import progress_bar
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.files import write_bytes
from catnet.journal import draw_episode
from catnet.replay import Replay, Report, draw_step, read_step, replay
from catnet.runs import open_run_folder
from catnet.snapshot import Snapshot

MOST = 8  # episodes in a picture
STOPPED = "nothing was written, and the same command begins anew"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("what", type=Path, metavar="FILE|RUN", help="a saved step, or a run")
    parser.add_argument("--step", type=int, metavar="K", help="which step of RUN, from 1")
    parser.add_argument(
        "--exact", action="store_true", help="train on to step K from the checkpoint before it"
    )


def run(options: argparse.Namespace) -> None:
    """Compute the step, print what it came to and draw it."""
    with progress_bar("training") as bar:
        task = bar.add_task("", total=None)
        snapshot, weights, picture = open_step(
            options, report=lambda done, total: bar.update(task, completed=done, total=total)
        )
    found = replay(snapshot, source=options.what)
    for line in describe(snapshot, found, weights=weights):
        print(line)
    drawn = BytesIO()
    draw_episode(found.losses, snapshot.episode.to("cpu"), most=MOST).savefig(drawn, dpi=110)
    write_bytes(picture, drawn.getvalue())
    print(f"picture: {picture}")


def open_step(options: argparse.Namespace, *, report: Report) -> tuple[Snapshot, str, Path]:
    """The step, where its weights are from, and where its picture goes."""
    what, step = options.what, options.step
    if what.is_file():
        if step is not None or options.exact:
            raise UserError(f"{what}: is one step; --step and --exact belong to a run's folder")
        return read_step(what, report=report), "before the step", what.with_suffix(".png")
    if what.suffix == ".safetensors":
        raise UserError(f"{what}: no such file; check the path")
    folder = open_run_folder(what)
    if step is None:
        raise UserError(f"{folder.path}: which step? give --step K, from 1")
    snapshot, done = draw_step(folder, step, exact=options.exact, report=report)
    weights = "initial" if done == 0 else f"after step {done}"
    if done == step - 1:
        weights += ", as they were then"
    return snapshot, weights, folder.replay / f"step-{step:0>8}.png"


def describe(snapshot: Snapshot, found: Replay, *, weights: str) -> list[str]:
    """What is printed of a step."""
    run, losses = snapshot.run, found.losses
    step = f"step {snapshot.step} of {run.train.steps}, seed {run.seed}, {run.train.precision}"
    return [
        f"{run.name}: {step}; weights {weights}",
        f"  loss              {losses.total.item():.8g}",
        f"  segmentation      {losses.segmentation.item():.8g}",
        f"  alignment         {losses.alignment.item():.8g} (counts {run.train.alignment:g} times)",
        f"  gradient norm     {found.norm:.8g}",
        *(
            line
            for k in range(len(snapshot.episode))
            for line in tell(snapshot.episode[k : k + 1], k)
        ),
        f"  first no number   {found.culprit or 'nowhere: all of it is finite'}",
    ]


def tell(episode: Episode, number: int) -> list[str]:
    """The sides of one episode: pixels of the masks, range of the intensities."""
    supports = ", ".join(f"{mask.sum().item():.0f}" for mask in episode.support_mask[0])
    return [
        f"  episode {number} support {supports} pixels, intensities {extent(episode.support)}",
        f"  episode {number} query   {episode.query_mask.sum().item():.0f} pixels, "
        f"intensities {extent(episode.query)}",
    ]


def extent(images: Tensor) -> str:
    """Lowest and highest value, and how many are no numbers, if any."""
    finite = images[images.isfinite()]
    lost = images.numel() - finite.numel()
    known = f"{finite.min():.6g} to {finite.max():.6g}" if finite.numel() else "none"
    return known + (f" ({lost} pixels are no numbers)" if lost else "")
