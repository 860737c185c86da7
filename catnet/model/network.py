"""What every network of the bench is: an encoder, and a way to segment a query from supports.

    prediction = segment(encode(support), support mask, encode(query))

A network adds its modules, `segment` and, where its paper has one, a `penalty`; how it is trained,
evaluated, saved and restored is the same for all. The encoder is built first, so one seed gives all
networks the same initial encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

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
from catnet.model.encoder import Encoded, Encoder
from catnet.model.hub import local_folder
from catnet.model.ops import enlarge, from_query
from catnet.model.weights import first_difference
from catnet.strict import check, read_json
from catnet.types import Features, Images, Map

WEIGHTS, SETTINGS = "model.safetensors", "model.json"
AGAIN = "train again, or get the file again"


@dataclass(frozen=True)
class Prediction:
    """What a network says of a query, mask by mask.

    logits   the masks it makes on its way, the answer last, each (b, h, w) at token size
    support  the support features that the last mask was made with (b, s, c, h, w)
    query    the query feature that the last mask was made with (b, c, h, w)
    size     height and width of the slice
    """

    logits: tuple[Map, ...]
    support: Float[Tensor, "b s c h w"]
    query: Features
    size: torch.Size

    def __getitem__(self, rows: list[int]) -> "Prediction":
        """What is said of some queries."""
        logits = tuple(one[rows] for one in self.logits)
        return Prediction(logits, self.support[rows], self.query[rows], self.size)

    @property
    def probability(self) -> Float[Tensor, "b H W"]:
        """Foreground probability in the end, at the size of the slice."""
        return self.enlarged(self.logits[-1]).sigmoid()

    @property
    def rounds(self) -> tuple[Float[Tensor, "b H W"], ...]:
        """Foreground probability of every mask, at the size of the slice."""
        return tuple(self.enlarged(logits).sigmoid() for logits in self.logits)

    @property
    def found(self) -> Map:
        """One where the last mask is foreground, at token size; no gradient passes."""
        return (self.logits[-1] > 0).to(self.query.dtype)

    def enlarged(self, logits: Map) -> Float[Tensor, "b H W"]:
        """Logits at the size of the slice."""
        return enlarge(logits.float(), size=self.size)


class Network(nn.Module):
    """Few-shot segmentation of a query slice from support slices with masks of one class.

    `head(support, share, query)` gives logits from features and the support's masks at token size.
    Raises `UserError` for the settings of another network.
    """

    name: ClassVar[str]
    head: nn.Module

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        if settings.name != self.name:
            raise UserError(
                f"these are settings of the network {settings.name!r}, not of {self.name!r}; use "
                "build_network or load_network, which take any"
            )
        self.settings = settings
        self.encoder = Encoder(
            name=settings.encoder,
            weights=settings.encoder_weights,
            output_stride=settings.output_stride,
            dim=settings.dim,
        )

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
        self,
        support: Encoded,
        support_mask: Float[Tensor, "g s H W"],
        query: Encoded,
        counts: Sequence[int] | None = None,
    ) -> Prediction:
        """Segment encoded queries (b, ...) with encoded supports (g, s, ...) and their masks.

        `counts` says how many queries each support is for, one after the other; without it every
        query has its own.
        """
        raise NotImplementedError

    def align(self, prediction: Prediction) -> Float[Tensor, "b s h w"]:
        """Logits of every support shot, segmented with the query and its predicted mask (PANet).

        Where the predicted mask is empty they say nothing: the loss leaves such episodes out.
        """
        return from_query(
            self.head, prediction.support, query=prediction.query, share=prediction.found
        )

    def penalty(self) -> Float[Tensor, ""] | float:
        """What the network's paper adds to the loss besides the masks and the alignment."""
        return 0.0

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `model.json`, then `model.safetensors`, from which the network can be restored.

        The weights come last and whole: where they are, the network has been saved.
        """
        folder = Path(folder)
        write_text(folder / SETTINGS, self.settings.model_dump_json(indent=2) + "\n")
        write_bytes(folder / WEIGHTS, self.weights())

    def weights(self) -> bytes:
        """The content of `model.safetensors`."""
        return save({key: value.contiguous() for key, value in self.state_dict().items()})

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "Network":
        """Restore a network from a folder that `save_pretrained` wrote; ready to evaluate.

        `hf://OWNER/NAME` is such a folder on a hub. Raises `UserError` where a file is missing,
        unreadable, or of another network.
        """
        folder = local_folder(folder)
        settings = read_settings(folder)
        plain = settings.model_copy(update={"encoder_weights": "none"})
        try:
            with torch.device("meta"):  # no memory is taken before the weights are seen to fit
                outline = cls(plain)
        except UserError as error:
            raise UserError(f"{folder / SETTINGS}: {error}") from None
        state = read_state(folder / WEIGHTS, like=outline)
        model = cls(plain)
        model.settings = settings
        model.load_state_dict(state)
        return model.eval()


def read_settings(folder: Path) -> ModelSettings:
    """The configuration that stands beside a model's weights."""
    path = folder / SETTINGS
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}); give a folder of a saved model"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no settings; give a folder of a saved model")
    return check(ModelSettings, content, source=str(path))


def read_state(path: Path, *, like: nn.Module) -> dict[str, Tensor]:
    """The weights of a safetensors file; raises `UserError` where `like` has no place for them."""
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {AGAIN}") from None
    wanted = like.state_dict()
    if name := first_difference(wanted, state):
        raise UserError(
            f"{path}: weights of another architecture (first difference: {name}); "
            "use the model settings they were trained with"
        )
    for name, value in state.items():
        if value.is_floating_point() != wanted[name].is_floating_point():
            raise UserError(f"{path}: {name} holds {value.dtype}, numbers of another kind; {AGAIN}")
        if not value.isfinite().all():
            raise UserError(f"{path}: {name} holds no finite numbers; {AGAIN}")
    return state
