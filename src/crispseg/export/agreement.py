"""Whether an exported file computes the logits of its model."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.inference.runtime import Run
from crispseg.models import SegmentationModel

CHECKED = ((1, 32, 57), (2, 97, 160), (1, 471, 630))
"""Images, height and width at which a file is compared with its model."""
TOLERANCE = 1e-3
"""Largest absolute difference of a logit; beyond logits of `LARGE`, relative to them, as float32 is no more exact."""
LARGE = 100.0
SAME_LABELS = 0.999
DECIDED_OTHERWISE = 0.001
"""Share of the pixels of a refined model whose logits need not agree: where two directions, or boundary and none, are
equal but for rounding, a pixel takes the logits of another one."""


class Comparison(NamedTuple):
    """Logits of a file compared with those of the model, at one size."""

    size: tuple[int, int, int]
    """Images, height, width."""
    largest: float
    """The largest of the model's logits, absolute."""
    difference: float
    """The largest of any logit, absolute; of a refined model, without the pixels that are `DECIDED_OTHERWISE`."""
    same_labels: float
    """Share of pixels, 0 to 1."""

    @property
    def agrees(self) -> bool:
        """Whether difference and labels are within the tolerance; never with values that are not finite."""
        return self.difference <= TOLERANCE * max(1.0, self.largest / LARGE) and self.same_labels >= SAME_LABELS

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        return (
            f"{size}: largest difference {self.difference:.1e} in logits of up to {self.largest:.3g}, "
            f"{100 * self.same_labels:.3f} % equal labels"
        )


@torch.inference_mode()
def compare(run: Run, model: SegmentationModel, size: tuple[int, int, int]) -> Comparison:
    """Compare what a file computes with what the model computes, in float32, on random smooth images."""
    images = smooth_images(size, model.info.in_chans)
    expected, logits = reference(model)(images), run(images)
    same = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
    differences = (logits - expected).abs().amax(1).flatten()  # (N · H · W,)
    left_out = int(DECIDED_OTHERWISE * differences.numel()) if model.refiner else 0
    difference = differences.kthvalue(differences.numel() - left_out).values.item()  # the largest of the rest
    return Comparison(size, expected.abs().max().item(), difference, same)


def smooth_images(size: tuple[int, int, int], in_chans: int) -> Tensor:
    """Return blobs of some 16 pixels with a little noise, of the spread of normalised images, always the same."""
    count, height, width = size
    random = torch.Generator().manual_seed(0)
    blobs = torch.randn(count, in_chans, height // 16 + 2, width // 16 + 2, generator=random)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=True)
    return blobs + 0.1 * torch.randn(blobs.shape, generator=random)


def reference(model: SegmentationModel) -> SegmentationModel:
    """Copy a model in its plainest form: float32, on the CPU, in eval mode, without gradients."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    return plain.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
