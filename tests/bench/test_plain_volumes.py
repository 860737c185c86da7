"""The plain supervoxels and the plain preparing give what the library gives, nearly."""

import numpy as np

from catnet.bench.plain_volumes import plain_prepared, plain_supervoxels
from catnet.data.prepare import prepare_case
from catnet.data.supervoxels import purity, supervoxels


def test_supervoxels_of_two_grey_levels_are_the_library_s():
    volume = np.zeros((6, 32, 32))
    volume[:, 4:28, 4:28] = 100
    volume[:, 8:16, 8:16] = 255
    plain, library = (cut(volume, min_size=50) for cut in (plain_supervoxels, supervoxels))
    np.testing.assert_array_equal(plain, library)
    assert library.max() == 2


def test_supervoxels_are_as_pure_as_the_library_s(scene):
    case, organs = scene.cases[0], scene.card.organs
    image = np.asarray(case.image)
    plain, library = (
        cut(image, min_size=scene.size.min_size) for cut in (plain_supervoxels, supervoxels)
    )
    assert (plain > 0).mean() > 0.2
    assert np.mean((plain > 0) == (library > 0)) > 0.99
    assert abs(plain.max() - library.max()) <= 0.3 * library.max()
    of_plain, of_library = (purity(labels, case.label, organs) for labels in (plain, library))
    assert abs(np.mean(list(of_plain.values())) - np.mean(list(of_library.values()))) < 0.1


def test_preparing_gives_the_library_s_case(scene):
    files = [scene.raw / f"{kind}_1.nii.gz" for kind in ("image", "label")]
    image, label = plain_prepared(scene.card, *files)
    arrays, _ = prepare_case(scene.card, *files)
    assert image.shape == arrays["image"].shape
    assert abs(image.mean()) < 1e-9
    assert np.corrcoef(image.ravel(), arrays["image"].ravel())[0, 1] > 0.95
    organs = arrays["label"] > 0
    assert 2 * ((label > 0) & organs).sum() / ((label > 0).sum() + organs.sum()) > 0.93
