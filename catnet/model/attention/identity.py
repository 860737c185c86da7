"""No attention at all: the control that every mechanism has to beat.

    y = x

Cross form: none. Cost: nothing.
"""

from typing import ClassVar

from catnet.errors import UserError
from catnet.model.attention.layers import Mechanism
from catnet.types import Context, Features


class NoAttention(Mechanism):
    """Gives back what it is given."""

    paper: ClassVar[str] = "the control"
    good_for: ClassVar[str] = "the control that all have to beat"
    cross: ClassVar[bool] = False

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Features, context: Context | None = None) -> Features:
        """`x` itself; raises `UserError` for a context, which nothing would come from."""
        if context is not None:
            raise UserError("none: has no cross form; choose another model.cross_attention")
        return x
