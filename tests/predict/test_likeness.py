from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scenes import make_card

from catnet.data.volume import Grid, ScanFile
from catnet.predict.likeness import differences
from catnet.predict.scans import prepare_volume


def scan(*, seed=0, spacing=(3.0, 3.0, 4.0), shape=(40, 40, 20), ct=False, texture=1.0):
    """A bright trunk in the dark; as CT in Hounsfield units."""
    x, y, z = (np.linspace(-1, 1, n).reshape(np.roll((-1, 1, 1), i)) for i, n in enumerate(shape))
    trunk = np.broadcast_to((x / 0.8) ** 2 + (y / 0.7) ** 2 < 1, shape)
    values = np.random.default_rng(seed).normal(50, 15, shape) * (1 + texture * (z > 0))
    air = -1000 if ct else 0
    voxels = np.where(trunk, values, air).astype(np.int16)
    return ScanFile(voxels, Grid(shape, np.diag([-spacing[0], spacing[1], spacing[2], 1.0])))


CARD = make_card(clip={"percentiles": (0, 99.5)})
CT_CARD = make_card(modality="CT", clip={"window": (-125, 275)})


def said(query, support, card=CARD):
    found = [
        prepare_volume(card, one, path=Path(f"{name}.nii.gz"))
        for name, one in (("query", query), ("support", support))
    ]
    return differences(found[0], [found[1]], card=card)


def test_scans_that_look_alike_get_no_warning():
    assert said(scan(seed=1), scan()) == []
    assert said(scan(seed=1, ct=True), scan(ct=True), CT_CARD) == []


def test_another_modality():
    sentences = said(scan(seed=1, ct=True), scan())
    assert "its intensities look like CT, those of the support support.nii.gz like MR" in sentences
    assert "its intensities look like CT, and the model's card scene is for MR" in sentences
    assert said(scan(seed=1), scan(), CT_CARD)[-1].endswith("card scene is for CT")


def test_the_plain_card_of_copy_has_no_modality_to_differ_from():
    card = make_card(name="plain", modality="CT")
    assert said(scan(seed=1), scan(), card) == []


def test_another_spacing_names_the_axis_and_both_figures():
    (sentence, *_) = said(scan(seed=1, spacing=(3.0, 3.0, 8.5)), scan())
    assert sentence == "its voxels are 8.5 mm head-feet, those of the support support.nii.gz 4 mm"


def test_another_field_of_view():
    sentences = said(scan(seed=1, shape=(40, 40, 8)), scan())
    wanted = "its field of view is 32 mm head-feet, that of the support support.nii.gz 80 mm"
    assert wanted in sentences


def test_other_intensities():
    odd = scan(seed=1)
    voxels = np.where(odd.voxels > 0, np.where(np.arange(20) % 2, 20.5, 400.5), 0)  # no label's
    (sentence,) = said(replace(odd, voxels=voxels), scan())
    assert "of their histogram with the support support.nii.gz" in sentence


@pytest.mark.parametrize("factor", [1, 7])
def test_the_unit_of_an_mr_is_no_difference(factor):
    other = scan(seed=1)
    assert said(replace(other, voxels=other.voxels * np.int16(factor)), scan()) == []


def test_the_support_as_query():
    (sentence,) = said(scan(), scan())
    assert "the same voxels as the support support.nii.gz: the answer was given away" in sentence


def test_a_patient_who_reaches_beyond_the_prepared_field_of_view():
    card = make_card(size=(32, 32), clip={"percentiles": (0, 99.5)})
    wide, narrow = scan(seed=1, spacing=(4.0, 4.0, 4.0)), scan(seed=2, spacing=(2.0, 2.0, 4.0))
    assert any("sees 128 x 128 mm of its 160 x 160 mm" in one for one in said(wide, wide, card))
    roomy = make_card(size=(64, 64), clip={"percentiles": (0, 99.5)})
    assert not any("sees" in one for one in said(narrow, narrow, roomy))


@pytest.mark.parametrize("stored", ["float32", "turned"])
def test_the_support_itself_is_known_however_it_is_stored(predict, raw, tmp_path, capsys, stored):
    scan = nib.load(raw / "image_1.nii.gz")
    if stored == "turned":
        turn = nib.orientations.axcodes2ornt("SPR")
        scan = scan.as_reoriented(
            nib.orientations.ornt_transform(nib.io_orientation(scan.affine), turn)
        )
    voxels = np.asarray(scan.dataobj, np.float32 if stored == "float32" else None)
    nib.save(nib.Nifti1Image(voxels, scan.affine), tmp_path / "copy.nii.gz")
    predict(tmp_path / "copy.nii.gz")
    assert "the answer was given away" in capsys.readouterr().err
