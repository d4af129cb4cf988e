"""CARAFE: Wang et al., *CARAFE: Content-Aware ReAssembly of FEatures*, ICCV 2019 (arXiv 1905.02188), §3."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import projection, window_at
from crispseg.nn import Tap, resize, upcast


@fuses.register("carafe")
class CARAFE(nn.Module):
    """Reassembly by kernels that the coarse level predicts, then addition: `fine + upsampled`.

    The kernel prediction module (§3.2, Eq. 1) compresses the coarse level, encodes each pixel's neighbourhood to the
    K × K kernels of four subpixels, and normalises each kernel by a softmax. The reassembly module (§3.3, Eqs. 2 and 3)
    sums the window around the nearest coarse pixel by this kernel. The paper upsamples by a whole factor; here, logits
    of the doubled level are resized bilinearly to other sizes.

    Taps: `kernels` (N, H, W, K²), row by row; `upsampled` (N, C, H, W).

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        kernel: K, k_up in the paper.
        content_kernel: k_encoder, side of the convolution that predicts the kernels.
        compressed: C_m, channels of the compressed level; None is a quarter of the width, the paper's 64 of 256.
        distance_prior: start close to bilinear upsampling (see `window_at`). Without it, kernels start as averages, as
            in the paper. Both differ only in the start of the subpixels' biases if the size doubles.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        kernel: Literal[3, 5, 7] = 5,
        content_kernel: Literal[1, 3, 5] = 3,
        compressed: PositiveInt | None = None,
        distance_prior: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners, self.side, self.distance_prior = align_corners, kernel, distance_prior
        compressed = compressed or max(fine_channels // 4, 1)
        self.project = projection(coarse_channels, fine_channels)
        self.compress = nn.Conv2d(fine_channels, compressed, 1)
        self.encode = nn.Conv2d(compressed, 4 * kernel**2, content_kernel, padding=content_kernel // 2)
        nn.init.normal_(self.encode.weight, std=0.01)
        nn.init.zeros_(self.encode.bias)  # type: ignore[arg-type]
        self.kernels, self.upsampled = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        subpixels = nn.functional.pixel_shuffle(self.encode(self.compress(coarse)), 2)  # (N, K², 2h, 2w)
        logits = upcast(resize(subpixels, size, align_corners=self.align_corners)).movedim(1, 3)
        window, prior = window_at(size, coarse, self.side, self.align_corners)
        kernels = torch.softmax(logits + prior if self.distance_prior else logits, dim=3)
        return fine + self.upsampled(window.sum(coarse, self.kernels(kernels)))
