"""FADE: Lu et al., *FADE: Fusing the Assets of Decoder and Encoder for Task-Agnostic Upsampling*, ECCV 2022
(arXiv 2207.10392)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crispseg.decoders.parts import Context, fuses
from crispseg.decoders.upsamplers.windows import KERNEL, nearest_upsampled, window_at
from crispseg.nn import Tap, projection, upcast


@fuses.register("fade")
class FADELite(nn.Module):
    """Reassembly by kernels that both levels predict, and a gate: `G · fine + (1 - G) · upsampled`.

    This is FADE-Lite. 1×1 convolutions compress each level to the 25 weights of a 5×5 kernel. A semi-shift convolution
    encodes both by the same 3×3 weights, each at its own resolution, depth-wise in the lite variant; the coarse result
    is upsampled by the nearest pixel and added. A softmax normalises the kernels. The gate G, a sigmoid of a 1×1
    convolution of the coarse level, starts close to one half.

    Taps: `kernels` (N, H, W, 25), row by row; `upsampled` (N, C, H, W); `gate` (N, 1, H, W), the fine level's share.

    Args:
        align_corners: align levels at corner pixels instead of pixel centres.
        distance_prior: start close to bilinear upsampling (see `window_at`), or as averages, as in the paper.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, align_corners: bool = True, *, distance_prior: bool = True
    ) -> None:
        super().__init__()
        self.align_corners, self.distance_prior = align_corners, distance_prior
        points = KERNEL**2
        self.project = projection(coarse_channels, fine_channels)
        self.compress_fine = nn.Conv2d(fine_channels, points, 1)
        self.compress_coarse = nn.Conv2d(fine_channels, points, 1, bias=False)
        self.encode = nn.Conv2d(points, points, 3, padding=1, groups=points)
        self.predict_gate = nn.Conv2d(fine_channels, 1, 1)
        for conv in (self.encode, self.predict_gate):
            nn.init.normal_(conv.weight, std=0.02)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.kernels, self.upsampled, self.gate = Tap(), Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (N, C, H, W) and `coarse` (N, C', h, w) to (N, C, H, W)."""
        coarse, size = self.project(coarse), fine.shape[-2:]
        encoded = self.encode(self.compress_coarse(coarse)), torch.sigmoid(self.predict_gate(coarse))
        of_coarse, gate = (nearest_upsampled(level, size, self.align_corners) for level in encoded)
        logits = upcast(self.encode(self.compress_fine(fine)) + of_coarse).movedim(1, 3)  # (N, H, W, 25)
        window, prior = window_at(size, coarse, self.align_corners)
        kernels = torch.softmax(logits + prior * self.distance_prior, dim=3)
        upsampled = self.upsampled(window.sum(coarse, self.kernels(kernels)))
        return upsampled + self.gate(gate) * (fine - upsampled)
