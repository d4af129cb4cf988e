"""What an inspection holds: numbers by hand, and the model's own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import Segmenter
from crispseg.inspection import inspect_image
from crispseg.io.images import write_image
from crispseg.visualization.pictures import error_map
from tests.inspection.models import CLASSES, SYSTEMS, inspected, lively, scene


@pytest.mark.parametrize("name", SYSTEMS)
def test_labels_and_probabilities_are_the_segmenter_s(name: str) -> None:
    model = lively(name)
    image, truth = scene(70, 90)  # its sides are not those of any level
    found, expected = inspect_image(model, image, truth), Segmenter(model, "cpu")(image)
    # The segmenter folds batch norms into convolutions: classes that differ by rounding may change places.
    assert (found.labels == expected.labels).mean() > 0.99
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(found.confidence(), found.probabilities.max(0))
    assert found.size == (70, 90) == found.original_size
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_entropy_is_in_nats() -> None:
    found = inspect_image(lively("fpn"), scene()[0])
    found.probabilities[:, 0, 0] = 1 / CLASSES
    found.probabilities[:, 0, 1] = [1, *[0] * (CLASSES - 1)]
    found.probabilities[:, 0, 2] = [0.5, 0.25, 0.25, *[0] * (CLASSES - 3)]
    assert found.entropy()[0, :3] == pytest.approx([math.log(CLASSES), 0, 1.5 * math.log(2)], abs=1e-5)


def test_errors_have_the_colour_of_the_truth() -> None:
    image, truth = scene()
    truth[0, 0] = 255
    found = inspect_image(lively("fpn"), image, truth)
    errors, wrong = found.errors(), (found.labels != truth) & (truth != 255)
    assert wrong.any() and errors[wrong].any(axis=-1).all() and not errors[found.labels == truth].any()
    np.testing.assert_array_equal(errors, error_map(found.labels, truth, found.label_set.palette))


def test_parts_are_known_by_their_taps() -> None:
    found = inspected("sfnet")
    coarsest, *_, finest = found.of("fam")
    torch.testing.assert_close(found.tap(coarsest, "coarse"), found.taps["decoder.coarsest"])
    assert [found.parts[part].title for part in (coarsest, finest)] == ["F5 → F4", "F3 → F2"]
    assert found.tap(finest, "fine").shape == found.tap(finest, "warped").shape
    agln = inspected("agln")
    assert agln.parts[agln.of("cfb")[0]].title == "F5 → F4, block 1"


@pytest.mark.parametrize(
    ("name", "options", "kind", "titles"),
    [
        ("sfnet", {"fuse": "cfb"}, "cfb", ["F5 → F4", "F4 → F3", "F3 → F2"]),
        ("fpn", {"merge": "aligned"}, "fam", ["F3 → F2, merge", "F4 → F2, merge", "F5 → F2, merge"]),
        ("deeplabv3plus", {"fuse": "dcn"}, "dcn", ["F5 → F2"]),
        ("sfnet_lite", {}, "fam", ["F5 → F2"]),
        ("sfnet", {"fuse": "gdfam"}, "fam", ["F5 → F4", "F4 → F3", "F3 → F2"]),
    ],
)
def test_parts_in_other_decoders(name: str, options: dict[str, Any], kind: str, titles: list[str]) -> None:
    found = inspected(name, **options)
    assert [found.parts[part].title for part in found.of(kind)] == titles


@pytest.mark.parametrize("size", [(64, 96), (20, 50)])
def test_offsets_lead_to_the_pixel_whose_label_is_taken(size: tuple[int, int]) -> None:
    """Also at the edges, where they would lead outside."""
    model = lively("fpn", refine="boundary")
    assert model.refiner is not None
    for parameter in model.classifier.parameters():
        torch.nn.init.normal_(parameter) if parameter.ndim > 1 else torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(model.refiner.boundary_head[-1].bias, 9.0)
    found = inspect_image(model, scene()[0][: size[0], : size[1]])
    assert found.offsets is not None and found.unrefined is not None
    ys, xs = np.indices(size)
    to_x, to_y = xs + found.offsets[0], ys + found.offsets[1]
    height, width = found.input_size
    assert to_x.min() >= 0 and to_y.min() >= 0 and to_x.max() < width and to_y.max() < height
    seen = (to_x < size[1]) & (to_y < size[0])  # not in what a small image is extended by
    assert np.ptp(found.unrefined) > 0 and (found.offsets != 0).any()
    assert (found.labels == found.unrefined[to_y.clip(max=size[0] - 1), to_x.clip(max=size[1] - 1)])[seen].all()


def test_values_that_are_not_finite(refuses: Any) -> None:
    model = lively("sfnet")
    for parameter in model.get_submodule("decoder.fuses.0.predict_flow").parameters():
        parameter.data.fill_(3e38)
    with refuses("sfnet", "decoder.fuses.0.flow", "not finite"):
        inspect_image(model, scene()[0])


def test_large_images_are_reduced_and_small_ones_extended(monkeypatch: pytest.MonkeyPatch) -> None:
    image, truth = scene(80, 120)
    found = inspect_image(lively("fpn"), image, truth, pixels=2400)
    assert (found.size, found.original_size) == ((40, 60), (80, 120))
    assert found.truth is not None and found.truth.shape == (40, 60)
    small = inspect_image(lively("sfnet"), image[:20, :50])
    assert (small.size, small.input_size) == ((20, 50), (32, 50))
    monkeypatch.setattr("crispseg.inspection.activations.PROBABILITIES", 80 * 120 * CLASSES // 4)
    assert inspect_image(lively("fpn"), image).size == (40, 60)


@pytest.mark.parametrize(
    ("truth", "phrases"),
    [
        (np.zeros((64, 90), np.uint8), ("64×90", "64×96", "mask of this image")),
        (np.full((64, 96), 12, np.uint8), ("12", "0 to 11")),
    ],
)
def test_truths_that_do_not_fit(truth: Any, phrases: tuple[str, ...], refuses: Any) -> None:
    with refuses(*phrases):
        inspect_image(lively("fpn"), scene()[0], truth)


def test_no_truth_no_errors(tmp_path: Path, refuses: Any) -> None:
    write_image(tmp_path / "street.png", scene()[0])
    found = inspect_image(lively("fpn"), tmp_path / "street.png")
    assert found.name == "street"
    with refuses("street", "no ground truth"):
        found.errors()
