"""SFNet: Li et al., *Semantic Flow for Fast and Accurate Scene Parsing*, ECCV 2020 (arXiv 2002.10120).

Section and equation numbers are the paper's; see docs/papers/sfnet.md for what it leaves open and how that is settled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.decoders import Context, TopDown, contexts, fuses, merges
from crispseg.models.base import SegmentationModel
from crispseg.models.registry import BackboneSpec, models
from crispseg.nn import Tap, resize


@fuses.register("fam")
class FlowAlignment(nn.Module):
    """Flow Alignment Module (§3.2, Fig. 3a), with the addition that follows it: `fine + warp(coarse, flow)`.

    Both levels are compressed to half the width by 1×1 convolutions; a single 3×3 convolution on the two predicts, for
    each fine pixel, where to look in the coarse level.

    Taps: `flow` (N, 2, H, W), the x and y displacement Δ in half pixels of the fine level; `warped`, F̃ of Eq. 3.
    """

    def __init__(self, fine_channels: int, coarse_channels: int) -> None:
        super().__init__()
        common = fine_channels // 2
        same = fine_channels == coarse_channels
        self.project = nn.Identity() if same else nn.Conv2d(coarse_channels, fine_channels, 1, bias=False)
        self.compress_fine = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.compress_coarse = nn.Conv2d(fine_channels, common, 1, bias=False)
        self.predict_flow = nn.Conv2d(2 * common, 2, 3, padding=1, bias=False)
        self.flow, self.warped = Tap(), Tap()

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """`fine` (N, C, H, W) and `coarse` (N, C', h, w) → (N, C, H, W)."""
        coarse = self.project(coarse)
        upsampled = resize(self.compress_coarse(coarse), fine.shape[-2:], align_corners=True)
        # Eq. 1: Δ = conv(cat(F_l, F_{l-1}))
        flow = self.flow(self.predict_flow(torch.cat([upsampled, self.compress_fine(fine)], dim=1)))
        aligned: Tensor = fine + self.warped(warp(coarse, flow))
        return aligned


def warp(coarse: Tensor, flow: Tensor) -> Tensor:
    """Sample `coarse` (N, C, h, w) bilinearly at every fine pixel displaced by `flow` (N, 2, H, W) → (N, C, H, W).

    Eqs. 2 and 3 in the coordinates of the released code, so that its checkpoints run: with -1..1 from the first pixel
    centre to the last (`align_corners=True`), the flow moves a point by Δ / (W, H). Coordinates are float32 always.
    """
    height, width = flow.shape[-2:]
    ys = torch.linspace(-1, 1, height, device=flow.device).view(1, -1, 1)
    xs = torch.linspace(-1, 1, width, device=flow.device).view(1, 1, -1)
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    grid = torch.stack([xs + dx / width, ys + dy / height], dim=-1)  # (N, H, W, 2)
    warped = F.grid_sample(coarse.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return warped.to(coarse.dtype)


@models.register("sfnet")
def sfnet(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    context: str = "ppm",
    fuse: str = "fam",
    merge: str = "concat",
    released_dilation: bool = False,
    auxiliary: bool = False,
) -> SegmentationModel:
    """The aligned FPN decoder (§3.3, Fig. 3c) on any backbone.

    Args:
        spec: the backbone to build.
        num_classes: number of logits.
        width: channels of every level; by default, as released, 128 for a C5 of up to 512 channels, else 256.
        context: context part on C5, conv or ppm.
        fuse: fuse part between levels, add or fam.
        merge: merge part for all levels, concat.
        released_dilation: dilate the ResNet's last two stages as the released code does; its checkpoints need it.
        auxiliary: deep supervision on the decoder's levels ("Cascaded Deeply Supervised Learning").
    """
    backbone = spec.build()
    if released_dilation:
        backbone.dilate()
    if width is None:
        width = 128 if backbone.channels[-1] <= 512 else 256
    decoder = TopDown(backbone.channels, width, width, context=contexts[context], fuse=fuses[fuse], merge=merges[merge])
    return SegmentationModel(backbone, decoder, num_classes, auxiliary=auxiliary)
