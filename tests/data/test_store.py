import numpy as np
import pytest

from catnet.data.store import Case, SupervoxelMeta, natural, open_cases, write_supervoxels
from catnet.errors import UserError
from catnet.paths import data_home


@pytest.fixture
def label():
    label = np.zeros((5, 32, 64), dtype=np.uint16)
    label[1:4, 4:20, 4:20] = 1
    label[2:, 22:30, 40:60] = 4
    return label


def test_natural_order_puts_2_before_10():
    found = ["10", "9b", "2", "a10", "a2", "1", "02", "b", "1.5", "1²", "²", "٣", "ä"]
    ordered = sorted(found, key=natural)
    assert [name for name in ordered if name.isascii() and name.isdecimal()] == [
        "1",
        "02",
        "2",
        "10",
    ]
    assert ordered.index("a2") < ordered.index("a10") < ordered.index("b")


def test_arrays_are_mapped_and_not_writable(make_card, make_case, label):
    case = make_case(make_card(), "3", label)
    assert isinstance(case.image, np.memmap)
    np.testing.assert_array_equal(case.label, label)
    assert case.name == "3"
    with pytest.raises(ValueError, match="read-only"):
        case.image[0, 0, 0] = 1


def test_grids_turn_the_arrays_axes(make_card, make_case, label):
    meta = make_case(make_card(), "3", label).meta
    assert meta.shape == (5, 32, 64)
    assert meta.grid.shape == (64, 32, 5)
    assert meta.grid.spacing == meta.raw_grid.spacing == (2.0, 2.0, 4.0)


def test_cases_are_opened_in_natural_order(make_card, make_case, label):
    for name in ("10", "9", "100", "1"):
        make_case(make_card(), name, label)
    assert [case.name for case in open_cases(make_card())] == ["1", "9", "10", "100"]


def test_each_card_has_its_own_cases(make_card, make_case, label):
    make_case(make_card(), "1", label)
    make_case(make_card(name="other"), "2", label)
    assert [case.name for case in open_cases(make_card())] == ["1"]


def test_one_stale_case_among_good_ones_is_told(make_card, make_case, label):
    make_case(make_card(), "1", label)
    make_case(make_card(size=[64, 64]), "2", label)
    with pytest.raises(UserError, match=r"case 2 was prepared by another version.*catnet prepare"):
        open_cases(make_card())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["cannot be read", "prepare the case again"]),
        ('{"case": "1"', ["cannot be read", "prepare the case again"]),
        ("[]", ["case is missing"]),
        ('{"cse": "1"}', ["cse is not a setting", "'case'"]),
    ],
)
def test_a_broken_description_is_named(make_card, make_case, label, content, words):
    case = make_case(make_card(), "1", label)
    (case.folder / "meta.json").write_text(content)
    with pytest.raises(UserError) as caught:
        open_cases(make_card())
    assert all(word in str(caught.value) for word in [str(case.folder / "meta.json"), *words])


def test_an_array_is_never_a_program(make_card, make_case, label):
    case = make_case(make_card(), "1", label)
    np.save(case.folder / "image.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match=r"image\.npy: cannot be read .* prepare the case again"):
        _ = case.image


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"text"])
def test_a_broken_array_is_named(make_card, make_case, label, content):
    case = make_case(make_card(), "1", label)
    (case.folder / "label.npy").write_bytes(content)
    with pytest.raises(UserError, match=r"label\.npy: cannot be read"):
        _ = case.label


def test_supervoxels_count_once_they_are_described(make_card, make_case, label):
    case = make_case(make_card(), "1", label, supervoxels=label.astype(np.int64))
    np.testing.assert_array_equal(case.supervoxels, label)
    assert case.supervoxels.dtype == np.uint16
    assert np.array(case.supervoxel_meta.pixels).sum() == label.size
    (case.folder / "supervoxels.json").unlink()  # killed between the two
    with pytest.raises(UserError, match="has no supervoxels; run `catnet supervoxels tiny`"):
        _ = Case(case.folder).supervoxel_meta


def test_a_failed_second_cut_leaves_no_description_of_the_first(
    make_card, make_case, label, monkeypatch
):
    case = make_case(make_card(), "1", label, supervoxels=label.astype(np.int64))
    other = SupervoxelMeta(min_size=99, pixels=case.supervoxel_meta.pixels)

    def fail(*_, **__):
        raise OSError("3 requested and 1 written")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(UserError, match=r"cannot be written \(3 requested .* written\); free"):
        write_supervoxels(case, label.astype(np.int64), other)
    with pytest.raises(UserError, match="has no supervoxels"):
        _ = Case(case.folder).supervoxel_meta
    assert {path.name for path in case.folder.iterdir()} == {
        "image.npy",
        "label.npy",
        "meta.json",
        "supervoxels.npy",
    }


def test_a_case_written_again_is_replaced_whole(make_card, make_case, label):
    make_case(make_card(), "1", label, supervoxels=label.astype(np.int64))
    case = make_case(make_card(), "1", label[:3])
    assert case.label.shape == (3, 32, 64)
    assert len(list(case.folder.iterdir())) == 3
    assert [path.name for path in (data_home() / "tiny").iterdir()] == ["1"]
