import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from synthetic_page import make_page, record_cases
from synthetic_views import ORGANS

from catnet.report.browser import Browser, Worst
from catnet.report.grid import Cell, Column, Grid, Line
from catnet.report.page import Plot, render, render_with_cases

VARIANTS = ("rounds=2", "rounds=4")
ORDER = ["dice", "curves", "cost", "boxes", "cases", "provenance"]


class Outline(HTMLParser):
    """What a page is made of; raises on a tag that is closed wrongly."""

    EMPTY = frozenset({"meta", "link", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.tags, self.addresses = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.ids += [given["id"]] if "id" in given else []
        self.addresses += [given[name] for name in ("src", "href") if name in given]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    recorded = record_cases(
        tmp_path_factory.mktemp("page"), VARIANTS, queries=3, shown=3, rounds=2, size=32
    )
    return render_with_cases(make_page(VARIANTS), recorded)


def test_the_page_answers_in_the_order_of_the_questions(html):
    sections = [given["id"] for tag, given in Outline(html).tags if tag == "section"]
    assert sections == ORDER
    assert html.index("<h1>How many rounds") < html.index("rounds=4 is best") < html.index("<table")


def test_names_are_unique_and_links_lead_somewhere(html):
    outline = Outline(html)
    assert len(outline.ids) == len(set(outline.ids))
    inside = {address[1:] for address in outline.addresses if address.startswith("#")}
    assert inside
    assert inside <= set(outline.ids)
    labels = {given["aria-labelledby"] for _, given in outline.tags if "aria-labelledby" in given}
    assert labels
    assert labels <= set(outline.ids)


def test_nothing_is_fetched(html):
    outline = Outline(html)
    assert all(address.startswith(("#", "data:")) for address in outline.addresses)
    assert not {tag for tag, _ in outline.tags} & {"iframe", "object", "embed", "img"}
    assert not re.search(r"@import|fetch\(|XMLHttpRequest|eval\(|innerHTML|new Function", html)
    policy = next(given for _, given in outline.tags if "http-equiv" in given)
    assert policy["content"].startswith("default-src 'none';")


def test_whatever_is_written_is_text():
    bad = "</script><img src=x onerror=alert(1)>\"'&"
    cells = (Cell(bad, 1.0, 0.0, 2.0), Cell(bad))
    lines = tuple(Line((bad,), floor, cells) for floor in (False, True))
    table = Grid((bad,), (Column(bad, bad), Column(bad, bad)), lines, bad)
    worst = Worst(bad, bad, bad, bad, bad, 1.0, 0)
    browser = Browser(json.dumps({"variants": [bad]}), bad, (worst,))
    page = replace(
        make_page(VARIANTS),
        **dict.fromkeys(("title", "question", "answer"), bad),
        **dict.fromkeys(("comparisons", "sources"), (table,)),
        dice=table,
        cautions=(bad,),
        browser=browser,
        provenance=((bad, bad),),
        boxes=(Plot(bad, make_page(VARIANTS).boxes[0].svg),),
    )
    text = render(page)
    assert "<img" not in text
    assert not any("onerror" in given for _, given in Outline(text).tags)
    (data,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert json.loads(data) == {"variants": [bad]}


def test_floors_stand_on_top_and_groups_side_by_side(html):
    dice = html[html.index('<section id="dice">') : html.index('<section id="curves">')]
    assert re.findall(r'<tbody class="(\w+)">', dice)[:2] == ["floors", "rows"]
    names = re.findall(r'<th scope="row" data-sort="([^"]+)">', dice)
    assert names[:4] == ["copy", "untrained", *VARIANTS]
    wide = f'<th scope="colgroup" colspan="{len(ORGANS) + 1}">'
    assert re.findall(rf"{wide}(\w+)</th>", dice) == ["EP1", "EP2"]
    rows = dice[: dice.index("</table>")].split("<tr>")[3:]
    assert [row.count("<td") for row in rows] == [2 * len(ORGANS) + 2] * 4
    assert [row.count(" starts") for row in rows] == [1] * 4


def test_a_cell_says_its_value_interval_and_rank():
    columns = (Column("", "liver"), Column("", "note"))
    cells = (Cell("61.2", 61.23, 58.0, 64.04, 1), Cell("b"))
    lines = (Line(("a", "x"), False, cells), Line(("z", "y"), False, (Cell("-"), Cell(""))))
    text = render(replace(make_page(VARIANTS), dice=Grid(("n", "m"), columns, lines, "t")))
    text = text[text.index('<section id="dice">') : text.index("</table>")]
    whole = "<span>61.2</span> <small>58.0 to 64.0</small></td>"
    assert f'<td class="number rank-1" data-sort="61.23">{whole}' in text
    assert '<td class="number"><span>-</span></td>' in text
    assert '<td data-sort="b">b</td>' in text
    assert "<td></td>" in text
    assert re.findall(r'<th scope="row" data-sort="(\w)">', text) == ["a", "x", "z", "y"]
    assert "colgroup" not in text


def test_sections_without_content_are_left_out():
    page = replace(make_page(VARIANTS), curves=(), cost=(), cautions=())
    outline = Outline(render(page))
    sections = [given["id"] for tag, given in outline.tags if tag == "section"]
    assert sections == ["dice", "boxes", "cases", "provenance"]
    assert "#curves" not in outline.addresses
    assert "evaluate.pictures" in render(page)


def test_the_whole_page_keeps_the_limit(tmp_path):
    page = make_page(VARIANTS)
    recorded = record_cases(tmp_path, VARIANTS, queries=3, shown=6, rounds=2, size=32)
    whole = len(render_with_cases(page, recorded).encode())
    limit = whole - 10_000
    cut = render_with_cases(page, recorded, limit=limit)
    assert len(cut.encode()) <= limit
    assert "To keep the page small, this browser shows" in cut
    assert "browser-data" not in render_with_cases(page, recorded, limit=30_000).replace(
        'getElementById("browser-data")', ""
    )
