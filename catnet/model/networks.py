"""The networks of the bench by name: CAT-Net, and what it is compared with."""

from pathlib import Path

import torch

from catnet.config import ModelSettings
from catnet.model.adnet import ADNet
from catnet.model.alpnet import ALPNet
from catnet.model.catnet import CATNet
from catnet.model.hub import local_folder
from catnet.model.network import Network, read_settings
from catnet.model.panet import PANet
from catnet.model.qnet import QNet

NETWORKS: dict[str, type[Network]] = {
    "catnet": CATNet,
    "panet": PANet,
    "alpnet": ALPNet,
    "adnet": ADNet,
    "qnet": QNet,
}


def build_network(settings: ModelSettings) -> Network:
    """The network that `settings.name` names, with random weights."""
    return NETWORKS[settings.name](settings)


def load_network(folder: Path | str) -> Network:
    """Restore whatever network `save_pretrained` wrote to a folder; ready to evaluate.

    `hf://OWNER/NAME` is a folder that others share. Raises `UserError` where a file is missing,
    unreadable, or of another network.
    """
    folder = local_folder(folder)
    return NETWORKS[read_settings(folder).name].from_pretrained(folder)


def initial_model(settings: ModelSettings, *, seed: int) -> Network:
    """The untrained network, which the seed alone decides; no random state outside is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(settings)
