"""From pixels to what a backbone was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from crispseg.io.images import image_channels


class Normalize(v2.Transform):  # type: ignore[misc]
    """Images of 0 to 255 → `(..., in_chans, H, W)` float32, scaled to 0 to 1, less mean, over std.

    The images are `(..., 3, H, W)` RGB, or `(..., 4, H, W)` for 4 channels.

    Args:
        mean, std: one number a channel, on the scale 0 to 1.
        in_chans: 3; 4; or 1 for the mean of RGB, for which the averages of `mean` and `std` count.

    Raises:
        CrispsegError: another number of channels.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], in_chans: int = 3) -> None:
        super().__init__()
        image_channels(in_chans)
        self.in_chans = in_chans
        self.mean, self.std = (255 * torch.tensor(numbers).view(-1, 1, 1) for numbers in (mean, std))
        if in_chans == 1:
            self.mean, self.std = self.mean.mean(), self.std.mean()

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        image = inpt.as_subclass(Tensor).float()
        if self.in_chans == 1:
            image = image.mean(dim=-3, keepdim=True)
        return (image - self.mean.to(image.device)).div_(self.std.to(image.device))
