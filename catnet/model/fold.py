"""Batch normalization folded into the convolution before it, for a network that only evaluates.

    bn(conv(x)) = conv'(x),   w' = w g / sqrt(v + e),   b' = (b - m) g / sqrt(v + e) + c

with the running mean m and variance v, and the learnt scale g and shift c. Which convolution a
normalization follows is seen in a pass, not guessed from names.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from catnet.model.network import Network

SIZE = 64  # pixels of the slice that is passed; any multiple of 32 would do
CLOSE = 1e-3  # of the largest value; a wrong fold is off by about one


def folded(network: Network) -> Network:
    """A twin in evaluation mode whose encoder is folded; it shares everything else.

    The network itself stays as it is. Where nothing can be folded, or the folded encoder does not
    say the same, the twin is the network.
    """
    encoder = copy.deepcopy(network.encoder).eval()
    sample = torch.linspace(-2, 2, SIZE**2).reshape(1, 1, SIZE, SIZE).sin()
    sample = sample.to(next(encoder.parameters()))
    with torch.inference_mode():
        expected = encoder(sample).deep
        pairs = find_pairs(encoder, sample)
    for convolution, norm in pairs:
        replace(encoder, convolution, fuse_conv_bn_eval(convolution, norm))
        replace(encoder, norm, nn.Identity())
    with torch.inference_mode():
        off = (encoder(sample).deep - expected).abs().max()
    if not pairs or not off <= CLOSE * expected.abs().max():
        return network
    if sample.device.type == "cpu":
        encoder = encoder.to(memory_format=torch.channels_last)  # with folding, 6 to 9 % faster
    twin = copy.copy(network)
    twin._modules = {**network._modules, "encoder": encoder}
    return twin


def find_pairs(module: nn.Module, sample: torch.Tensor) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Every normalization that is given what a convolution has just made, and that convolution."""
    made: list[tuple[nn.Conv2d, torch.Tensor]] = []
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def note(convolution: nn.Conv2d, given: tuple, result: torch.Tensor) -> None:
        made.append((convolution, result))

    def look(norm: nn.BatchNorm2d, given: tuple) -> None:
        if made and made[-1][1] is given[0] and norm.running_var is not None:
            pairs.append((made[-1][0], norm))

    handles = [
        one.register_forward_hook(note)
        if type(one) is nn.Conv2d
        else one.register_forward_pre_hook(look)
        for one in module.modules()
        if type(one) in (nn.Conv2d, nn.BatchNorm2d)
    ]
    try:
        module(sample)
    finally:
        for handle in handles:
            handle.remove()
    return pairs


def replace(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` in every place of `old`."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
