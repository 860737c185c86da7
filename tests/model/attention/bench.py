"""Ours against the plain equations: forward and backward passes in turns, in one run.

A ratio is a pass of ours to the plain pass right after it; below 1 ours is the faster one.

example:
  scripts/bench_attention.sh --dim 256 --size 32 --repeat 30
"""

import argparse
from functools import partial
from statistics import median

import torch
from plain import PLAIN

from catnet.model.attention import build_attention
from catnet.model.measure import pass_through, seconds


def compare(name, x, *, repeat):
    """Seconds of ours and of the plain version, `repeat` of each, A B A B."""
    module = build_attention(name, x.shape[1], {}).to(x.device)
    weights = list(module.parameters())
    forwards = module, partial(PLAIN[name], module)
    steps = [pass_through(forward, x, weights=weights) for forward in forwards]
    pairs = [[seconds(step, x.device) for step in steps] for _ in range(repeat + 2)]
    return list(zip(*pairs[2:], strict=True))  # two to warm up


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, default in (("dim", 256), ("size", 32), ("batch", 1), ("repeat", 30)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("names", nargs="*", default=list(PLAIN), metavar="NAME")
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(options.batch, options.dim, options.size, options.size, generator=generator).to(
        device
    )
    print(f"{tuple(x.shape)} on {device}, {torch.get_num_threads()} threads, torch", end=" ")
    print(f"{torch.__version__}\n{'':<10}{'ours':>10}{'plain':>10}   ratio (min to max)")
    for name in options.names:
        ours, plain = compare(name, x, repeat=options.repeat)
        ratios = [a / b for a, b in zip(ours, plain, strict=True)]
        print(f"{name:<10}{1e3 * median(ours):>7.2f} ms{1e3 * median(plain):>7.2f} ms", end="   ")
        print(f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


if __name__ == "__main__":
    main()
