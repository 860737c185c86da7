"""The page of `catnet view` in Chromium, offline: it draws, and its controls change the picture."""

import os
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catnet.data.phantom import draw_phantom
from catnet.data.volume import Grid, ScanFile
from catnet.view.page import SITE, Page, Pane, render
from catnet.view.volumes import pack_contour, pack_image, pack_labels

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
ORGANS = ("liver", "right kidney", "left kidney", "spleen")
NUMBERS = {1: 1, 2: 2, 3: 3, 4: 4}
READY = "body[data-state=ready]"


@pytest.fixture(scope="module")
def chromium():
    """A headless browser that draws in software; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extras)")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt-get install chromium (`make test` does, as root)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=SOFTWARE)
        yield browser
        browser.close()


def make_pane(case, *, guess):
    phantom = draw_phantom("CT", seed=0, case=case, size=(64, 64, 24))
    grid = Grid(phantom.image.shape, phantom.affine)
    truth = ScanFile(phantom.label, grid)
    moved = ScanFile(np.roll(phantom.label, 6, axis=1), grid)
    layers = [pack_labels("M_0", moved, numbers=NUMBERS)] if guess else []
    return Pane(
        f"case {case}",
        pack_image(ScanFile(phantom.image, grid)),
        (*layers, pack_labels("truth", truth, numbers=NUMBERS)),
        contour=pack_contour("truth", truth, numbers=NUMBERS) if guess else None,
        middle=(60.0, 10.0, 30.0),
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("view") / "view.html"
    panes = (make_pane(1, guess=True), make_pane(2, guess=False))
    page = Page("<i>a title</i>", ("a note",), ORGANS, panes)
    path.write_text(render(page), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(chromium, file):
    """The page, opened once; afterwards nothing may have gone wrong, or over the network."""
    wrong = []

    def heard(request):
        if not request.url.startswith(("file:", "data:", "blob:")):
            wrong.append(request.url)

    context = chromium.new_context(viewport={"width": 1100, "height": 900}, offline=True)
    opened = context.new_page()
    opened.on("console", lambda message: wrong.append(message.text))
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", heard)
    opened.goto(file.as_uri())
    opened.locator(READY).wait_for(timeout=90_000)
    yield opened
    context.close()
    assert not wrong


def layer(page, name):
    """The button that chooses a mask."""
    return page.get_by_role("radio", name=name, exact=True)


@pytest.fixture(autouse=True)
def afresh(page):
    """Every test begins with the first mask at half opacity."""
    page.locator("#opacity").fill("50")
    page.locator("#contour").set_checked(True)
    page.locator("#planes").select_option("3")
    layer(page, "M_0").check()
    page.locator(READY).wait_for()


def picture(page, place=0):
    page.locator(READY).wait_for()
    shot = page.locator(f"#canvas-{place}").screenshot()
    return np.asarray(Image.open(BytesIO(shot)).convert("RGB")).astype(float)


def colored(pixels):
    """How many pixels are not grey."""
    return np.count_nonzero(np.ptp(pixels, axis=-1) > 30)


def test_the_page_is_not_blank(page, tmp_path):
    folder = Path(os.environ.get("CATNET_ARTEFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / "view.png", full_page=True)
    for place in (0, 1):
        pixels = picture(page, place)
        assert pixels.std() > 20
        assert colored(pixels) > 2000
    assert page.inner_text("h1") == "<i>a title</i>"
    assert page.inner_text("#state") == ""
    assert "patient's right (R) is on the left" in page.inner_text("footer")


def test_the_liver_is_on_the_left_of_the_picture_and_the_front_is_up(page):
    page.locator("#planes").select_option("0")
    layer(page, "truth").check()
    page.locator("#opacity").fill("100")
    pixels = picture(page)
    liver, spine = np.array([230, 159, 0]), pixels.min(axis=-1) > 250
    rows, columns = np.nonzero(np.abs(pixels - liver).max(axis=-1) < 12)
    assert len(rows) > 1000
    height, width = pixels.shape[:2]
    assert columns.mean() < 0.45 * width
    body = slice(int(0.1 * width), int(0.9 * width))
    middle = spine[:, body][:, int(0.3 * width) : int(0.5 * width)]
    assert np.nonzero(middle)[0].mean() > 0.5 * height, "bone lies at the back, so below"


def test_opacity_changes_the_picture(page):
    half = picture(page)
    page.locator("#opacity").fill("0")
    none = picture(page)
    page.locator("#opacity").fill("100")
    full = picture(page)
    assert page.inner_text("#opacity-value") == "100 %"
    assert colored(none) < 50 < colored(half)
    assert np.abs(full - half).sum() > 0.5 * np.abs(half - none).sum() > 0


def test_layers_change_the_picture(page):
    first = picture(page)
    layer(page, "truth").check()
    truth = picture(page)
    assert np.count_nonzero(np.abs(truth - first).max(axis=-1) > 30) > 1000
    layer(page, "none").check()
    assert colored(picture(page)) < 50
    layer(page, "M_0").check()
    assert np.abs(picture(page) - first).max() < 3, "the same again"


def test_the_outline_can_be_hidden(page):
    layer(page, "none").check()
    outlined = picture(page)
    page.locator("#contour").set_checked(False)
    plain = picture(page)
    changed = np.abs(outlined - plain).max(axis=-1) > 30
    assert np.count_nonzero(changed) > 300
    assert outlined[changed].mean() > plain[changed].mean() + 25, "white lines"


def test_arrows_choose_a_layer_by_keyboard(page):
    layer(page, "M_0").focus()
    page.keyboard.press("ArrowRight")
    assert layer(page, "truth").is_checked()


def test_the_policy_lets_nothing_out(chromium, file):
    context = chromium.new_context()
    opened, asked = context.new_page(), []
    opened.goto(file.as_uri())
    opened.on("request", lambda request: asked.append(request.url))
    refused = opened.evaluate(
        """() => new Promise((resolve) => {
          const told = (event) => resolve(event.effectiveDirective);
          document.addEventListener("securitypolicyviolation", told);
          fetch("http://localhost:9/scan").catch(() => {});
        })"""
    )
    context.close()
    assert refused == "connect-src"
    assert not [url for url in asked if url.startswith("http")]


def test_the_viewer_is_what_npm_has():
    import hashlib

    digest = hashlib.sha256((SITE / "niivue.umd.js").read_bytes()).hexdigest()
    assert digest == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    licenses = (SITE / "NIIVUE-LICENSES.txt").read_text(encoding="utf-8")
    assert "BSD 2-Clause License" in licenses
    assert "0.69.0" in licenses
    assert "NiiVue 0.69.0" in (SITE / "index.html.jinja").read_text(encoding="utf-8")
