"""Left and right in the names of organs, wherever a data set writes them."""

import re

SIDES = ("left", "right")


def side_of(name: str) -> tuple[str, tuple[str, ...]]:
    """`left`, `right` or nothing, and the other words: `kidney_left` is ("left", ("kidney",))."""
    words = re.findall(r"[^\W_]+", name.casefold())
    sides = [word for word in words if word in SIDES]
    if len(sides) != 1:
        return "", tuple(words)
    return sides[0], tuple(word for word in words if word not in SIDES)
