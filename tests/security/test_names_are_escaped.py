"""Whatever a card, a case, a run or a question is called, a report and a page show it as text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import nibabel as nib
import pytest
import yaml
from trials import end_of

TAG = "<script>alert(1)</script>"
IMAGE = "<img src=x onerror=alert(1)>"
LATEX = r"\input{/etc/passwd}%$&_#^~"
ORGANS = {TAG: 1, f"'\"{IMAGE}": 2, LATEX: 3, "</script><!--|`*[a](javascript:alert(1))": 4}
CASES = {"3": "<svg onload=alert(1)>", "6": "&amp;'\"6"}
QUESTION = f"Is {TAG} {IMAGE} {LATEX} </title> better?"


class Reader(HTMLParser):
    """Every tag of a page, its attributes, and the text outside of scripts and styles."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.inside, self.text = [], [], None, []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.inside = tag if tag in {"script", "style"} else None

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside is None:
            self.text.append(data)


def read(path):
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def tame(reader):
    """Nothing in the page came from a name: no handler, no foreign tag, no address of code."""
    handlers = [a for a in reader.attributes if a[1].startswith("on")]
    assert handlers == []
    assert not {"img", "iframe", "object", "embed", "base"} & set(reader.tags)
    assert {a[2] for a in reader.attributes if a[:2] == ("link", "href")} <= {"data:,"}
    assert [a for a in reader.attributes if str(a[2]).lower().startswith("javascript:")] == []


@pytest.fixture(scope="module")
def odd(tiny_home, tmp_path_factory):
    """A run on phantoms whose card, organs, cases and question are named to do harm."""
    from catnet.cli import main

    home = tmp_path_factory.mktemp("odd")
    (home / "raw").mkdir()
    for path in (tiny_home / "raw").iterdir():
        kind, case = path.name.removesuffix(".nii.gz").split("_")
        shutil.copy(path, home / "raw" / f"{kind}_{CASES.get(case, case)}.nii.gz")
    card = yaml.safe_load((tiny_home / "cards" / "tiny.yml").read_text())
    card |= {"name": "odd", "title": TAG, "source": IMAGE, "license": LATEX, "organs": ORGANS}
    card["groups"] = {TAG: [TAG]}
    (home / "odd.yml").write_text(yaml.safe_dump(card, sort_keys=False))
    run = yaml.safe_load((tiny_home / "tiny.yml").read_text())
    run["data"]["card"] = str(home / "odd.yml")
    run |= {"question": QUESTION, "train": {"steps": 1, "batch": 1}}
    run["evaluate"] = {"protocols": ["EP1"], "baselines": ["copy"], "predictions": False}
    run["vary"] = {"model.rounds": [1, 2]}
    (home / "odd.yml").rename(home / "card.yml")
    run["data"]["card"] = str(home / "card.yml")
    (home / "odd.yml").write_text(yaml.safe_dump(run, sort_keys=False))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CATNET_DATA", str(home / "data"))
        patch.setenv("CATNET_RUNS", str(home / "runs"))
        patch.setenv("OMP_NUM_THREADS", "1")
        main(["prepare", str(home / "card.yml"), "--raw", str(home / "raw")])
        main(["supervoxels", str(home / "card.yml")])
        for number in "12":
            main(["sweep", str(home / "odd.yml"), "--only", number])
        main(["sweep", str(home / "odd.yml")])
    return home


@pytest.fixture
def made(odd, monkeypatch, capsys):
    monkeypatch.setenv("CATNET_DATA", str(odd / "data"))
    monkeypatch.setenv("CATNET_RUNS", str(odd / "runs"))

    def make(*command):
        status, _, err = end_of(command, capsys)
        assert status == 0, err

    return make


def test_the_report(odd, made, tmp_path):
    (sweep,) = (odd / "runs" / "sweeps").iterdir()
    made("report", sweep, "-o", tmp_path / "report")
    page = read(tmp_path / "report" / "index.html")
    tame(page)
    assert page.tags.count("script") == 2  # the data of the cases, and the page's own
    text = "".join(page.text)
    for name in (*ORGANS, QUESTION):
        assert name in text
    check_tables(tmp_path / "report")
    for path in (tmp_path / "report").glob("*.svg"):
        assert not [e for e in ElementTree.parse(path).iter() if e.tag.endswith("}script")]


def check_tables(folder):
    """Markdown has no tag or link that a name brought, LaTeX no command."""
    for path in folder.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<!\\)<(script|img|!--)", text)
        assert not re.search(r"(?<!\\)\[a(?<!\\)\]", text)
    for path in folder.glob("*.tex"):
        text = path.read_text(encoding="utf-8")
        assert r"\input" not in text
        assert r"\textbackslash{}input\{/etc/passwd\}\%\$\&\_\#" in text


def test_the_page_of_a_run(odd, made, tmp_path):
    run = next(path for path in (odd / "runs").glob("odd-*") if (path / "model").is_dir())
    made("view", run, "-o", tmp_path / "run.html")
    page = read(tmp_path / "run.html")
    tame(page)
    assert page.tags.count("script") == 3
    text = "".join(page.text)
    assert all(name in text for name in (*ORGANS, TAG, IMAGE, LATEX))
    policy = next(v for tag, name, v in page.attributes if name == "content" and "script-src" in v)
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]


def test_the_page_of_a_prediction(odd, made, tmp_path):
    name = f"{CASES['3']}"
    shutil.copy(odd / "raw" / f"image_{name}.nii.gz", tmp_path / f"{name}.nii.gz")
    pair = (odd / "raw" / "image_1.nii.gz", odd / "raw" / "label_1.nii.gz")
    words = ("--support", *pair, "--query", tmp_path / f"{name}.nii.gz", "--organ", f"1={TAG}")
    made("predict", "--model", "copy", *words, "-o", tmp_path / "out")
    summary = tmp_path / "out" / "summary.json"
    record = json.loads(summary.read_text())
    record[name]["warnings"] = [IMAGE]
    summary.write_text(json.dumps(record))
    made("view", tmp_path / "out", "-o", tmp_path / "p.html")
    page = read(tmp_path / "p.html")
    tame(page)
    assert page.tags.count("script") == 3
    assert all(word in "".join(page.text) for word in (TAG, IMAGE, name))
    assert nib.load(next((tmp_path / "out").glob("*_pred.nii.gz"))).shape


def test_the_pages_in_a_browser_say_nothing_of_their_own(odd, made, tmp_path):
    """No dialog, no error on the console, no request."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (dev extras)")
    chromium = next(filter(None, map(shutil.which, BROWSERS)), None)
    if chromium is None:
        pytest.skip("needs Chromium: apt-get install chromium (`make test` does, as root)")
    (sweep,) = (odd / "runs" / "sweeps").iterdir()
    made("report", sweep, "-o", tmp_path / "report")
    run = next(path for path in (odd / "runs").glob("odd-*") if (path / "model").is_dir())
    made("view", run, "-o", tmp_path / "run.html")
    heard = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=SOFTWARE)
        for path in (tmp_path / "report" / "index.html", tmp_path / "run.html"):
            page = browser.new_page()
            page.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
            page.on("pageerror", lambda error: heard.append(str(error)))
            page.on("console", lambda said: heard.append(said.text))
            page.goto(Path(path).as_uri())
            page.wait_for_timeout(1500)
            assert page.locator("img, iframe, svg [onload], [onerror]").count() == 0
        browser.close()
    assert heard == []


BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SOFTWARE = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
