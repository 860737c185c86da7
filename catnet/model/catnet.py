"""CAT-Net: encoder, MIFE, N rounds of CMAT and a prototype head after each.

Paper: "Few Shot Medical Image Segmentation with Cross Attention Transformer", Lin, Chen, Cheng and
Chen, MICCAI 2023, arXiv 2303.13867.

    M_0 from MIFE;  F_i = CMAT_i(F_{i-1}, M_s, M^_{i-1});  M_i = head(F_i);  F = (F_s, F_q)

M_i is the mask at probability 0.5; M^_i, which the next round is given, the wider one at
`keep_threshold`, so that borderline foreground is not lost.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from einops import pack, unpack
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from catnet.config import ModelSettings
from catnet.episode import Episode
from catnet.errors import UserError
from catnet.files import write_bytes, write_text
from catnet.model.attention import build_attention, build_cross_attention
from catnet.model.cmat import CrossAttention, Round, SelfAttention, Streams
from catnet.model.encoder import Encoded, Encoder
from catnet.model.mife import MIFE
from catnet.model.ops import enlarge, over_shots, to_tokens
from catnet.model.position import POSITION
from catnet.model.prototype import PrototypeHead
from catnet.model.weights import first_difference
from catnet.strict import check
from catnet.types import Features, Images, Map

WEIGHTS, SETTINGS = "model.safetensors", "model.json"


@dataclass(frozen=True)
class Prediction:
    """What the network says of a query, round by round.

    logits   M_0 .. M_N, each (b, h, w) at token size
    support  the support features after the last round (b, s, c, h, w)
    query    the query feature after the last round (b, c, h, w)
    size     height and width of the slice
    """

    logits: tuple[Map, ...]
    support: Float[Tensor, "b s c h w"]
    query: Features
    size: torch.Size

    @property
    def probability(self) -> Float[Tensor, "b H W"]:
        """Foreground probability after the last round, at the size of the slice."""
        return self.enlarged(self.logits[-1]).sigmoid()

    @property
    def rounds(self) -> tuple[Float[Tensor, "b H W"], ...]:
        """Foreground probability of M_0 .. M_N, at the size of the slice."""
        return tuple(self.enlarged(logits).sigmoid() for logits in self.logits)

    def enlarged(self, logits: Map) -> Float[Tensor, "b H W"]:
        """Logits at the size of the slice."""
        return enlarge(logits.float(), size=self.size)


class CATNet(nn.Module):
    """Few-shot segmentation of a query slice from support slices with masks of one class."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = Encoder(
            name=settings.encoder,
            weights=settings.encoder_weights,
            output_stride=settings.output_stride,
            dim=settings.dim,
        )
        self.mife = MIFE(dim=settings.dim)
        self.position = POSITION[settings.position](settings.dim)
        distinct = min(settings.rounds, 1) if settings.share_rounds else settings.rounds
        self.cmat = nn.ModuleList(build_round(settings) for _ in range(distinct))
        self.head = PrototypeHead(score=settings.score)

    def forward(self, episode: Episode) -> Prediction:
        """Encode both sides of the episodes together, then segment the queries."""
        shots, leading = pack([episode.support], "* c h w")
        both = self.encode(torch.cat([shots, episode.query]))
        split = shots.shape[0]
        support = Encoded(
            unpack(both.feature[:split], leading, "* c h w")[0],
            unpack(both.deep[:split], leading, "* c h w")[0],
        )
        return self.segment(support, episode.support_mask, both[split:])

    def encode(self, images: Images) -> Encoded:
        """What the network needs to know of slices (n, 1, H, W), whatever their role."""
        return self.encoder(images)

    def segment(
        self, support: Encoded, support_mask: Float[Tensor, "b s H W"], query: Encoded
    ) -> Prediction:
        """Segment encoded queries (b, ...) with encoded supports (b, s, ...) and their masks."""
        share = to_tokens(support_mask, like=support.feature)
        support_kept = (share > 0).to(share)
        support_feature, query_feature, logits = self.mife(support, share, query)
        masks, maps = [logits], (None, None)
        if self.settings.rounds == 0:
            masks.append(self.head(support_feature, share, query_feature))
        else:
            support_feature = over_shots(self.position, support_feature)
            query_feature = self.position(query_feature)
        for number in range(self.settings.rounds):
            cmat = self.cmat[number % len(self.cmat)]
            kept = (masks[-1].sigmoid() > self.settings.keep_threshold).to(share)
            support_feature, query_feature, maps = cmat(
                Streams(support_feature, support_kept, query_feature, kept, maps)
            )
            masks.append(self.head(support_feature, share, query_feature))
        return Prediction(tuple(masks), support_feature, query_feature, support_mask.shape[-2:])

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `model.json`, then `model.safetensors`, from which the network can be restored.

        The weights come last and whole: where they are, the network has been saved.
        """
        folder = Path(folder)
        state = {key: value.contiguous() for key, value in self.state_dict().items()}
        write_text(folder / SETTINGS, self.settings.model_dump_json(indent=2) + "\n")
        write_bytes(folder / WEIGHTS, save(state))

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "CATNet":
        """Restore a network from a folder that `save_pretrained` wrote; ready to evaluate.

        Raises `UserError` where a file is missing, unreadable or of another architecture.
        """
        folder = Path(folder)
        settings = read_settings(folder / SETTINGS)
        try:
            model = cls(settings.model_copy(update={"encoder_weights": "none"}))
        except UserError as error:
            raise UserError(f"{folder / SETTINGS}: {error}") from None
        model.settings = settings
        load_state(model, folder / WEIGHTS)
        return model.eval()


def initial_model(settings: ModelSettings, *, seed: int) -> CATNet:
    """The untrained network, which the seed alone decides; no random state outside is touched."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CATNet(settings)


def build_round(settings: ModelSettings) -> Round:
    """One CMAT with its own weights."""

    def self_attention() -> SelfAttention:
        return SelfAttention(
            dim=settings.dim,
            attention=build_attention(settings.attention, settings.dim, settings.attention_options),
            ffn=settings.ffn,
            mlp_ratio=settings.mlp_ratio,
        )

    return Round(
        self_support=self_attention(),
        self_query=None if settings.share_streams else self_attention(),
        cross=CrossAttention(
            dim=settings.dim,
            attention=build_cross_attention(
                settings.cross_attention, settings.dim, settings.cross_attention_options
            ),
            ffn=settings.ffn,
            mlp_ratio=settings.mlp_ratio,
            mask_on=settings.mask_on,
            mask_how=settings.mask_how,
        ),
        direction=settings.direction,
    )


def read_settings(path: Path) -> ModelSettings:
    """The configuration that stands beside a model's weights."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give a folder of a saved model"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; give a folder of a saved model")
    return check(ModelSettings, content, source=str(path))


def load_state(model: nn.Module, path: Path) -> None:
    """Load a safetensors file into `model`; raises `UserError` for another architecture."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); train again, or get the file again"
        ) from None
    if name := first_difference(model.state_dict(), state):
        raise UserError(
            f"{path}: weights of another architecture (first difference: {name}); "
            "use the model settings they were trained with"
        )
    model.load_state_dict(state)
