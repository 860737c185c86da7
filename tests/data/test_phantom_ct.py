"""The CT phantom by its own card: the window bites at both ends, the crop cuts, the table is gone.

On the real CT, which has a table too, the same way is gone.
"""

import nibabel as nib
import numpy as np
import pytest
from einops import rearrange

from catnet.data.card import load_card
from catnet.data.phantom import draw_phantom, write_nifti
from catnet.data.prepare import prepare
from catnet.data.store import open_cases
from catnet.data.volume import Grid, resample


@pytest.fixture
def prepared(tmp_path):
    """The card, and phantoms 1 to 3 beside their prepared cases."""
    card = load_card("phantom_ct")
    phantoms = [draw_phantom("CT", seed=0, case=case, size=(128, 128, 14)) for case in (1, 2, 3)]
    for case, phantom in enumerate(phantoms, start=1):
        for kind in ("image", "label"):
            path = tmp_path / "raw" / f"{kind}_{case}.nii.gz"
            write_nifti(path, voxels=getattr(phantom, kind), affine=phantom.affine)
    list(prepare(card, tmp_path / "raw"))
    return card, list(zip(phantoms, open_cases(card), strict=True))


def raw_on(case, phantom):
    """The raw Hounsfield units on the prepared grid, without window and body; nan outside."""
    grid = Grid(phantom.image.shape, phantom.affine)
    voxels = phantom.image.astype(np.float32)
    moved = resample(voxels, grid, case.meta.grid, order=1, fill=np.nan)
    return rearrange(moved, "x y z -> z y x")


def test_the_window_bites_at_both_ends(prepared):
    card, cases = prepared
    low, high = card.clip.window
    for phantom, case in cases:
        raw, image = raw_on(case, phantom), np.asarray(case.image)
        inside = image > image.min()
        assert (raw[inside] > high + 50).mean() > 0.005, "bone is above the window"
        assert (image[raw > high + 1] == image.max()).mean() > 0.95
        assert (raw < low - 300).mean() > 0.2, "air is below it"
        assert (image[raw < low - 300] == image.min()).all()
        between = inside & (raw > low + 1) & (raw < high - 1)
        scale = np.polyfit(raw[between], image[between], 1)
        np.testing.assert_allclose(np.polyval(scale, raw[between]), image[between], atol=1e-3)


def test_the_crop_cuts_air_and_no_organ(prepared):
    card, cases = prepared
    for phantom, case in cases:
        width, height, _ = np.multiply(case.meta.grid.shape, case.meta.spacing)
        raw_height = phantom.image.shape[1] * abs(phantom.affine[1, 1])
        assert (width, height) == pytest.approx((320, 240))
        assert height < raw_height - 50, "mm that are cut away"
        for number in card.organs.values():
            raw = (phantom.label == number).sum() * abs(np.linalg.det(phantom.affine[:3, :3]))
            kept = (case.label == number).sum() * np.prod(case.meta.spacing)
            assert kept == pytest.approx(raw, rel=0.03)


def test_the_table_is_gone(prepared):
    _, cases = prepared
    for phantom, case in cases:
        y = phantom.affine[1, 1] * np.arange(phantom.image.shape[1]) + phantom.affine[1, 3]
        dense = (phantom.image > -300).any(axis=(0, 2))
        grid = case.meta.grid
        lines = grid.affine[1, 1] * np.arange(grid.shape[1]) + grid.affine[1, 3]
        shown = (np.asarray(case.image) > case.image.min()).any(axis=(0, 2))
        table, body = y[dense].min(), lines[shown].min()
        assert body - table > 15, "mm; the lowest that is dense is the table, and is not shown"


def test_a_real_ct_loses_its_table_too(chaos, tmp_path):
    source = chaos.parent / "ct_example"
    if not source.is_dir():
        pytest.skip(f"needs the real CT in {source}")
    organs = {"liver": 5, "right kidney": 2, "left kidney": 3, "spleen": 1}
    card = load_card("phantom_ct").model_copy(update={"name": "ct", "organs": organs, "groups": {}})
    scan, label = (nib.load(source / f"ct3mm_{kind}.nii.gz") for kind in ("image", "label"))
    numbers = np.asarray(label.dataobj)
    kept = np.where(np.isin(numbers, list(organs.values())), numbers, 0).astype(np.uint8)
    write_nifti(tmp_path / "image_1.nii.gz", voxels=scan.get_fdata(), affine=scan.affine)
    write_nifti(tmp_path / "label_1.nii.gz", voxels=kept, affine=scan.affine)
    card = card.model_copy(update={"size": (160, 128)})
    list(prepare(card, tmp_path))
    (case,) = open_cases(card)
    image, label = np.asarray(case.image), np.asarray(case.label)
    assert set(np.unique(label)) == {0, *organs.values()}
    assert (image[label > 0] > image.min()).mean() > 0.99, "organs lie in the body"
    assert 0.2 < (image == image.min()).mean() < 0.9
    spleen, liver = (
        np.argwhere(label == organs[name])[:, 2].mean() for name in ("spleen", "liver")
    )
    assert liver < spleen, "LAS: columns run to the patient's left"
