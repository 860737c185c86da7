"""Reading the golden vectors: numbers that the authors' own implementations gave."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

OURS = Path(__file__).parents[2] / "golden"
FOLDER = Path(os.environ.get("CATNET_GOLDEN", OURS))
MODULES = {  # folders that a parity test reads
    *("a2_gjylt", "cbam_official", "cloformer_attention", "cloformer_block", "cloformer_convffn"),
    *("eca_official", "gc_block", "grl_anchor_stripe_attention", "grl_block", "grl_cab"),
    *("grl_mixed_attention", "grl_window_attention", "gsop_channel", "gsop_spatial"),
    *("nonlocal_embedded_gaussian", "refiner_attention", "refiner_block", "refiner_dla"),
    *("se_moskomule", "twins_gsa", "twins_lsa", "twins_lsa_mask", "twins_peg", "twins_svt_block"),
    *("volo_outlook_attention", "volo_outlooker"),
}
if not FOLDER.is_dir():
    raise NotADirectoryError(f"CATNET_GOLDEN={FOLDER}: no such folder; every test would be skipped")


@dataclass(frozen=True)
class Golden:
    """One file: the authors' weights, inputs and outputs, in the precision asked for."""

    name: str
    meta: dict
    params: dict[str, Tensor]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    dtype: torch.dtype

    @property
    def kwargs(self) -> dict:
        return self.meta["kwargs"]

    def tolerance(self, *, double: float = 1e-9) -> float:
        """Largest absolute difference allowed: `double` in float64, the file's own in float32."""
        if self.dtype == torch.float64:
            return double
        return max(1e-5, 20 * float(self.meta["max_abs_f32_minus_f64"]))


def configurations(module: str) -> list[Path]:
    """The files of one module folder, sorted; empty where the folder is not there."""
    assert module in MODULES, f"add {module!r} to MODULES of golden.py"
    return sorted((FOLDER / module).glob("*.npz"))


def read(path: Path, dtype: torch.dtype) -> Golden:
    """A file as tensors; floating-point arrays in `dtype`, whole numbers as they are."""
    with np.load(path, allow_pickle=False) as stored:
        meta = json.loads(str(stored["meta"]))
        group = {
            prefix: {
                key.removeprefix(prefix): cast(stored[key], dtype)
                for key in stored.files
                if key.startswith(prefix)
            }
            for prefix in ("param/", "input/", "output/", "output64/")
        }
    outputs = group["output64/"] if dtype == torch.float64 else group["output/"]
    return Golden(
        name=f"{path.parent.name}/{path.stem}",
        meta=meta,
        params=group["param/"],
        inputs=group["input/"],
        outputs=outputs,
        dtype=dtype,
    )


def cast(array: np.ndarray, dtype: torch.dtype) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.to(dtype) if tensor.is_floating_point() else tensor
