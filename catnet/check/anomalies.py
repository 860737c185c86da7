"""What is odd about some cases, each in one sentence that says what to do.

Thresholds are set so that a healthy case of a usual data set is below them by far; what they find
is worth a look, and need not be wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from catnet.check.facts import Facts, Triple
from catnet.data.card import Card
from catnet.data.sides import side_of

APART = 5.0  # mm that an organ lies on the wrong side of its partner
FAR = 1.5  # times the median of the cases
FEW = 3  # cases; with fewer there is no usual one
CLIPPED = 0.5  # of an organ's voxels
MOST = 6  # organs that are named
EMPTY = 0.02  # of all voxels
AXES = ("first", "second", "third")
UNPAIRED = {"ventricle", "atrium"}  # named after chambers, not after sides


@dataclass(frozen=True)
class Finding:
    """One anomaly of a case; `kind` sorts and counts them."""

    case: str
    kind: str
    what: str
    remedy: str


def find_anomalies(card: Card, facts: Sequence[Facts]) -> list[Finding]:
    """All findings, case by case in the order of `facts`, after what each case is alone."""
    found = [finding for one in facts for finding in alone(card, one)]
    found += [*far_from_others(facts), *duplicates(facts)]
    order = {one.case: place for place, one in enumerate(facts)}
    return sorted(found, key=lambda finding: order[finding.case])


def alone(card: Card, facts: Facts) -> Iterator[Finding]:
    """What a case shows by itself."""
    yield from flipped(card, facts)
    yield from organ_findings(facts)
    if facts.filled < EMPTY:
        yield Finding(
            facts.case,
            "empty",
            f"almost empty, {facts.filled:.1%} of its voxels are above the lowest intensity",
            "check the scan, and the card's clip and body_threshold",
        )
    if facts.blank:
        yield Finding(
            facts.case,
            "empty",
            f"{facts.blank} labelled slices have a constant image",
            "check that image and label belong together, and the card's clip",
        )


def flipped(card: Card, facts: Facts) -> Iterator[Finding]:
    """Organs that lie on the wrong side of their partner, in the world's coordinates."""
    for right, left in partners(card.organs):
        if right in facts.centers and left in facts.centers:
            apart = facts.centers[left][0] - facts.centers[right][0]
            if apart > APART:
                yield Finding(
                    facts.case,
                    "left-right",
                    f"{right} lies {apart:.0f} mm to the patient's left of {left}",
                    "look whether the image is mirrored (affine of image and label) or the label "
                    "numbers are swapped",
                )


def partners(organs: Mapping[str, int]) -> list[tuple[str, str]]:
    """Pairs of organs, the one on the patient's right first."""
    known = {side_of(organ): organ for organ in organs}
    liver, spleen = (known.get(("", (name,))) for name in ("liver", "spleen"))
    pairs = [(liver, spleen)] if liver and spleen else []
    for (side, words), organ in known.items():
        left = known.get(("left", words))
        if side == "right" and left and not UNPAIRED & set(words):
            pairs.append((organ, left))
    return pairs


def organ_findings(facts: Facts) -> Iterator[Finding]:
    """Organs that are missing, cut to one slice, or lost in the clipping."""
    missing = [organ for organ, count in facts.slices.items() if count == 0]
    if missing:
        named = ", ".join(missing[:MOST]) + (", ..." if len(missing) > MOST else "")
        several = f"{len(missing)} organs are not in the label: {named}"
        yield Finding(
            facts.case,
            "missing",
            several if len(missing) > 1 else f"{named} is not in the label",
            "none if it was removed or not scanned; else check the card's organs and size",
        )
    for organ, count in facts.slices.items():
        if count == 1:
            yield Finding(
                facts.case,
                "one slice",
                f"{organ} is labelled in one slice only",
                "check that the label is whole and lies on its image's grid",
            )
    for organ, share in facts.clipped.items():
        if share > CLIPPED:
            yield Finding(
                facts.case,
                "clipped",
                f"{share:.0%} of the {organ} are at the end of the intensities",
                "widen the card's clip, or check the scan's units (Hounsfield for CT)",
            )


def far_from_others(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Raw spacings and fields of view that are far from the median of all cases."""
    if len(facts) < FEW:
        return
    for name, remedy in (
        ("spacing", "check the voxel size in its header, or keep the case apart"),
        ("extent", "check that it shows the same part of the body, and its voxel size"),
    ):
        values: dict[str, Triple] = {one.case: getattr(one, name) for one in facts}
        for axis, what in enumerate(AXES):
            usual = median(value[axis] for value in values.values())
            for case, value in values.items():
                if not usual / FAR <= value[axis] <= usual * FAR:
                    yield Finding(
                        case,
                        name,
                        f"raw {name} along the card's {what} axis is {value[axis]:.4g} mm, "
                        f"{usual:.4g} mm in the middle of all cases",
                        remedy,
                    )


def duplicates(facts: Sequence[Facts]) -> Iterator[Finding]:
    """Cases with the same image, or the same label, as an earlier one."""
    seen: dict[tuple[str, str], str] = {}
    for one in facts:
        twins: dict[str, str] = {}
        for kind, digest in one.hashes.items():
            first = seen.setdefault((kind, digest), one.case)
            if first != one.case:
                twins.setdefault(kind.removeprefix("raw "), first)
        for kind, first in twins.items():
            yield Finding(
                one.case,
                "duplicate",
                f"has the same {kind} as case {first}",
                "remove one of the two: a patient in training and test makes every Dice too good",
            )
