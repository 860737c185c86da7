"""CAT-Net, and a bench for few-shot medical image segmentation.

`CATNet`, `Episode` and `ModelSettings` are what a program needs to use the network alone; they are
imported when they are first asked for, so that the command line answers at once.
"""

from importlib import import_module

HOMES = {
    "CATNet": "catnet.model.catnet",
    "Episode": "catnet.episode",
    "ModelSettings": "catnet.config",
}
__all__ = ["CATNet", "Episode", "ModelSettings"]


def __getattr__(name: str) -> object:
    """Import one of the public names."""
    if name not in HOMES:
        raise AttributeError(f"module 'catnet' has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)
