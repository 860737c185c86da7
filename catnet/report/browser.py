"""Packs recorded cases for the page: pictures once, masks deflated, all of it as one JSON text.

Pictures of a case lie side by side in one WebP sheet (JPEG where Pillow has no WebP), the priors of
a case and variant in another; the page cuts them out. Masks are the changes of
`catnet.report.recorded`, in the order: of every view truth, support, then M_0 .. M_N of every
variant that has it.
"""

import json
import math
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from einops import rearrange
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, features

from catnet.report.recorded import CaseRecord, Recorded, Records, Shot, read_records
from catnet.views import spread_evenly

COLUMNS = 8  # pictures side by side in a sheet
PICTURE_QUALITY, PRIOR_QUALITY = 60, 30
FORMAT = "WEBP" if features.check("webp") else "JPEG"


@dataclass(frozen=True)
class Worst:
    """One organ of one case by one variant, with its Dice in % over the volume."""

    variant: str
    organ: str
    query: str
    support: str
    protocol: str
    dice: float
    case: int


@dataclass(frozen=True)
class Browser:
    """What the page's browser needs: `text` is JSON, `note` says what had to be left out."""

    text: str
    note: str
    worst: tuple[Worst, ...]


def pack_browser(recorded: Iterable[Recorded], *, limit: int, worst: int = 10) -> Browser | None:
    """Every recorded case in at most `limit` bytes; None where nothing is recorded, or fits.

    The first variant is the one that the page opens with. Slices are left out first, evenly; then,
    with one slice an organ, the cases with the highest Dice. Raises `UserError` for a damaged file.
    """
    recorded = tuple(recorded)
    records = read_records(recorded)
    variants = list(dict.fromkeys(one.variant for one in recorded))
    return pack_records(records, variants, limit=limit, worst=worst)


def pack_records(
    records: Records, variants: Sequence[str], *, limit: int, worst: int = 10
) -> Browser | None:
    """As `pack_browser`, of records that were read."""
    if not records.cases:
        return None
    cases = sorted(records.cases.values(), key=mean_dice)
    most = shown = max(slices_of_organ(case) for case in cases)
    kept = len(cases)
    while len(text := pack(records, cases[:kept], variants=variants, most=shown)) > limit:
        if shown == kept == 1:
            return None
        if shown > 1:
            shown = max(1, min(shown - 1, shown * limit // len(text)))
        else:
            kept = max(1, min(kept - 1, kept * limit // len(text)))
    notes = [f"{shown} of up to {most} recorded slices an organ"] if shown < most else []
    notes += [f"the {kept} of {len(cases)} cases with the lowest Dice"] if kept < len(cases) else []
    note = f"To keep the page small, this browser shows {' and '.join(notes)}." if notes else ""
    return Browser(text, note, find_worst(cases[:kept], worst))


def find_worst(cases: Sequence[CaseRecord], count: int) -> tuple[Worst, ...]:
    """The organs with the lowest Dice, over all variants."""
    found = [
        Worst(variant, organ, case.query, case.support, case.protocol, dice, number)
        for number, case in enumerate(cases)
        for (variant, organ), dice in case.dice.items()
    ]
    return tuple(sorted(found, key=lambda one: one.dice)[:count])


def mean_dice(case: CaseRecord) -> float:
    """Over variants and organs."""
    return float(np.mean(list(case.dice.values())))


def slices_of_organ(case: CaseRecord) -> int:
    """The most slices that an organ has."""
    organs = [organ for organ, _ in case.truths]
    return max(map(organs.count, organs))


def pack(
    records: Records, cases: Sequence[CaseRecord], *, variants: Sequence[str], most: int
) -> str:
    """The JSON text with at most `most` slices an organ."""
    organs = list(dict.fromkeys(organ for case in cases for organ, _ in case.truths))
    needed: dict[str, set[int]] = {}
    packed = []
    for case in cases:
        views = choose_views(case, organs, most=most)
        packed.append(pack_case(case, views, organs=organs, variants=variants))
        for view in views:
            needed.setdefault(case.query, set()).add(view[1])
            needed.setdefault(case.first_support, set()).add(case.truths[view].support_slice)
    sheets = {
        name: {
            "slices": sorted(numbers),
            "image": sheet([records.images[name, n] for n in sorted(numbers)], PICTURE_QUALITY),
        }
        for name, numbers in needed.items()
    }
    content = {
        "size": records.size,
        "columns": COLUMNS,
        "organs": organs,
        "variants": list(variants),
        "sheets": sheets,
        "cases": packed,
    }
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def choose_views(case: CaseRecord, organs: Sequence[str], *, most: int) -> list[tuple[str, int]]:
    """(organ, slice) that are shown, in the order of the organs."""
    return [
        (organ, number)
        for organ in organs
        for number in spread_evenly(sorted(n for name, n in case.truths if name == organ), most)
    ]


def pack_case(
    case: CaseRecord,
    views: Sequence[tuple[str, int]],
    *,
    organs: Sequence[str],
    variants: Sequence[str],
) -> dict[str, object]:
    """One case as JSON can hold it."""
    own = [name for name in variants if name in case.shots]
    stream = bytearray()
    for view in views:
        stream += case.truths[view].mask + case.truths[view].support_mask
        for name in own:
            if view in case.shots[name]:
                stream += b"".join(case.shots[name][view].rounds)
    return {
        "query": case.query,
        "support": case.support,
        "first": case.first_support,
        "protocol": case.protocol,
        "views": [
            [organs.index(organ), number, case.truths[organ, number].support_slice]
            for organ, number in views
        ],
        "variants": [
            {
                "variant": variants.index(name),
                **pack_variant(case, name, views=views, organs=organs),
            }
            for name in own
        ],
        "masks": b64encode(zlib.compress(bytes(stream), 9)).decode(),
    }


def pack_variant(
    case: CaseRecord,
    name: str,
    *,
    views: Sequence[tuple[str, int]],
    organs: Sequence[str],
) -> dict[str, object]:
    """What one variant made of a case; `dice` of every view's rounds, null where it lacks one."""
    shots = [case.shots[name].get(view) for view in views]
    priors = [shot.prior for shot in shots if shot is not None and shot.prior is not None]
    return {
        "volume": [rounded(case.dice.get((name, organ), math.nan)) for organ in organs],
        "dice": [None if shot is None else [rounded(d) for d in shot.dice] for shot in shots],
        "prior": sheet(priors, PRIOR_QUALITY) if all_have(priors, shots) else None,
        "tokens": priors[0].shape if all_have(priors, shots) else None,
    }


def all_have(priors: Sequence[ndarray], shots: Sequence[Shot | None]) -> bool:
    """Whether there is a prior for every view that the variant has, all of one size."""
    wanted = sum(shot is not None for shot in shots)
    return 0 < wanted == len(priors) and len({prior.shape for prior in priors}) == 1


def rounded(percent: float) -> float | None:
    """To a tenth; JSON knows no nan."""
    return None if math.isnan(percent) else round(percent, 1)


def sheet(pictures: Sequence[UInt8[ndarray, "h w"]], quality: int) -> str:
    """Pictures in rows of `COLUMNS`, as a data URL."""
    empty = [np.zeros_like(pictures[0])] * (-len(pictures) % COLUMNS)
    pixels = rearrange([*pictures, *empty], "(r c) h w -> (r h) (c w)", c=COLUMNS)
    file = BytesIO()
    options = {"method": 6} if FORMAT == "WEBP" else {"optimize": True}
    Image.fromarray(pixels).save(file, FORMAT, quality=quality, **options)
    return f"data:image/{FORMAT.lower()};base64,{b64encode(file.getvalue()).decode()}"
