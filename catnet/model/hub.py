"""Folders of trained networks that others share: `hf://OWNER/NAME`, or `hf://OWNER/NAME@REVISION`.

Nothing is fetched unless an address says so, and then only what a network is made of. It needs the
package huggingface_hub, which is asked for when it is needed.
"""

import re
from importlib import import_module
from pathlib import Path

from catnet.errors import UserError

HUB = "hf://"
ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
FILES = ["*.safetensors", "*.json", "*.yml", "*.md"]


def local_folder(place: Path | str) -> Path:
    """The folder itself, or where the files of a hub's address now lie on this machine.

    Raises `UserError` for an address that is none, or that cannot be fetched.
    """
    if not str(place).startswith(HUB):
        return Path(place)
    found = ADDRESS.fullmatch(str(place))
    if found is None:
        raise UserError(f"{place}: no address on a hub; write hf://OWNER/NAME or a folder")
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        raise UserError(f"{place}: needs huggingface_hub; pip install huggingface_hub") from None
    try:
        folder = hub.snapshot_download(
            found["name"], revision=found["revision"], allow_patterns=FILES
        )
    except (OSError, ValueError) as error:  # its own errors derive from these
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{place}: cannot be fetched ({why}); check the address and the network"
        ) from None
    return Path(folder)
