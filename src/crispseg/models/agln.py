"""AGLN: Li et al., *Attention Guided Global Enhancement and Local Refinement Network for Semantic Segmentation*.

IEEE Transactions on Image Processing 2022 (arXiv 2204.04363). Section and equation numbers are the paper's; see
docs/papers/agln.md for open details, how they are settled, and differences of the released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.config.ranges import Count
from crispseg.decoders import Concat, Context, ConvContext, TopDown, fitted, fuses
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame
from crispseg.models.registry import models, variant
from crispseg.nn import BatchNorm2d, Tap, channel_softmax, conv_bn_relu, mix_channels, projection, resize, upcast

DESCRIPTORS = 128  # default of N
SHARPNESS = 8.0  # largest energy of correlated channels
OPEN = 0.5  # first value of α and γ with `open_start`
FITTED: dict[str, Any] = {"descriptors": 32, "energies": "correlation", "open_start": True}

Pooling = Literal["attention", "average"]
Connection = Literal["dense", "straight"]
LocalRefinementKind = Literal["both", "channel", "spatial", "none"]
Block = Literal["residual", "paper", "released"]
Energies = Literal["sum", "correlation"]


def spread(scores: nn.Conv2d) -> None:
    """Give scores of a softmax a standard deviation of about 2 at the start, for inputs of about 1."""
    nn.init.normal_(scores.weight, std=2 / scores.in_channels**0.5)


class SemanticAggregation(nn.Module):
    """Semantic Aggregation Block (§III-A2, Eq. 1, Fig. 2a): it gathers N descriptors from a whole feature map.

    Taps: `X_am` (B, N, H, W), the attention maps with sum 1 each; `D` (B, C, N), the descriptors.

    Args:
        channels: C.
        descriptors: N.
        pooling: attention, or average, which uses the mean over all pixels as only descriptor (Table IV, GAP-GEM).
        open_start: start with attention maps that differ, instead of nearly equal means of all pixels.
    """

    pools_globally = True

    def __init__(
        self,
        channels: int,
        descriptors: int = DESCRIPTORS,
        *,
        pooling: Pooling = "attention",
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.phi = nn.Conv2d(channels, channels, 1)
        # No bias: a constant does not change the softmax over all pixels.
        self.theta = nn.Conv2d(channels, descriptors, 1, bias=False) if pooling == "attention" else None
        if self.theta is not None and open_start:
            spread(self.theta)
        self.X_am, self.D = Tap(), Tap()

    def forward(self, x: Tensor) -> Tensor:
        """Gather the descriptors D (B, C, N) of `x` (B, C, H, W)."""
        scores = torch.zeros_like(x[:, :1]) if self.theta is None else self.theta(x)
        x_am = torch.softmax(upcast(scores.flatten(2)), dim=2)  # (B, N, H · W)
        x_am = self.X_am(torch.unflatten(x_am, 2, x.shape[-2:])).flatten(2).to(x.dtype)  # tapped as (B, N, H, W)
        if self.theta is None:  # the product below would round 1 / (H · W) in bfloat16
            pooled = upcast(x).mean((2, 3)).to(x.dtype).unsqueeze(2)
        else:
            pooled = torch.bmm(x.flatten(2), x_am.mT)  # (B, C, N)
        # X_feat × X_amᵀ with X_feat = φ(X): φ is linear and each attention map sums to 1, so φ can be applied last.
        return self.D(self.phi(pooled.unsqueeze(3)).squeeze(3))  # (B, C, N)


class SemanticDistribution(nn.Module):
    """Semantic Distribution Module (§III-A2, Eqs. 2 and 3, Fig. 2a): each pixel gets its own mixture of descriptors.

    Taps: `A` (B, C, H, W), the decoder feature; `A_av` (B, N, H, W), the share of each descriptor in each pixel, if
    N > 1; `M` (B, C, H, W), the semantic descriptor map; `E` (B, C, H, W), the enhanced decoder feature.

    Args:
        channels: C.
        descriptors: N.
        learn_alpha: learn α; otherwise it is 1 (Table VI).
        separable: make Ψ depth-wise separable (§IV-D).
        released: use a 1×1 convolution of M and no Ψ, like the released code.
        open_start: start with α at one half, and with attention that differs between descriptors.
    """

    def __init__(
        self,
        channels: int,
        descriptors: int = DESCRIPTORS,
        *,
        learn_alpha: bool = True,
        separable: bool = False,
        released: bool = False,
        open_start: bool = False,
    ) -> None:
        super().__init__()
        # The attention vector of a single descriptor is 1 for any feature.
        self.varphi = nn.Conv2d(channels, descriptors, 1) if descriptors > 1 else None
        if self.varphi is not None and open_start:
            spread(self.varphi)
        self.psi = nn.Identity() if released else _conv3x3(channels, separable)
        self.project = nn.Conv2d(channels, channels, 1) if released else nn.Identity()
        self.alpha: Tensor | float = nn.Parameter(torch.tensor(OPEN if open_start else 0.0)) if learn_alpha else 1.0
        self.A, self.A_av, self.M, self.E = Tap(), Tap(), Tap(), Tap()

    def forward(self, a: Tensor, descriptors: Tensor) -> tuple[Tensor, Tensor]:
        """Return M and E, (B, C, H, W) each, for `a` (B, C, H, W) and D (B, C, N)."""
        a, descriptors = self.A(a), descriptors.to(a.dtype)
        if self.varphi is None:
            m = self.M(self.project(descriptors.unsqueeze(3).expand_as(a)))
        else:
            a_av = self.A_av(channel_softmax(upcast(self.varphi(a))).to(a.dtype))  # (B, N, H, W)
            m = self.M(self.project(mix_channels(descriptors, a_av)))
        return m, self.E(self.psi(a + self.alpha * m))


class LocalRefinement(nn.Module):
    """Local Refinement Module (§III-B2, Eqs. 4 and 5, Fig. 2a): it removes noise from the encoder's feature.

    Taps: `B` and `G` (B, C, H, W), the encoder's feature before and after refinement; with γ also `R`, what is added.

    Args:
        refinement: channel resampling, spatial gating or both (Table V); none keeps the feature unchanged (AGLN⁻).
        block: paper uses Eqs. 4 and 5 only, which do not train. residual adds the refined feature, scaled by γ, to the
            unchanged one. released does the same, and emphasises the least correlated channels.
        energies: see `resample_channels`.
        open_start: start with γ at one half.
    """

    def __init__(
        self,
        refinement: LocalRefinementKind = "both",
        *,
        block: Block = "residual",
        energies: Energies = "sum",
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.resamples, self.gates = refinement in ("both", "channel"), refinement in ("both", "spatial")
        self.energies = energies
        self.gamma = (
            nn.Parameter(torch.tensor(OPEN if open_start else 0.0))
            if block != "paper" and refinement != "none"
            else None
        )
        self.least = block == "released"
        self.B, self.G = Tap(), Tap()
        self.R = None if self.gamma is None else Tap()

    def forward(self, b: Tensor, e: Tensor, m: Tensor) -> Tensor:
        """Refine the encoder's feature to G by the enhanced decoder feature E and descriptors M; all (B, C, H, W)."""
        refined = self.B(b)
        if self.resamples:
            refined = resample_channels(refined, e, least=self.least, energies=self.energies)
        if self.gates:
            refined = refined * torch.sigmoid(m)  # Eq. 5
        if self.R is not None:
            refined = b + self.R(self.gamma * refined)
        return self.G(refined)


def resample_channels(b: Tensor, e: Tensor, *, least: bool = False, energies: Energies = "sum") -> Tensor:
    """Channel resampling (Eq. 4): F_j = Σ_i softmax_i⟨B_i, E_j⟩ B_i, for `b` and `e` (B, C, H, W).

    The dot products are sums over all pixels. They are float32, because bfloat16 would keep two or three digits only.

    Args:
        b, e: feature of the encoder, enhanced feature of the decoder.
        least: use the softmax of max - ⟨B_i, E_j⟩, like the released code.
        energies: sum, Eq. 4's sums over pixels, which grow with the image, so that the softmax selects one channel; or
            correlation, the channels' correlation over the pixels times `SHARPNESS`.
    """
    kind = b.device.type
    automatic = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    with torch.autocast(kind, enabled=False) if automatic else nullcontext():
        rows, columns = (upcast(x.flatten(2)) for x in (e, b))  # (B, C, H · W)
        if energies == "correlation":
            rows, columns = (F.normalize(x - x.mean(2, keepdim=True), dim=2) for x in (rows * SHARPNESS, columns))
        products = torch.bmm(rows, columns.mT)  # (B, C, C): row j, column i
        products = products.amax(2, keepdim=True) - products if least else products
    return mix_channels(torch.softmax(products, dim=2).to(b.dtype), b)


class ContextFusionBlock(nn.Module):
    """Context Fusion Block (§III-C, Eq. 6, Fig. 2a): O = Φ(E + β G), or O = E + B in AGLN⁻, which has no refinement.

    Args:
        channels: C.
        descriptors: N.
        refinement, block, energies: see `LocalRefinement`; the released block is one 3×3 convolution Φ(A + α M + β G).
            It computes G from A, and applies a 1×1 convolution to M.
        learn_alpha, learn_beta: learn α (see `open_start`), and β from 1 (AGLN⁻ has no β); otherwise they are 1 (Table
            VI).
        separable: make Ψ and Φ depth-wise separable (§IV-D).
        open_start: start with α and γ at one half, and with attention that differs between descriptors.
    """

    def __init__(
        self,
        channels: int,
        descriptors: int = DESCRIPTORS,
        *,
        refinement: LocalRefinementKind = "both",
        block: Block = "residual",
        energies: Energies = "sum",
        learn_alpha: bool = True,
        learn_beta: bool = True,
        separable: bool = False,
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.released = block == "released"
        self.sdm = SemanticDistribution(
            channels,
            descriptors,
            learn_alpha=learn_alpha,
            separable=separable,
            released=self.released,
            open_start=open_start,
        )
        self.lrm = LocalRefinement(refinement, block=block, energies=energies, open_start=open_start)
        minus = refinement == "none"
        self.phi = nn.Identity() if minus else _conv3x3(channels, separable)
        self.beta: Tensor | float = nn.Parameter(torch.ones(())) if learn_beta and not minus else 1.0

    def forward(self, a: Tensor, b: Tensor, descriptors: Tensor) -> Tensor:
        """Fuse the decoder's feature `a` and the encoder's `b` (B, C, H, W) with D (B, C, N) to O (B, C, H, W)."""
        m, e = self.sdm(a, descriptors)
        g = self.lrm(b, a if self.released else e, m)
        return self.phi(e + self.beta * g)


def _conv3x3(channels: int, separable: bool) -> nn.Sequential:
    """Build 3×3 convolution, batch norm and ReLU; AGLN-Lite's separable one is depth-wise 3×3, then 1×1."""
    if not separable:
        return conv_bn_relu(channels, channels, 3)
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class ContextFusion(nn.Module):
    """Step of the decoder (Fig. 4b): a Context Fusion Block for each set of descriptors, oldest first.

    All blocks use the same encoder feature. The first block also takes the upsampled coarse level; each further block
    takes the output of the block before.

    Args:
        fine_channels, coarse_channels: channels of the two levels; they must be equal.
        align_corners: align the upsampled coarse level at corner pixels, or at pixel centres.
        sets: number of descriptor sets in the context at this step.
        options: options of `ContextFusionBlock`.
    """

    def __init__(
        self, fine_channels: int, coarse_channels: int, align_corners: bool = True, *, sets: int, **options: Any
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.blocks = nn.ModuleList(ContextFusionBlock(fine_channels, **options) for _ in range(sets))

    def forward(self, fine: Tensor, coarse: Tensor, context: Context) -> Tensor:
        """Fuse `fine` (B, C, H, W) and `coarse` (B, C, h, w) with the context's descriptors to (B, C, H, W)."""
        feature = resize(coarse, fine.shape[-2:], align_corners=self.align_corners)
        for block, descriptors in zip(self.blocks, context.descriptors, strict=True):
            feature = block(feature, fine, descriptors)
        return feature


@fuses.register("cfb")
@fitted(**FITTED)
class SelfGathering(nn.Module):
    """Context Fusion Block as a fuse part for any decoder; it gathers its descriptors from `coarse`.

    Args:
        descriptors, pooling: see `SemanticAggregation`.
        refinement, block, energies, learn_alpha, learn_beta, separable, open_start: see `ContextFusionBlock`.
    """

    def __init__(
        self,
        fine_channels: int,
        coarse_channels: int,
        align_corners: bool = True,
        *,
        descriptors: Count = DESCRIPTORS,
        pooling: Pooling = "attention",
        refinement: LocalRefinementKind = "both",
        block: Block = "residual",
        energies: Energies = "sum",
        learn_alpha: bool = True,
        learn_beta: bool = True,
        separable: bool = False,
        open_start: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        descriptors = descriptors if pooling == "attention" else 1
        self.project = projection(coarse_channels, fine_channels)
        self.sab = SemanticAggregation(fine_channels, descriptors, pooling=pooling, open_start=open_start)
        self.cfb = ContextFusionBlock(
            fine_channels,
            descriptors,
            refinement=refinement,
            block=block,
            energies=energies,
            learn_alpha=learn_alpha,
            learn_beta=learn_beta,
            separable=separable,
            open_start=open_start,
        )

    def forward(self, fine: Tensor, coarse: Tensor, context: Context | None = None) -> Tensor:
        """Fuse `fine` (B, C, H, W) and `coarse` (B, C', h, w) to (B, C, H, W)."""
        coarse = self.project(coarse)
        upsampled = resize(coarse, fine.shape[-2:], align_corners=self.align_corners)
        return self.cfb(upsampled, fine, self.sab(coarse))


class AGLNDecoder(TopDown):
    """FPN with Context Fusion Blocks instead of upsampling and addition (§III-D, Figs. 2b and 4).

    Args:
        channels: channels of the backbone's features, finest first.
        width: channels of every level.
        expansion: see `agln`.
        align_corners: align levels at corner pixels, or at pixel centres.
        connection, lateral_kernel: see `agln`.
        descriptors, pooling: see `SemanticAggregation`; average pooling gives one descriptor.
        **options: options of `ContextFusionBlock`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        expansion: int,
        *,
        align_corners: bool,
        connection: Connection,
        descriptors: int,
        pooling: Pooling,
        lateral_kernel: int,
        **options: Any,
    ) -> None:
        descriptors = descriptors if pooling == "attention" else 1
        steps = len(channels) - 1
        sets = [steps - step if connection == "dense" else 1 for step in range(steps)]  # finest first
        super().__init__(
            channels,
            width,
            expansion * width,
            context=ConvContext,
            fuses=[
                partial(ContextFusion, align_corners=align_corners, sets=count, descriptors=descriptors, **options)
                for count in sets
            ],
            merge=partial(Concat, align_corners=align_corners),
            lateral_kernel=lateral_kernel,
        )
        self.gathers = nn.ModuleList(
            SemanticAggregation(width, descriptors, pooling=pooling, open_start=bool(options.get("open_start")))
            for _ in range(max(sets))
        )

    def gathered(self, level: Tensor, context: Context) -> Context:
        """Add the descriptors of `level` `(B, width, h, w)` to those of coarser levels."""
        sets = context.descriptors
        return Context((*sets, self.gathers[len(sets)](level))) if len(sets) < len(self.gathers) else context


@models.register("agln")
@fitted(align_corners=False, inference_scale=1.33, connection="straight", expansion=1, **FITTED)
def agln(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    expansion: Count = 2,
    connection: Connection = "dense",
    descriptors: Count = DESCRIPTORS,
    pooling: Pooling = "attention",
    lateral_kernel: Literal[1, 3] = 1,
    refinement: LocalRefinementKind = "both",
    block: Block = "residual",
    energies: Energies = "sum",
    learn_alpha: bool = True,
    learn_beta: bool = True,
    separable: bool = False,
    open_start: bool = False,
    frame: Frame = Frame(),
) -> SegmentationModel:
    """Semantic Aggregation and Context Fusion Blocks in an FPN (§III-D, Fig. 2b).

    Args:
        width: channels of every level. None: 256, or a width that fits the backbone.
        expansion: channels of the merged feature, as a multiple of the width.
        connection: dense uses descriptors of every level but the finest (Fig. 4b); straight uses those of the coarsest
            level only (Fig. 4a).
        descriptors: N, the number of descriptors in each set; average pooling gives one.
        pooling: attention, or average, which uses the mean as only descriptor (Table IV, GAP-GEM).
        lateral_kernel: kernel size for the encoder's features: 1, which matches the paper's counts, or 3 (§IV-A5).
        refinement: refinement of the encoder's feature: both, channel or spatial (Table V), or none (AGLN⁻).
        block: residual adds the refined feature, scaled by γ, to the encoder's feature; paper uses Eqs. 4 to 6 only,
            which do not train; released is the block of the released code.
        energies: affinity of channels in Eq. 4: sum over pixels, or correlation, which does not grow with the image.
        learn_alpha: learn α, the scale of the descriptor map; otherwise it is 1 (Table VI).
        learn_beta: learn β, the scale of the encoder's feature, starting at 1; otherwise it is 1 (Table VI).
        separable: use depth-wise separable convolutions in the Context Fusion Blocks (§IV-D).
        open_start: start with α and γ at one half, and with attention that differs between descriptors. Otherwise they
            start at 0, as in the paper, and the descriptors have no gradient at the first step.
    """
    backbone = spec.build()
    decoder = AGLNDecoder(
        backbone.channels,
        spec.width(width, 256, backbone.channels),
        expansion,
        align_corners=frame.align_corners,
        connection=connection,
        descriptors=descriptors,
        pooling=pooling,
        lateral_kernel=lateral_kernel,
        refinement=refinement,
        block=block,
        energies=energies,
        learn_alpha=learn_alpha,
        learn_beta=learn_beta,
        separable=separable,
        open_start=open_start,
    )
    return SegmentationModel(backbone, decoder, num_classes, frame)


agln_lite = variant(
    "agln_lite",
    agln,
    "AGLN with depth-wise separable convolutions in the Context Fusion Blocks (§IV-D).",
    separable=True,
)
