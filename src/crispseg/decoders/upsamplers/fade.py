"""FADE: Lu et al., *FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling*, ECCV 2022
(arXiv 2207.10392)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import nearest_upsampled, projection, window_at
from crispseg.nn import Tap, upcast


@fuses.register("fade")
class FADELite(nn.Module):
    """Reassembly by kernels that both levels predict, and a gate: `G · fine + (1 - G) · upsampled`.

    This is FADE-Lite. 1×1 convolutions compress each level to the K² weights of a kernel. A semi-shift convolution
    encodes both by the same 3×3 weights, each at its own resolution, depth-wise in the lite variant; the coarse result
    is upsampled by the nearest pixel and added. A softmax normalises the kernels. The gate G, a sigmoid of a 1×1
    convolution of the coarse level, starts close to one half.

    Taps: `kernels` (N, H, W, K²), row by row; `upsampled` (N, C, H, W); `gate` (N, 1, H, W), the fine level's share.

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        kernel: K.
        distance_prior: start close to bilinear upsampling (see `window_at`). Without it, kernels start as averages, as
            in the paper, which ignores distances.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        kernel: Literal[3, 5, 7] = 5,
        distance_prior: bool = True,
    ) -> None:
        super().__init__()
        self.align_corners, self.side, self.distance_prior = align_corners, kernel, distance_prior
        points = kernel**2
        self.project = projection(coarse_channels, fine_channels)
        self.compress_fine = nn.Conv2d(fine_channels, points, 1)
        self.compress_coarse = nn.Conv2d(fine_channels, points, 1, bias=False)
        self.encode = nn.Conv2d(points, points, 3, padding=1, groups=points)
        nn.init.normal_(self.encode.weight, std=0.02)
        nn.init.zeros_(self.encode.bias)  # type: ignore[arg-type]
        self.predict_gate = nn.Conv2d(fine_channels, 1, 1)
        nn.init.normal_(self.predict_gate.weight, std=0.01)
        nn.init.zeros_(self.predict_gate.bias)  # type: ignore[arg-type]
        self.kernels, self.upsampled, self.gate = Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        encoded = self.encode(self.compress_coarse(coarse)), torch.sigmoid(self.predict_gate(coarse))
        of_coarse, gate = (nearest_upsampled(each, size, self.align_corners) for each in encoded)
        logits = upcast(self.encode(self.compress_fine(fine)) + of_coarse).movedim(1, 3)  # (N, H, W, K²)
        window, prior = window_at(size, coarse, self.side, self.align_corners)
        kernels = torch.softmax(logits + prior if self.distance_prior else logits, dim=3)
        upsampled = self.upsampled(window.sum(coarse, self.kernels(kernels)))
        return upsampled + self.gate(gate) * (fine - upsampled)
