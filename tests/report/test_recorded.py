import json
import zlib
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from synthetic_views import ORGANS, make_views

from catnet.errors import UserError
from catnet.report import browser as browser_module
from catnet.report.browser import COLUMNS, pack_browser, pack_records, sheet
from catnet.report.recorded import Recorded, Records, changes, read_records
from catnet.views import save_views

SMALL = {"shown": 4, "rounds": 2, "size": 32}


class Reader:
    """Reads masks bit by bit from the packed stream, as slowly as it is specified."""

    def __init__(self, stream, width):
        self.stream, self.width, self.cursor = stream, width, 0

    def number(self):
        bits = ""
        while True:
            byte = self.stream[self.cursor]
            self.cursor += 1
            bits = f"{byte % 128:07b}" + bits
            if byte < 128:
                return int(bits, 2)

    def mask(self, height):
        places = [0, 0]
        for _ in range(self.number()):
            folded = self.number()
            rest = -(folded + 1) // 2 if folded % 2 else folded // 2
            places.append(places[-2] + self.width + rest)
        found, inside = [], False
        for place in range(height * self.width):
            inside ^= place in places[2:]
            found.append(inside)
        return np.array(found).reshape(height, self.width)


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_changes_say_the_whole_mask(mask):
    reader = Reader(changes(mask), mask.shape[1])
    np.testing.assert_array_equal(reader.mask(mask.shape[0]), mask)
    assert reader.cursor == len(reader.stream)


def test_changes_by_hand():
    mask = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0]], bool)
    # places 1 3 5 7 10 11; less the one before the last: 1 3 4 4 5 4; less the width
    assert list(changes(mask)) == [6, *(5, 1, 0, 0, 2, 0)]
    assert list(changes(np.zeros((3, 4), bool))) == [0]


def record(folder, variant, *views):
    for one in views:
        save_views(folder / variant / f"{one.query}_by_{one.support}.npz", one)
    return Recorded(variant, folder / variant)


@pytest.fixture
def two(tmp_path):
    """Two variants: one without a prior and with a round less; the second has a case more."""
    first = [make_views(q, "9", seed=1, **SMALL) for q in ("1", "2")]
    options = {**SMALL, "rounds": 1}
    second = [make_views(q, "9", seed=2, with_prior=False, **options) for q in ("1", "2", "3")]
    recorded = [record(tmp_path, "a", *first), record(tmp_path, "b", *second)]
    return recorded, {("a", v.query): v for v in first} | {("b", v.query): v for v in second}


def test_the_page_is_given_what_was_recorded(two):
    recorded, views = two
    data = json.loads(pack_browser(recorded, limit=10**7).text)
    assert (data["variants"], data["organs"], data["size"]) == (["a", "b"], list(ORGANS), [32, 32])
    assert sorted(case["query"] for case in data["cases"]) == ["1", "2", "3"]
    for case in data["cases"]:
        reader = Reader(zlib.decompress(b64decode(case["masks"])), 32)
        own = [(data["variants"][one["variant"]], one) for one in case["variants"]]
        assert [name for name, _ in own] == (["b"] if case["query"] == "3" else ["a", "b"])
        for view, (organ, number, source) in enumerate(case["views"]):
            shown = [views[name, case["query"]] for name, _ in own]
            (place,) = np.flatnonzero((shown[0].organ == organ) & (shown[0].query_slice == number))
            assert source == shown[0].support_slice[place]
            np.testing.assert_array_equal(reader.mask(32), shown[0].truth[place])
            np.testing.assert_array_equal(reader.mask(32), shown[0].support_mask[place])
            for (_, packed), one in zip(own, shown, strict=True):
                for mask in one.rounds[place]:
                    np.testing.assert_array_equal(reader.mask(32), mask)
                np.testing.assert_allclose(packed["dice"][view], one.slice_dice[place], atol=0.051)
                np.testing.assert_allclose(packed["volume"], one.dice, atol=0.051)
                assert (packed["prior"] is None) == (one.prior is None)
        assert reader.cursor == len(reader.stream)


def test_pictures_lie_once_and_in_order(two):
    recorded, views = two
    data = json.loads(pack_browser(recorded, limit=10**7).text)
    assert set(data["sheets"]) == {"1", "2", "3", "9"}
    one = views["a", "1"]
    sheet_of_one = data["sheets"]["1"]
    assert sheet_of_one["slices"] == one.slices.tolist()
    pixels = np.asarray(open_sheet(sheet_of_one["image"]), dtype=float)
    for place in range(len(one.images)):
        row, column = divmod(place, COLUMNS)
        tile = pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
        far = [np.abs(tile - other).mean() for other in one.images]
        assert np.argmin(far) == place
        assert far[place] < 12


def open_sheet(url):
    return Image.open(BytesIO(b64decode(url.partition(",")[2]))).convert("L")


@pytest.mark.parametrize("kind", ["WEBP", "JPEG"])
def test_a_sheet_has_room_for_many(monkeypatch, kind):
    monkeypatch.setattr(browser_module, "FORMAT", kind)
    tiles = [np.full((16, 16), 2 * n, np.uint8) for n in range(100)]
    url = sheet(tiles, 90)
    assert url.startswith(f"data:image/{kind.lower()};base64,")
    pixels = np.asarray(open_sheet(url), dtype=float)
    assert pixels.shape == (16 * 13, 16 * COLUMNS)
    assert abs(pixels[16 * 12 + 8, 16 * 3 + 8] - 198) < 6


def test_a_prior_is_of_the_view_it_lies_at(two):
    recorded, views = two
    data = json.loads(pack_browser(recorded, limit=10**7).text)
    case = next(case for case in data["cases"] if case["query"] == "2")
    packed = case["variants"][0]
    rows, columns = packed["tokens"]
    pixels = np.asarray(open_sheet(packed["prior"]), dtype=float)
    for view, prior in enumerate(views["a", "2"].prior):
        row, column = divmod(view, COLUMNS)
        tile = pixels[rows * row : rows * (row + 1), columns * column : columns * (column + 1)]
        assert np.abs(tile - prior).mean() < 25


def test_the_worst_come_first(tmp_path):
    views = [make_views(f"{n}", "9", seed=n, dice=d, **SMALL) for n, d in ((1, 70.0), (2, 20.0))]
    better = [make_views("1", "9", seed=3, dice=90.0, **SMALL)]
    recorded = [record(tmp_path, "b", *better), record(tmp_path, "a", *views)]
    browser = pack_browser(recorded, limit=10**7, worst=6)
    assert [(w.variant, w.query, w.dice) for w in browser.worst] == [("a", "2", 20.0)] * 4 + [
        ("a", "1", 70.0)
    ] * 2
    assert {w.organ for w in browser.worst[:4]} == set(ORGANS)
    data = json.loads(browser.text)
    assert [case["query"] for case in data["cases"]] == ["2", "1"]
    assert all(data["cases"][w.case]["query"] == w.query for w in browser.worst)
    assert data["variants"] == ["b", "a"]


def test_what_does_not_fit_is_left_out_evenly_and_said(two):
    recorded, _ = two
    whole = pack_browser(recorded, limit=10**7)
    assert whole.note == ""
    fewer = pack_browser(recorded, limit=len(whole.text) * 2 // 3)
    assert len(fewer.text) <= len(whole.text) * 2 // 3
    assert "of up to 4 recorded slices an organ" in fewer.note
    shown = [view[1] for view in json.loads(fewer.text)["cases"][0]["views"] if view[0] == 0]
    kept = int(fewer.note.partition(" of up to")[0].rpartition(" ")[2])
    assert len(shown) == kept < 4
    assert shown == ([0, 3] if kept == 2 else [0, 2, 3] if kept == 3 else [0])


def test_cases_go_last_and_the_worst_stay(tmp_path):
    views = [make_views(f"{n}", "9", seed=n, dice=90.0 - n, **SMALL) for n in range(1, 7)]
    recorded = [record(tmp_path, "a", *views)]
    least = len(pack_browser(recorded, limit=10**7).text) // 8
    browser = pack_browser(recorded, limit=least)
    assert len(browser.text) <= least
    data = json.loads(browser.text)
    assert [case["query"] for case in data["cases"]] == ["6", "5", "4"][: len(data["cases"])]
    assert f"the {len(data['cases'])} of 6 cases with the lowest Dice" in browser.note
    assert {w.query for w in browser.worst} <= {"4", "5", "6"}
    assert pack_browser(recorded, limit=100) is None


def test_a_case_that_two_seeds_saw_is_shown_once(tmp_path):
    recorded = []
    for seed in (1, 2):
        save_views(tmp_path / f"{seed}" / "1_by_9.npz", make_views("1", "9", seed=seed, **SMALL))
        recorded.append(Recorded("a", tmp_path / f"{seed}"))
    assert pack_browser(recorded, limit=10**7) == pack_browser(recorded[:1], limit=10**7)


def test_a_case_with_two_supports_is_two_cases(tmp_path):
    views = [make_views("1", support, seed=1, **SMALL) for support in ("8", "9")]
    records = read_records([record(tmp_path, "a", *views)])
    assert list(records.cases) == [("1", "8", "EP1"), ("1", "9", "EP1")]


@pytest.mark.parametrize("change", ["pixels", "size"])
def test_the_same_slice_must_look_the_same(tmp_path, change):
    views = make_views("1", "9", seed=1, **SMALL)
    if change == "pixels":
        other = replace(views, images=255 - views.images)
    else:
        other = make_views("1", "9", seed=1, **{**SMALL, "size": 64})
    recorded = [record(tmp_path, "a", views), record(tmp_path, "b", other)]
    with pytest.raises(UserError, match=r"b/1_by_9\.npz: slice \d+ of case 1 looks different"):
        read_records(recorded)


def test_a_damaged_file_is_named(tmp_path):
    recorded = record(tmp_path, "a", make_views("1", "9", seed=1, **SMALL))
    (recorded.folder / "2_by_9.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(UserError, match=r"2_by_9\.npz: no readable views"):
        pack_browser([recorded], limit=10**7)


def test_nothing_recorded_is_no_browser(tmp_path):
    assert pack_browser([Recorded("a", tmp_path / "not there")], limit=10**7) is None


@pytest.mark.slow
def test_twenty_cases_and_eight_variants_stay_small(tmp_path):
    """20 cases, 8 variants, 4 organs, 12 slices, M_0 to M_4: below 3 MB before anything is cut."""
    records = Records()
    for variant in range(8):
        for query in range(1, 21):
            views = make_views(f"{query}", f"{30 + query % 5}", seed=variant)
            records.add(views, variant=f"{variant}", source=tmp_path)
    browser = pack_records(records, [f"{n}" for n in range(8)], limit=4_400_000)
    assert browser.note == ""
    assert len(browser.text) < 3_200_000
    data = json.loads(browser.text)
    assert [len(case["views"]) for case in data["cases"]] == [48] * 20
    assert all(len(one["dice"][0]) == 5 for case in data["cases"] for one in case["variants"])
