"""Write a trained run to a folder that others can use.

The folder holds the weights (safetensors), the network's settings, the data card, where it all came
from, a model card (data, protocol, Dice per organ with interval, limits) and a MONAI bundle's
configuration. `catnet predict --model DIR`, `catnet.load_network(DIR)` and `python -m monai.bundle
run` read it. Uploaded to a hub it is `hf://OWNER/NAME`. The model card tells what the run's
evaluations say; evaluate first.

example:
  catnet export baseline-0123456789 shared/baseline
"""

import argparse
from pathlib import Path

from catnet.export.folder import export

STOPPED = "delete the folder that it began, and give the same command again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command."""
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a trained run")
    parser.add_argument("folder", type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--again", action="store_true", help="write a former export anew")


def run(options: argparse.Namespace) -> None:
    """Export, and say what the card tells."""
    told = export(options.run, options.folder, again=options.again)
    if not told:
        print("not evaluated: the model card says so; `catnet evaluate`, then export --again")
    print(f"exported: {options.folder}")
