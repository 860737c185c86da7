"""The `catnet` command: finds the sub-command, and turns a user's mistake into one sentence.

Each sub-command is a module of `catnet.commands`: its docstring is its manual page, `add_arguments`
its options, `run` what it does. Only the one that is called is imported, so help appears at once.
A user's mistake ends with exit status 2; only our own bugs show a traceback.
"""

import argparse
import difflib
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import NoReturn

from catnet.errors import UserError
from catnet.paths import FOLLOW
from catnet.processes import ToldToEnd, follow, tidy_when_told_to_end

COMMANDS = {
    "phantom": "write synthetic abdomens, to try everything without a download",
    "prepare": "bring raw scans to one orientation, spacing, window and size",
    "cards": "write a card for a folder of scans, from what is seen there",
    "fetch": "download the raw scans of a card, where that needs no account",
    "check": "a picture of every prepared case, and a table of what is odd about them",
    "supervoxels": "cut prepared cases into 3D pseudo-labels",
    "train": "train the network of a run file",
    "replay": "compute one step of a training again, to see where a number went wrong",
    "evaluate": "Dice per organ of a trained run, under EP1 and EP2, beside baselines",
    "predict": "segment whole scans like a labelled one, on their own grids",
    "export": "a folder of a trained run to share: weights, card, model card, MONAI bundle",
    "sweep": "train and evaluate the runs that a question asks for",
    "report": "a page, tables and plots of a sweep or of some runs",
    "view": "a page with a scan and its masks, in three planes, from a run or from files",
    "attend": "draw what a position of a query attends to, round by round",
    "similarity": "how much every round of a trained run still changes the query feature",
    "doctor": "what may keep this from working here, and what to do about it",
    "zoo": "options, parameters, multiply-adds, memory and time of every attention mechanism",
    "bench": "speed and memory against a plain reference, pair by pair",
}

DESCRIPTION = """\
CAT-Net, and an honest bench for few-shot medical image segmentation.

The way of a data set: phantom or raw scans -> prepare -> supervoxels -> train -> evaluate.
"""

EXAMPLE = """\
example:
  catnet phantom phantom_mr --raw ~/catnet/raw/phantom_mr
  catnet prepare phantom_mr --raw ~/catnet/raw/phantom_mr
  catnet supervoxels phantom_mr
  catnet train experiments/smoke.yml
  catnet evaluate smoke-0123456789

`catnet COMMAND --help` is that command's manual page.
Folders: CATNET_DATA (~/catnet/data), CATNET_RUNS (~/catnet/runs), CATNET_CARDS (./datasets).
"""


GO_ON = ("phantom", "fetch", "prepare", "supervoxels", "sweep")  # with what is done already


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse, call, and end with one sentence where the user can mend something."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal without a letter still shows the table
            stream.reconfigure(errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", module="torch|timm")
    if parent := os.environ.pop(FOLLOW, ""):
        follow(int(parent))
    stopped = "nothing was done yet"
    try:
        name = choose(given)
        module = import_module(f"catnet.commands.{name}")
        anew = f"the same command {'goes on from here' if name in GO_ON else 'begins anew'}"
        stopped = getattr(module, "STOPPED", anew)
        parser = Parser(
            prog=f"catnet {name}",
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(parser)
        options = parser.parse_intermixed_args(given[1:])  # settings may follow options
        with tidy_when_told_to_end():
            module.run(options)
    except UserError as error:
        fail(str(error), status=2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
    except OSError as error:  # a full disk, a read-only folder
        place = f"{error.filename}: " if error.filename else ""
        fail(f"{place}{error.strerror or error}; make room, or choose another folder", status=2)
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        fail(f"out of memory{why}; give smaller files or settings, or a larger machine", status=2)
    except KeyboardInterrupt as error:
        status = 128 + (signal.SIGTERM if isinstance(error, ToldToEnd) else signal.SIGINT)
        if "LOCAL_RANK" in os.environ:
            os._exit(status)  # one of several: the process that started them speaks
        fail(f"stopped; {stopped}", status=status)


class Parser(argparse.ArgumentParser):
    """Complains in one sentence, like everything else here."""

    def error(self, message: str) -> NoReturn:
        """Raise `UserError` for arguments that do not fit the command."""
        raise UserError(f"{message}; see `{self.prog} --help`")


def choose(given: list[str]) -> str:
    """The name of the sub-command; raises `UserError` for one that is not there."""
    if not given or given[0] in {"-h", "--help"}:
        listing = "\n".join(f"  {name:<12} {summary}" for name, summary in COMMANDS.items())
        print(f"usage: catnet COMMAND ...\n\n{DESCRIPTION}\ncommands:\n{listing}\n\n{EXAMPLE}")
        sys.exit(0)
    if given[0] == "--version":
        print(f"catnet {version('catnet')}")
        sys.exit(0)
    if given[0] not in COMMANDS:
        nearest = difflib.get_close_matches(given[0], COMMANDS, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(COMMANDS)}"
        raise UserError(f"{given[0]!r} is not a command; {hint}")
    return given[0]


def fail(sentence: str, *, status: int) -> None:
    """End with one sentence on standard error."""
    print(f"catnet: {sentence}", file=sys.stderr)
    sys.exit(status)
