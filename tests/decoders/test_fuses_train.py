"""Every fuse part trains."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from drawn import NAMES, draw
from torch import Tensor
from torch.nn.functional import cross_entropy

from crispseg import SegmentationModel, create_model, fuses

STEPS, BATCH, SIDE = 60, 8, 64
BELOW = 5
"""Points of mIoU that a part may be below `add`."""


@cache
def drawn_images(first: int, count: int) -> tuple[Tensor, Tensor]:
    """Normalised images (N, 3, 64, 64) and their labels (N, 64, 64)."""
    images, labels = zip(*(draw(seed, SIDE, SIDE) for seed in range(first, first + count)), strict=True)
    pixels = torch.stack([torch.from_numpy(image) for image in images]).permute(0, 3, 1, 2)
    return pixels.float() / 64 - 2, torch.stack([torch.from_numpy(mask) for mask in labels]).long()


def trained(fuse: str) -> SegmentationModel:
    torch.manual_seed(0)
    model = create_model(
        "crisp", num_classes=len(NAMES), backbone="test_efficientnet", width=32, fuse=fuse, inference_scale=1
    )
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    images, labels = drawn_images(0, 64)
    for step in range(STEPS):
        batch = slice(step * BATCH % len(images), step * BATCH % len(images) + BATCH)
        loss = cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@cache
def miou(fuse: str) -> float:
    """Percent on images that the model has not seen."""
    images, labels = drawn_images(1000, 32)
    model = trained(fuse)
    with torch.no_grad():
        predicted = model(images).argmax(1)
    pairs = torch.bincount((labels * len(NAMES) + predicted).flatten(), minlength=len(NAMES) ** 2)
    confusion = pairs.view(len(NAMES), -1).double()
    unions = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return 100 * float((confusion.diag() / unions).mean())


@pytest.mark.slow
@pytest.mark.parametrize("fuse", sorted({*fuses.names()} - {"add"}))
def test_a_part_learns_as_addition_does(fuse: str) -> None:
    assert miou(fuse) > miou("add") - BELOW
