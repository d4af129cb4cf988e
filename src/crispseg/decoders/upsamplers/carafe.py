"""CARAFE: Wang et al., *CARAFE: Content-Aware ReAssembly of FEatures*, ICCV 2019 (arXiv 1905.02188), §3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import KERNEL, window_at
from crispseg.nn import Tap, projection, resize, upcast


@fuses.register("carafe")
class CARAFE(nn.Module):
    """Reassembly by kernels that the coarse level predicts, then addition: `fine + upsampled`.

    The kernel prediction module (§3.2, Eq. 1) compresses the coarse level to a quarter of its channels, the paper's 64
    of 256, encodes each pixel's 3×3 neighbourhood to the 5×5 kernels of four subpixels, and normalises each kernel by a
    softmax. The reassembly module (§3.3, Eqs. 2 and 3) sums the window around the nearest coarse pixel by this kernel.
    The paper upsamples by a whole factor; here, logits of the doubled level are resized bilinearly to other sizes.

    Taps: `kernels` (N, H, W, 25), row by row; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        distance_prior: start close to bilinear upsampling (see `window_at`), or as averages, as in the paper. If the
            size doubles, this is only another start of the subpixels' biases.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, align_corners: bool = True, *, distance_prior: bool = True
    ) -> None:
        super().__init__()
        self.align_corners, self.distance_prior = align_corners, distance_prior
        compressed = max(fine_channels // 4, 1)
        self.project = projection(coarse_channels, fine_channels)
        self.compress = nn.Conv2d(fine_channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, 4 * KERNEL**2, 3, padding=1)
        nn.init.normal_(self.encode.weight, std=0.01)
        nn.init.zeros_(self.encode.bias)  # type: ignore[arg-type]
        self.kernels, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        subpixels = F.pixel_shuffle(self.encode(self.compress(coarse)), 2)  # (N, 25, 2h, 2w)
        logits = upcast(resize(subpixels, size, align_corners=self.align_corners)).movedim(1, 3)
        window, prior = window_at(size, coarse, self.align_corners)
        kernels = torch.softmax(logits + prior * self.distance_prior, dim=3)
        return fine + self.upsampled(window.sum(coarse, self.kernels(kernels)))
