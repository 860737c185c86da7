import pytest
import torch

from catnet.bench.scene import QUICK
from catnet.bench.stage import open_scene


@pytest.fixture(scope="module")
def scene():
    with open_scene(QUICK, device=torch.device("cpu")) as made:
        yield made


@pytest.fixture(autouse=True)
def homes():
    """The scene has its own."""
