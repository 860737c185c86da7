"""The encoder: a backbone's last three stages at one dilated stride.

ResNet: "Deep Residual Learning for Image Recognition", He et al., CVPR 2016, arXiv 1512.03385,
dilated to the output stride as in DeepLab, Chen et al., arXiv 1706.05587. The name `tu-resnet50` is
timm's network behind segmentation-models-pytorch: its dilation equals torchvision's, which the
library's own `resnet50` does not, and it takes torchvision's weight files.

    feature = conv1x1([stage 2, stage 3])   (512 + 1024 channels for ResNet-50, to `dim`)
    deep    = stage 4                       (2048 channels, for the prior only)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from catnet.errors import UserError
from catnet.model.weights import first_difference
from catnet.torchvision_guard import guard_torchvision
from catnet.types import Images

guard_torchvision()

import segmentation_models_pytorch as smp  # noqa: E402  (needs the guard first)

LOUDEST = 1e4  # a z-scored volume of n voxels stays below sqrt(n); more would end the statistics


@dataclass(frozen=True)
class Encoded:
    """What the rest of the network knows of a slice: `feature` (b c h w) and `deep` (b e h w)."""

    feature: Float[Tensor, "*b c h w"]
    deep: Float[Tensor, "*b e h w"]

    def __getitem__(self, which: slice | list[int] | Tensor) -> "Encoded":
        """Some slices of the batch."""
        return Encoded(self.feature[which], self.deep[which])

    def copy(self) -> "Encoded":
        """The same in memory of its own, so that a batch is let go of when one slice is kept."""
        return Encoded(self.feature.clone(), self.deep.clone())

    @property
    def size(self) -> int:
        """Bytes."""
        return self.feature.nbytes + self.deep.nbytes


def concatenate(parts: Sequence[Encoded]) -> Encoded:
    """Several batches as one; a single one as it is."""
    if len(parts) == 1:
        return parts[0]
    feature, deep = [part.feature for part in parts], [part.deep for part in parts]
    return Encoded(torch.cat(feature), torch.cat(deep))


class Encoder(nn.Module):
    """Slices (b, 1, H, W) to `Encoded` maps at 1 / output_stride of their size.

    A strided convolution centers its token i on pixel `stride * i`, but the masks take that token
    for the middle of pixels `stride * i` to `stride * (i + 1)`, half a stride further on. So the
    slice is led in by half a stride, which puts a first token outside of it and every other one on
    the middle of its pixels. Without this every mask lies 4 (stride 8) or 8 pixels off.

    Grey levels beyond `LOUDEST` count as that, so that no slice makes a running variance infinite;
    what is no number stays none.
    """

    def __init__(self, *, name: str, weights: str, output_stride: int, dim: int) -> None:
        super().__init__()
        self.name = name
        self.output_stride = output_stride
        from_file = weights != "none" and Path(weights).suffix in {".safetensors", ".pt", ".pth"}
        library_weights = None if weights == "none" or from_file else weights
        self.backbone = build_backbone(name, library_weights, output_stride)
        if from_file:
            load_weights(self.backbone, Path(weights))
        *_, second, third, self.deep_channels = self.backbone.out_channels
        self.reduce = nn.Conv2d(second + third, dim, 1)
        self.deep_is_fixed = False

    def freeze_statistics(self) -> None:
        """Normalize by the statistics that the backbone holds, and leave them as they are."""
        for module in self.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()

    def fix_deep(self) -> None:
        """Leave the weights as they are that `deep` alone depends on; no gradient passes it."""
        self.fix_all_but(lambda encoded: encoded.feature.sum(), size=(64, 64))
        self.deep_is_fixed = True

    def fix_unused(self, size: tuple[int, int]) -> None:
        """Leave the weights as they are that no map of a slice of `size` depends on.

        They never have a gradient, for which several processes would wait.
        """
        self.fix_all_but(lambda encoded: encoded.feature.sum() + encoded.deep.sum(), size=size)

    def fix_all_but(
        self, needed: Callable[[Encoded], Float[Tensor, ""]], *, size: tuple[int, int]
    ) -> None:
        """Leave the weights as they are that what is `needed` does not depend on."""
        weights = [weight for weight in self.parameters() if weight.requires_grad]
        modes = [(module, module.training) for module in self.modules()]
        with torch.enable_grad():
            encoded = self.eval()(self.reduce.weight.new_zeros(1, 1, *size))
            found = torch.autograd.grad(needed(encoded), weights, allow_unused=True)
        for module, training in modes:  # one by one: some may have been left in evaluation
            module.training = training
        for weight, gradient in zip(weights, found, strict=True):
            weight.requires_grad_(gradient is not None)

    def forward(self, images: Images) -> Encoded:
        """Encode slices whose height and width are multiples of 32."""
        if images.shape[-2] % 32 or images.shape[-1] % 32:
            height, width = images.shape[-2:]
            raise UserError(f"slices are {height} x {width}; both must be multiples of 32")
        lead = self.output_stride // 2
        bounded = images.clamp(-LOUDEST, LOUDEST) + 0 * images  # infinity gives NaN
        led_in = F.pad(bounded, (lead, 0, lead, 0), mode="replicate")
        *_, second, third, deep = self.backbone(led_in)
        if self.deep_is_fixed:
            deep = deep.detach()
        if second.shape[-2:] != third.shape[-2:]:  # an output stride of 16
            second = F.avg_pool2d(second, 3, stride=2, padding=1, count_include_pad=False)
        if not second.shape[-2:] == third.shape[-2:] == deep.shape[-2:]:
            raise UserError(
                f"model.encoder {self.name!r} has no common grid at output stride "
                f"{self.output_stride}; try tu-resnet50"
            )
        feature = self.reduce(torch.cat([second, third], dim=1))
        return Encoded(feature[..., 1:, 1:], deep[..., 1:, 1:])


def build_backbone(name: str, weights: str | None, output_stride: int) -> nn.Module:
    """An encoder of the library for grey slices; raises `UserError` where it cannot be had."""
    if name.startswith("tu-") and weights not in (None, "imagenet"):  # the library takes any text
        raise UserError(
            f"model.encoder_weights {weights!r} is unknown for {name}; write none, imagenet, or a "
            "file that ends in .safetensors, .pth or .pt"
        )
    try:
        return smp.encoders.get_encoder(
            name, in_channels=1, depth=5, weights=weights, output_stride=output_stride
        )
    except (KeyError, ValueError, RuntimeError, OSError, TypeError, AssertionError) as error:
        reason = first_line(error)
        raise UserError(
            f"model.encoder {name!r} with encoder_weights {weights or 'none'!r} and output_stride "
            f"{output_stride} cannot be built ({reason}); try tu-resnet50, none and 8"
        ) from None


def load_weights(backbone: nn.Module, path: Path) -> None:
    """Load a torchvision-style weight file without running pickled code.

    Color filters are summed into one grey filter; the classifier (`fc.*`) is left out. Raises
    `UserError` where the file cannot be read or belongs to another architecture.
    """
    wanted = backbone.state_dict()
    prefix = "model." if all(key.startswith("model.") for key in wanted) else ""
    given = read_weights(path)
    state = {f"{prefix}{key}": value for key, value in given.items() if not key.startswith("fc.")}
    for key, value in wanted.items():
        if key.endswith("num_batches_tracked"):  # files of before 2018 lack this counter
            state.setdefault(key, value)
        elif key in state and state[key].ndim == 4 and state[key].shape[1] == 3 * value.shape[1]:
            state[key] = state[key].sum(dim=1, keepdim=True)
    if name := first_difference(wanted, state):
        raise UserError(
            f"{path}: not the weights of this encoder (first difference: {name}); "
            "give a file of the architecture that model.encoder names"
        )
    backbone.load_state_dict(state)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from `.safetensors`, or from a plain state dict."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such weight file; check model.encoder_weights") from None
    except UnpicklingError:
        raise UserError(
            f"{path}: damaged, or holds more than tensors; save a plain state dict"
        ) from None
    except Exception as error:  # on a damaged file torch's reader raises almost anything
        raise UserError(
            f"{path}: not a readable weight file ({first_line(error)}); save it again"
        ) from None
    nested = state.get("state_dict", state) if isinstance(state, dict) else None
    entries = nested.items() if isinstance(nested, dict) else ()
    return {str(key): value for key, value in entries if isinstance(value, Tensor)}


def first_line(error: Exception) -> str:
    """What a library says went wrong, in one line; where it says nothing, the kind of error."""
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    return text.strip().partition("\n")[0][:200] or type(error).__name__
