from fractions import Fraction
from math import floor

import numpy as np
import pytest

from catnet.data.store import Case, Meta
from catnet.evaluate.protocol import Chunk, chunk_supports, cut, middle, organ_slices, plan


@pytest.fixture
def case(tmp_path):
    """`case([2, 3, 4], depth=9)`: a case that shows the liver on these slices, and no spleen."""

    def make(slices, *, depth=12):
        pixels = np.zeros(depth, dtype=int)
        pixels[slices] = 7
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        meta = Meta(
            case=folder.name,
            preparation="",
            sources={},
            shape=(depth, 32, 32),
            affine=np.eye(4).tolist(),
            spacing=(1, 1, 1),
            raw_shape=(32, 32, depth),
            raw_affine=np.eye(4).tolist(),
            pixels={"liver": pixels.tolist(), "spleen": [0] * depth},
        )
        (folder / "meta.json").write_text(meta.model_dump_json())
        return Case(folder)

    return make


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [0, 0, 0]),
        (2, [0, 1, 1]),
        (3, [0, 1, 2]),
        (4, [0, 2, 3]),
        (6, [1, 3, 5]),
        (7, [1, 3, 5]),
        (12, [2, 6, 10]),
        (35, [5, 17, 29]),
    ],
)
def test_three_support_slices_by_hand(count, expected):
    assert chunk_supports(range(10, 10 + count)) == [10 + number for number in expected]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, [[], [], [0]]),
        (2, [[], [0], [1]]),
        (3, [[0], [1], [2]]),
        (4, [[0], [1], [2, 3]]),
        (5, [[0], [1, 2], [3, 4]]),
        (8, [[0, 1], [2, 3, 4], [5, 6, 7]]),
        (9, [[0, 1, 2], [3, 4, 5], [6, 7, 8]]),
    ],
)
def test_three_chunks_by_hand(count, expected):
    assert [list(chunk) for chunk in cut(range(count))] == expected


@pytest.mark.parametrize("count", range(1, 100))
def test_no_rounding_of_floats_moves_a_slice(count):
    slices = list(range(3, 3 + count))
    sixths = [Fraction(count, 6), Fraction(count, 2), Fraction(5 * count, 6)]
    assert chunk_supports(slices) == [slices[floor(place)] for place in sixths]
    edges = [floor(Fraction(k * count, 3)) for k in range(4)]
    assert cut(slices) == [tuple(slices[edges[k] : edges[k + 1]]) for k in range(3)]
    assert [number for chunk in cut(slices) for number in chunk] == slices


@pytest.mark.parametrize(
    ("slices", "expected"),
    [([4], 4), ([2, 3, 4], 3), ([2, 3, 4, 5], 3), ([1, 2, 9], 2), ([0, 6, 7], 6), ([1, 9], 1)],
)
def test_the_middle_of_the_extent_shows_the_organ(slices, expected):
    assert middle(slices) == expected


def test_slices_of_an_organ_need_not_be_neighbors(case):
    assert organ_slices(case([1, 2, 6, 11]), "liver") == [1, 2, 6, 11]


def test_ep1_pairs_each_third_of_the_query_with_the_middle_of_the_supports_third(case):
    support, query = case([2, 3, 4, 5, 6, 7, 8]), case([1, 3, 4, 5, 6, 8, 9, 10])
    assert plan("EP1", organ="liver", supports=[support], query=query) == (
        Chunk(support=(3,), query=(1, 3)),
        Chunk(support=(5,), query=(4, 5, 6)),
        Chunk(support=(7,), query=(8, 9, 10)),
    )


def test_ep1_of_a_short_organ_leaves_out_empty_chunks(case):
    support = case([4, 5, 6])
    assert plan("EP1", organ="liver", supports=[support], query=case([8])) == (
        Chunk(support=(6,), query=(8,)),
    )
    assert plan("EP1", organ="liver", supports=[support], query=case([0, 9])) == (
        Chunk(support=(5,), query=(0,)),
        Chunk(support=(6,), query=(9,)),
    )


def test_ep2_takes_one_slice_and_the_whole_query(case):
    support, query = case([2, 3, 4, 5, 6], depth=20), case([8], depth=5 + 4)
    assert plan("EP2", organ="liver", supports=[support], query=query) == (
        Chunk(support=(4,), query=tuple(range(9))),
    )


def test_every_support_case_gives_a_slice_to_every_chunk(case):
    supports = [case([2, 3, 4]), case([0, 1, 2, 3, 4, 5]), case([7])]
    query = case([1, 2, 3])
    first, second, third = plan("EP1", organ="liver", supports=supports, query=query)
    assert (first.support, second.support, third.support) == ((2, 1, 7), (3, 3, 7), (4, 5, 7))
    (whole,) = plan("EP2", organ="liver", supports=supports, query=query)
    assert whole.support == (3, 2, 7)


@pytest.mark.parametrize("protocol", ["EP1", "EP2"])
def test_an_organ_that_one_side_lacks_has_no_chunk(protocol, case):
    with_liver, without = case([2, 3, 4]), case([])

    def chunks(supports, query, organ="liver"):
        return plan(protocol, organ=organ, supports=supports, query=query)

    assert chunks([with_liver], without) == ()
    assert chunks([without], with_liver) == ()
    assert chunks([with_liver, without], with_liver) == ()
    assert chunks([with_liver], with_liver, organ="spleen") == ()
    assert chunks([with_liver, with_liver], with_liver)
