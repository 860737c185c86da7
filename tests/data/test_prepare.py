from dataclasses import dataclass

import nibabel as nib
import numpy as np
import pytest

from catnet.config import DataSettings
from catnet.data.episodes import open_source
from catnet.data.prepare import prepare, raw_cases
from catnet.data.store import Case, SupervoxelMeta, case_folder, open_cases, write_supervoxels
from catnet.data.volume import Grid, resample
from catnet.errors import UserError

CT = {"modality": "CT", "clip": {"window": [-125, 275]}, "body_threshold": -500.0}


def worked_on(card, raw):
    return [case for case, _, fresh in prepare(card, raw) if fresh]


def test_cases_are_sorted_by_number_and_arrays_are_slices_first(make_card, raw):
    card = make_card()
    assert list(prepare(card, raw)) == [("1", 3, True), ("2", 3, True), ("10", 3, True)]
    cases = open_cases(card)
    assert [case.name for case in cases] == ["1", "2", "10"]
    for case in cases:
        voxels = nib.load(raw / f"image_{case.name}.nii.gz").get_fdata()
        numbers = np.asarray(nib.load(raw / f"label_{case.name}.nii.gz").dataobj)
        assert (case.image.dtype, case.label.dtype) == (np.float32, np.uint16)
        assert isinstance(case.image, np.memmap)
        expected = (voxels - voxels.mean()) / voxels.std()
        np.testing.assert_allclose(case.image, expected.transpose(2, 1, 0), atol=1e-4)
        np.testing.assert_array_equal(case.label, numbers.transpose(2, 1, 0))
        assert case.meta.pixels["spleen"] == tuple((numbers == 4).sum(axis=(0, 1)))
        assert case.meta.grid.shape == case.meta.raw_grid.shape == (32, 32, 6)
        assert case.meta.spacing == pytest.approx((2.0, 2.0, 4.0))


def test_percentiles_cut_the_top(make_card, one, image, label):
    image[0, 0, 0] = 1e6
    worked_on(make_card(clip={"percentiles": [0, 99.5]}), one(image, label))
    found = open_cases(make_card(clip={"percentiles": [0, 99.5]}))[0].image
    top = np.percentile(image, 99.5)
    clipped = np.minimum(image, top)
    expected = (top - clipped.mean()) / clipped.std()
    assert found.max() == pytest.approx(expected, rel=1e-3)
    assert (found > expected - 1e-3).mean() == pytest.approx(0.005, abs=0.001)


@pytest.mark.parametrize("size", [(32, 32), (64, 32), (32, 96)])
def test_z_scores_have_mean_0_and_deviation_1(make_card, one, image, label, size):
    card = make_card(size=size)
    worked_on(card, one(image, label))
    found = np.asarray(open_cases(card)[0].image, dtype=np.float64)
    assert found.shape == (6, *size[::-1])
    assert abs(found.mean()) < 1e-4
    assert found.std() == pytest.approx(1, abs=1e-4)


def test_padding_has_the_lowest_intensity_and_no_label(make_card, one, image, label):
    card = make_card(size=(64, 32))
    worked_on(card, one(image - 200, label))  # below 0, which is no background here
    case = open_cases(card)[0]
    assert (case.image[:, :, :16] == case.image.min()).all()
    assert not case.label[:, :, :16].any()
    np.testing.assert_array_equal(case.label[:, :, 16:48], label.transpose(2, 1, 0))


@dataclass
class Abdomen:
    """A CT of flesh around a bright organ, over a table, off the middle of the field of view."""

    image: np.ndarray
    label: np.ndarray
    body: np.ndarray
    affine: np.ndarray


@pytest.fixture
def abdomen():
    x, y = np.meshgrid(np.arange(90), np.arange(70), indexing="ij")
    body = ((x - 56) / 26) ** 2 + ((y - 34) / 20) ** 2 < 1
    organ = ((x - 66) / 8) ** 2 + ((y - 34) / 9) ** 2 < 1
    image = np.full((90, 70, 8), -1000, dtype=np.int16)
    image[body], image[organ] = 30, 120
    image[15:88, 58:61] = 200  # the table, 4 voxels under the back
    label = np.zeros(image.shape, dtype=np.uint8)
    label[organ, 2:6] = 1
    return Abdomen(image, label, body, np.diag([-2.0, -2.0, 5.0, 1.0]))


def test_ct_keeps_the_body_and_drops_the_table(make_card, one, abdomen):
    card = make_card(**CT, size=(64, 64), spacing=[2.0, 2.0, None])
    worked_on(card, one(abdomen.image, abdomen.label, affine=abdomen.affine))
    case = open_cases(card)[0]
    grid = case.meta.grid
    raw_grid = Grid(abdomen.image.shape, abdomen.affine)
    volume = np.repeat(abdomen.body[..., None], 8, axis=-1).astype(np.uint8)
    body = resample(volume, raw_grid, grid, order=0).transpose(2, 1, 0).astype(bool)
    air = case.image.min()
    assert body.sum() == abdomen.body.sum() * 8  # the crop around the body lost nothing of it
    assert (case.image[body] > air).mean() > 0.98
    assert (case.image[~body] == air).mean() > 0.97
    table = resample((abdomen.image == 200).astype(np.uint8), raw_grid, grid, order=0)
    on_table = case.image[table.transpose(2, 1, 0).astype(bool)]
    assert on_table.size > 1000
    assert (on_table == air).all()
    columns = np.flatnonzero(body.any(axis=(0, 1)))
    assert abs((columns[0] + columns[-1]) / 2 - 31.5) <= 1.5  # the body is in the middle
    levels = np.unique(case.image[case.label == 1])
    assert (levels > case.image[body & (case.label == 0)].min()).all()


def test_a_window_cuts_both_ends(make_card, one, abdomen):
    card = make_card(clip={"window": [0, 100]}, size=(96, 96), spacing=[2.0, 2.0, 5.0])
    worked_on(card, one(abdomen.image, abdomen.label, affine=abdomen.affine))
    case = open_cases(card)[0]
    levels = np.unique(case.image)
    assert len(levels) == 3  # 0 for air and padding, 30 for flesh, 100 for organ and table
    assert (levels[1] - levels[0]) / (levels[2] - levels[0]) == pytest.approx(0.3, abs=1e-4)


def test_other_labels_may_stand_and_floats_that_are_whole(make_card, one, image, label):
    label = label.astype(np.float64)
    label[0, 0, 0] = 7
    label[1, 0, 0] = 4.0000001
    worked_on(make_card(), one(image, label))
    found = open_cases(make_card())[0].label
    assert (found[0, 0, 0], found[0, 0, 1]) == (7, 4)


def test_affines_that_two_programs_rounded_are_one(make_card, one, image, label):
    affine = np.diag([-2.0, 2.0, 4.0, 1.0])
    shaken = affine + np.random.default_rng(0).uniform(-5e-4, 5e-4, (4, 4)) * [[1], [1], [1], [0]]
    assert worked_on(make_card(), one(image, label, label_affine=shaken)) == ["1"]


def test_case_names_are_anything_that_a_file_may_be_called(make_card, one, image, label):
    found = ["patient 7 (left)", "Müller-Öztürk", "1²", "[a]*", "7.5"]
    for case in found:
        folder = one(image, label, case=case)
    card = make_card()
    assert sorted(worked_on(card, folder)) == sorted(found)
    assert worked_on(card, folder) == []
    assert sorted(case.name for case in open_cases(card)) == sorted(found)


def touch(folder, *files):
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize(
    ("image", "label", "files"),
    [
        ("img/img{case}.nii.gz", "label/label{case}.nii.gz", "img/img{} label/label{}"),
        ("{case}/t2.nii.gz", "{case}/seg.nii.gz", "{}/t2 {}/seg"),
        ("{case}.nii.gz", "{case}_seg.nii.gz", "{} {}_seg"),
        ("{case}_image.nii.gz", "{case}.nii.gz", "{}_image {}"),
        ("scan[1]_{case}.nii.gz", "mask_{case}.nii.gz", "scan[1]_{} mask_{}"),
    ],
)
def test_patterns_pair_images_with_labels(make_card, tmp_path, image, label, files):
    for case in ("2", "10", "b"):
        touch(tmp_path, *(f"{name}.nii.gz" for name in files.format(case, case).split()))
    touch(tmp_path, "._2.nii.gz", "notes.txt")  # what a Mac leaves beside files
    found = raw_cases(make_card(image=image, label=label), tmp_path)
    assert list(found) == ["2", "10", "b"]
    for case, (scan, truth) in found.items():
        assert [p.relative_to(tmp_path).as_posix() for p in (scan, truth)] == [
            image.format(case=case),
            label.format(case=case),
        ]


def test_one_slice_is_prepared_but_makes_no_episode(make_card, one):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (32, 32, 1)).astype(np.float32)
    label = np.ones((32, 32, 1), dtype=np.uint8)
    card = make_card()
    worked_on(card, one(image, label))
    cases = open_cases(card)
    assert cases[0].image.shape == (1, 32, 32)
    with pytest.raises(UserError, match="run `catnet supervoxels tiny`"):
        open_source(card, cases, DataSettings(), seed=0)
    meta = SupervoxelMeta(min_size=10, pixels=((0, 1024),))
    write_supervoxels(cases[0], label.transpose(2, 1, 0).astype(np.int64), meta)
    with pytest.raises(UserError, match=r"no supervoxel of 1 training cases spans 2 allowed"):
        open_source(card, open_cases(card), DataSettings(), seed=0)


def test_a_prediction_goes_back_onto_the_scanners_grid(make_card, one):
    affine = np.array([[0, 0, 3.0, -40], [-1.5, 0, 0, 60], [0, -1.5, 0, 10], [0, 0, 0, 1]])
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (40, 30, 20)).astype(np.float32)
    label = np.zeros(image.shape, dtype=np.uint8)
    label[10:24, 8:20, 5:12] = 1
    label[26:34, 8:14, 10:18] = 4
    card = make_card(size=(64, 64), spacing=[1.5, 1.5, 1.5])
    worked_on(card, one(image, label, affine=affine))
    meta = (case := Case(case_folder(card, "1"))).meta
    prediction = np.asarray(case.label).transpose(2, 1, 0)
    back = resample(prediction, meta.grid, meta.raw_grid, order=0)
    assert np.unique(case.label).tolist() == [0, 1, 4]  # nothing between two numbers
    assert back.shape == image.shape
    assert (back == label).mean() > 0.99
