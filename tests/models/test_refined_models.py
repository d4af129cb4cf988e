"""Models with boundary refinement do all that models must do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from crispseg import create_model
from crispseg.data.boundary_targets import NO_DIRECTION, boundary_targets
from crispseg.models import Outputs
from crispseg.training.losses import BoundaryRefinementLoss, DeepSupervision, WeightedLoss

from .base import NUM_CLASSES, ModelTester, check_saved


class TestRefinedFPN(ModelTester):
    name = "fpn"
    options: ClassVar = {"width": 16, "refine": "boundary"}
    taps: ClassVar = {
        "decoder.coarsest": (16, 32),
        "refiner.boundary": (1, 1),
        "refiner.direction": (8, 1),
    }

    def test_the_outputs_are_complete(self) -> None:
        images = torch.randn(2, 3, 65, 97)
        outputs = self.reference().outputs(images)
        assert outputs.unrefined is not None and outputs.boundary is not None and outputs.direction is not None
        assert outputs.boundary.shape == (2, 1, 65, 97)
        assert outputs.direction.shape == (2, 8, 65, 97)
        moved = (outputs.logits != outputs.unrefined).any(1, keepdim=True)
        assert 0.05 < moved.float().mean() < 0.95, "else half of what follows is not tested"
        assert not (moved & (outputs.boundary <= 0)).any()
        refiner = self.reference().refiner
        assert refiner is not None
        offsets = refiner.offsets(outputs.boundary, outputs.direction)
        there = (offsets != 0).any(1, keepdim=True)  # a second step may lead back
        assert not (there & (outputs.boundary <= 0)).any()
        assert there.sum() > 0.5 * (outputs.boundary > 0).sum()


def some_labels(batch: int, height: int, width: int) -> Tensor:
    """Coarse patches, with ignored rows."""
    patches = torch.randint(0, NUM_CLASSES, (batch, 1, 3, 4)).float()
    labels = torch.nn.functional.interpolate(patches, size=(height, width))[:, 0].long()
    labels[:, :2] = 255
    return labels


@pytest.mark.parametrize("name", ["crisp", "deeplabv3plus", "fcn", "unept"])
def test_refinement_is_an_option_of_every_model(name: str, tmp_path: Path) -> None:
    images = torch.randn(1, 3, 33, 57)
    plain = create_model(name, num_classes=3, backbone="test_efficientnet", width=16)
    assert plain.refiner is None and "refine" not in plain.info.options
    model = create_model(name, num_classes=3, backbone="test_efficientnet", width=16, refine="boundary").eval()
    assert model.info.options["refine"] == "boundary"
    assert torch.equal(model.outputs(images).logits, model(images))
    check_saved(model, images, tmp_path)


def test_how_steps_are_taken_is_saved(tmp_path: Path, refuses: Any) -> None:
    tiny: dict[str, Any] = {"num_classes": 3, "backbone": "test_efficientnet", "width": 16}
    model = create_model("fpn", **tiny, refine="boundary", refine_steps=3, refine_path="straight").eval()
    loaded = check_saved(model, torch.randn(1, 3, 33, 57), tmp_path)
    assert loaded.refiner is not None and (loaded.refiner.steps, loaded.refiner.path) == (3, "straight")
    wrong: dict[str, Any]
    for wrong in ({"refine": "edges"}, {"refine_steps": 0}, {"refine_path": "bent"}):
        with refuses("boundary", "chained or straight", "1 or more"):
            create_model("fpn", **tiny, **{"refine": "boundary", **wrong})


@pytest.mark.parametrize("mask", ["true", "predicted"])
def test_the_direction_is_learned_on_the_pixels_that_the_mask_says(mask: Any) -> None:
    """On true boundary pixels, or those of them that the boundary head marks; its own logits learn nothing from it."""
    targets = torch.tensor([[[0, 3, 8, 9, 255, 7]]], dtype=torch.uint8)
    boundary = torch.tensor([[[[1.0, -1.0, 2.0, 3.0, 4.0, 0.5]]]], requires_grad=True)
    direction = torch.randn(1, 8, 1, 6, requires_grad=True)
    logits = torch.randn(1, NUM_CLASSES, 1, 6)
    only = {"unrefined": 0.0, "refined": 0.0, "boundary": 0.0, "direction": 1.0}
    loss = BoundaryRefinementLoss(DeepSupervision(WeightedLoss({"cross_entropy": 1.0}), 0.0), only, mask)
    outputs = Outputs(logits, logits, None, boundary, direction)
    found = loss(outputs, torch.zeros(1, 1, 6, dtype=torch.long), targets)
    counted = (0, 1, 5) if mask == "true" else (0, 5)
    expected = [-direction[0, :, 0, x].log_softmax(0)[int(targets[0, 0, x])] for x in counted]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    found.backward()
    assert direction.grad is not None and {x for x in range(6) if direction.grad[0, :, 0, x].any()} == {*counted}
    assert boundary.grad is None or not boundary.grad.any()


def test_eq_7_has_the_weights_of_the_paper() -> None:
    torch.manual_seed(0)
    labels = some_labels(1, 20, 25)
    targets = torch.from_numpy(boundary_targets(labels[0].numpy().astype(np.uint8)))[None]
    targets[0, 15, :10] = NO_DIRECTION
    logits, unrefined, auxiliary = (torch.randn(1, NUM_CLASSES, 20, 25) for _ in range(3))
    boundary, direction = torch.randn(1, 1, 20, 25), torch.randn(1, 8, 20, 25)
    loss = BoundaryRefinementLoss(DeepSupervision(WeightedLoss({"cross_entropy": 1.0}), 0.4))
    total = loss(Outputs(logits, unrefined, (auxiliary,), boundary, direction), labels, targets).item()

    def cross_entropy(scores: Tensor, truth: Tensor) -> Tensor:
        return -scores.log_softmax(0)[truth]

    segmentation = [[], [], []]  # type: list[list[Tensor]]
    edges, ways = [], []
    for y in range(20):
        for x in range(25):
            if labels[0, y, x] == 255:
                continue
            for terms, scores in zip(segmentation, (unrefined, logits, auxiliary), strict=True):
                terms.append(cross_entropy(scores[0, :, y, x], labels[0, y, x]))
            probability = boundary[0, 0, y, x].sigmoid()
            edges.append(-(probability if targets[0, y, x] != 8 else 1 - probability).log())
            if targets[0, y, x] < 8:
                ways.append(cross_entropy(direction[0, :, y, x], targets[0, y, x].long()))
    first, second, deep, third, fourth = (torch.stack(terms).mean().item() for terms in (*segmentation, edges, ways))
    expected = 1.0 * (first + 0.4 * deep) + 1.5 * second + 3.0 * third + 0.7 * fourth
    assert total == pytest.approx(expected, rel=1e-5)
