import nibabel as nib
import numpy as np
import pytest

from catnet.cli import main


@pytest.fixture
def raw(tiny_home):
    """Folder of six small phantoms, each with its axes in an order of its own."""
    return tiny_home / "raw"


@pytest.fixture
def own_grid(tiny_home):
    """Options by which `copy` leaves every query's voxels as they are."""
    return ["--card", tiny_home / "cards" / "tiny.yml"]


@pytest.fixture
def predict(raw, tmp_path):
    """`predict(2, 3, support=1, more=[...])`: calls the command; gives the folder of results."""

    def call(*queries, support=(1,), model="copy", more=(), output=tmp_path / "out"):
        words = ["predict", "--model", model, "-o", output]
        for case in support:
            words += ["--support", raw / f"image_{case}.nii.gz", raw / f"label_{case}.nii.gz"]
        words += [
            "--query",
            *(raw / f"image_{q}.nii.gz" if isinstance(q, int) else q for q in queries),
        ]
        main([str(word) for word in [*words, *more]])
        return output

    return call


@pytest.fixture
def save(tmp_path):
    """`save("name", voxels, affine)`: a NIfTI file of the test's own."""

    def write(name, voxels, affine=None):
        path = tmp_path / f"{name}.nii.gz"
        affine = np.diag([-3.0, 3.0, 4.0, 1.0]) if affine is None else affine
        nib.save(nib.Nifti1Image(voxels, affine), path)
        return path

    return write
