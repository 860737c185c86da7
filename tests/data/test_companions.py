"""A header's own file is not all that a case is made of."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from catnet.data.companions import companions
from catnet.data.sources import source_hash

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)


def write(folder, name):
    if name.endswith((".hdr", ".img", ".img.gz")):
        nib.save(nib.Nifti1Pair(VOXELS, np.eye(4)), folder / name)
    else:
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS), str(folder / name))
    return folder / name


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.img", "a.img.gz"])
def test_changed_voxels_change_the_hash(tmp_path, name):
    path = write(tmp_path, name)
    (other,) = companions(path)
    assert other != path
    before = source_hash([path])
    content = other.read_bytes()
    other.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert source_hash([path]) != before


def test_lists_and_numbered_files_are_followed(tmp_path):
    for number in range(3):
        (tmp_path / f"a{number:02d}.raw").write_bytes(b"x")
    names = [f"a{number:02d}.raw" for number in range(3)]
    (tmp_path / "list.mhd").write_text("ElementDataFile = LIST\n" + "\n".join(names))
    (tmp_path / "some.mhd").write_text("NDims = 3\nElementDataFile = a%02d.raw 0 2 1\n")
    (tmp_path / "list.nhdr").write_text("NRRD0004\ndata file: LIST\n" + "\n".join(names))
    for header in ("list.mhd", "some.mhd", "list.nhdr"):
        assert [path.name for path in companions(tmp_path / header)] == names


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_a_file_that_holds_all_keeps_its_hash(tmp_path, name):
    (tmp_path / name).write_bytes(b"content")
    assert companions(tmp_path / name) == []
    assert source_hash([tmp_path / name]).startswith("ed7002b439e9ac84")
