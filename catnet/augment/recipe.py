"""What augmentation may do, and one draw of it per episode.

The recipe of few-shot medical segmentation: "Self-Supervision with Superpixels: Training Few-shot
Medical Image Segmentation without Annotation", Ouyang et al., ECCV 2020, arXiv 2007.09886; with
these ranges in "Anomaly Detection-Inspired Few-Shot Medical Image Segmentation Through
Self-Supervision With Supervoxels", Hansen et al., 2022, arXiv 2203.02048.

    each value ~ U(low, high),  noise ~ U[-1, 1) at every node,  side ~ {support, query}
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from catnet.errors import UserError

NEITHER, SUPPORT, QUERY = range(3)
FINEST = 0.8  # sigmas between two nodes of the noise: nearer ones add nothing, wider ones show


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The ranges that an episode's augmentation is drawn from.

    probability  that an episode is augmented at all
    gamma        lowest and highest exponent of the grey levels
    rotation     largest turn either way, in degrees
    shift        largest move along rows and along columns either way, in pixels
    shear        largest slant of the columns either way, in degrees
    scale        lowest and highest magnification, the same along rows and columns
    alpha        elastic displacement in pixels where the smoothed noise is one
    sigma        standard deviation of the Gaussian that smooths the noise, in pixels

    Raises `UserError` for a range that no draw can make sense of.
    """

    probability: float
    gamma: tuple[float, float]
    rotation: float
    shift: float
    shear: float
    scale: tuple[float, float]
    alpha: float
    sigma: float

    def __post_init__(self) -> None:
        demand(0 <= self.probability <= 1, "probability lies between 0 and 1", self.probability)
        for name in ("gamma", "scale"):
            low, high = getattr(self, name)
            rule = f"{name} is (low, high), between 0.01 and 100"
            demand(0.01 <= low <= high <= 100, rule, (low, high))
        demand(0 <= self.rotation <= 180, "rotation lies between 0 and 180", self.rotation)
        demand(0 <= self.shear < 90, "shear lies between 0 and 90", self.shear)
        demand(self.shift >= 0, "shift is not negative", self.shift)
        demand(self.alpha >= 0, "alpha is not negative", self.alpha)
        demand(self.sigma >= 0.1, "sigma is at least 0.1 (alpha 0 turns elastic off)", self.sigma)


def demand(holds: bool, rule: str, value: object) -> None:
    """Raise `UserError` with the broken rule and the value that breaks it."""
    if not holds:
        raise UserError(f"augmentation: {rule}, got {value}")


@dataclass(frozen=True)
class Params:
    """One drawn augmentation per episode, and what the recipe fixes for all of them.

    side      which side is changed: NEITHER, SUPPORT or QUERY; the host needs it, and no device
    gamma     exponent
    rotation  degrees, positive turns the content counterclockwise as seen
    shift     pixels (right, down)
    shear     degrees, positive slides what lies below the center to the right
    scale     factor, above one enlarges the content
    noise     white noise in [-1, 1), not smoothed yet: (right, down) at every node
    alpha     pixels
    sigma     pixels
    spacing   pixels from one node of the noise to the next
    """

    side: tuple[int, ...]
    gamma: Float[Tensor, " b"]
    rotation: Float[Tensor, " b"]
    shift: Float[Tensor, "b 2"]
    shear: Float[Tensor, " b"]
    scale: Float[Tensor, " b"]
    noise: Float[Tensor, "b 2 i j"]
    alpha: float
    sigma: float
    spacing: int

    def to(self, device: torch.device | str) -> "Params":
        """The same draw on another device."""
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Params":
        """The same draw where a GPU can fetch it by itself."""
        return self.each(Tensor.pin_memory)

    def each(self, change: Callable[[Tensor], Tensor]) -> "Params":
        """The same draw with its tensors changed."""
        drawn = {name: change(x) for name, x in vars(self).items() if isinstance(x, Tensor)}
        return replace(self, **drawn)


def draw(recipe: Recipe, rngs: Sequence[np.random.Generator], *, height: int, width: int) -> Params:
    """Draw one augmentation from each generator, on the CPU, for slices of `height` x `width`.

    An episode's draw depends on its own generator alone, and every generator is read equally far
    whatever the recipe says: turning one change off leaves the others as they were.
    """
    low, high = bounds(recipe).T
    spacing = node_spacing(recipe.sigma)
    values = torch.empty(len(rngs), len(low))
    noise = torch.empty(len(rngs), 2, -(-height // spacing), -(-width // spacing))
    sides = []
    for rng, its_values, its_noise in zip(rngs, values.numpy(), noise.numpy(), strict=True):
        coin, flip, *_ = its_values[:] = rng.uniform(low, high)
        some = SUPPORT if flip < 0.5 else QUERY
        sides.append(some if coin < recipe.probability else NEITHER)
        rng.random(out=its_noise, dtype=np.float32)
    _, _, gamma, rotation, _, _, shear, scale = values.unbind(dim=1)
    return Params(
        side=tuple(sides),
        gamma=gamma,
        rotation=rotation,
        shift=values[:, 4:6],
        shear=shear,
        scale=scale,
        noise=noise.mul_(2).sub_(1),
        alpha=recipe.alpha,
        sigma=recipe.sigma,
        spacing=spacing,
    )


def node_spacing(sigma: float) -> int:
    """Pixels between two nodes of noise that a Gaussian of `sigma` pixels smooths."""
    return max(1, int(FINEST * sigma))


@lru_cache(maxsize=8)
def bounds(recipe: Recipe) -> Float[np.ndarray, "8 2"]:
    """(low, high) of the coin, the side, gamma, rotation, both shifts, shear and scale."""
    return np.array(
        [
            (0, 1),
            (0, 1),
            recipe.gamma,
            (-recipe.rotation, recipe.rotation),
            (-recipe.shift, recipe.shift),
            (-recipe.shift, recipe.shift),
            (-recipe.shear, recipe.shear),
            recipe.scale,
        ],
        dtype=float,
    )
