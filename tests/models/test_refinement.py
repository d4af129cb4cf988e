"""Boundary refinement: its formulas, and models that have it."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from crispseg.models.refinement import STEPS, BoundaryRefinement, shift
from crispseg.training.initial_weights import initialize

from .base import ModelTester, check_saved


def test_an_empty_boundary_map_changes_nothing_exactly() -> None:
    refiner = BoundaryRefinement()
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        logits = (1e3 * torch.randn(2, 5, 97, 61, dtype=torch.float64)).to(dtype)
        for boundary in (torch.full((2, 1, 97, 61), -1e-6), torch.zeros(2, 1, 97, 61)):  # one half is no boundary
            refined = shift(logits, refiner.offsets(boundary, torch.randn(2, 8, 97, 61)))
            assert refined.dtype == dtype
            assert torch.equal(refined, logits)


@pytest.mark.parametrize("size", [(45, 67), (2100, 33), (3, 4000)])
def test_logits_come_from_where_two_steps_lead_and_do_not_mix(size: tuple[int, int]) -> None:
    refiner = BoundaryRefinement()
    values = torch.arange(size[0] * size[1], dtype=torch.float32).view(1, 1, *size)
    direction = torch.randn(1, 8, *size)
    boundary = torch.randn(1, 1, *size)
    moved = shift(values, refiner.offsets(boundary, direction)).long()[0, 0]
    ys, xs = torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")
    step = torch.tensor(STEPS)[direction[0].argmax(0)] * (boundary[0, 0] > 0)[..., None]  # (H, W, 2), x and y
    over = [
        (position + step[..., axis]).clamp(0, length - 1)
        for position, axis, length in ((ys, 1, size[0]), (xs, 0, size[1]))
    ]
    far = step + step[over[0], over[1]]
    expected = (ys + far[..., 1]).clamp(0, size[0] - 1) * size[1] + (xs + far[..., 0]).clamp(0, size[1] - 1)
    assert torch.equal(moved, expected)


def test_straight_steps_go_on_in_the_first_direction() -> None:
    """SegFix doubles its step; beyond the edge counts as the nearest pixel of it."""
    refiner = BoundaryRefinement(steps=2, path="straight")
    values = torch.arange(20 * 30, dtype=torch.float32).view(1, 1, 20, 30)
    boundary, direction = torch.randn(1, 1, 20, 30), torch.randn(1, 8, 20, 30)
    moved = shift(values, refiner.offsets(boundary, direction)).long()[0, 0]
    for y, x in np.ndindex(20, 30):
        dx, dy = STEPS[int(direction[0, :, y, x].argmax())] if boundary[0, 0, y, x] > 0 else (0, 0)
        assert moved[y, x] == min(max(y + 2 * dy, 0), 19) * 30 + min(max(x + 2 * dx, 0), 29)


class TestRefinedFPN(ModelTester):
    name = "fpn"
    options: ClassVar = {"width": 16, "refine": "boundary"}
    taps: ClassVar = {"decoder.coarsest": (16, 32), "refiner.boundary": (1, 1), "refiner.direction": (8, 1)}

    def test_the_outputs_are_complete(self) -> None:
        images = torch.randn(2, 3, 65, 97)
        outputs = self.reference().outputs(images)
        assert outputs.unrefined is not None and outputs.boundary is not None and outputs.direction is not None
        assert outputs.boundary.shape == (2, 1, 65, 97)
        assert outputs.direction.shape == (2, 8, 65, 97)
        moved = (outputs.logits != outputs.unrefined).any(1, keepdim=True)
        assert 0.05 < moved.float().mean() < 0.95, "else half of what follows is not tested"
        assert not (moved & (outputs.boundary <= 0)).any()


def test_how_steps_are_taken_is_saved(tmp_path: Path) -> None:
    model = TestRefinedFPN.build(refine_steps=3, refine_path="straight").eval()
    loaded = check_saved(model, torch.randn(1, 3, 33, 57), tmp_path)
    assert loaded.refiner is not None and (loaded.refiner.steps, loaded.refiner.path) == (3, "straight")


def test_training_may_start_from_a_model_with_refinement_and_leave_it_off() -> None:
    refined, plain = TestRefinedFPN.build(), TestRefinedFPN.build(refine=None)
    initialize(plain, refined, "start")
    assert refined.refiner is not None and plain.refiner is None
    assert torch.equal(plain.classifier.weight, refined.classifier.weight)
