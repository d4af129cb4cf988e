"""A flow that moves and a kernel that sharpens: SFNet's flow alignment with CARAFE's reassembly at the moved points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import Window, moved
from crispseg.nn import Tap, projection, resize, upcast


@fuses.register("sharp_flow")
class SharpFlow(nn.Module):
    """Moved 3×3 windows of the coarse level, summed by a signed kernel, then addition: `fine + warped`.

    Each fine pixel predicts a flow, as in SFNet (Li et al., ECCV 2020, §3.2, Eq. 1), and a kernel a, a tanh, so that
    levels of a wide range cannot amplify each other. The window is that around the coarse pixel nearest to the moved
    point. Its weights are those of bilinear sampling at the moved point, plus a minus its mean:

        weights_k = max(0, 1 - |x_k - x|) · max(0, 1 - |y_k - y|) + a_k - mean(a)

    Weights sum to 1 and may be negative, so they can restore an edge that bilinear sampling blurs; kernels with a
    softmax can only average. The kernel starts at zero, and the flow like that of `fam`, whose two convolutions are one
    here: a 3×3 convolution of both levels, as 1×1 products at their own resolution that are then shifted and summed.

    Taps: `fine` (N, C, H, W); `coarse` (N, C, h, w); `flow` (N, 2, H, W), the x and y displacement in half pixels of
    the fine level; `kernel` (N, H, W, 9), row by row, without the bilinear weights; `warped` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
    """

    shifts: Tensor

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.project = projection(coarse_channels, fine_channels)
        # Products of the flow, and the kernel.
        self.predict_fine, self.predict_coarse = (nn.Conv2d(fine_channels, 18 + 9, 1, bias=False) for _ in range(2))
        self.kernel_bias = nn.Parameter(torch.zeros(9, 1, 1))
        for conv in (self.predict_fine, self.predict_coarse):
            nn.init.normal_(conv.weight[:18], std=0.08 / fine_channels**0.5)  # as the product of FAM's convolutions
            nn.init.zeros_(conv.weight[18:])
        self.register_buffer("shifts", torch.eye(9).view(1, 9, 3, 3).repeat(2, 1, 1, 1), persistent=False)
        self.fine, self.coarse, self.flow, self.kernel, self.warped = (Tap() for _ in range(5))

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        fine, coarse, size = self.fine(fine), self.coarse(self.project(coarse)), fine.shape[-2:]
        of_coarse = resize(self.predict_coarse(coarse), size, align_corners=self.align_corners)
        products, kernel = (self.predict_fine(fine) + of_coarse).split([18, 9], dim=1)
        flow = self.flow(F.conv2d(products, self.shifts, padding=1, groups=2))
        kernel = torch.tanh(upcast(kernel) + self.kernel_bias).movedim(1, 3)  # (N, H, W, 9)
        kernel = self.kernel(kernel - kernel.mean(3, keepdim=True))
        return fine + self.warped(self.sharpened(coarse, upcast(flow), kernel))

    def sharpened(self, coarse: Tensor, flow: Tensor, kernel: Tensor) -> Tensor:
        """Sum the windows of `coarse` (N, C, h, w) moved by `flow` (N, 2, H, W) to (N, C, H, W)."""
        (height, width), (h, w) = flow.shape[-2:], coarse.shape[-2:]
        dx, dy = flow.unbind(1)
        points = moved(dx * w / (2 * width), dy * h / (2 * height), (h, w), self.align_corners)
        x, y = (((point + 1) * side - 1) / 2 for point, side in zip(points, (w, h), strict=True))  # in coarse pixels
        column, row = (torch.floor(point.detach() + 0.5) for point in (x, y))
        bilinear = hat(y - row)[..., :, None] * hat(x - column)[..., None, :]  # (N, H, W, 3, 3)
        window = Window.around(row.long(), column.long(), 3, coarse)
        return window.sum(coarse, bilinear.flatten(3) + kernel)


def hat(distance: Tensor) -> Tensor:
    """Return bilinear weights (..., 3) of the pixels at -1, 0 and 1 for points at `distance` from the middle one."""
    return torch.stack([-distance, 1 - distance.abs(), distance], dim=-1).clamp(min=0)
