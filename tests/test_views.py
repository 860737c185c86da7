import numpy as np
import pytest

from catnet.errors import UserError
from catnet.views import CaseViews, load_views, save_views


def make(prior=True):
    generator = np.random.default_rng(0)

    def bits(*shape):
        return generator.random(shape) < 0.5

    return CaseViews(
        query="01",
        support="2+3",
        first_support="2",
        model="catnet",
        organs=("liver", "right kidney"),
        protocols=("EP1", "EP1"),
        dice=np.array([50.0, 12.5]),
        slices=np.array([4, 7]),
        images=generator.integers(0, 256, (2, 6, 10), dtype=np.uint8),
        support_slices=np.array([3]),
        support_images=generator.integers(0, 256, (1, 6, 10), dtype=np.uint8),
        organ=np.array([0, 0, 1]),
        query_slice=np.array([4, 7, 7]),
        support_slice=np.array([3, 3, 3]),
        truth=bits(3, 6, 10),
        support_mask=bits(3, 6, 10),
        rounds=bits(3, 5, 6, 10),
        slice_dice=np.where(bits(3, 5), 12.0, np.nan),
        prior=generator.integers(0, 256, (3, 2, 4), dtype=np.uint8) if prior else None,
    )


def resave(path, **changes):
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


@pytest.mark.parametrize("prior", [True, False])
def test_what_is_saved_is_loaded(tmp_path, prior):
    views = make(prior)
    save_views(tmp_path / "deep" / "1.npz", views)
    found = load_views(tmp_path / "deep" / "1.npz")
    for name, value in vars(views).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert (found.prior is None) == (not prior)
    assert found.rounds.dtype == bool


@pytest.mark.parametrize("kept", [0, 30, 700, -1])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, kept):
    path = tmp_path / "1.npz"
    save_views(path, make())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"1\.npz: no readable views of a case .*--again"):
        load_views(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": np.asarray(2)},
        {"truth": None},
        {"truth": np.zeros((2, 6, 2), np.uint8)},
        {"truth": np.zeros((3, 5, 2), np.uint8)},
        {"rounds": np.zeros((3, 4, 6, 2), np.uint8)},
        {"rounds": np.zeros((3, 5, 6, 2))},
        {"dice": np.zeros(3)},
        {"organ": np.array([0, 1, 2])},
        {"organ": np.array([0, 0, -1])},
        {"query_slice": np.array([4, 7, 8])},
        {"support_slice": np.array([3, 3, 4])},
        {"slices": np.array([4, 7, 9])},
        {"prior": np.zeros((2, 2, 4), np.uint8)},
        {"images": np.zeros((2, 6, 10))},
        {"images": np.zeros(0)},
        {"organs": np.array(["liver"])},
        {"organs": np.array([{}, {}])},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_arrays_that_do_not_fit_are_damage(tmp_path, changes):
    path = tmp_path / "1.npz"
    save_views(path, make())
    resave(path, **changes)
    with pytest.raises(UserError, match="no readable views of a case"):
        load_views(path)


def test_no_file_is_no_views(tmp_path):
    with pytest.raises(UserError, match=r"there\.npz: no readable views"):
        load_views(tmp_path / "there.npz")


def test_a_file_that_is_no_archive(tmp_path):
    np.save(tmp_path / "1.npy", np.zeros(3))
    (tmp_path / "1.npy").rename(tmp_path / "1.npz")
    with pytest.raises(UserError, match="no readable views"):
        load_views(tmp_path / "1.npz")
