"""What an inspection holds: numbers by hand, and the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crispseg import Segmenter
from crispseg.inspection import inspect_image
from crispseg.inspection.maps import HEAT, mean_map, scaled
from crispseg.inspection.page import inspection_page
from crispseg.io.images import write_image
from tests.inspection.models import SYSTEMS, inspected, lively, scene


@pytest.mark.parametrize("name", SYSTEMS)
def test_labels_and_probabilities_are_the_segmenter_s(name: str) -> None:
    model = lively(name)
    image, truth = scene(70, 90)  # its sides are not those of any level
    found, expected = inspect_image(model, image, truth), Segmenter(model, "cpu")(image)
    # The segmenter folds batch norms into convolutions: classes that differ by rounding may change places.
    assert (found.labels == expected.labels).mean() > 0.99
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert found.size == (70, 90) == found.original_size
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


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
        ("sfnet_lite", {}, "fam", ["F5 → F2"]),
        ("sfnet", {"fuse": "gdfam"}, "fam", ["F5 → F4", "F4 → F3", "F3 → F2"]),
    ],
)
def test_parts_in_other_decoders(name: str, options: dict[str, Any], kind: str, titles: list[str]) -> None:
    found = inspected(name, **options)
    assert [found.parts[part].title for part in found.of(kind)] == titles


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
    monkeypatch.setattr("crispseg.inspection.activations.PIXELS", 2400)
    write_image(tmp_path / "street.png", image)
    found = inspect_image(lively("fpn"), tmp_path / "street.png", truth)
    assert (found.size, found.original_size, found.name) == ((40, 60), (80, 120), "street")
    assert found.truth is not None and found.truth.shape == (40, 60)
    html = inspection_page(found)
    assert "60 × 40 pixels" in html and "reduced copy of the image of 120 × 80 pixels" in html


def test_features_are_means_over_channels_from_blue_to_red() -> None:
    values = torch.zeros(3, 2, 2)
    values[:, 0, 0], values[:, 1, 1] = torch.tensor([-1.0, -2, -3]), torch.tensor([4.0, 0, 5])
    mean = mean_map(values, inspected("fpn"))
    assert mean.shape == (64, 96) and (mean[0, 0], mean[-1, -1]) == (-2, 3)
    drawn = scaled(mean, colors=HEAT)
    np.testing.assert_array_equal([drawn[0, 0], drawn[-1, -1]], scaled(np.array([[0.0, 1.0]]), colors=HEAT)[0])
