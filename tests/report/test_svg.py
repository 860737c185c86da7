import re

import pytest
from synthetic_page import make_plot

from catnet.report.svg import inline_svg

SMALL = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
 viewBox="0 0 9 9">
 <metadata>who and when</metadata>
 <defs><style type="text/css">*{stroke-linecap: butt}</style>
  <clipPath id="p1"><path id="m" d="M0 0H9"/></clipPath></defs>
 <g id="g" clip-path="url(#p1)" style="fill: url(#p1)"><use xlink:href="#m" href="#m"/></g>
 <text>a &lt; b</text>
</svg>"""


def test_names_are_led_by_the_prefix():
    text = inline_svg(SMALL, prefix="plot-0", label='Dice & "time"')
    assert re.findall(r'id="([^"]+)"', text) == ["plot-0", "plot-0-p1", "plot-0-m", "plot-0-g"]
    assert text.count("url(#plot-0-p1)") == 2
    assert 'xlink:href="#plot-0-m"' in text
    assert ' href="#plot-0-m"' in text
    assert "#plot-0 *{stroke-linecap: butt}" in text
    assert "who and when" not in text
    assert 'aria-label="Dice &amp; &quot;time&quot;"' in text
    assert "a &lt; b" in text
    assert text.startswith("<svg ")


@pytest.mark.parametrize("kind", ["rounds", "boxes"])
def test_plots_of_matplotlib_keep_every_reference(kind):
    text = inline_svg(make_plot(kind), prefix="q", label=kind)
    given = re.findall(r'id="([^"]+)"', text)
    used = re.findall(r'href="#([^"]+)"', text) + re.findall(r"url\(#([^)]+)\)", text)
    assert used
    assert set(used) <= set(given)
    assert len(given) == len(set(given))
    assert all(name == "q" or name.startswith("q-") for name in given)
