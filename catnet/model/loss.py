"""What training minimizes: every mask of a network, the alignment, and the network's own penalty.

    L = sum_i w_i (CE(M_i) + Dice(M_i)) / sum_i w_i + a CE(support segmented by the query) + penalty

Deep supervision as L_seg(i) in Figure 1 of Lin et al., arXiv 2303.13867; soft Dice after V-Net,
Milletari et al., 3DV 2016, arXiv 1606.04797; alignment after PANet, Wang et al., arXiv 1908.06391.
Predictions are enlarged to the slice before they are compared with its mask.
"""

from dataclasses import dataclass

from einops import rearrange, reduce
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.episode import Episode
from catnet.model.network import Network, Prediction
from catnet.model.ops import enlarge


@dataclass(frozen=True)
class Losses:
    """The total, its two parts without their weights, and the prediction that they judge."""

    total: Float[Tensor, ""]
    segmentation: Float[Tensor, ""]
    alignment: Float[Tensor, ""]
    prediction: Prediction


class Objective(nn.Module):
    """A network together with what it is trained for; one call is one step's forward pass."""

    def __init__(self, model: Network, *, alignment: float, early: float) -> None:
        super().__init__()
        self.model = model
        self.alignment = alignment
        self.early = early

    def forward(self, episode: Episode) -> Losses:
        """Segment the queries and compare with their masks."""
        prediction = self.model(episode)
        segmentation = self.deep_supervision(prediction, episode.query_mask)
        alignment = self.alignment_loss(prediction, episode.support_mask)
        total = segmentation + self.alignment * alignment + self.model.penalty()
        return Losses(total, segmentation.detach(), alignment.detach(), prediction)

    def deep_supervision(
        self, prediction: Prediction, truth: Float[Tensor, "b H W"]
    ) -> Float[Tensor, ""]:
        """Weighted mean over M_0 .. M_N; each weighs `early` times what the next one does."""
        last = len(prediction.logits) - 1
        weights = [self.early ** (last - number) for number in range(last + 1)]
        losses = [
            segmentation_loss(prediction.enlarged(logits), truth) for logits in prediction.logits
        ]
        return sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights)

    def alignment_loss(
        self, prediction: Prediction, support_mask: Float[Tensor, "b s H W"]
    ) -> Float[Tensor, ""]:
        """Cross entropy of the support, segmented with the query and its predicted mask.

        An episode whose predicted mask is empty gives no prototype and counts zero.
        """
        found = prediction.found
        logits = self.model.align(prediction)
        flat = rearrange(logits, "b s h w -> (b s) h w").float()
        truth = rearrange(support_mask, "b s h w -> (b s) h w")
        loss = F.binary_cross_entropy_with_logits(
            enlarge(flat, size=prediction.size), truth, reduction="none"
        )
        each = reduce(loss, "(b s) h w -> b", "mean", b=found.shape[0])
        return (each * found.flatten(1).any(dim=1)).mean()


def segmentation_loss(
    logits: Float[Tensor, "b H W"], truth: Float[Tensor, "b H W"]
) -> Float[Tensor, ""]:
    """Cross entropy plus soft Dice, averaged over episodes."""
    entropy = F.binary_cross_entropy_with_logits(logits, truth)
    probability = logits.sigmoid()
    overlap = reduce(probability * truth, "b h w -> b", "sum")
    total = reduce(probability, "b h w -> b", "sum") + reduce(truth, "b h w -> b", "sum")
    return entropy + (1 - (2 * overlap + 1) / (total + 1)).mean()
