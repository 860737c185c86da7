"""The curves by name: a function of a scene that gives one or several `Curve`s, a line each."""

from collections.abc import Callable, Iterable

from catnet.bench.fits import Curve
from catnet.bench.growth_data import growing_store, growing_sweep, growing_volume
from catnet.bench.growth_training import loading, noise, training_curve
from catnet.bench.scene import Scene
from catnet.bench.sides import LibrarySide

CURVES: dict[str, Callable[[Scene], list[Curve]]] = {
    "cases": growing_store,
    "slices": growing_volume,
    "shots": training_curve(
        "shots",
        "shots",
        "every shot is encoded and attends, and the query attends to the tokens of all",
        lambda scene, shots: (LibrarySide.of(scene), noise(scene, shots=shots)),
    ),
    "rounds": training_curve(
        "rounds",
        "rounds",
        "every round costs the same, and the encoder comes once",
        lambda scene, count: (LibrarySide.of(scene, f"model.rounds={count}"), noise(scene)),
    ),
    "sides": training_curve(
        "sides",
        "pixels of a slice",
        "convolutions grow with the pixels, attention with the square of the tokens",
        lambda scene, side: (LibrarySide.of(scene), noise(scene, side=side)),
        place=lambda side: float(side**2),
        most=2.0,
    ),
    "batch": training_curve(
        "batch",
        "episodes a step",
        "the episodes of a batch are computed beside each other",
        lambda scene, batch: (
            LibrarySide.of(scene, f"train.batch={batch}"),
            noise(scene, batch=batch),
        ),
    ),
    "loaders": loading,
    "runs": growing_sweep,
}
SEVERAL = {"cases": ("opening", "drawing")}  # what a function calls its curves, if not as itself


def curve_names(wanted: Iterable[str]) -> list[str]:
    """The names of the curves that these functions give."""
    return [name for one in wanted for name in SEVERAL.get(one, (one,))]
