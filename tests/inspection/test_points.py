"""Flow and sampled points are drawn where the model looks: known offsets, and what its own operators read there."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crispseg import SegmentationModel
from crispseg.inspection import Inspection, inspect_image
from crispseg.inspection.fields import flow_of, pixel_pitch, sampled_points
from crispseg.inspection.maps import color_wheel
from crispseg.models.sfnet import warp
from tests.inspection.models import inspected, lively, scene


def positions(inspection: Inspection, size: tuple[int, int]) -> Tensor:
    """x and y in the image of each pixel of a level whose corners lie on the image's, `(1, 2, h, w)`."""
    pitch_x, pitch_y = pixel_pitch(size, inspection)
    ys, xs = torch.meshgrid(torch.arange(size[0]) * pitch_y, torch.arange(size[1]) * pitch_x, indexing="ij")
    return torch.stack([xs, ys])[None].float()


def inside(xy: Tensor, inspection: Inspection) -> Tensor:
    """Which of `(2, h, w)` positions lie in the image: outside features count as zero."""
    height, width = inspection.size
    return (xy[0] >= 0) & (xy[1] >= 0) & (xy[0] <= width - 1) & (xy[1] <= height - 1)


def test_flow_is_in_pixels_of_its_level() -> None:
    """`warp` reads a map of its pixels' own places: what it reads is where it looks."""
    found = inspect_image(lively("sfnet"), scene(96, 128)[0])
    for part in found.of("fam"):
        flow, (height, width) = flow_of(found, part), found.tap(part, "coarse").shape[-2:]
        read = warp(positions(found, (height, width)), found.tap(part, "flow")[None])[0]  # (2, h, w), of the image
        size = (flow.shape[1], flow.shape[2])
        looked = positions(found, size)[0] + flow * torch.tensor(pixel_pitch(size, found))[:, None, None]
        there = inside(looked, found)
        assert there.any() and flow.abs().max() > 0.2
        torch.testing.assert_close(read[:, there], looked[:, there], atol=1e-2, rtol=0)


def test_conversion_by_hand() -> None:
    """Δ / w of 2 / (w - 1) a pixel: Δ = 16 on a level 8 wide is 7 pixels, Δ = -10 on one 5 high is -4."""
    delta = torch.tensor([16.0, -10.0])[:, None, None].expand(2, 5, 8)
    found = dataclasses.replace(inspected("sfnet"), taps={"x.flow": delta})
    assert flow_of(found, "x")[:, 2, 3].tolist() == pytest.approx([7, -4])
    assert flow_of(dataclasses.replace(found, align_corners=False), "x")[:, 2, 3].tolist() == [8, -5]


def test_the_wheel_is_red_to_the_right_and_cyan_to_the_left() -> None:
    wheel = color_wheel(65)
    right, left = wheel[32, 63].astype(int), wheel[32, 1].astype(int)
    assert right[0] > 200 > 100 > right[2] and left[2] > 200 > 100 > left[0]
    assert wheel[32, 32].min() > 240 and wheel[0, 0].min() == 255  # no flow, and outside


def shifted(name: str, part: str, bias: list[float], **options: Any) -> SegmentationModel:
    """A model whose layer `part` predicts these offsets for every pixel."""
    model = lively(name, **options)
    layer: Any = model.get_submodule(part)
    nn.init.zeros_(layer.weight)
    layer.bias.data[: len(bias)] = torch.tensor(bias)
    layer.bias.data[len(bias) :] = 0
    return model


def test_ddsm_s_points_for_known_offsets() -> None:
    """Point 4 is the middle of the 3×3 grid: 2.5 and -1.25 pixels of a level of 24 × 16, in 96 × 64."""
    bias = [0.0] * 8 + [2.5, -1.25]
    predict = "decoder.fuses.0.spatial.affinity.sampler.predict"
    found = inspect_image(shifted("ddsm_upernet", predict, bias), scene()[0])
    points = sampled_points(found)[-1]
    assert (points.title, points.weights.shape) == ("F3 → F2", (16, 24, 1, 9))
    row, column = round(30 * 15 / 63), round(50 * 23 / 95)
    assert np.abs(points.ys - 30).argmin() == row and np.abs(points.xs - 50).argmin() == column
    xy, weights = points.xy[row, column], points.weights[row, column]
    place = np.array([column * 95 / 23, row * 63 / 15])
    np.testing.assert_allclose(xy[0, 4], place + np.array([2.5 * 95 / 23, -1.25 * 63 / 15]), atol=1e-3)
    np.testing.assert_allclose(
        xy[0, 0], place - np.array([95 / 23, 63 / 15]), atol=1e-3
    )  # Δp = 0: the grid's upper left
    assert 0 < weights.sum() < 1  # modulations are 1/2 each


def test_unept_s_points_for_known_offsets() -> None:
    """Head 1, level 1, point 2: (3, -2) pixels of a level of 12 × 8 on an image of 96 × 64, from edge to edge."""
    layer = "decoder.decoder.1.cross_attention.sampling_offsets"
    found = inspect_image(shifted("unept", layer, [0.0, 0, 3, -2]), scene()[0])
    points = sampled_points(found)[-1]
    assert points.title == "decoder layer 2, cross-attention" and len(points.groups) == 8 * 3
    assert points.groups[:4] == ("head 1, level 1", "head 1, level 2", "head 1, level 3", "head 2, level 1")
    row, column = 30 // 8, 50 // 8
    assert np.abs(points.ys - 30).argmin() == row and np.abs(points.xs - 50).argmin() == column
    xy, weights = points.xy[row, column], points.weights[row, column]
    place = np.array([column * 8 + 3.5, row * 8 + 3.5])  # the middle of 8 × 8 pixels
    np.testing.assert_allclose(xy[0, 1], place + np.array([24, -16]), atol=1e-3)
    np.testing.assert_allclose(xy[5, 3], place, atol=1e-3)
    np.testing.assert_allclose(weights.reshape(8, -1).sum(1), 1, atol=1e-5)  # over levels and points, for each head
