import re
from itertools import combinations
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from fakes import fake_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text

from catnet.errors import UserError
from catnet.report.labels import name_points
from catnet.report.plots import accuracy_against_cost, boxes, curve, svg
from catnet.report.statistics import describe
from catnet.report.style import COLORS, wrapped

LONG = "model.attention=lsa-gsa, model.cross_attention=stripe"
THREE = {"rounds=1": (1, 50), "rounds=2": (2, 52), "rounds=3": (3, 55)}
MANY = {f"{LONG} {n}" if n % 4 == 0 else f"rounds={n}": (n, 40 + 13 * n % 11) for n in range(16)}
KINDS = {"one": {"only": (1, 50)}, "three": THREE, "many": MANY}

everywhere = pytest.mark.parametrize("draw", [curve, accuracy_against_cost, boxes])
sizes = pytest.mark.parametrize("kind", KINDS)


def texts_of(figure):
    """(text, box in pixels) of every text that is drawn."""
    found = []
    draw = Text.draw

    def note(text, renderer):
        draw(text, renderer)
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), Text.get_window_extent(text, renderer)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", note)
        FigureCanvasAgg(figure).draw()
    return found


@everywhere
@sizes
def test_no_text_lies_on_another_or_beyond_the_edge(draw, kind):
    figure = draw(fake_rows(KINDS[kind]))
    texts = texts_of(figure)
    assert len(texts) > 5
    for (first, one), (second, two) in combinations(texts, 2):
        shared = mpl.transforms.Bbox.intersection(one, two)
        area = shared.width * shared.height if shared else 0
        assert area < 4, f"{first} on {second}"
    width, height = figure.get_size_inches() * figure.dpi
    for name, box in texts:
        assert box.x0 > -1, name
        assert box.y0 > -1, name
        assert box.x1 < width + 1, name
        assert box.y1 < height + 1, name


@everywhere
def test_svg_is_text_without_date_and_the_same_each_time(draw):
    rows = fake_rows(THREE)
    first, second = svg(draw(rows)), svg(draw(rows))
    assert first == second
    root = ElementTree.fromstring(first.partition("<svg")[1] + first.partition("<svg")[2])
    words = {"".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")}
    assert any("Dice (%)" in word for word in words)
    assert "date" not in first.lower()
    assert root.get("width") == "675pt"  # 900 pixels


@everywhere
def test_legible_on_light_and_dark_pages(draw):
    """Every ink keeps a contrast of 2 with white and with black, and the page shows through."""
    text = svg(draw(fake_rows(THREE)))
    inks = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text))
    assert inks
    for ink in inks:
        light = luminance(ink)
        assert 1.05 / (light + 0.05) > 2, ink
        assert (light + 0.05) / 0.05 > 2, ink
    assert "#ffffff" not in text


def luminance(ink):
    """Relative luminance, WCAG 2.1."""
    parts = np.array([int(ink[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_palette_is_tellable_apart():
    assert len(set(COLORS)) == len(COLORS) >= 6


def test_the_curve_is_what_describe_says():
    rows = fake_rows({"three": (3, 55), "one": (1, 50), "two": (2, 52)}, patients=6)
    axes = curve(rows).axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert list(lines) == ["EP1", "EP1, copy", "EP2", "EP2, copy"]
    found = describe(rows).query("organ == 'mean' and protocol == 'EP2'").set_index("variant")
    np.testing.assert_array_equal(lines["EP2"].get_xdata(), [1, 2, 3])
    trained = found[found["model"] == "catnet"].loc[["one", "two", "three"]]
    np.testing.assert_allclose(lines["EP2"].get_ydata(), trained["mean"])
    band = axes.collections[1].get_paths()[0].get_extents()
    assert (band.ymin, band.ymax) == pytest.approx((trained["low"].min(), trained["high"].max()))
    copy = found[found["model"] == "copy"]["mean"].iloc[0]
    assert lines["EP2, copy"].get_ydata()[0] == pytest.approx(copy)


def test_the_curve_has_costs_below_where_they_were_measured():
    rows = fake_rows(THREE)
    labels = [axes.get_ylabel() for axes in curve(rows).axes]
    assert labels == ["Dice (%), mean over organs", "time an episode (s)", "memory (MiB)"]
    assert curve(rows).axes[1].lines[0].get_ydata()[0] == pytest.approx(0.02 * len("rounds=1"))
    assert len(curve(fake_rows(THREE, costs=False)).axes) == 1


def test_a_wide_range_is_logarithmic():
    rates = {"a": (1e-4, 50), "b": (1e-3, 52), "c": (1e-2, 51)}
    assert curve(fake_rows(rates)).axes[0].get_xscale() == "log"
    assert curve(fake_rows(THREE)).axes[0].get_xscale() == "linear"


def test_a_curve_needs_one_setting_of_numbers():
    words = fake_rows({"a": ("gsa", 50), "b": ("eca", 50)}, column="model.attention")
    with pytest.raises(UserError, match=r"model\.attention.*boxes"):
        curve(words)
    two = fake_rows(THREE)
    two["model.heads"] = two["model.rounds"] * 2
    with pytest.raises(UserError, match=r"model\.rounds, model\.heads"):
        curve(two)
    with pytest.raises(UserError, match="several variants"):
        curve(fake_rows({"a": (1, 50), "b": (1, 52), "c": (2, 51)}))


def test_cost_is_needed_and_every_variant_is_a_named_point():
    with pytest.raises(UserError, match="episode_seconds"):
        accuracy_against_cost(fake_rows(THREE, costs=False))
    figure = accuracy_against_cost(fake_rows(THREE))
    for axes in figure.axes:
        names = [text.get_text() for text in axes.texts if isinstance(text, Annotation)]
        assert sorted(names) == sorted(THREE)


def test_times_that_differ_by_noise_alone_are_not_drawn_apart():
    rows = fake_rows(THREE)
    timed = rows["metric"] == "episode_seconds"
    rows.loc[timed, "value"] *= 1.0 + 0.01 * (rows.index[timed] % 2)
    for axes in accuracy_against_cost(rows).axes:
        left, right = axes.get_xlim()
        assert left == 0
        points = axes.lines[0].get_xdata()
        assert max(points) < right
        assert np.ptp(points) < 0.1 * right


def test_two_patients_have_no_band_and_no_bar():
    rows = fake_rows(THREE, patients=2)
    for draw in (curve, accuracy_against_cost, boxes):
        texts_of(draw(rows))


def test_names_in_a_crowd_keep_apart():
    axes = mpl.figure.Figure(figsize=(9, 4)).subplots()
    points = np.random.default_rng(0).normal(0.5, 0.05, (12, 2))
    axes.set(xlim=(0, 1), ylim=(0, 1))
    names = [f"variant={number}" for number in range(12)]
    name_points(axes, points, names, bars=np.full((12, 2), np.nan))
    placed = [box for name, box in texts_of(axes.figure) if name in names]
    assert len(placed) == 12
    assert not any(one.overlaps(two) for one, two in combinations(placed, 2))


def test_boxes_hold_every_patient_and_the_floors():
    rows = fake_rows(THREE, patients=5, organs=("liver", "spleen"))
    trained = (rows["variant"] == "rounds=2") & (rows["model"] == "catnet")
    rows = rows[~(trained & (rows["organ"] == "spleen"))]
    liver, spleen, overall = boxes(rows).axes[:3]
    assert [axes.get_title() for axes in (liver, spleen, overall)] == [
        "EP1, liver",
        "EP1, spleen",
        "EP1, mean",
    ]
    dots = [line for line in liver.lines if line.get_marker() == "o"]
    trained = rows.query("model == 'catnet' and protocol == 'EP1' and organ == 'liver'")
    expected = [part["value"].tolist() for _, part in trained.groupby("variant", sort=False)]
    assert [line.get_xdata().tolist() for line in dots] == expected
    assert len([line for line in spleen.lines if line.get_marker() == "o"]) == 2
    dashed = [line for line in liver.lines if line.get_marker() != "o"]
    assert len(dashed) == 1  # copying; the untrained networks differ and have a piece each
    copy = rows.query("model == 'copy' and protocol == 'EP1' and organ == 'liver'")["value"].mean()
    assert dashed[0].get_xdata()[0] == pytest.approx(copy)


def test_long_names_are_broken_at_spaces_and_huge_words_anywhere():
    assert wrapped(LONG, width=26).splitlines() == LONG.split(" ")
    assert max(map(len, wrapped("x" * 90, width=26).splitlines())) == 26
    assert wrapped("", width=26) == ""
