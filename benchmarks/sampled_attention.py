"""Time and memory of DDSM's sampled attention on the CPU, computed in five ways.

    python benchmarks/sampled_attention.py --threads 2

| way | |
| --- | --- |
| naive | samples at all points at once; the modulation scales all samples, as in Eq. 1 |
| naive, folded | the same, but the modulation scales the products over channels |
| naive, einsum | the same, with the products as matrix products |
| strips | naive, folded, on 16 rows at a time under torch.utils.checkpoint |
| crispseg | `sampled_dot`, softmax, `sampled_sum`, as in crispseg.models.ddsm.Affinity |

Each way runs in float32 at batch size 1, in a separate process; `processes.py` defines time and memory. All ways are
first compared on a small input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from processes import compare, differentiated, machine, parser
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from crispseg.models.ddsm import DynamicSampler
from crispseg.nn import sampled_dot, sampled_sum

ROWS = 16  # per strip
DISPLACEMENT = 2.0  # pixels, standard deviation of the points' offsets

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Query, key and value, (B, C, H, W) each; grid (B, N, H, W, 2); modulation (B, N, H, W)."""


# Ways -----------------------------------------------------------------------------------------------------------------


def naive(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """Scale all samples (B, C, N, H, W) by the modulation, as in Eq. 1 of the paper."""
    keys = sample(key, grid) * modulation[:, None]
    weights = torch.softmax((query[:, :, None] * keys).sum(1), dim=1)
    del keys
    values = sample(value, grid) * modulation[:, None]
    return (weights[:, None] * values).sum(2)


def folded(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """Take the modulation, one scalar per point, out of the products over channels."""
    weights = torch.softmax((query[:, :, None] * sample(key, grid)).sum(1) * modulation, dim=1)
    return ((weights * modulation)[:, None] * sample(value, grid)).sum(2)


def einsum(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """Use matrix products, which need no intermediate product of (B, C, N, H, W) values."""
    weights = torch.softmax(torch.einsum("bchw,bcnhw->bnhw", query, sample(key, grid)) * modulation, dim=1)
    return torch.einsum("bnhw,bcnhw->bchw", weights * modulation, sample(value, grid))


def strips(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """Apply `folded` to a few rows at a time; the backward pass recomputes each strip."""
    rows = [slice(first, first + ROWS) for first in range(0, query.shape[2], ROWS)]
    parts = ((query[:, :, here], key, value, grid[:, :, here], modulation[:, :, here]) for here in rows)
    return torch.cat([checkpoint(folded, *part, use_reentrant=False) for part in parts], dim=2)


def ours(query: Tensor, key: Tensor, value: Tensor, grid: Tensor, modulation: Tensor) -> Tensor:
    """Compute the attention as `crispseg.models.ddsm.Affinity` does."""
    weights = torch.softmax(sampled_dot(query, key, grid) * modulation, dim=1)
    return sampled_sum(weights * modulation, value, grid)


def sample(source: Tensor, grid: Tensor) -> Tensor:
    """Sample `source` (B, C, h, w) at all points of `grid` (B, N, H, W, 2) → (B, C, N, H, W)."""
    sampled = F.grid_sample(source, grid.flatten(1, 2), mode="bilinear", padding_mode="zeros", align_corners=False)
    return torch.unflatten(sampled, 2, grid.shape[1:3])


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "naive": naive,
    "naive, folded": folded,
    "naive, einsum": einsum,
    "strips": strips,
    "crispseg": ours,
}


def make_inputs(channels: int, height: int, width: int, points: int, dtype: torch.dtype) -> tuple[Inputs, Tensor]:
    """Return random inputs, with points displaced around their grid, and a gradient of the output.

    Raises:
        CrispsegError: `points` is not an odd square.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value, gradient = (
        torch.randn(1, channels, height, width, generator=generator, dtype=dtype) for _ in range(4)
    )
    sampler = DynamicSampler(channels, points).to(dtype)
    nn.init.normal_(sampler.predict.weight, std=DISPLACEMENT / math.sqrt(channels), generator=generator)
    with torch.no_grad():
        grid, modulation = sampler(key)
    return (query, key, value, grid, modulation), gradient


def largest_difference(points: int) -> float:
    """Return the largest difference of outputs and gradients from `naive`, in float64 on several strips.

    Raises:
        AssertionError: a way computes a different result.
        CrispsegError: `points` is not an odd square.
    """
    inputs, gradient = make_inputs(4, 2 * ROWS + 3, 9, points, torch.float64)
    expected = differentiated(naive, inputs, gradient)(True)
    largest = 0.0
    for way, function in WAYS.items():
        for result, wanted in zip(differentiated(function, inputs, gradient)(True), expected, strict=True):
            result, wanted = result.detach(), wanted.detach()
            torch.testing.assert_close(result, wanted, msg=lambda text, way=way: f"{way}: {text}")
            largest = max(largest, float((result - wanted).abs().max()))
    return largest


def prepare(way: str, channels: int, side: int, points: int) -> Callable[[bool], object]:
    """Return the measured call, in its process."""
    tiny, call = (
        differentiated(WAYS[way], *make_inputs(channels, length, length, points, torch.float32)) for length in (8, side)
    )
    for backward in (False, True):  # tiny first calls, for one-time initialisation
        tiny(backward)
    return call


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--rounds", type=int, default=5, help="measured rounds, after a warm-up round")
    made.add_argument("--channels", type=int, default=64)
    made.add_argument("--size", type=int, default=256, help="height and width")
    made.add_argument("--points", type=int, default=25, help="points per pixel, an odd square")
    given = made.parse_args(argv)
    difference = largest_difference(given.points)
    print(f"Outputs and gradients of all ways agree within {difference:.0e} in float64 on a small input.")
    print(f"{given.channels} channels, {given.size}×{given.size}, {given.points} points, {machine()}")
    ways = {way: partial(prepare, way, given.channels, given.size, given.points) for way in WAYS}
    compare(ways, given.threads, given.rounds)


if __name__ == "__main__":
    main()
