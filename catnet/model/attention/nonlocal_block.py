"""Non-local block, embedded Gaussian form: every position sees every other, in one head.

Paper: "Non-local Neural Networks", Wang, Girshick, Gupta, He, CVPR 2018, arXiv 1711.07971.

    y_i = sum_j softmax_j(theta(x_i) . phi(x_j)) g(x_j)
    z_i = x_i + norm(W y_i)

theta, phi, g are 1x1 convolutions to half the channels; with `subsample`, phi and g are
max-pooled 2 x 2 (an odd last row or column is left out; a map of one row or column keeps it).

Differs from the code at hand (AlexHex7/Non-local_pytorch): phi has no bias, the softmax cancels
it. There, norm starts at zero so that the block begins as the identity; here it does so only with
`identity_start`, since a zero keeps the context out of the result until the first step. The
authors' Caffe2 code (video-nonlocal-net) pools before phi and g and divides the logits by the root
of the width; the equation above, which we follow, does not.
Cross form: phi and g see the context, theta and the residual are of `x`; the context may have any
height and width. A pooled cell could straddle two contexts in a row, so with `subsample` each is
attended to alone.
Cost: 2 (n + m) c w for the convolutions, 2 n m w for the two products, a quarter of it with
subsample (n tokens of x, m of context, c channels, w = c / 2).
"""

from typing import Annotated, ClassVar

from einops import einsum, rearrange, repeat
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.attention.layers import IdentityStart, Mechanism, State, rename, seen
from catnet.model.options import WIDEST
from catnet.types import Context, Features

NAMES = {"theta": "query", "phi": "key", "g": "value", "W": "project"}
NAMES |= {"phi.0": "key", "g.0": "value", "W.0": "project", "W.1": "norm"}
CANCELLED = ("phi.bias", "phi.0.bias")  # a constant in front of a softmax


class NonLocal(Mechanism):
    """`width` is that of theta, phi and g (default: half of `dim`); `norm` is a batch-norm.

    In training, batch-norm needs more than one position in the batch.
    """

    paper: ClassVar[str] = "Non-local Neural Networks, arXiv 1711.07971"
    good_for: ClassVar[str] = "global attention at half the channels, one head, keys pooled 2 x 2"
    published: ClassVar[dict[str, str]] = {
        "theta.weight": "w c 1 1",
        "theta.bias": "w",
        r"phi(\.0)?\.weight": "w c 1 1",
        r"g(\.0)?\.weight": "w c 1 1",
        r"g(\.0)?\.bias": "w",
        r"W(\.0)?\.weight": "c w 1 1",
        r"W(\.0)?\.bias": "c",
    }

    def __init__(
        self,
        dim: int,
        *,
        width: Annotated[
            int | None, Field(le=WIDEST, description="channels of theta, phi, g; None is dim / 2")
        ] = None,
        subsample: Annotated[bool, Field(description="whether keys are pooled 2 x 2")] = True,
        norm: Annotated[bool, Field(description="a batch-norm before the sum")] = True,
        identity_start: IdentityStart = False,
    ) -> None:
        super().__init__()
        width = max(dim // 2, 1) if width is None else width
        if width < 1:
            raise UserError(f"nonlocal: width={width} must be at least 1; leave it out for dim / 2")
        self.subsample = self.one_by_one = subsample
        self.query = nn.Conv2d(dim, width, 1)
        self.key = nn.Conv2d(dim, width, 1, bias=False)
        self.value = nn.Conv2d(dim, width, 1)
        self.project = nn.Conv2d(width, dim, 1)
        self.norm = nn.BatchNorm2d(dim) if norm else nn.Identity()
        if identity_start:
            last = self.norm if norm else self.project
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """Add to every position of `x` what it finds in the context (default: `x` itself)."""
        context = seen(x, context)
        query, key, value = (
            rearrange(part, "b w i j -> b 1 (i j) w")
            for part in (
                self.query(x),
                self.pool(self.key(context)),
                self.pool(self.value(context)),
            )
        )
        found = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        found = rearrange(found, "b 1 (h w) width -> b width h w", h=x.shape[-2])
        return x + self.norm(self.project(found))

    def pool(self, x: Features) -> Float[Tensor, "b c i j"]:
        """Keep the larger of each 2 x 2, where `subsample` asks for it."""
        return F.max_pool2d(x, cells(x)) if self.subsample else x

    def attention_map(
        self, x: Features, context: Context | None = None
    ) -> Float[Tensor, "b 1 n m"]:
        """Rows over the context's positions, which sum to one.

        A subsampled cell's weight is shared equally by the positions it was pooled from; a row or
        column that pooling leaves out has none.
        """
        context = seen(x, context)
        key = self.pool(self.key(context))
        logits = einsum(self.query(x), key, "b w h x, b w i j -> b h x i j")
        weights = rearrange(logits, "b h x i j -> b (h x) (i j)").softmax(dim=-1)
        weights = rearrange(weights, "b n (i j) -> b n i j", i=key.shape[-2])
        down, across = cells(context) if self.subsample else (1, 1)
        shared = repeat(
            weights / (down * across),
            "b n i j -> b n (i down) (j across)",
            down=down,
            across=across,
        )
        missing = [full - done for full, done in zip(context.shape, shared.shape, strict=True)]
        shared = F.pad(shared, (0, missing[3], 0, missing[2]))
        return rearrange(shared, "b n i j -> b 1 n (i j)")

    @staticmethod
    def convert(state: State) -> State:
        """Names of AlexHex7's `NONLocalBlock2D` to ours."""
        return rename({n: value for n, value in state.items() if n not in CANCELLED}, NAMES)


def cells(x: Features) -> tuple[int, int]:
    """Rows and columns that are pooled into one: two, where there are two."""
    return min(2, x.shape[-2]), min(2, x.shape[-1])
