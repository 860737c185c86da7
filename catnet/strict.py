"""Typed, frozen settings from YAML: a misspelt name is an error that says what was meant.

Two kinds of file are read this way, dataset cards and run settings. YAML is read by the safe
loader; a value is checked by pydantic; every complaint is one sentence with file, key and remedy.
What JSON says is read here too: no file may be larger than its kind needs, or nested without end.
"""

import difflib
import json
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError

from catnet.errors import UserError


class Strict(BaseModel):
    """A frozen group of settings that knows no name but its own, and no number but a finite one."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


class PlainLoader(yaml.SafeLoader):
    """The safe loader without aliases, to which a key that stands twice is a mistake."""

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node:
        """Any value; an alias (`*name`) could stand for itself, or unfold without end."""
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise ComposerError(None, None, "aliases are not read; write the value out", mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """A mapping, before anchors are merged into it; raises `yaml.YAMLError`."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(str(key.value))
        return node

    def construct_scalar(self, node: yaml.Node) -> str:
        """Text that can be written again; raises `ValueError` for half a letter (`"\\ud800"`)."""
        text = super().construct_scalar(node)
        str(text).encode()
        return text


Settings = TypeVar("Settings", bound=Strict)
UNKNOWN = "extra_forbidden"
FIRST = {UNKNOWN, "invalid_key"}  # told first: the name that is missing is often the one misspelt
MEGABYTE = 1_000_000
MOST_BITS = 4096  # of a whole number that Python still writes out
MOST_YAML = MEGABYTE  # bytes; far above any card, and read in seconds
MOST_JSON = 256 * MEGABYTE  # pixel counts of every supervoxel take a few of them


def read_text(path: Path, *, most: int) -> str:
    """A text file of at most `most` bytes; raises `OSError` or `ValueError` where it is none."""
    with path.open("rb") as file:
        content = file.read(most + 1)  # and no size that a device or a pipe claims to have
    if len(content) > most:
        raise ValueError(f"is larger than {most // MEGABYTE} MB")
    return content.decode()


def read_json(path: Path) -> object:
    """What a JSON file says; raises `OSError` or `ValueError` where it says nothing."""
    try:
        return json.loads(read_text(path, most=MOST_JSON))
    except RecursionError:
        raise ValueError("is nested without end") from None


def read_yaml(path: Path) -> dict:
    """The mapping in a YAML file; raises `UserError` where there is none."""
    try:
        content = parse_yaml(read_text(path, most=MOST_YAML))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; check the path") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); give a YAML text file") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise UserError(f"{path}: not valid YAML{line} ({problem}); mend that line") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no `key: value` lines; see datasets/ and experiments/")
    return content


def parse_yaml(text: str) -> object:
    """The value that a YAML text holds; raises `yaml.YAMLError` where it holds none."""
    try:
        return yaml.load(text, PlainLoader)
    except (RecursionError, ValueError, LookupError, AttributeError, TypeError) as error:
        # what a malformed tag makes of the loader
        raise yaml.YAMLError(str(error).partition("\n")[0]) from None


def check(kind: type[Settings], content: dict, *, source: str) -> Settings:
    """`content` as settings of `kind`; raises `UserError` with the source, the key and the fix."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        problems = sorted(error.errors(), key=lambda problem: problem["type"] not in FIRST)
        raise UserError(f"{source}: {explain(kind, problems[0])}") from None


def explain(kind: type[Strict], problem: ErrorDetails) -> str:
    """One sentence on the first thing that is wrong."""
    path = [str(part) for part in problem["loc"]]
    key = ".".join(path)
    if problem["type"] == UNKNOWN:
        known = names_at(kind, path[:-1])
        nearest = difflib.get_close_matches(path[-1], known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(known)}"
        return f"{key} is not a setting; {hint}"
    if problem["type"] == "missing":
        return f"{key} is missing; add it"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if problem["type"] == "value_error":
        return f"{key}: {message}" if path else message
    return f"{key}: {message[:1].lower()}{message[1:]}, not {shorten(problem['input'])}"


def names_at(kind: type[Strict], path: list[str]) -> list[str]:
    """The names that the group of settings at `path` knows."""
    for name in path:
        field = kind.model_fields.get(name)
        candidates = (field.annotation, *get_args(field.annotation)) if field else ()
        groups = [c for c in candidates if isinstance(c, type) and issubclass(c, Strict)]
        kind = groups[0] if groups else kind
    return list(kind.model_fields)


def shorten(value: object) -> str:
    """A value as the user wrote it, cut where it is long."""
    if isinstance(value, int) and value.bit_length() > MOST_BITS:
        return f"a whole number of {value.bit_length()} bits"
    try:
        text = repr(value)
    except ValueError:  # such a number somewhere within
        text = f"a {type(value).__name__} of very large numbers"
    return text if len(text) <= 60 else f"{text[:57]}..."
