"""What the frame does for all models alike, shown on one. test_refinement.py: what it does for those that refine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg.benchmarking.cost import count_multiply_adds, count_parameters

from .base import check_saved
from .test_baselines import TestFPN as Base


@pytest.mark.parametrize("call", ["forward", "outputs", "coarse_logits"])
def test_images_that_no_model_takes_are_refused(call: str, refuses: Any) -> None:
    run = getattr(Base.reference(), call)
    for height, width in ((31, 64), (64, 31), (1, 1)):
        with refuses(f"{height}×{width}", "at least 32"):
            run(torch.randn(1, 3, height, width))
    for images in (torch.randn(3, 64, 64), torch.randn(1, 4, 64, 64), torch.zeros(1, 3, 64, 64, dtype=torch.uint8)):
        with refuses("float images (N, 3, H, W)", str(tuple(images.shape)), "crispseg.Segmenter"):
            run(images)


@pytest.mark.parametrize("in_chans", [1, 4])
def test_images_need_not_be_rgb(in_chans: int, tmp_path: Path) -> None:
    model = Base.build(in_chans=in_chans).eval()
    assert len(model.info.mean) == len(model.info.std) == in_chans
    check_saved(model, torch.randn(1, in_chans, 33, 57), tmp_path)


def test_auxiliary_heads_are_in_no_count() -> None:
    plain, model = Base.build(), Base.build(auxiliary=True)
    assert len([*model.parameters()]) > len([*plain.parameters()])
    assert count_parameters(model) == count_parameters(plain)
    assert count_multiply_adds(model, 64, 64) == count_multiply_adds(plain, 64, 64)
