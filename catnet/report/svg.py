"""Makes an SVG file part of an HTML page beside others: its names and styles stay its own."""

import re
from xml.etree import ElementTree

SVG, LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", SVG)
ElementTree.register_namespace("xlink", LINK)


def inline_svg(text: str, *, prefix: str, label: str) -> str:
    """The `svg` element alone, every id in it led by `prefix`; `label` is read out in its stead."""
    root = ElementTree.fromstring(text)
    for unread in root.findall(f"{{{SVG}}}metadata"):
        root.remove(unread)
    for element in root.iter():
        for name, value in element.attrib.items():
            element.set(name, renamed(name, value, prefix=prefix))
        if element.tag == f"{{{SVG}}}style":
            element.text = confined(element.text or "", prefix)
    root.attrib.update({"id": prefix, "role": "img", "aria-label": label})
    return ElementTree.tostring(root, encoding="unicode")


def renamed(name: str, value: str, *, prefix: str) -> str:
    """An attribute's value, with the ids that it gives or refers to led by the prefix."""
    if name == "id":
        return f"{prefix}-{value}"
    if name in ("href", f"{{{LINK}}}href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return re.sub(r"url\(#", f"url(#{prefix}-", value)


def confined(style: str, prefix: str) -> str:
    """Rules that hold within the plot only; matplotlib writes `*{...}`, which would reach out."""
    return re.sub(r"([^{}]+)\{", lambda rule: f"#{prefix} {rule[1].strip()}{{", style)
