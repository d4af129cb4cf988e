"""A flow that moves and a kernel that sharpens: SFNet's flow alignment with CARAFE's reassembly at the moved points."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import Window, moved, projection
from crispseg.nn import Tap, resize, upcast

WINDOW_SIDE = 3
"""Side of the window; it contains the four pixels of bilinear sampling around every point."""


@fuses.register("sharp_flow")
class SharpFlow(nn.Module):
    """Moved 3×3 windows of the coarse level, summed by a signed kernel, then addition: `fine + warped`.

    Each fine pixel p predicts a flow, as in SFNet (Li et al., ECCV 2020, §3.2, Eq. 1), and a kernel a in -1..1, a tanh,
    so that levels of a wide range cannot amplify each other. Both are linear in the two levels before. The window is
    that around the coarse pixel nearest to the moved point. Its weights are those of bilinear sampling at the moved
    point, plus a minus its mean:

        weights_k = max(0, 1 - |x_k - x|) · max(0, 1 - |y_k - y|) + a_k - mean(a)

    Weights sum to 1 and may be negative, so they can restore an edge that bilinear sampling blurs; kernels with a
    softmax can only average. The flow's gradient is that of bilinear sampling. The kernel starts at zero.

    The flow is that of `fam` with the product of its two convolutions as its weight: a 3×3 convolution, computed as 1×1
    products at each level's own resolution, which are then shifted and summed.

    Taps: `flow` (N, 2, H, W), the x and y displacement in half pixels of the fine level; `kernel` (N, H, W, 9), row by
    row, without the bilinear weights; `warped` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
    """

    shifts: Tensor

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners
        points = WINDOW_SIDE**2
        self.project = projection(coarse_channels, fine_channels)
        self.flow_of_fine, self.flow_of_coarse = (nn.Conv2d(fine_channels, 2 * points, 1, bias=False) for _ in range(2))
        for conv in (self.flow_of_fine, self.flow_of_coarse):
            nn.init.normal_(conv.weight, std=0.08 / fine_channels**0.5)  # as the product of FAM's two convolutions
        self.kernel_of_fine, self.kernel_of_coarse = (nn.Conv2d(fine_channels, points, 1) for _ in range(2))
        for conv in (self.kernel_of_fine, self.kernel_of_coarse):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.register_buffer(
            "shifts", torch.eye(points).view(1, points, WINDOW_SIDE, WINDOW_SIDE).repeat(2, 1, 1, 1), False
        )
        self.flow, self.kernel, self.warped = Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        of_flow, of_kernel = (
            of_fine(fine) + resize(of_coarse(coarse), size, align_corners=self.align_corners)
            for of_fine, of_coarse in (
                (self.flow_of_fine, self.flow_of_coarse),
                (self.kernel_of_fine, self.kernel_of_coarse),
            )
        )
        flow = self.flow(F.conv2d(of_flow, self.shifts, padding=WINDOW_SIDE // 2, groups=2))
        kernel = torch.tanh(upcast(of_kernel)).movedim(1, 3)  # (N, H, W, 9)
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
        window = Window.around(row.long(), column.long(), WINDOW_SIDE, coarse)
        return window.sum(coarse, bilinear.flatten(3) + kernel)


def hat(distance: Tensor) -> Tensor:
    """Return bilinear weights (..., 3) of the pixels at -1, 0 and 1 for points at `distance` from the middle one."""
    return torch.stack([-distance, 1 - distance.abs(), distance], dim=-1).clamp(min=0)
