"""How alike two representations of the same positions are: linear centered kernel alignment.

Paper: "Similarity of Neural Network Representations Revisited", Kornblith, Norouzi, Lee, Hinton,
ICML 2019, arXiv 1905.00414.

    CKA(X, Y) = |Y^T X|^2 / (|X^T X| |Y^T Y|)        Frobenius norms; every column of X (n x c) and
                                                     Y (n x e) has its mean taken away

This equals HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) of the centered Gram matrices K = X X^T and
L = Y Y^T, at a cost of n c^2 instead of n^2 c. It lies in [0, 1], is 1 for Y = a X Q + b (Q
orthogonal, a not zero, b the same at all positions), and does not change with such a Q, a or b.
"""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from catnet.types import Features

NOISE = 1e-12  # of the largest entry: what rounding in float64 leaves of a constant column


def linear_cka(x: Float[Tensor, "b n c"], y: Float[Tensor, "b n e"]) -> Float[Tensor, " b"]:
    """CKA of n positions, episode by episode, in float64.

    It is nan where one of the two is the same at all positions: there is nothing to compare.
    """
    x, y = centered(x), centered(y)
    return square(x, y) / (square(x, x) * square(y, y)).sqrt()


def centered(x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Every column without its mean, the largest entry at one; nan where nothing but noise is left.

    Features of any scale come out alike, so that no fourth power overflows.
    """
    x = x.double()
    rest = x - x.mean(dim=1, keepdim=True)
    size, left = (part.abs().amax(dim=(1, 2), keepdim=True) for part in (x, rest))
    return torch.where(left > NOISE * size, rest / left, torch.nan)


def square(x: Float[Tensor, "b n c"], y: Float[Tensor, "b n e"]) -> Float[Tensor, " b"]:
    """|Y^T X|^2, with the Frobenius norm."""
    return torch.linalg.matrix_norm(y.mT @ x).square()


def to_positions(feature: Features) -> Float[Tensor, "b n c"]:
    """A map as rows: one a position, one column a channel."""
    return rearrange(feature, "b c h w -> b (h w) c")
