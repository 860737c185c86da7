"""Curves: the fit finds a known power law, and every curve of the quick form is whole."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from catnet.bench.curves import CURVES, curve_names
from catnet.bench.document import GROWTH
from catnet.bench.fits import Curve, fit_power
from catnet.bench.pairs import Row
from catnet.bench.pictures import draw_curve
from catnet.cli import main
from catnet.config import MachineSettings
from catnet.report.style import svg


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_fit_finds_the_exponent_of_the_upper_half(exponent):
    places = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
    law = [5.0 if x < 16 else 0.5 * x**exponent for x in places]
    fit = fit_power(places, tuple(law))
    assert fit.points == 4
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.high - fit.low < 1e-6


def test_interval_of_a_fit_holds_the_truth():
    generator = np.random.default_rng(0)
    places = tuple(2.0 ** np.arange(12))
    held = []
    for _ in range(200):
        noisy = np.array(places) ** 1.5 * np.exp(generator.normal(0, 0.1, 12))
        fit = fit_power(places, tuple(noisy))
        held.append(fit.low <= 1.5 <= fit.high)
    assert 0.9 < np.mean(held) < 0.99


def curve(samples, *, most=1.0, places=(1.0, 2.0, 4.0, 8.0)):
    return Curve("name", "cost", "things", places, samples, most, "so it is")


def test_quickest_repetition_counts_and_worse_is_said():
    square = tuple((x**2 + 9.0, x**2, x**2 + 1.0) for x in (1.0, 2.0, 4.0, 8.0))
    assert curve(square).quickest == (1.0, 4.0, 16.0, 64.0)
    assert curve(square).verdict == "WORSE than 1"
    assert curve(square, most=2.0).verdict == "within 2"


@pytest.mark.parametrize(
    ("most", "verdict"),
    [
        (0.5, "WORSE than 0.5"),
        (0.61, "WORSE than 0.61"),
        (0.63, "unclear whether within 0.63"),
        (1.0, "unclear whether within 1"),
        (1.28, "unclear whether within 1.28"),
        (1.3, "within 1.3"),
        (2.0, "within 2"),
    ],
)
def test_an_interval_on_both_sides_of_the_bound_is_unclear(most, verdict):
    places = tuple(2.0**k for k in range(7))
    rough = tuple((x * 1.1 ** (-1) ** k,) for k, x in enumerate(places))
    found = curve(rough, most=most, places=places)
    assert (found.fit.low, found.fit.high) == pytest.approx((0.72, 1.39), abs=0.001)
    assert found.verdict == verdict
    assert verdict.partition(" ")[0] in GROWTH.split()


def test_zero_is_no_place_of_a_fit():
    places = (0.0, 1.0, 2.0, 4.0)
    found = curve(((9.0,), (1.0,), (2.0,), (4.0,)), places=places)
    assert found.fit.exponent == pytest.approx(1.0)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_picture_names_axes_and_exponent(start):
    places = (start, 8.0, 16.0, 64.0)
    samples = ((1.0,), (8.0, 9.0), (16.0,), (64.0,))
    picture = ElementTree.fromstring(svg(draw_curve(curve(samples, places=places))))
    text = " ".join(picture.itertext())
    assert "things" in text
    assert "fit: exponent 1.00" in text


def test_every_curve_of_the_quick_form(tmp_path):
    main(["bench", "--quick", "--rows", "--curves", "-o", str(tmp_path)])
    content = json.loads((tmp_path / "bench.json").read_text())
    assert content["rows"] == []
    names = [found["name"] for found in content["curves"]]
    loaders = ["loaders"] if "loaders" in MachineSettings.model_fields else []
    wanted = ["opening", "drawing", "slices", "shots", "rounds", "sides", "batch", *loaders, "runs"]
    assert names == wanted == [name for name in curve_names(CURVES) if name in wanted]
    assert len(names) - 1 == len(CURVES) - (not loaders)
    text = (tmp_path / "bench.md").read_text()
    for found in content["curves"]:
        assert len(found["samples"]) == len(found["places"]) >= 3
        assert min(min(sample) for sample in found["samples"]) > 0
        assert found["because"] in text
        assert f"({found['name']}.svg)" in text
        ElementTree.parse(tmp_path / f"{found['name']}.svg")


def test_ratio_is_that_of_the_pairs():
    row = Row("x", "s", plain=(4.0, 9.0, 8.0), fast=(2.0, 3.0, 1.0))
    assert row.ratios == (2.0, 3.0, 8.0)
    summary = row.summary()
    assert (summary["ratio"], summary["ratio_min"], summary["ratio_max"]) == (3.0, 2.0, 8.0)
