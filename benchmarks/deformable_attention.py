"""Time and memory of UN-EPT's deformable attention on the CPU: crispseg and Hugging Face transformers.

    python benchmarks/deformable_attention.py --threads 2

| way | |
| --- | --- |
| hugging face | `MultiScaleDeformableAttention` of transformers' Deformable DETR, its pure-PyTorch path |
| crispseg | `crispseg.nn.sampling` |

The default is a 480×480 image, 3 levels at 1/8 (`--stride 16` for a DeiT), 8 heads of 32 channels and 16 points per
level. Each pixel of each level is a query. The linear layers around the attention are left out. Each way runs in
float32 at batch size 1, in a separate process; `processes.py` defines time and memory. Both ways are first compared on
a small input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import transformers
from processes import compare, differentiated, machine, parser
from torch import Tensor
from transformers.models.deformable_detr.modeling_deformable_detr import MultiScaleDeformableAttention

from crispseg.nn import deformable_attention, pixel_centres

HEADS, CHANNELS = 8, 32
DISPLACEMENT = 4.0  # pixels, standard deviation of the points


class Size(NamedTuple):
    side: int
    """Height and width of each level."""
    levels: int
    points: int


Inputs = tuple[Tensor, Tensor, Tensor]
"""Values (1, S, M, d) of all levels, concatenated; locations (1, S, M, L, N, 2); weights (1, S, M, L, N)."""


def hugging_face(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    sizes = [(side, side)] * locations.shape[3]
    starts = torch.arange(len(sizes)) * side**2
    attend = MultiScaleDeformableAttention()
    attended: Tensor = attend(values, torch.tensor(sizes), sizes, starts, locations, weights, 64)
    return attended


def ours(values: Tensor, locations: Tensor, weights: Tensor, side: int) -> Tensor:
    """Call the attention as `crispseg.nn.DeformableAttention` does."""
    pieces = values.flatten(2).split(side**2, dim=1)  # (1, side², M · d) each
    levels = [piece.mT.unflatten(1, (HEADS, -1)).unflatten(3, (side, side)) for piece in pieces]
    return deformable_attention(levels, locations, weights)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {"hugging face": hugging_face, "crispseg": ours}


def make_inputs(size: Size, dtype: torch.dtype = torch.float32) -> tuple[Inputs, Tensor]:
    """Return random inputs, with points around their query, and a gradient of the output."""
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
    """Return a call for the output of a way and, with backward, the gradients of all inputs."""
    return differentiated(lambda *inputs: WAYS[way](*inputs, size.side), *make_inputs(size, dtype))


def largest_difference() -> float:
    """Return the largest difference of outputs and gradients, in float64 on a small input.

    Raises:
        AssertionError: the ways compute different results.
    """
    theirs, mine = (call_of(way, Size(7, 3, 4), torch.float64)(True) for way in WAYS)
    largest = 0.0
    for result, wanted in zip(mine, theirs, strict=True):
        torch.testing.assert_close(result, wanted, atol=1e-5, rtol=0)
        largest = max(largest, float((result.detach() - wanted.detach()).abs().max()))
    return largest


def prepare(way: str, size: Size) -> Callable[[bool], object]:
    """Return the measured call, in its process."""
    for backward in (False, True):  # tiny first calls, for one-time initialisation
        call_of(way, size._replace(side=4))(backward)
    return call_of(way, size)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=5, help="measured rounds, after a warm-up round")
    made.add_argument("--size", type=int, default=480, help="height and width of the image, pixels")
    made.add_argument("--stride", type=int, default=8, help="stride of all levels")
    made.add_argument("--levels", type=int, default=3)
    made.add_argument("--points", type=int, default=16, help="points per level")
    given = made.parse_args(argv)
    size = Size(math.ceil(given.size / given.stride), given.levels, given.points)
    print(f"Outputs and gradients agree within {largest_difference():.0e} in float64 on a small input.")
    print(f"{size}, {machine()}, transformers {transformers.__version__}")
    compare({way: partial(prepare, way, size) for way in WAYS}, given.threads, given.rounds)


if __name__ == "__main__":
    main()
