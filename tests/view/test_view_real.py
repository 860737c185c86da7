"""Real scans on the page: the very voxels, in their place, with the organs on their sides."""

import base64
import gzip
import json
import re

import nibabel as nib
import numpy as np
import pytest
from trials import end_of

SCANS = {
    "MR": ("chaos_t2/{}_1.nii.gz", {"liver": 1, "spleen": 4}),
    "CT": ("ct_example/ct3mm_{}.nii.gz", {"liver": 5, "spleen": 1}),
}


def unpack(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def center(label, number):
    voxels = np.argwhere(np.asarray(label.dataobj) == number).mean(axis=0)
    return nib.affines.apply_affine(label.affine, voxels)


@pytest.mark.parametrize("modality", SCANS)
def test_a_real_scan_and_its_label(modality, chaos, tmp_path, capsys):
    pattern, organs = SCANS[modality]
    image, label = (chaos.parent / pattern.format(kind) for kind in ("image", "label"))
    if not image.is_file():
        pytest.skip(f"needs the real scan {image}")
    path = tmp_path / "scan.html"
    assert end_of(["view", str(image), str(label), "-o", str(path)], capsys)[0] == 0
    text = path.read_text(encoding="utf-8")
    found = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])
    (pane,) = found["panes"]
    shown, raw = unpack(pane["image"]["volume"]), nib.load(image)
    assert shown.get_data_dtype() == np.int16
    np.testing.assert_array_equal(shown.get_fdata(), raw.get_fdata())
    np.testing.assert_allclose(shown.affine, raw.affine, atol=1e-3)
    names = [name for name, _ in found["organs"]]
    layer, truth = unpack(pane["layers"][0]["volume"]), nib.load(label)
    for number in organs.values():
        mine = center(layer, 1 + names.index(f"label {number}"))
        np.testing.assert_allclose(mine, center(truth, number), atol=1e-3)
    liver, spleen = (center(truth, organs[name])[0] for name in ("liver", "spleen"))
    assert liver > spleen, "world x grows to the patient's right"
