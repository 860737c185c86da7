"""Draw what one position of a query slice attends to, round by round, in a trained run.

The upper line shows the query slice and, for every round of CMAT, how much weight the mechanism at
the self place gives to each part of it; the lower line what the position attends to on the support
slice, where the cross mechanism has a map. Heads are averaged. Weights are in times the even share:
1 everywhere means that all parts are seen alike; all panels have one scale, from 0 to 8 or more.
Green cross: the position; blue: the true organ; orange: the predicted one. Mechanisms that weigh
channels instead of positions have no map.

The position is the middle of the organ, true or else predicted, unless --at names a row and a
column of the picture. Both count from 0, the first row is on top; see the numbers at its edges.

The support slice is the one that EP1 pairs with the query slice: the middle one of that third of
the support's slices with the organ that answers to the query slice's third; where the query slice
does not show the organ, the middle one of them all. With model.mask_on=queries a position outside
of the mask receives nothing in that round; model.ffn=conv, which mixes neighbors, may still hand on
to it what they received.

example:
  catnet attend baseline-0123456789 --case 3 --slice 12 --organ liver --at 130,80 -o liver.png
"""

import argparse
from pathlib import Path

from catnet.config import Run
from catnet.engine import choose_device, set_up_cpu
from catnet.errors import UserError
from catnet.evaluate.attend import Attention, Look, Place, attend, check_looks, check_place
from catnet.evaluate.heat import save_attention, turned
from catnet.evaluate.run import open_predictors
from catnet.evaluate.scene import find_scene
from catnet.runs import RunFolder, open_run_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument("--case", required=True, metavar="NAME", help="a prepared case, the query")
    parser.add_argument(
        "--slice", type=int, required=True, metavar="N", help="its slice, counted from 0"
    )
    parser.add_argument("--organ", metavar="NAME", help="default: the largest on the slice")
    parser.add_argument(
        "--at",
        type=parse_place,
        nargs="?",
        const="",  # argparse takes a negative row for another option, and sees nothing here
        metavar="ROW,COLUMN",
        help="in the picture, from 0, row 0 on top; default: the middle of the organ",
    )
    parser.add_argument("--support", metavar="NAME", help="default: the fold's support case")
    parser.add_argument(
        "-o",
        "--output",
        type=parse_picture,
        metavar="FILE.png",
        help="default: in the run's folder `attention`",
    )


def run(options: argparse.Namespace) -> None:
    """Look, draw, and print how much of the weight lies on the organ."""
    folder = open_run_folder(options.run, overrides=["evaluate.baselines=[]"])
    check_looks(folder.run.model)
    set_up_cpu(folder.run.machine)
    predictor = open_predictors(folder, choose_device(folder.run.machine))[folder.run.model.name]
    scene = find_scene(
        folder,
        case=options.case,
        number=options.slice,
        organ=options.organ,
        support=options.support,
    )
    turn = {"rows": len(scene.image), "flip": folder.card.orientation[1] == "A"}
    if options.at is not None:
        check_place(options.at, scene.image.shape)
    place = None if options.at is None else turned(options.at, **turn)
    attention = attend(predictor, scene, place=place)
    shown = turned(attention.place, **turn)
    path = options.output or default_path(folder, attention, shown)
    model = folder.run.model
    save_attention(
        path, attention, names=(model.attention, model.cross_attention), flip=turn["flip"]
    )
    for line in describe(attention, folder.run, shown):
        print(line)
    print(f"picture: {path}")


def parse_place(text: str) -> Place:
    """`ROW,COLUMN` as two whole numbers; raises `UserError` for anything else."""
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--at {text!r} is no position; write a row and a column of the picture, both from 0, "
            "such as --at 40,62"
        ) from None
    return row, column


def parse_picture(text: str) -> Path:
    """A path that ends in .png; raises `UserError` for another one."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise UserError(f"-o {text}: the picture is a PNG; choose a name that ends in .png")
    return path


def default_path(folder: RunFolder, attention: Attention, shown: Place) -> Path:
    """A picture in the run's folder, named by what it shows."""
    scene, (row, column) = attention.scene, shown
    what = f"{scene.query.name}_slice{scene.number}_{scene.organ}_at{row}-{column}"
    return folder.path / "attention" / f"{what}_by_{scene.support.name}.png".replace(" ", "-")


def describe(attention: Attention, run: Run, shown: Place) -> list[str]:
    """What was looked at, and the weight on the organ by rounds, in words."""
    scene, (row, column), model = attention.scene, shown, run.model
    lines = [
        f"query {scene.query.name}, slice {scene.number}, from row {row}, column {column}; "
        f"support {scene.support.name}, slice {scene.support_number}"
    ]
    if not scene.tested:
        lines.append(
            f"case {scene.query.name} is not tested in fold {run.data.fold}: the network may have "
            "been trained on it"
        )
    if not scene.truth.any():
        lines.append(f"the {scene.organ} is not on the query slice")
    if attention.silence:
        lines.append(f"no line for the support slice: {attention.silence}")
    for place, name, looks, mask in (
        ("self", model.attention, attention.itself, scene.truth),
        ("cross", model.cross_attention, attention.across, scene.support_mask),
    ):
        if mask.any() and looks:
            lines.append(
                f"weight on the {scene.organ}, {place} ({name}): {on_organ(looks)}; "
                f"the organ covers {mask.mean():.1%} of the slice"
            )
    if model.ffn == "conv" and any(not one.heat.any() for one in attention.across):
        lines.append(
            "outside of the mask the attention gives nothing; model.ffn=conv may still hand on "
            "what neighbors within two tokens received"
        )
    return lines


def on_organ(looks: tuple[Look, ...]) -> str:
    """The part of the weight on the organ in every round, or why there is none."""
    return ", ".join(f"round {number} {part_of(one)}" for number, one in enumerate(looks, start=1))


def part_of(one: Look) -> str:
    """Percent; or that the position receives nothing, or that no part can be told."""
    if not one.heat.any():
        return "nothing (outside of the mask)"
    if one.heat.min() < 0:
        return "no part (negative weights)"
    return f"{one.on_organ:.1%}"
