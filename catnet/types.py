"""The axis legend, and the tensor types that public signatures speak in.

| letter | axis                                            |
|--------|-------------------------------------------------|
| `b`    | episodes in a batch                             |
| `g`    | supports, each of which may be for many queries |
| `s`    | shots: support slices of one episode            |
| `c`    | channels                                        |
| `h w`  | rows and columns, of a slice or of a feature    |
| `n`    | tokens, `n = h * w`                             |
| `d`    | slices of a volume (depth)                      |
| `H W`  | rows and columns of the slice, where both occur |

Images are float, z-scored; masks are float in {0, 1}; probabilities are float in [0, 1].
The shapes are checked while the tests run, never for a user.
"""

from jaxtyping import Float
from torch import Tensor

Features = Float[Tensor, "b c h w"]
Context = Float[Tensor, "b c i j"]  # another map, of a height and width of its own
Map = Float[Tensor, "b h w"]
Images = Float[Tensor, "b 1 h w"]
SupportImages = Float[Tensor, "b s 1 h w"]
SupportMasks = Float[Tensor, "b s h w"]
