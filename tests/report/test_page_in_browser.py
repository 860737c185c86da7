"""The page in Chromium, offline: it draws, sorts, filters and scrolls, by keyboard alone."""

import os
import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from synthetic_page import make_page, record_cases

from catnet.report.page import render, render_with_cases
from catnet.views import load_views

VARIANTS = ("rounds=2", "rounds=4", "rounds=6", "with a <b>long</b> name")
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
DRAWN = "document.getElementById('caption').textContent !== ''"
MASKS = """async (place) => {
  const data = JSON.parse(document.getElementById("browser-data").textContent);
  const views = await decodeCase(data, place);
  const bits = (masks) => masks.map((mask) => mask.join(""));
  return [
    data.cases[place],
    views.map((view) => bits([view.truth, view.support])),
    views.map((view) => Object.values(view.rounds).map(bits)),
  ];
}"""
DICE = "#dice > .table"
STATE = "['variant', 'organ', 'case', 'slice'].map((n) => document.forms[0].elements[n].value)"


@pytest.fixture(scope="module")
def chromium():
    """A headless browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extras)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium (`make test` does, as root)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return record_cases(tmp_path_factory.mktemp("views"), VARIANTS, queries=4, shown=5, rounds=3)


@pytest.fixture(scope="module")
def file(tmp_path_factory, recorded):
    path = tmp_path_factory.mktemp("site") / "index.html"
    path.write_text(render_with_cases(make_page(VARIANTS), recorded), encoding="utf-8")
    return path


@pytest.fixture
def visit(chromium, file):
    """Opens the page; afterwards nothing may have gone wrong, or over the network."""
    wrong, contexts = [], []

    def heard(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    def open_page(path=file, *, width=1100, scheme="light", wait=DRAWN):
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: wrong.append(message.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", heard)
        page.on("requestfailed", lambda request: wrong.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function(wait)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not wrong


@pytest.fixture
def artefacts(tmp_path):
    folder = Path(os.environ.get("CATNET_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def shoot(page, path):
    """A screenshot of the whole page, kept, as an array."""
    return np.asarray(
        Image.open(BytesIO(page.screenshot(path=path, full_page=True))).convert("RGB")
    )


def drawn(page):
    """What all pictures of the browser show."""
    page.wait_for_function(DRAWN)
    return page.evaluate("[...document.querySelectorAll('canvas')].map((c) => c.toDataURL())")


def press(page, key):
    """Press a key and wait for the new picture."""
    before = page.inner_text("#caption")
    page.keyboard.press(key)
    page.wait_for_function(
        "(old) => document.getElementById('caption').textContent !== old", arg=before
    )


def focus_by_tab(page, selector):
    """Reach an element by the tabulator key alone."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if page.evaluate("(s) => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"{selector} is not within reach of the keyboard")


def names(page):
    return page.locator(f"{DICE} tbody.rows tr:visible th").all_inner_texts()


@pytest.mark.parametrize(
    ("width", "scheme"), [(1100, "light"), (1100, "dark"), (400, "light")], ids=str
)
def test_the_page_is_drawn_and_fits(visit, artefacts, width, scheme):
    page = visit(width=width, scheme=scheme)
    pixels = shoot(page, artefacts / f"report-{width}-{scheme}.png")
    assert pixels.std() > 20
    ground = np.median(pixels.reshape(-1, 3), axis=0)
    assert (ground.mean() > 200) == (scheme == "light")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_table_fits_and_names_of_floors_are_not_broken_up(visit, tmp_path):
    page = make_page(VARIANTS)
    lines = [
        replace(line, names=("untrained (rounds=0)",)) if line.names == ("untrained",) else line
        for line in page.dice.lines
    ]
    path = tmp_path / "index.html"
    path.write_text(render(replace(page, dice=replace(page.dice, lines=tuple(lines)))))
    page = visit(path, width=1200, wait="true")
    measure = """() => {
      const box = document.querySelector("#dice .scroll");
      const names = document.querySelectorAll("#dice tbody.floors th");
      const [one, other] = [...names].map((name) => name.offsetHeight);
      return [box.scrollWidth - box.clientWidth, other < 1.15 * one];
    }"""
    assert page.evaluate(measure) == [0, True]
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 900})  # A4 within its margins
    assert page.evaluate(measure) == [0, True]


def test_the_table_is_sorted_by_keyboard(visit):
    page = visit()
    assert names(page) == list(VARIANTS)
    header = f"{DICE} thead th:nth-child(2) button"
    focus_by_tab(page, header)
    column = f"{DICE} tbody.rows td:nth-child(2) span"

    def values():
        return [float(text.partition("±")[0]) for text in page.locator(column).all_inner_texts()]

    page.keyboard.press("Enter")
    assert values() == sorted(values(), reverse=True)
    assert (
        page.get_attribute(f"{DICE} thead tr:last-child th:nth-child(2)", "aria-sort")
        == "descending"
    )
    page.keyboard.press("Space")
    assert values() == sorted(values())
    assert (
        page.get_attribute(f"{DICE} thead tr:last-child th:nth-child(2)", "aria-sort")
        == "ascending"
    )
    focus_by_tab(page, f"{DICE} thead th:nth-child(3) button")
    page.keyboard.press("Enter")
    assert page.locator(f"{DICE} th[aria-sort]").count() == 1
    floors = page.locator(f"{DICE} tbody.floors th").all_inner_texts()
    assert floors == ["copy", "untrained"]
    page.evaluate("document.querySelector('#dice thead tr:last-child button').click()")
    assert names(page) == sorted(VARIANTS)
    assert page.evaluate("document.querySelectorAll('#dice tbody.rows b').length") == 0


def test_a_cell_without_a_value_stays_last(visit, tmp_path):
    path = tmp_path / "index.html"
    text = render(make_page(VARIANTS))
    first = text.index('data-sort="', text.index('<tbody class="rows">'))
    place = text.index(' data-sort="', text.index("</th>", first))
    path.write_text(text[:place] + text[text.index('"', place + 12) + 1 :], encoding="utf-8")
    page = visit(path, wait="true")
    header = page.locator(f"{DICE} thead tr:last-child th:nth-child(2) button")
    for _ in range(2):
        header.click()
        assert names(page)[-1] == VARIANTS[0]


def test_rows_are_filtered_by_keyboard(visit):
    page = visit()
    focus_by_tab(page, f"{DICE} input[type=search]")
    page.keyboard.type("ROUNDS =4")
    assert names(page) == ["rounds=4"]
    assert page.inner_text(f"{DICE} output") == "1 of 4 rows"
    assert page.locator(f"{DICE} tbody.floors tr:visible").count() == 2
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    assert names(page) == list(VARIANTS)
    assert page.inner_text(f"{DICE} output") == ""


def test_arrow_keys_scroll_through_the_slices(visit):
    page = visit()
    focus_by_tab(page, ".stage")
    seen = [drawn(page)]
    for key in ("ArrowRight", "ArrowDown"):
        press(page, key)
        seen.append(drawn(page))
        assert seen[-1][0] not in [pictures[0] for pictures in seen[:-1]]
    for key in ("ArrowLeft", "ArrowUp"):
        press(page, key)
    assert drawn(page) == seen[0]
    press(page, "End")
    page.keyboard.press("ArrowRight")
    assert "(5 of 5)" in page.inner_text("#caption")
    press(page, "Home")
    assert "(1 of 5)" in page.inner_text("#caption")
    page.focus("input[name=slice]")
    press(page, "ArrowRight")
    assert "(2 of 5)" in page.inner_text("#caption")
    assert page.get_attribute("input[name=slice]", "aria-valuetext").endswith("2 of 5")


@pytest.mark.parametrize("name", ["variant", "organ", "case"])
def test_a_choice_changes_the_picture_by_keyboard(visit, name):
    page = visit()
    before = drawn(page)
    focus_by_tab(page, f"select[name={name}]")
    press(page, "ArrowDown")
    after = drawn(page)
    assert after[0] != before[0]
    chosen = page.evaluate(f"document.forms[0].elements.{name}.selectedIndex")
    assert chosen == 1
    press(page, "ArrowUp")
    assert drawn(page) == before


def test_the_worst_case_is_one_key_away(visit):
    page = visit()
    focus_by_tab(page, ".worst li:nth-child(2) button")
    text = page.inner_text(".worst li:nth-child(2) button")
    press(page, "Enter")
    dice, organ = text.split(maxsplit=1)[0], text.split(maxsplit=1)[1].partition(",")[0]
    caption = page.inner_text("#caption")
    assert f"Dice {dice} % of the volume" in caption
    assert f", {organ}: case " in caption
    assert page.evaluate("document.activeElement.className") == "stage"


def test_the_caption_says_what_is_shown(visit, recorded):
    page = visit()
    variant, organ, case, _ = page.evaluate(STATE)
    data = page.evaluate("JSON.parse(document.getElementById('browser-data').textContent).cases")
    one = data[int(case)]
    path = recorded[int(variant)].folder / f"{one['query']}_by_{one['support']}.npz"
    views = load_views(path)
    caption = page.inner_text("#caption")
    assert caption.startswith(f"{VARIANTS[0]}, liver: case {one['query']} by support 3")
    assert f"Dice {views.dice[int(organ)]:.1f} % of the volume" in caption
    number = int(caption.partition("slice ")[2].split()[0])
    (place,) = np.flatnonzero((views.organ == int(organ)) & (views.query_slice == number))
    assert f"{views.slice_dice[place, -1]:.1f} % on this slice" in caption
    labels = page.locator(".strip p").all_inner_texts()
    assert len(labels) == 2 + 4
    assert labels[0].strip() == f"support, slice {views.support_slice[place]}"
    for label, dice in zip(labels[2:], views.slice_dice[place], strict=True):
        assert label.endswith(f"{dice:.1f} %")


def test_masks_arrive_bit_for_bit(visit, recorded):
    page = visit()
    case, shared, rounds = page.evaluate(MASKS, 2)
    name = f"{case['query']}_by_{case['support']}.npz"
    views = [load_views(one.folder / name) for one in recorded]
    for place, (organ, number, _) in enumerate(case["views"]):
        found = np.flatnonzero((views[0].organ == organ) & (views[0].query_slice == number))[0]
        for text, mask in zip(shared[place], (views[0].truth, views[0].support_mask), strict=True):
            np.testing.assert_array_equal(from_bits(text, like=mask[found]), mask[found])
        for texts, one in zip(rounds[place], views, strict=True):
            masks = np.stack([from_bits(text, like=one.rounds[found, 0]) for text in texts])
            np.testing.assert_array_equal(masks, one.rounds[found])


def from_bits(text, *, like):
    return np.frombuffer(text.encode(), np.uint8).reshape(like.shape) == ord("1")


def test_a_contour_closes_around_every_part(visit):
    """A ring, a single pixel, a diagonal pair and a corner of the slice: six closed lines."""
    page = visit()
    mask = np.zeros((12, 14), int)
    mask[2:7, 2:7], mask[4, 4] = 1, 0
    mask[9, 2] = mask[8, 10] = mask[9, 11] = mask[0, 13] = 1
    lines = page.evaluate("([m, h, w]) => contours(m, w, h)", [mask.ravel().tolist(), *mask.shape])
    areas = []
    for line in lines:
        x, y = np.reshape(line, (-1, 2)).T
        areas.append(abs(np.sum(x * np.roll(y, 1) - y * np.roll(x, 1))) / 2)
        assert x.min() > -0.5
        assert y.min() > -0.5
    assert len(lines) == 6
    assert max(areas) == pytest.approx(25, abs=2.5)


def test_it_is_printed_without_its_controls(visit, artefacts):
    page = visit(width=690)
    page.emulate_media(media="print")
    shoot(page, artefacts / "report-print.png")
    assert not page.locator("nav, .controls, .filter").filter(visible=True).count()
    assert page.locator(".stage canvas").first.is_visible()
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#dice details table").is_visible()
