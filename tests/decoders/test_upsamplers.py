"""Parts from papers about upsampling against their equations, pixel by pixel in float64."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from reference import assert_close, convolved, enlarged, one_by_one, rand, sampled
from torch import Tensor, nn

from crispseg import fuses
from crispseg.nn import resize

NAMES = ("carafe", "dysample", "fade", "sapa", "sharp_flow")
SIZES = [((6, 8), (3, 4)), ((5, 7), (3, 4)), ((9, 6), (3, 1))]
"""Sizes of the fine and the coarse level: doubled, doubled but for the last row and column, and others."""

cases = pytest.mark.parametrize(
    ("sizes", "align_corners"), list(itertools.product(SIZES, (True, False))), ids=lambda value: str(value)
)


def build(name: str, align_corners: bool, coarse_channels: int = 8, **options: Any) -> Any:
    """A part of random weights, in float64."""
    part = fuses[name](8, coarse_channels, align_corners=align_corners, **options).double()  # type: ignore[call-arg]
    for parameter in part.parameters():
        nn.init.normal_(parameter, std=0.4)
    return part.requires_grad_(False)


def position(index: int, length: int, coarse: int, align_corners: bool) -> float:
    """Where a fine pixel is on one axis of the coarse level, in pixels."""
    if align_corners:
        return index * (coarse - 1) / max(length - 1, 1)
    return (index + 0.5) * coarse / length - 0.5


def read(coarse: Tensor, row: int, column: int) -> Tensor:
    """A pixel of (C, h, w); those outside are as at the edge."""
    _, height, width = coarse.shape
    return coarse[:, min(max(row, 0), height - 1), min(max(column, 0), width - 1)]


def reassembled(coarse: Tensor, logits: Tensor, align_corners: bool, prior: bool) -> Tensor:
    """Sums of the windows of (C, h, w) by the softmax of `logits` (K², H, W)."""
    height, width = logits.shape[1:]
    out = torch.zeros(coarse.shape[0], height, width, dtype=torch.float64)
    reach = range(-(math.isqrt(logits.shape[0]) // 2), math.isqrt(logits.shape[0]) // 2 + 1)
    for y, x in itertools.product(range(height), range(width)):
        row = position(y, height, coarse.shape[1], align_corners)
        column = position(x, width, coarse.shape[2], align_corners)
        places = [(math.floor(row + 0.5) + n, math.floor(column + 0.5) + m) for n, m in itertools.product(reach, reach)]
        distances = torch.tensor([(r - row) ** 2 + (c - column) ** 2 for r, c in places], dtype=torch.float64)
        weights = (logits[:, y, x] - 2 * prior * distances).softmax(0)
        out[:, y, x] = sum(weight * read(coarse, *place) for weight, place in zip(weights, places, strict=True))
    return out


def encoded(conv: nn.Conv2d, x: Tensor) -> Tensor:
    assert conv.bias is not None
    return convolved(x, conv.weight) + conv.bias[:, None, None]


@cases
@pytest.mark.parametrize("prior", [True, False])
def test_carafe_reassembles_by_kernels_of_subpixels(sizes: Any, align_corners: bool, prior: bool) -> None:
    module = build("carafe", align_corners, distance_prior=prior)
    fine, coarse = (rand(8, *size) for size in sizes)
    kernels = encoded(module.encode, one_by_one(module.compress, coarse))
    (height, width), (h, w) = sizes
    subpixels = torch.zeros(25, 2 * h, 2 * w, dtype=torch.float64)
    for k, i, j in itertools.product(range(25), range(2), range(2)):
        subpixels[k, i::2, j::2] = kernels[4 * k + 2 * i + j]
    logits = enlarged(subpixels, height, width, aligned=align_corners)
    expected = fine + reassembled(coarse, logits, align_corners, prior)
    assert_close(module(fine[None], coarse[None])[0], expected)


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """The norm of the channels of (C, h, w), (h, w, C)."""
    pixels = x.movedim(0, 2)
    deviation = (pixels.var(2, correction=0, keepdim=True) + norm.eps).sqrt()
    return (pixels - pixels.mean(2, keepdim=True)) / deviation * norm.weight + norm.bias


@cases
@pytest.mark.parametrize("prior", [True, False])
def test_sapa_compares_a_fine_pixel_with_its_window(sizes: Any, align_corners: bool, prior: bool) -> None:
    module = build("sapa", align_corners, distance_prior=prior)
    fine, coarse = (3 * rand(8, *size) + 1 for size in sizes)
    (height, width), (h, w) = sizes
    x, y = (
        torch.einsum("oi,hwi->ohw", layer.weight, layer_norm(level, norm)) + layer.bias[:, None, None]
        for level, norm, layer in ((fine, module.norm_x, module.p_x), (coarse, module.norm_y, module.p_y))
    )
    logits = torch.zeros(25, height, width, dtype=torch.float64)
    for row, column in itertools.product(range(height), range(width)):
        top = math.floor(position(row, height, h, align_corners) + 0.5) - 2
        left = math.floor(position(column, width, w, align_corners) + 0.5) - 2
        for k in range(25):
            logits[k, row, column] = x[:, row, column] @ read(y, top + k // 5, left + k % 5)
    expected = fine + reassembled(coarse, logits, align_corners, prior)
    assert_close(module(fine[None], coarse[None])[0], expected)


def of_nearest(x: Tensor, height: int, width: int, align_corners: bool) -> Tensor:
    """The nearest pixels of (C, h, w)."""
    out = torch.zeros(x.shape[0], height, width, dtype=torch.float64)
    for row, column in itertools.product(range(height), range(width)):
        y, x_ = position(row, height, x.shape[1], align_corners), position(column, width, x.shape[2], align_corners)
        out[:, row, column] = x[:, math.floor(y + 0.5), math.floor(x_ + 0.5)]
    return out


@cases
@pytest.mark.parametrize("prior", [True, False])
def test_fade_encodes_both_levels_alike_and_mixes_them(sizes: Any, align_corners: bool, prior: bool) -> None:
    module = build("fade", align_corners, distance_prior=prior)
    fine, coarse = (rand(8, *size) for size in sizes)
    (height, width), _ = sizes
    of_fine = encoded(module.encode, one_by_one(module.compress_fine, fine))
    of_coarse = encoded(module.encode, one_by_one(module.compress_coarse, coarse))
    logits = of_fine + of_nearest(of_coarse, height, width, align_corners)
    gate = of_nearest(one_by_one(module.predict_gate, coarse).sigmoid(), height, width, align_corners)
    expected = gate * fine + (1 - gate) * reassembled(coarse, logits, align_corners, prior)
    assert_close(module(fine[None], coarse[None])[0], expected)


@cases
def test_dysample_reads_groups_at_their_points(sizes: Any, align_corners: bool) -> None:
    module = build("dysample", align_corners)
    fine, coarse = (rand(8, *size) for size in sizes)
    offsets = 0.25 * one_by_one(module.predict_offset, coarse)
    (height, width), (h, w) = sizes
    subpixels = torch.zeros(8, 2 * h, 2 * w, dtype=torch.float64)  # x and y of four groups
    for k, i, j in itertools.product(range(8), range(2), range(2)):
        subpixels[k, i::2, j::2] = offsets[4 * k + 2 * i + j]
    moves = enlarged(subpixels, height, width, aligned=align_corners)
    rows = torch.tensor([position(y, height, h, align_corners) for y in range(height)], dtype=torch.float64)
    columns = torch.tensor([position(x, width, w, align_corners) for x in range(width)], dtype=torch.float64)
    groups = [
        sampled(group, (columns + dx).clamp(0, w - 1), (rows[:, None] + dy).clamp(0, h - 1))
        for group, (dx, dy) in zip(coarse.chunk(4), moves.unflatten(0, (4, 2)), strict=True)
    ]
    assert_close(module(fine[None], coarse[None])[0], fine + torch.cat(groups))


@cases
def test_sharp_flow_adds_a_kernel_to_bilinear_weights(sizes: Any, align_corners: bool) -> None:
    module = build("sharp_flow", align_corners)
    fine, coarse = (rand(8, *size) for size in sizes)
    (height, width), (h, w) = sizes
    upsampled = enlarged(coarse, height, width, aligned=align_corners)
    flow = sum(
        convolved(level, conv.weight[:18, :, 0, 0].unflatten(0, (2, 3, 3)).permute(0, 3, 1, 2))
        for conv, level in ((module.predict_fine, fine), (module.predict_coarse, upsampled))
    )
    products = one_by_one(module.predict_fine, fine) + one_by_one(module.predict_coarse, upsampled)
    kernel = (products[18:] + module.kernel_bias).tanh()
    expected = fine.clone()
    for y, x in itertools.product(range(height), range(width)):
        row = position(y, height, h, align_corners) + flow[1, y, x] * h / (2 * height)
        column = position(x, width, w, align_corners) + flow[0, y, x] * w / (2 * width)
        middle = math.floor(row + 0.5), math.floor(column + 0.5)
        for k, (n, m) in enumerate(itertools.product((-1, 0, 1), (-1, 0, 1))):
            near = (1 - (middle[0] + n - row).abs()).clamp(min=0) * (1 - (middle[1] + m - column).abs()).clamp(min=0)
            weight = near + kernel[k, y, x] - kernel[:, y, x].mean()
            expected[:, y, x] += weight * read(coarse, middle[0] + n, middle[1] + m)
    assert_close(module(fine[None], coarse[None])[0], expected)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_new_part_is_close_to_bilinear_upsampling(name: str, align_corners: bool) -> None:
    """A fine level that is equal to the upsampled one has the same share in FADE's gate."""
    part: Any = fuses[name](16, 16, align_corners=align_corners)  # type: ignore[call-arg]
    smooth = F.interpolate(torch.randn(2, 16, 4, 4), size=(9, 11), mode="bilinear")
    upsampled = resize(smooth, (18, 22), align_corners=align_corners)
    fine = upsampled if name == "fade" else torch.zeros_like(upsampled)
    assert (part(fine, smooth) - upsampled).std() < 0.15 * upsampled.std()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("batch", "autocast"), [(1, True), (2, False)])
def test_every_parameter_receives_a_gradient(name: str, batch: int, autocast: bool) -> None:
    part: Any = fuses[name](8, 12)
    fine, coarse = torch.randn(batch, 8, 9, 7, requires_grad=True), torch.randn(batch, 12, 5, 4, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        fused = part(fine, coarse)
    assert fused.shape == fine.shape
    (fused.float() * torch.randn_like(fine)).sum().backward()
    gradients = {key: value.grad for key, value in (*part.named_parameters(), ("fine", fine), ("coarse", coarse))}
    assert not [key for key, gradient in gradients.items() if gradient is None or not gradient.isfinite().all()]
    assert not [key for key, gradient in gradients.items() if not gradient.any()]
