"""Draw what one position of a query slice attends to, round by round, in a trained run.

The upper line shows the query slice and, for every round of CMAT, how much weight the mechanism at
the self place gives to each part of it; the lower line what the position attends to on the support
slice, where the cross mechanism has a map. Heads are averaged. Weights are in times the even share:
1 everywhere means that all parts are seen alike. Green cross: the position; blue: the true organ;
orange: the predicted one. Mechanisms that weigh channels instead of positions have no map.

The position is the middle of the organ, true or else predicted, unless --at names a row and a
column; their numbers stand along the edges of the picture.

example:
  catnet attend baseline-0123456789 --case 3 --slice 12 --organ liver --at 130,80 -o liver.png
"""

import argparse
from pathlib import Path

from catnet.engine import choose_device, limit_threads
from catnet.errors import UserError
from catnet.evaluate.attend import Attention, Look, Place, attend, check_looks
from catnet.evaluate.heat import save_attention
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
        "--at", type=parse_place, metavar="ROW,COLUMN", help="default: the middle of the organ"
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
    limit_threads(folder.run.machine)
    predictor = open_predictors(folder, choose_device(folder.run.machine))[folder.run.model.name]
    scene = find_scene(
        folder,
        case=options.case,
        number=options.slice,
        organ=options.organ,
        support=options.support,
    )
    attention = attend(predictor, scene, place=options.at)
    path = options.output or default_path(folder, attention)
    model = folder.run.model
    names = (model.attention, model.cross_attention)
    save_attention(path, attention, names=names, flip=folder.card.orientation[1] == "A")
    for line in describe(attention, names):
        print(line)
    print(f"picture: {path}")


def parse_place(text: str) -> Place:
    """`ROW,COLUMN` as two whole numbers; raises `UserError` for anything else."""
    try:
        row, column = (int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--at {text!r} is no position; write a row and a column, such as --at 40,62"
        ) from None
    return row, column


def parse_picture(text: str) -> Path:
    """A path that ends in .png; raises `UserError` for another one."""
    path = Path(text)
    if path.suffix.lower() != ".png":
        raise UserError(f"-o {text}: the picture is a PNG; choose a name that ends in .png")
    return path


def default_path(folder: RunFolder, attention: Attention) -> Path:
    """A picture in the run's folder, named by what it shows."""
    scene, (row, column) = attention.scene, attention.place
    what = f"{scene.query.name}_slice{scene.number}_{scene.organ}_at{row}-{column}"
    return folder.path / "attention" / f"{what}_by_{scene.support.name}.png".replace(" ", "-")


def describe(attention: Attention, names: tuple[str, str]) -> list[str]:
    """What was looked at, and the weight on the organ by rounds, in words."""
    scene, (row, column) = attention.scene, attention.place
    lines = [
        f"query {scene.query.name}, slice {scene.number}, from row {row}, column {column}; "
        f"support {scene.support.name}, slice {scene.support_number}"
    ]
    if not scene.truth.any():
        lines.append(f"the {scene.organ} is not on the query slice")
    if not attention.across:
        lines.append("no line for the support slice: no map there, or nothing is received from it")
    for place, name, looks, mask in (
        ("self", names[0], attention.itself, scene.truth),
        ("cross", names[1], attention.across, scene.support_mask),
    ):
        if mask.any() and looks:
            lines.append(
                f"weight on the {scene.organ}, {place} ({name}): {on_organ(looks)}; "
                f"the organ covers {mask.mean():.1%} of the slice"
            )
    return lines


def on_organ(looks: tuple[Look, ...]) -> str:
    """The part of the weight on the organ in every round; a dash where there is none."""
    parts = ("-" if one.on_organ != one.on_organ else f"{one.on_organ:.1%}" for one in looks)
    return ", ".join(f"round {number} {part}" for number, part in enumerate(parts, start=1))
