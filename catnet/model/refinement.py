"""Q-Net's prototype refinement: at test time a prototype moves to what it finds in the query.

Paper: "Q-Net: Query-Informed Few-Shot Medical Image Segmentation", Shen, Li, Jin and Liu, 2022,
arXiv 2208.11451.

    F^ = p where l > 0, else F_q;    E = BCE(sigmoid(u(F^)), sigmoid(u(F_q)));    p <- Adam on E

l is the logit of p, seen anew before every step; u brings the values of F_q to [0, 1]. The gradient
is written out, so that no graph is needed and inference mode is as good as any: the sum of
(sigmoid(u(p)) - sigmoid(u(F_q))) du/dp over where l > 0, divided by the number of values of F_q.

Differs from the authors' code: their BCE takes F_q for the prediction and F^ for the target, whose
gradient raises every value of p without end; here F^ is the prediction, and both have the u of F_q.
"""

import torch
from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor

from catnet.model.ops import SMALL, cosine_map
from catnet.model.prototype import SCALE
from catnet.types import Features, Map

RATE, FIRST, SECOND, LEAST = 0.01, 0.9, 0.999, 1e-8  # of Adam

Prototypes = Float[Tensor, "b c"]
Thresholds = Float[Tensor, "b"]


def margin(query: Features, prototype: Prototypes, *, threshold: Thresholds) -> Map:
    """The logit 0.5 (20 cos - t) at every position."""
    score = SCALE * cosine_map(query, prototype)
    return 0.5 * (score - rearrange(threshold.float(), "b -> b 1 1"))


@torch.no_grad()
def refine(
    prototype: Prototypes, query: Features, *, threshold: Thresholds, steps: int
) -> Prototypes:
    """The prototypes after `steps` steps of Adam, each episode on its own; no gradient passes."""
    query, refined = query.float(), prototype.float()
    low, high = (reduce(query, "b c h w -> b 1 1 1", how) for how in ("min", "max"))
    span = high - low + SMALL
    wanted = ((query - low) / span).sigmoid()
    first = second = torch.zeros_like(refined)
    for step in range(1, steps + 1):
        found = rearrange(margin(query, refined, threshold=threshold) > 0, "b h w -> b 1 h w")
        guess = ((rearrange(refined, "b c -> b c 1 1") - low) / span).sigmoid()
        slope = found * (guess - wanted) / (span * query[0].numel())
        gradient = reduce(slope, "b c h w -> b c", "sum")
        first = FIRST * first + (1 - FIRST) * gradient
        second = SECOND * second + (1 - SECOND) * gradient.square()
        scale = (second / (1 - SECOND**step)).sqrt() + LEAST
        refined = refined - RATE * first / (1 - FIRST**step) / scale
    return refined.to(prototype.dtype)
