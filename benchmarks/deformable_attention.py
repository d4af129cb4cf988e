"""One multi-level deformable attention of UN-EPT on the CPU: crispseg's and that of Hugging Face transformers.

    python benchmarks/deformable_attention.py --threads 2

| way | |
| --- | --- |
| hugging face | `MultiScaleDeformableAttention` of transformers' Deformable DETR, its pure-PyTorch path |
| crispseg | `crispseg.nn.deformable_attention` |

By default: 480×480 pixels, 3 levels at 1/8 (`--stride 16` is a DeiT's), each of whose pixels is a query, 8 heads of 32
channels, 16 points a level. Without the linear layers around it, which are the same in both. Each way runs in a process
of its own, in float32 at batch size 1; the processes take turns. Measured are

- seconds of one call, the median of the rounds, after one that does not count;
- MiB, the process's peak resident set during a call less what was resident before it, without the inputs, but with
  outputs, gradients and freed memory that the allocator holds back; the largest of all rounds;
- MiB used, the same of one call in further processes, whose allocator holds nothing back.

Linux only. First, both ways are compared on a small input.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import transformers
from processes import as_table, differentiated, machine, measure, parser, positive, run
from rich.console import Console
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from crispseg.nn import deformable_attention, pixel_centres

HEADS, CHANNELS = 8, 32
DISPLACEMENT = 4.0  # pixels, standard deviation of the points


class Size(NamedTuple):
    """Sizes of a call."""

    side: int
    """Height and width of each level, in its pixels."""
    levels: int
    points: int


Inputs = tuple[Tensor, Tensor, Tensor]
"""Values (1, S, M, d) of all levels, one after another; locations (1, S, M, L, N, 2); weights (1, S, M, L, N)."""


def hugging_face(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    sizes = [(side, side)] * locations.shape[3]
    starts = torch.arange(len(sizes)) * side**2
    attend = MultiScaleDeformableAttention()
    attended: Tensor = attend(values, torch.tensor(sizes), sizes, starts, locations, weights, 64)
    return attended


def ours(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    """As `crispseg.nn.DeformableAttention` calls it."""
    pieces = values.flatten(2).split(side**2, dim=1)  # (1, side², M · d) each
    levels = [piece.mT.unflatten(1, (HEADS, -1)).unflatten(3, (side, side)) for piece in pieces]
    return deformable_attention(levels, locations, weights)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {"hugging face": hugging_face, "crispseg": ours}


def make_inputs(size: Size, dtype: torch.dtype = torch.float32) -> tuple[Inputs, Tensor]:
    """Random inputs, with points around their query, and a gradient of the output."""
    side, levels, points = size
    generator = torch.Generator().manual_seed(0)
    queries = levels * side**2
    values = torch.randn(1, queries, HEADS, CHANNELS, generator=generator, dtype=dtype)
    offsets = torch.randn(1, queries, HEADS, levels, points, 2, generator=generator, dtype=dtype)
    centres = pixel_centres((side, side)).to(dtype).repeat(levels, 1)
    locations = centres[:, None, None, None] + offsets * (DISPLACEMENT / side)
    weights = torch.randn(1, queries, HEADS, levels * points, generator=generator, dtype=dtype).softmax(-1)
    gradient = torch.randn(1, queries, HEADS * CHANNELS, generator=generator, dtype=dtype)
    return (values, locations, weights.unflatten(-1, (levels, points))), gradient


def call_of(way: str, size: Size, dtype: torch.dtype = torch.float32) -> Callable[[bool], tuple[Tensor, ...]]:
    """What gives the output of a way and, if backward is asked for, the gradients of all inputs."""
    return differentiated(lambda *inputs: WAYS[way](*inputs, size.side), *make_inputs(size, dtype))


def largest_difference() -> float:
    """The largest differences of outputs and gradients, in float64 on a small input.

    Raises:
        AssertionError: the ways compute different things.
    """
    theirs, mine = (call_of(way, Size(7, 3, 4), torch.float64)(True) for way in WAYS)
    largest = 0.0
    for result, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)
        largest = max(largest, float((result.detach() - wanted.detach()).abs().max()))
    return largest


def prepare(way: str, size: Size) -> Callable[[bool], object]:
    """In its process, the call that is measured."""
    for backward in (False, True):  # what a first call loads is loaded by a tiny one
        call_of(way, size._replace(side=4))(backward)
    return call_of(way, size)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    made = parser(__doc__)
    made.add_argument("--rounds", type=positive, default=5, help="after one that warms up")
    made.add_argument("--size", type=positive, default=480, help="height and width of the image, pixels")
    made.add_argument("--stride", type=positive, default=8, help="of all levels")
    made.add_argument("--levels", type=positive, default=3)
    made.add_argument("--points", type=positive, default=16, help="on each level")
    run(made, argv, report)


def report(given: Namespace) -> None:
    console = Console()
    size = Size(math.ceil(given.size / given.stride), given.levels, given.points)
    console.print(f"Outputs and gradients agree within {largest_difference():.0e} in float64 on a small input.")
    console.print(
        f"{size.levels} levels of {size.side}×{size.side}, each pixel a query, {HEADS} heads of {CHANNELS} channels, "
        f"{size.points} points a level, float32, {given.threads} threads, {given.rounds} rounds, {machine()}, "
        f"transformers {transformers.__version__}",
        soft_wrap=True,
    )
    ways = {way: partial(prepare, way, size) for way in WAYS}
    for backward, costs in measure(ways, given.threads, given.rounds).items():
        console.print(as_table(costs, "hugging face", backward, ratios="ratio"))


if __name__ == "__main__":
    main()
