"""Settings on the command line, and the list of all of them in its help."""

import argparse
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

from catnet.config import Run
from catnet.errors import UserError
from catnet.strict import Strict

SETTING = re.compile(r"[a-z_]+(\.[a-z_]+)*=")


def add_settings(parser: argparse.ArgumentParser, *, group: str | None = None) -> None:
    """Take key=value arguments, and list the settings (of one group, or all) in the help."""
    parser.add_argument(
        "settings",
        nargs="*",
        default=[],
        metavar="key=value",
        help="settings that override the file's",
    )
    lines = [line for line in list_settings(Run()) if group is None or line.startswith(group)]
    parser.epilog = "settings, their defaults and meaning:\n" + "\n".join(f"  {x}" for x in lines)


def part_settings(
    words: list[str], settings: list[str], *, what: str
) -> tuple[list[str], list[str]]:
    """Names and settings, which may be mixed; raises `UserError` where nothing is named."""
    given = [word for word in words if SETTING.match(word) and not Path(word).exists()]
    names = [word for word in words if word not in given]
    if not names:
        raise UserError(f"no {what} is named; give a folder that `catnet train` printed")
    return names, [*given, *settings]


def list_settings(settings: Strict, prefix: str = "") -> list[str]:
    """A line for every setting: its name, default and meaning."""
    lines = []
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Strict):
            lines += list_settings(value, f"{prefix}{name}.")
        else:
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
            among = f" ({', '.join(map(str, choices))})" if choices else ""
            lines.append(f"{prefix + name:<26} {value!s:<18} {field.description}{among}")
    return lines
