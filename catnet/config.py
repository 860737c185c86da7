"""A run: data, augmentation, model, training and evaluation as typed, frozen settings.

Every default of the project lives here. YAML says only what differs from it (`question.py`); a
run's identity is a hash of what decides its numbers.
"""

import hashlib
import json
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from catnet.strict import Strict

Range = tuple[float, float]


class DataSettings(Strict):
    """Which cases and labels the episodes come from."""

    card: str = Field("chaos_t2", description="dataset card: a name in datasets/, or a path")
    fold: int = Field(0, ge=0, description="the fold that is tested; the others train")
    setting: Annotated[Literal["1", "2", "2-as-published"], BeforeValidator(str)] = Field(
        "1", description="2 removes training slices that show a tested organ (README)"
    )
    group: str | None = Field(
        None, description="organ group of the card that is tested; null tests all organs"
    )
    labels: Literal["supervoxels", "organs"] = Field(
        "supervoxels", description="what training episodes are made of"
    )
    shots: int = Field(1, ge=1, le=16, description="support slices of a training episode")
    min_pixels: int = Field(200, ge=1, description="foreground that one side must show, in pixels")

    @model_validator(mode="after")
    def group_where_needed(self) -> "DataSettings":
        """Setting 2 and organ episodes are defined by the organs that are held back."""
        if self.labels == "organs" and self.group is None:
            raise ValueError("labels: organs needs data.group, the organs that are held back")
        return self


class AugmentSettings(Strict):
    """What happens to one of the two sides of a training episode (METHOD section 4)."""

    probability: float = Field(1.0, ge=0, le=1, description="share of episodes augmented")
    gamma: Range = Field((0.5, 1.5), description="range of the gamma exponent")
    rotation: float = Field(5.0, ge=0, le=180, description="largest rotation, degrees")
    shift: float = Field(5.0, ge=0, le=4096, description="largest shift, pixels")
    shear: float = Field(5.0, ge=0, lt=90, description="largest shear, degrees")
    scale: Range = Field((0.9, 1.2), description="range of the scale")
    alpha: float = Field(
        10.0, ge=0, le=4096, description="elastic displacement before smoothing, pixels"
    )
    sigma: float = Field(
        5.0, gt=0, le=256, description="smoothing of the elastic displacement, pixels"
    )


OWN = {  # settings that only one network has
    "catnet": (
        *("prior", "position", "rounds", "attention", "attention_options"),
        *("cross_attention", "cross_attention_options", "ffn", "mlp_ratio", "mask_on", "mask_how"),
        *("direction", "share_rounds", "share_streams", "keep_threshold", "score"),
    ),
    "alpnet": ("grid",),
    "qnet": ("refinement",),
}


class ModelSettings(Strict):
    """A network; every choice that CAT-Net's sources leave open is a name (METHOD section 2)."""

    name: Literal["catnet", "panet", "alpnet", "adnet", "qnet"] = Field(
        "catnet", description="network; the settings of another one are refused"
    )
    encoder: str = Field("tu-resnet50", description="encoder of segmentation-models-pytorch")
    encoder_weights: str = Field("none", description="none, a name the library knows, or a file")
    output_stride: Literal[8, 16] = Field(8, description="pixels of the slice per token")
    dim: int = Field(256, ge=8, le=8192, description="channels of the feature")
    prior: Literal["trained", "fixed"] = Field(
        "trained", description="whether the stage behind the prior learns, or keeps its weights"
    )
    position: Literal["none", "sine", "peg"] = Field("sine", description="positional encoding")
    rounds: int = Field(4, ge=0, le=8, description="CMAT rounds; 0 is MIFE and the head alone")
    attention: str = Field("masked", description="mechanism at the self place of CMAT")
    attention_options: dict[str, object] = Field({}, description="options of that mechanism")
    cross_attention: str = Field("masked", description="mechanism at the cross place of CMAT")
    cross_attention_options: dict[str, object] = Field({}, description="options of that one")
    ffn: Literal["mlp", "conv"] = Field("mlp", description="feed-forward after either attention")
    mlp_ratio: float = Field(
        2.0, ge=0.1, le=64, description="hidden channels of the feed-forward, times dim"
    )
    mask_on: Literal["queries", "keys", "none"] = Field(
        "queries", description="which positions the mask of the cross attention selects"
    )
    mask_how: Literal["multiply", "bias"] = Field(
        "multiply", description="mask on keys: after the softmax, or before it as -inf"
    )
    direction: Literal["both", "support_to_query", "query_to_support"] = Field(
        "both", description="which stream receives from the other"
    )
    share_rounds: bool = Field(False, description="one CMAT's weights for all rounds")
    share_streams: bool = Field(True, description="one self-attention for both streams")
    keep_threshold: float = Field(
        0.4, gt=0, lt=1, description="probability above which the next round keeps a position"
    )
    score: Literal["threshold", "softmax"] = Field(
        "threshold", description="learnt threshold (ADNet) or background prototype (PANet)"
    )
    grid: int = Field(8, ge=1, le=256, description="alpnet: cells along a side in training")
    refinement: int = Field(7, ge=0, le=1000, description="qnet: steps on a prototype at test time")

    @model_validator(mode="after")
    def own_settings_only(self) -> "ModelSettings":
        """A setting that another network has would change nothing: it keeps its default."""
        for network, names in OWN.items():
            for name in names if network != self.name else ():
                default = type(self).model_fields[name].default
                if getattr(self, name) != default:
                    raise ValueError(
                        f"{name} is a setting of {network}, and means nothing to name={self.name}; "
                        f"leave it out, or at its default {default!r}"
                    )
        return self


class TrainSettings(Strict):
    """How the network is trained; the defaults are the field's usual recipe."""

    steps: int = Field(30000, ge=1, le=10**9, description="optimizer steps")
    batch: int = Field(1, ge=1, le=4096, description="episodes a step, over all processes")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="optimizer")
    rate: float = Field(1e-3, gt=0, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(5e-4, ge=0, description="weight decay")
    schedule: Literal["step", "cosine", "constant"] = Field("step", description="rate over time")
    decay: float = Field(0.98, gt=0, le=1, description="factor of the step schedule")
    decay_every: int = Field(1000, ge=1, description="episodes between two such factors")
    warmup: int = Field(0, ge=0, description="steps in which the rate rises from zero")
    clip: float = Field(1.0, ge=0, description="largest gradient norm; 0 clips nothing")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="of the forward pass")
    batch_norm: Literal["batch", "frozen"] = Field(
        "batch", description="statistics of the encoder: the batch's, or kept as they are"
    )
    alignment: float = Field(1.0, ge=0, description="weight of the prototype alignment loss")
    early: float = Field(
        1.0, gt=0, le=1, description="weight of a mask's loss relative to that of the next round"
    )


class EvaluateSettings(Strict):
    """Protocols, supports and metrics (METHOD section 5)."""

    protocols: tuple[Literal["EP1", "EP2"], ...] = Field(
        ("EP1", "EP2"), min_length=1, description="EP1 knows the organ's extent, EP2 does not"
    )
    support: Literal["extra", "index", "each"] = Field(
        "extra", description="the fold's extra case, one by index, or each in turn"
    )
    support_index: int = Field(2, ge=0, description="for `support: index`, within the sorted fold")
    shots: int = Field(1, ge=1, description="support cases")
    baselines: tuple[Literal["copy", "untrained"], ...] = Field(
        ("copy", "untrained"), description="rows beside those of the network"
    )
    tolerance: float = Field(2.0, gt=0, description="of the surface Dice, mm")
    batch: int = Field(8, ge=1, le=4096, description="slices at once; fewer take less memory")
    predictions: bool = Field(True, description="write NIfTI labels on the raw grid")
    pictures: bool = Field(
        True, description="write a contour picture a query case, and what the report browses"
    )

    @model_validator(mode="after")
    def nothing_twice(self) -> "EvaluateSettings":
        """A protocol or a baseline that stands twice would count twice."""
        for name in ("protocols", "baselines"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise ValueError(f"{name} names one twice: {', '.join(given)}; take it out")
        return self

    def name(self) -> str:
        """Folder of an evaluation: the support policy in words, then a hash of what decides it."""
        decisive = self.model_dump(mode="json", exclude={"batch", "predictions", "pictures"})
        policy = self.support + (str(self.support_index) if self.support == "index" else "")
        return f"{policy}-{self.shots}shot-{digest(decisive)[:6]}"


class MachineSettings(Strict):
    """Where and how a run is executed; none of it changes what a run is."""

    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="device kind")
    devices: int = Field(1, ge=1, description="processes, one a device")
    threads: int = Field(
        0,
        ge=0,
        le=4096,
        description="CPU threads of a process (last digits follow it); 0 leaves it to torch",
    )
    loaders: int = Field(
        1, ge=0, le=256, description="processes that make episodes ahead; 0 makes them in the loop"
    )
    cases: Literal["auto", "mapped", "resident"] = Field(
        "auto", description="training slices: on disk, or on the device; auto: a GPU with room"
    )
    compile: bool = Field(
        False, description="torch.compile: needs a C++ compiler, and minutes before the first step"
    )
    cpu_share: float = Field(1.0, gt=0, le=4096, description="CPUs of a run on a Ray cluster")
    gpu_share: float = Field(
        0.0, ge=0, le=64, description="GPUs of a run there; 0.5 for two on one"
    )
    log_every: int = Field(20, ge=1, description="steps between two lines of log.jsonl")
    checkpoint_every: int = Field(
        500, ge=1, description="steps between two checkpoints, of which two stay"
    )
    picture_every: int = Field(500, ge=1, description="steps between two episode pictures")


class Run(Strict):
    """Everything that decides a result, and where it is computed."""

    name: str = Field(
        "run",
        pattern=r"^[A-Za-z0-9._-]+$",
        max_length=100,
        description="first part of the folder",
    )
    question: str = Field("", description="what the file asks, in words")
    seed: int = Field(0, ge=0, lt=2**63, description="of weights, episodes and augmentation")
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    model: ModelSettings = ModelSettings()
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    machine: MachineSettings = MachineSettings()

    def identity(self, card_hash: str) -> str:
        """Ten hex digits of what decides the trained weights; `card_hash` stands for the data."""
        decisive = self.model_dump(mode="json", exclude={"name", "question", "evaluate", "machine"})
        decisive["data"]["card"] = card_hash
        return digest(decisive)[:10]


def digest(content: object) -> str:
    """SHA-256 of anything that JSON can hold, independent of the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
