"""Phantoms: reproducible, anatomically on the right side, with values a scanner could give."""

import os

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from catnet.data import phantom as module
from catnet.data.phantom import draw_phantom, write_phantoms
from catnet.errors import UserError

SMALL = (96, 96, 24)
LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4
CASES = range(1, 5)

both = pytest.mark.parametrize("modality", ["CT", "MR"])


def center(phantom, label):
    """World coordinates, in mm, of the middle of a label."""
    voxels = np.argwhere(phantom.label == label).mean(axis=0)
    return nib.affines.apply_affine(phantom.affine, voxels)


def body_and_rest(phantom):
    """The largest piece of a CT above -300 HU, filled slice by slice, and what else there is."""
    dense = phantom.image > -300
    pieces, _ = ndimage.label(dense)
    body = pieces == np.bincount(pieces[dense]).argmax()
    body = ndimage.binary_fill_holes(body, np.ones((3, 3, 1)))
    return body, dense & ~body


@both
def test_same_arguments_same_phantom(modality):
    first, again = (draw_phantom(modality, seed=3, case=2, size=SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.label, again.label)
    np.testing.assert_array_equal(first.affine, again.affine)


@pytest.mark.parametrize(("seed", "case"), [(0, 2), (1, 1), (1, 0)])
def test_another_case_or_seed_is_another_patient(seed, case):
    first = draw_phantom("CT", seed=0, case=1, size=SMALL)
    other = draw_phantom("CT", seed=seed, case=case, size=SMALL)
    assert not np.allclose(first.affine, other.affine)
    shift = [np.linalg.norm(center(first, k) - center(other, k)) for k in (1, 2, 3, 4)]
    assert min(shift) > 1


def test_ct_and_mr_of_a_case_are_one_patient():
    ct, mr = (draw_phantom(modality, seed=0, case=4, size=SMALL) for modality in ("CT", "MR"))
    np.testing.assert_array_equal(ct.label, mr.label)
    np.testing.assert_array_equal(ct.affine, mr.affine)


@both
def test_types_and_shapes(modality):
    phantom = draw_phantom(modality, seed=0, case=1, size=(64, 48, 12))
    assert phantom.image.shape == phantom.label.shape == (64, 48, 12)
    assert phantom.image.dtype == {"CT": np.int16, "MR": np.float32}[modality]
    assert phantom.label.dtype == np.uint8


@pytest.mark.parametrize("case", CASES)
def test_organs_lie_on_their_side(case):
    phantom = draw_phantom("CT", seed=0, case=case, size=SMALL)
    assert np.unique(phantom.label).tolist() == [0, LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN]
    liver, right, left, spleen = (center(phantom, label) for label in (1, 2, 3, 4))
    assert min(liver[0], right[0]) > 0 > max(left[0], spleen[0]), "world x grows to the right"
    assert max(right[1], left[1]) < liver[1], "kidneys lie behind the liver's middle"
    assert max(right[2], left[2]) < min(liver[2], spleen[2]), "kidneys lie lowest"


@pytest.mark.parametrize("case", CASES)
def test_kidneys_fill_the_smallest_training_slice(case):
    phantom = draw_phantom("CT", seed=0, case=case)
    pixel = abs(phantom.affine[0, 0] * phantom.affine[1, 1])
    for label in (RIGHT_KIDNEY, LEFT_KIDNEY):
        area = (phantom.label == label).sum(axis=(0, 1)) * pixel
        middle = np.flatnonzero(area)[np.count_nonzero(area) // 2]
        assert area[middle] > 200 * 2.4**2


def test_organs_are_in_one_piece():
    for case in CASES:
        label = draw_phantom("CT", seed=0, case=case, size=SMALL).label
        for organ in (LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN):
            pieces, count = ndimage.label(label == organ)
            assert count == 1 or np.bincount(pieces.ravel())[1:].max() > 0.95 * (pieces > 0).sum()


def test_axes_run_in_several_directions():
    affines = [draw_phantom("CT", seed=0, case=case, size=(16, 16, 8)).affine for case in range(12)]
    codes = {"".join(nib.aff2axcodes(affine)) for affine in affines}
    assert codes == set(module.FLIPS)


@pytest.mark.parametrize("case", CASES)
def test_hounsfield_units_are_plausible(case):
    phantom = draw_phantom("CT", seed=0, case=case)
    assert phantom.image.min() >= -1024
    assert 400 < phantom.image.max() < 1500, "bone, and no metal"
    assert phantom.image[0].mean() == pytest.approx(-1000, abs=5), "air at the border"
    liver, right, left, spleen = (phantom.image[phantom.label == k].mean() for k in (1, 2, 3, 4))
    assert 75 < liver < spleen < min(right, left) < 240


def test_the_contrast_agent_varies_by_case_and_reaches_all_organs():
    means = []
    for case in range(1, 13):
        phantom = draw_phantom("CT", seed=0, case=case, size=(48, 48, 12))
        organs = (LIVER, SPLEEN, RIGHT_KIDNEY)
        deep = [ndimage.binary_erosion(phantom.label == k, iterations=1) for k in organs]
        means.append([phantom.image[where].mean() for where in deep])
    liver, spleen, kidney = np.transpose(means)
    assert np.ptp(kidney) > 40
    assert min(np.corrcoef(spleen, kidney)[0, 1], np.corrcoef(liver, spleen)[0, 1]) > 0.4


@pytest.mark.parametrize("case", CASES)
def test_table_is_apart_from_the_body_and_below_it(case):
    phantom = draw_phantom("CT", seed=0, case=case)
    body, table = body_and_rest(phantom)
    assert body[phantom.label > 0].all()
    assert table.any(axis=(0, 1)).all(), "a table under every slice"
    distance = ndimage.distance_transform_edt(
        ~body, sampling=nib.affines.voxel_sizes(phantom.affine)
    )
    assert distance[table].min() > 7, "mm"
    height = np.broadcast_to(phantom.affine[1, 1] * np.arange(192)[None, :, None], body.shape)
    assert height[table].max() < height[phantom.label > 0].min()


@pytest.mark.parametrize("case", CASES)
def test_magnitude_images_are_positive_and_ordered(case):
    phantom = draw_phantom("MR", seed=0, case=case)
    assert phantom.image.min() >= 0
    means = [phantom.image[phantom.label == label].mean() for label in (1, 4, 2, 3)]
    air = phantom.image[0].mean()
    assert 5 * air < means[0] < means[1]
    assert means[0] < min(means[2:])


def test_magnitude_noise_is_rician():
    """In air both channels are noise alone: mean over standard deviation is Rayleigh's 1.913."""
    air = draw_phantom("MR", seed=0, case=1).image[:4]
    assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.03)


@both
def test_files_hold_what_is_drawn(modality, tmp_path):
    write_phantoms(tmp_path / "raw", modality=modality, cases=2, seed=5)
    names = sorted(path.name for path in (tmp_path / "raw").iterdir())
    assert names == [f"{kind}_{n}.nii.gz" for kind in ("image", "label") for n in (1, 2)]
    drawn = draw_phantom(modality, seed=5, case=2)
    image, label = (nib.load(tmp_path / "raw" / f"{kind}_2.nii.gz") for kind in ("image", "label"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), drawn.image)
    np.testing.assert_array_equal(np.asarray(label.dataobj), drawn.label)
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_allclose(image.affine, drawn.affine, atol=1e-4)


def test_interrupted_writing_is_resumed(tmp_path, monkeypatch):
    write_phantoms(tmp_path / "whole", modality="CT", cases=2)
    write = module.write_nifti

    def full_disk(path, *, voxels, affine):
        write(path, voxels=voxels, affine=affine)
        if path.name == "label_2.nii.gz":
            raise OSError("no space left")

    monkeypatch.setattr(module, "write_nifti", full_disk)
    with pytest.raises(OSError, match="space"):
        write_phantoms(tmp_path / "cut", modality="CT", cases=2)
    monkeypatch.setattr(module, "write_nifti", write)
    done = tmp_path / "cut" / "image_1.nii.gz"
    written = done.stat().st_mtime_ns
    write_phantoms(tmp_path / "cut", modality="CT", cases=2)
    assert done.stat().st_mtime_ns == written, "a finished case is not written again"
    whole, cut = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        for folder in ("whole", "cut")
    )
    assert whole == cut


def test_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError("read-only")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="read-only"):
        write_phantoms(tmp_path, modality="MR", cases=1)
    assert list(tmp_path.iterdir()) == []
