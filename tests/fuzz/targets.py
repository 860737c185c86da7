"""What is fuzzed: a reader, the ending of its file, and a file that it takes.

A reader gives a value or raises `UserError`; anything else is a fault.
"""

import gzip
import tempfile
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
import yaml
from safetensors.torch import save

from catnet.checkpoint import load_checkpoint, save_checkpoint
from catnet.data.card import load_card
from catnet.data.dicom import read_series
from catnet.data.volume import read_volume
from catnet.errors import UserError
from catnet.model.encoder import read_weights
from catnet.model.network import read_state
from catnet.question import load_question

RUN = "0123456789"
STEP = "step-00000001.safetensors"


def layer():
    """The smallest network that there is, always with the same weights."""
    made = torch.nn.Linear(2, 2)
    with torch.no_grad():
        for weight in made.parameters():
            weight.fill_(0.5)
    return made


def checkpoint_seed():
    model = layer()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(folder, model, torch.optim.SGD(model.parameters()), step=1, run=RUN)
        return (folder / STEP).read_bytes()


def read_checkpoint(path):
    model = layer()
    return load_checkpoint(path, model, torch.optim.SGD(model.parameters()), run=RUN)


def read_one_slice(path):
    return read_series(path.parent)


def nifti_seed():
    image = nib.Nifti1Image(np.arange(64, dtype=np.int16).reshape(4, 4, 4), np.eye(4))
    return image.to_bytes()


def dicom_seed(folder):
    from series import write_series

    paths = write_series(folder, np.zeros((2, 4, 4), np.int16))
    return [path.read_bytes() for path in paths]


CARD = yaml.safe_dump(
    {
        "name": "tiny",
        "title": "t",
        "source": "s",
        "license": "l",
        "citation": "c",
        "modality": "MR",
        "image": "{case}.nii",
        "label": "{case}_label.nii",
        "orientation": "LAS",
        "spacing": [2.0, None, 4.0],
        "clip": {"percentiles": [0, 99.5]},
        "size": [32, 32],
        "organs": {"liver": 1},
        "supervoxels": {"min_size": 10},
        "folds": [[0, 1], [1, 0]],
    }
).encode()
QUESTION = b"question: q\nmodel: {rounds: 2, attention: masked}\nvary:\n  seed: [0, 1]\n"
WEIGHTS = save(layer().state_dict())
TARGETS = {  # name -> (reader of a path, name of the file, seeds)
    "nifti": (read_volume, "scan.nii", [nifti_seed()]),
    "packed": (read_volume, "scan.nii.gz", [gzip.compress(nifti_seed(), mtime=0)]),
    "card": (lambda path: load_card(str(path)), "card.yml", [CARD]),
    "settings": (load_question, "run.yml", [QUESTION]),
    "checkpoint": (read_checkpoint, STEP, [checkpoint_seed()]),
    "weights": (
        partial(read_state, like=layer()),
        "model.safetensors",
        [WEIGHTS],
    ),
    "state": (read_weights, "w.pth", [WEIGHTS]),
}


def attempt(reader, path: Path, content: bytes) -> str:
    """Read a file of this content; what the user would be told, empty where it is taken."""
    path.write_bytes(content)
    try:
        reader(path)
    except UserError as error:
        sentence = str(error)
        assert sentence.strip(), "an empty sentence"
        assert "\n" not in sentence, f"more than one line: {sentence!r}"
        return sentence
    return ""
