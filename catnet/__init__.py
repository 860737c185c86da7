"""CAT-Net, and a bench for few-shot medical image segmentation.

`CATNet`, `Episode` and `ModelSettings` are what a program needs to use the network alone, and
`build_network` and `load_network` give those it is compared with. They are imported when they are
first asked for, so that the command line answers at once.
"""

from importlib import import_module

HOMES = {
    "CATNet": "catnet.model.catnet",
    "Episode": "catnet.episode",
    "ModelSettings": "catnet.config",
    "build_network": "catnet.model.networks",
    "load_network": "catnet.model.networks",
}
__all__ = ["CATNet", "Episode", "ModelSettings", "build_network", "load_network"]


def __getattr__(name: str) -> object:
    """Import one of the public names."""
    if name not in HOMES:
        raise AttributeError(f"module 'catnet' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
