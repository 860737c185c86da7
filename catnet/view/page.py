"""The page: panes (query, support) as packed volumes, and what stands around them."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from catnet.pictures import organ_color
from catnet.view.volumes import Image, Layer

SITE = Path(__file__).parent / "site"


@dataclass(frozen=True)
class Pane:
    """One scan: its image, the masks that can be chosen, and which of them is shown first.

    contour  the border of the true mask, where it is known
    middle   what is shown first, in world millimeters; the middle of the image without it
    """

    title: str
    image: Image
    layers: tuple[Layer, ...]
    first: int = 0
    contour: Layer | None = None
    middle: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Page:
    """What the page says and shows; `organs` are the names of labels 1, 2, ... of every layer."""

    title: str
    notes: tuple[str, ...]
    organs: tuple[str, ...]
    panes: tuple[Pane, ...]
    warnings: tuple[str, ...] = ()


def render(page: Page) -> str:
    """The page as HTML that reads nothing else: its policy allows but its own two scripts."""
    scripts = [read("niivue.umd.js"), read("view.js")]
    environment = Environment(
        loader=FileSystemLoader(SITE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data = {
        "organs": [[name, organ_color(place)] for place, name in enumerate(page.organs)],
        "panes": [asdict(pane) for pane in page.panes],
    }
    return environment.get_template("index.html.jinja").render(
        page=page,
        organs=data["organs"],
        policy=policy(scripts),
        scripts=[Markup(script) for script in scripts],
        style=Markup(read("style.css")),
        licenses=read("NIIVUE-LICENSES.txt"),
        data=Markup(json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")),
    )


def policy(scripts: Sequence[str]) -> str:
    """A content security policy that names the scripts by hash, and lets nothing be fetched."""
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    sources = " ".join(f"'sha256-{value}'" for value in hashes)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; connect-src data: blob:"
    )


def read(name: str) -> str:
    """A file of the site, its line ends as the browser sees them."""
    return (SITE / name).read_text(encoding="utf-8")
