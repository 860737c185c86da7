"""NRRD and MetaImage against nibabel and SimpleITK."""

import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from catnet.data.volume import read_volume
from catnet.errors import UserError

VOXELS = np.random.default_rng(0).integers(-900, 900, (7, 6, 5)).astype(np.int16)  # z y x
DIRECTION = (0.96, -0.224, -0.168, 0.28, 0.768, 0.576, 0.0, -0.6, 0.8)
NAMES = ("scan.nrrd", "scan.mha", "scan.mhd", "scan.nhdr", "Größe 1.NRRD")


def make(path, voxels=VOXELS, *, packed=True):
    image = SimpleITK.GetImageFromArray(voxels, isVector=False)
    if voxels.ndim == 3:
        image.SetSpacing((1.25, 1.5, 3.0))
        image.SetOrigin((-30, 20.5, 7))
        image.SetDirection(DIRECTION)
    SimpleITK.WriteImage(image, str(path), useCompression=packed)
    return image


def refusal(path):
    with pytest.raises(UserError) as caught:
        read_volume(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_places_and_voxels_are_those_of_simpleitk(tmp_path, name):
    image = make(tmp_path / name)
    scan = read_volume(tmp_path / name)
    assert scan.voxels.dtype == np.int16
    np.testing.assert_array_equal(scan.voxels.transpose(2, 1, 0), VOXELS)
    for index in [(0, 0, 0), (4, 5, 6), (1, 2, 3)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        ours = nib.affines.apply_affine(scan.grid.affine, index)
        np.testing.assert_allclose(ours, lps * (-1, -1, 1), atol=1e-6)


def test_the_same_volume_as_nifti_is_the_same_scan(tmp_path):
    image = make(tmp_path / "scan.nrrd")
    SimpleITK.WriteImage(image, str(tmp_path / "scan.nii.gz"))
    one, other = read_volume(tmp_path / "scan.nrrd"), read_volume(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(one.voxels, other.voxels)
    np.testing.assert_allclose(one.grid.affine, other.grid.affine, atol=1e-4)


@pytest.mark.parametrize("name", ["color.nrrd", "color.mha"])
def test_colors_are_refused(tmp_path, name):
    picture = SimpleITK.GetImageFromArray(np.zeros((4, 5, 6, 3), np.uint8), isVector=True)
    SimpleITK.WriteImage(picture, str(tmp_path / name))
    assert "every voxel holds 3 numbers" in refusal(tmp_path / name)


def test_four_axes_and_two_are_refused(tmp_path):
    make(tmp_path / "four.nrrd", np.zeros((3, 4, 5, 6), np.int16))
    make(tmp_path / "two.mha", np.zeros((4, 5), np.int16))
    assert "has 4 axes, (6, 5, 4, 3); give one 3D volume" in refusal(tmp_path / "four.nrrd")
    assert "has 2 axes" in refusal(tmp_path / "two.mha")


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_file_that_was_cut_off_is_refused(tmp_path, name, packed):
    path = tmp_path / name
    make(path, packed=packed)
    path.write_bytes(path.read_bytes()[:-150])
    assert "not a readable" in refusal(path)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
@pytest.mark.parametrize("content", [b"", b"some text\n", nib.Nifti1Header().binaryblock])
def test_a_file_that_is_not_what_its_name_says(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert "not a readable" in refusal(tmp_path / name)


def test_a_header_that_claims_too_much(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 30000 30000 3000\nencoding: gzip\n"
    head += "endian: little\nspace: left-posterior-superior\n"
    head += "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n"
    (tmp_path / "bomb.nrrd").write_bytes(head.encode() + gzip.compress(bytes(1000)))
    assert "the file holds fewer" in refusal(tmp_path / "bomb.nrrd")


def test_a_volume_that_says_no_direction(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\n\n"
    (tmp_path / "scan.nrrd").write_bytes(head.encode() + bytes(16))
    assert "which way its axes point" in refusal(tmp_path / "scan.nrrd")
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.int16), np.eye(4))
    image.header["sform_code"] = image.header["qform_code"] = 0
    (tmp_path / "scan.nii").write_bytes(image.header.binaryblock + bytes(4 + 48))
    assert "qform_code and sform_code are 0" in refusal(tmp_path / "scan.nii")


def test_a_file_that_is_not_there(tmp_path):
    assert "no such file" in refusal(tmp_path / "scan.mha")


def test_a_space_is_no_direction(tmp_path):
    head = "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 2 2 2\n"
    head += "encoding: raw\nendian: little\n\n"
    (tmp_path / "scan.nrrd").write_bytes(head.encode() + bytes(16))
    assert "which way its axes point" in refusal(tmp_path / "scan.nrrd")


def test_a_distance_below_zero_is_refused(tmp_path):
    make(tmp_path / "scan.mha", packed=False)
    content = (tmp_path / "scan.mha").read_bytes()
    assert b"ElementSpacing = 1.25" in content
    changed = content.replace(b"ElementSpacing = 1.25", b"ElementSpacing = -1.25")
    (tmp_path / "scan.mha").write_bytes(changed)
    assert "ElementSpacing is -1.25 1.5 3" in refusal(tmp_path / "scan.mha")
