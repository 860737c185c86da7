"""The attention zoo: every mechanism by name, one file a paper, one contract.

`forward(x, context=None) -> like x` on (b, c, h, w); without a context a mechanism attends to `x`.
"""

import difflib

from torch import nn

from catnet.errors import UserError
from catnet.model.attention.masked import MaskedAttention

ATTENTION: dict[str, type[nn.Module]] = {
    "masked": MaskedAttention,
    "none": nn.Identity,
}


def build_attention(name: str, dim: int, options: dict[str, object]) -> nn.Module:
    """The mechanism `name` for `dim` channels; raises `UserError` that lists the known names."""
    if name not in ATTENTION:
        nearest = difflib.get_close_matches(name, ATTENTION, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(
            f"attention {name!r} is unknown{hint} (known: {', '.join(sorted(ATTENTION))})"
        )
    return ATTENTION[name](dim, **options)
