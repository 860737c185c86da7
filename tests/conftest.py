"""Shapes and types are checked while the tests run; one thread, because two stall under load."""

import os
from pathlib import Path

from jaxtyping import install_import_hook

install_import_hook("catnet", "beartype.beartype")

import pytest
import torch

from catnet.torchvision_guard import guard_torchvision

guard_torchvision()
torch.set_num_threads(1)

SHARED = Path(os.environ.get("CATNET_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """Every test has its own data and runs folder, and never touches the user's."""
    monkeypatch.setenv("CATNET_DATA", str(tmp_path / "data-home"))
    monkeypatch.setenv("CATNET_RUNS", str(tmp_path / "runs-home"))
    monkeypatch.setenv("CATNET_CARDS", str(Path(__file__).parents[1] / "datasets"))


@pytest.fixture(scope="session")
def chaos() -> Path:
    """Folder of the real CHAOS scans; the test is skipped where they are not at hand."""
    folder = SHARED / "data" / "chaos_t2"
    if not folder.is_dir():
        pytest.skip(f"needs the real scans in {folder} (set CATNET_SHARED)")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
