"""What an inspection holds: numbers by hand, and the model's own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crispseg import SegmentationModel, Segmenter
from crispseg.inspection import Inspection, inspect_image
from crispseg.inspection.fields import flow_of, pixel_pitch, sampled_points
from crispseg.inspection.page import inspection_page
from crispseg.io.images import write_image
from crispseg.models.sfnet import warp
from tests.inspection.models import SYSTEMS, lively, scene


@pytest.mark.parametrize("name", SYSTEMS)
def test_labels_and_probabilities_are_the_segmenter_s(name: str) -> None:
    model = lively(name)
    image, truth = scene(70, 90)  # its sides are not those of any level
    inspection, expected = inspect_image(model, image, truth), Segmenter(model, "cpu")(image)
    # The segmenter folds batch norms into convolutions: classes that differ by rounding may change places.
    assert (inspection.labels == expected.labels).mean() > 0.99
    np.testing.assert_allclose(inspection.probabilities.sum(0), 1, atol=1e-5)
    assert inspection.size == (70, 90) == inspection.original_size
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_values_that_are_not_finite(refuses: Any) -> None:
    model = lively("sfnet")
    for parameter in model.get_submodule("decoder.fuses.0.predict_flow").parameters():
        parameter.data.fill_(3e38)
    with refuses("sfnet", "decoder.fuses.0.flow", "not finite"):
        inspect_image(model, scene()[0])


def test_large_images_are_reduced_and_small_ones_extended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image, truth = scene(80, 120)
    small = inspect_image(lively("sfnet"), image[:20, :50])
    assert (small.size, small.input_size, small.name) == ((20, 50), (32, 50), "image")
    monkeypatch.setattr("crispseg.inspection.activations.MOST_PIXELS", 2400)
    write_image(tmp_path / "street.png", image)
    inspection = inspect_image(lively("fpn"), tmp_path / "street.png", truth)
    assert (inspection.size, inspection.original_size, inspection.name) == ((40, 60), (80, 120), "street")
    assert inspection.truth is not None and inspection.truth.shape == (40, 60)
    html = inspection_page(inspection)
    assert "60 × 40 pixels" in html and "reduced copy of the image of 120 × 80 pixels" in html


def positions(inspection: Inspection, size: tuple[int, int]) -> Tensor:
    """x and y in the image of each pixel of a level whose corners lie on the image's, `(1, 2, h, w)`."""
    pitch_x, pitch_y = pixel_pitch(size, inspection)
    ys, xs = torch.meshgrid(torch.arange(size[0]) * pitch_y, torch.arange(size[1]) * pitch_x, indexing="ij")
    return torch.stack([xs, ys])[None].float()


def test_flow_is_in_pixels_of_its_level() -> None:
    """`warp` reads a map of its pixels' own places: what it reads is where it looks."""
    result = inspect_image(lively("sfnet"), scene(96, 128)[0])
    for part in result.of("fam"):
        flow, (height, width) = flow_of(result, part), result.tap(part, "coarse").shape[-2:]
        read = warp(positions(result, (height, width)), result.tap(part, "flow")[None])[0]  # (2, h, w), of the image
        size = (flow.shape[1], flow.shape[2])
        looked = positions(result, size)[0] + flow * torch.tensor(pixel_pitch(size, result))[:, None, None]
        limits = torch.tensor([result.size[1] - 1, result.size[0] - 1])[:, None, None]
        there = ((looked >= 0) & (looked <= limits)).all(0)  # outside, features count as zero
        assert there.any() and flow.abs().max() > 0.2
        torch.testing.assert_close(read[:, there], looked[:, there], atol=1e-2, rtol=0)


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
    inspection = inspect_image(shifted("ddsm_upernet", predict, bias), scene()[0])
    points = sampled_points(inspection)[-1]
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
    inspection = inspect_image(shifted("unept", layer, [0.0, 0, 3, -2]), scene()[0])
    points = sampled_points(inspection)[-1]
    assert points.title == "decoder layer 2, cross-attention" and len(points.groups) == 8 * 3
    assert points.groups[:4] == ("head 1, level 1", "head 1, level 2", "head 1, level 3", "head 2, level 1")
    row, column = 30 // 8, 50 // 8
    assert np.abs(points.ys - 30).argmin() == row and np.abs(points.xs - 50).argmin() == column
    xy, weights = points.xy[row, column], points.weights[row, column]
    place = np.array([column * 8 + 3.5, row * 8 + 3.5])  # the middle of 8 × 8 pixels
    np.testing.assert_allclose(xy[0, 1], place + np.array([24, -16]), atol=1e-3)
    np.testing.assert_allclose(xy[5, 3], place, atol=1e-3)
    np.testing.assert_allclose(weights.reshape(8, -1).sum(1), 1, atol=1e-5)  # over levels and points, for each head
