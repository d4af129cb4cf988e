"""Deformable convolution as a fuse part, which SFNet's Table 2(d) compares with its flow."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import DeformConv2d, deform_conv2d

from crispseg.decoders.parts import Context, fuses
from crispseg.nn import Tap, resize


@fuses.register("dcn")
class DeformableFuse(nn.Module):
    """A deformable 3×3 convolution (Dai et al., *Deformable Convolutional Networks*, ICCV 2017, §2.1) on both levels.

    Its input is the coarse level, upsampled bilinearly, and the fine one, concatenated; a 3×3 convolution on the same
    predicts the offsets, which start at zero.

    Taps: `offset` (N, 18, H, W), the y and x displacement, in fine pixels, of each of the kernel's nine points.
    """

    def __init__(self, fine_channels: int, coarse_channels: int) -> None:
        super().__init__()
        both = fine_channels + coarse_channels
        self.predict_offset = nn.Conv2d(both, 2 * 3 * 3, 3, padding=1)
        nn.init.zeros_(self.predict_offset.weight)
        nn.init.zeros_(self.predict_offset.bias)  # type: ignore[arg-type]
        self.offset = Tap()
        self.deform = DeformConv2d(both, fine_channels, 3, padding=1, bias=False)

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """`fine` (N, C, H, W) and `coarse` (N, C', h, w) → (N, C, H, W)."""
        both = torch.cat([resize(coarse, fine.shape[-2:], align_corners=True), fine], dim=1)
        offset = self.offset(self.predict_offset(both))
        wide = torch.promote_types(both.dtype, torch.float32)  # torchvision knows no bfloat16
        fused: Tensor = deform_conv2d(both.to(wide), offset.to(wide), self.deform.weight.to(wide), padding=1)
        return fused.to(fine.dtype)
