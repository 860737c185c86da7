"""A question as a file: in words, the settings that differ from the defaults, and what varies.

    question: How many rounds does the Dice need?
    base: baseline.yml              another file to build on, one level deep
    model: {mask_on: keys}
    vary:                           every combination is a run; a list of such mappings is several
      model.rounds: [0, 1, 2, 3, 4]     grids, one after the other
      data.fold: [0, 1, 2, 3, 4]

On the command line `key=value` overrides a setting, or narrows one that varies; `vary.key=[...]`
varies one more, and `base=FILE` asks the same question of other settings.
"""

import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import yaml

from catnet.config import OWN, Run
from catnet.errors import UserError
from catnet.strict import Strict, check, parse_yaml, read_yaml, shorten

REPEATS = ("data.fold", "seed")  # what is averaged over, and never a variant
UNFIT = re.compile(r"[^A-Za-z0-9._-]+")  # for the name of a folder
Grid = dict[str, list]
MOST_RUNS = 100_000  # of a question; a slip of the pen makes more than fit into memory


@dataclass(frozen=True)
class Variant:
    """One run of a question: its settings, and the values of those that vary."""

    run: Run
    label: str
    values: Mapping[str, object]


@dataclass(frozen=True)
class Question:
    """All runs that a file asks for, in its order; `varied` are the settings that vary in any."""

    name: str
    text: str
    varied: tuple[str, ...]
    variants: tuple[Variant, ...]
    source: str = "the question"  # its file, and the settings that were given with it


def load_run(path: Path, overrides: Sequence[str] = ()) -> Run:
    """The one run of a file; raises `UserError` where it asks for several."""
    found = load_question(path, overrides).variants
    if len(found) > 1:
        raise UserError(
            f"{path}: asks for {len(found)} runs; `catnet sweep {path}` makes them all, and "
            f"{describe(found[0])} would choose the first"
        )
    return found[0].run


def load_question(path: Path, overrides: Sequence[str] = ()) -> Question:
    """The runs of a YAML file (its `base:` first), with `key=value` overrides applied last.

    Raises `UserError` for a setting that is not there, a list without values, and for two
    combinations that are the same run.
    """
    content, grids = read_question(path, overrides)
    source = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    if sum(math.prod(map(len, grid.values())) for grid in grids) > MOST_RUNS:
        raise UserError(f"{source}: asks for more than {MOST_RUNS} runs; shorten a list of vary")
    varied = tuple(dict.fromkeys(key for grid in grids for key in grid))
    for key in varied:
        check_single(key, source=source)
    variants = tuple(
        build_variant(content, dict(zip(grid, values, strict=True)), varied=varied, source=source)
        for grid in grids
        for values in product(*grid.values())
    )
    check_distinct(variants, source=source)
    return Question(variants[0].run.name, variants[0].run.question, varied, variants, source)


def build_variant(
    content: dict, values: Mapping[str, object], *, varied: tuple[str, ...], source: str
) -> Variant:
    """The run with these values; they label it, but for fold and seed."""
    content = deepcopy(content)
    if "model.name" in values:
        drop_settings_of_others(content, str(values["model.name"]))
    for key, value in values.items():
        assign(content, key, value)
    run = check(Run, content, source=source)
    label = name_variant(run, [key for key in values if key not in REPEATS])
    return Variant(run, label, {key: look_up(run, key) for key in varied})


def name_variant(run: Run, keys: Sequence[str]) -> str:
    """`rounds=3, mask_on=keys`; a network by its name; without any key, the name of the run."""
    named = [
        show(run, key) if key == "model.name" else f"{key.rpartition('.')[2]}={show(run, key)}"
        for key in keys
    ]
    return ", ".join(named) or run.name


def drop_settings_of_others(content: dict, name: str) -> None:
    """Where networks are compared, what the question says of one of them holds for that one."""
    model = content.get("model")
    for network, names in OWN.items():
        for own in names if network != name and isinstance(model, dict) else ():
            model.pop(own, None)


def check_distinct(variants: Sequence[Variant], *, source: str) -> None:
    """Raise `UserError` where two variants would be trained and evaluated alike."""
    seen: dict[tuple[str, str], Variant] = {}
    for variant in variants:
        run = variant.run
        same = seen.setdefault((run.identity(run.data.card), run.evaluate.name()), variant)
        if same is not variant:
            raise UserError(
                f"{source}: two of its runs are the same ({describe(same)}; {describe(variant)}); "
                "take one of them out of vary"
            )


def describe(variant: Variant) -> str:
    """The settings that vary, as they would be given on the command line."""
    return " ".join(f"{key}={show(variant.run, key)}" for key in variant.values) or variant.label


def look_up(run: Run, key: str) -> object:
    """The value of a dotted setting."""
    value: object = run
    for name in key.split("."):
        value = value[name] if isinstance(value, dict) else getattr(value, name)
    return value


def check_single(key: str, *, source: str) -> None:
    """Raise `UserError` where a dotted name is that of a group; of unknown ones, pydantic tells."""
    kind: object = Run
    for name in key.split("."):
        field = kind.model_fields.get(name) if is_group(kind) else None
        kind = field.annotation if field else None
    if is_group(kind):
        one = next(iter(kind.model_fields))
        raise UserError(
            f"{source}: vary.{key} is a group of settings; vary one of them, such as {key}.{one}"
        )


def is_group(kind: object) -> bool:
    """Whether a type is that of a group of settings."""
    return isinstance(kind, type) and issubclass(kind, Strict)


def show(run: Run, key: str) -> str:
    """The value of a setting in YAML's short form, as it would be given on the command line."""
    value = run.model_dump(mode="json")
    for name in key.split("."):
        value = value[name]
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def read_question(path: Path, overrides: Sequence[str]) -> tuple[dict, list[Grid]]:
    """What all runs of a file share, and its grids (a single empty one where nothing varies)."""
    given = [parse_override(text) for text in overrides]
    content = read_yaml(path)
    content.update({key: value for key, value in given if key == "base"})
    content.setdefault("name", UNFIT.sub("-", path.stem))
    grids = read_grids(content.pop("vary", {}), source=str(path))
    if base := content.pop("base", None):
        below, shared = read_base(path, base)
        content = merge(below, content)
        grids = [grid | {k: v for k, v in shared.items() if k not in grid} for grid in grids]
    for key, value in given:
        if key.startswith("vary."):
            (more,) = read_grids({key.removeprefix("vary."): value}, source=f"{key}={value}")
            grids = [grid | more for grid in grids]
        elif any(key in grid for grid in grids):
            values = value if isinstance(value, list) else [value]
            (more,) = read_grids({key: values}, source=f"{key}={value}")
            grids = [grid | more if key in grid else grid for grid in grids]
        elif key != "base":
            assign(content, key, value)
    return content, grids


def read_grids(vary: object, *, source: str) -> list[Grid]:
    """What `vary:` lists, checked: settings by their dotted names, each with a list of values."""
    grids = vary if isinstance(vary, list) else [vary]
    if not grids or not all(isinstance(grid, dict) for grid in grids):
        raise UserError(f"{source}: vary needs lines such as `model.rounds: [0, 1, 2]`")
    for grid in grids:
        for key, values in grid.items():
            if not (isinstance(key, str) and all(key.split("."))):
                raise UserError(
                    f"{source}: vary has the key {key!r}, which names no setting; write it as "
                    "model.rounds"
                )
            if not isinstance(values, list) or not values:
                raise UserError(
                    f"{source}: vary.{key} needs a list of values, such as [0, 1, 2], "
                    f"not {shorten(values)}"
                )
            if str(key).partition(".")[0] in {"name", "question", "machine", "base", "vary"}:
                raise UserError(f"{source}: vary.{key} changes no result; take it out of vary")
    return [{str(key): values for key, values in grid.items()} for grid in grids]


def read_base(path: Path, base: object) -> tuple[dict, Grid]:
    """The file that `path` builds on, which may not build on another one, and what varies there."""
    if not isinstance(base, str):
        raise UserError(f"{path}: base must be the path of a YAML file, not {base!r}")
    content = read_yaml(path.parent / base)
    if "base" in content:
        raise UserError(f"{path}: its base {base} has a base too; one level is allowed")
    for own in ("name", "question"):
        content.pop(own, None)
    grids = read_grids(content.pop("vary", {}), source=base)
    if len(grids) > 1:
        raise UserError(f"{path}: its base {base} lists several grids; a base may have one")
    return content, grids[0]


def merge(below: dict, above: dict) -> dict:
    """`below` with the values of `above`, group by group; `*_options` are replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        nested = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = (
            merge(below[key], value) if nested and not str(key).endswith("_options") else value
        )
    return merged


def parse_override(override: str) -> tuple[str, object]:
    """Name and value of `a.b=value`; the value is read as YAML."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"{override!r} is no setting; write key=value, such as model.rounds=3")
    try:
        return key, parse_yaml(text)
    except yaml.YAMLError:
        raise UserError(f"{override!r}: {text!r} is not a YAML value; quote it") from None


def assign(content: dict, key: str, value: object) -> None:
    """Set the dotted `key` in nested mappings, in place."""
    *groups, name = key.split(".")
    for group in groups:
        content = content.setdefault(group, {})
        if not isinstance(content, dict):
            raise UserError(f"{key}={value}: {group} is a single value and has no {name}")
    content[name] = value
