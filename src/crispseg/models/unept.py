"""UN-EPT: Zhu et al., *A Unified Efficient Pyramid Transformer for Semantic Segmentation*, ICCV Workshops 2021.

The file follows the paper, with its section and equation numbers. It has the transformer (§3.1.1), the pyramid
(§3.1.2) with queries from the spatial branch (§3.2), and the details of the layers (§4.2). Eqs. 2 to 4 and 6 are in
`crispseg.nn.DeformableAttention`. The spatial branch and the refinement are in `crispseg.models.refinement`.
docs/papers/unept.md lists contradictions in the paper and its released code, and how they are settled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor, nn

from crispseg.backbones import plain_strides
from crispseg.config.ranges import Count, Probability
from crispseg.decoders import Decoded, Decoder, fitted
from crispseg.errors import CrispsegError
from crispseg.models.base import SegmentationModel
from crispseg.models.frame import BackboneSpec, Frame
from crispseg.models.refinement import SpatialBranch
from crispseg.models.registry import models
from crispseg.nn import DeformableAttention, Tap, ceil_div, pixel_centres, resize

HEADS = 8
UNIT = 512  # pixels that position encodings in pixels count as 1
Positions = Literal["image", "pixels"]
Sizes = Sequence[Sequence[int]]  # height and width of each level


class FullAttention(nn.Module):
    """Eq. 1, scaled by √d of a head: each query attends to all others. Q · Q products suit only small images."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query_proj, self.value_proj, self.output_proj = (nn.Linear(channels, channels) for _ in range(3))
        self.key_proj = nn.Linear(channels, channels, bias=False)  # a bias would add a constant inside the softmax
        for layer in (self.query_proj, self.key_proj, self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, query: Tensor, reference: Tensor, values: Tensor, sizes: Sizes) -> Tensor:
        """Attend like `DeformableAttention.forward`; the positions of queries and the shapes of values are unused."""
        q, k, v = (
            torch.unflatten(layer(x), 2, (self.heads, -1)).transpose(1, 2)  # (B, M, Q, d)
            for layer, x in ((self.query_proj, query), (self.key_proj, query), (self.value_proj, values))
        )
        return self.output_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def sine_positions(positions: Tensor, channels: int) -> Tensor:
    """Return sine and cosine encodings of positions `(h · w, 2)`, x and y: `(h · w, channels)`, float32 (§3.1.1).

    As in DETR, the first half of the channels encodes y, the second x, with wavelengths from 1 to 10000.

    Args:
        positions: positions of a map's pixels.
        channels: a multiple of 4.
    """
    device = positions.device
    quarter = channels // 4
    waves = 2 * math.pi * 10000.0 ** (-torch.arange(quarter, device=device, dtype=torch.float32) / quarter)
    x, y = (positions[:, :, None] * waves).unbind(1)  # (h · w, channels / 4) each
    parts = [torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1) for angle in (y, x)]
    return torch.cat(parts, dim=1)


class EncoderLayer(nn.Module):
    """Φ_enc (§3.1.1): each pixel of each level attends to N pixels of every level (§3.1.2, Eq. 6)."""

    def __init__(self, width: int, levels: int, points: int, reach: float | None, feed: int, dropout: float) -> None:
        super().__init__()
        self.attention = DeformableAttention(width, HEADS, levels, points, reach)
        self.residual = Residual(width, dropout)
        self.feed = FeedForward(width, feed, dropout)

    def forward(self, x: Tensor, encodings: Tensor | float, reference: Tensor, sizes: Sizes) -> Tensor:
        """Encode `x` (B, S, width) with its encodings (S, width), or 0.0; return (B, S, width)."""
        x = self.residual(x, self.attention(x + encodings, reference, x, sizes))
        return self.feed(x)


class DecoderLayer(nn.Module):
    """Φ_dec (§3.1.1, Eq. 5): context queries attend to each other, then each to N pixels of every level of X_enc."""

    def __init__(
        self, width: int, levels: int, points: int, reach: float | None, feed: int, full: bool, dropout: float
    ) -> None:
        super().__init__()
        self.self_attention = (
            FullAttention(width, HEADS) if full else DeformableAttention(width, HEADS, 1, points, reach)
        )
        self.self_residual = Residual(width, dropout)
        self.cross_attention = DeformableAttention(width, HEADS, levels, points, reach)
        self.cross_residual = Residual(width, dropout)
        self.feed = FeedForward(width, feed, dropout)

    def forward(
        self, x: Tensor, encodings: Tensor | float, reference: Tensor, size: Sequence[int], x_enc: Tensor, sizes: Sizes
    ) -> Tensor:
        """Decode `x` (B, Q, width) of a map of `size`, with X_enc (B, S, width) of levels of `sizes`."""
        x = self.self_residual(x, self.self_attention(x + encodings, reference, x, [size]))
        x = self.cross_residual(x, self.cross_attention(x + encodings, reference, x_enc, sizes))
        return self.feed(x)


class EPT(nn.Module, Decoder):
    """Efficient pyramid transformer (§3.1.2): it encodes all levels as one long sequence and decodes at 1/8.

    Taps: `context_queries` (B, width, ⌈H / 8⌉, ⌈W / 8⌉), C of Eq. 5; the taps of the attentions.

    Args:
        channels: channels of the backbone's features, finest first.
        width: d_model.
        points: N.
        reach, queries, encodings, self_attention, positions, level_norm, layers, feed: see `unept`.
        dropout: dropout after each attention and after both linear layers of each feed-forward part.

    Raises:
        CrispsegError: the width is not a multiple of 8.
    """

    has_positions = True
    naive_side = 60  # side of the bilinearly resized map of naive queries: 1/8 of the paper's crops on ADE20K

    def __init__(
        self,
        channels: Sequence[int],
        in_chans: int,
        width: int,
        *,
        points: int = 16,
        reach: float | None = None,
        queries: Literal["dynamic", "naive"] = "dynamic",
        encodings: Literal["queries", "features"] = "queries",
        self_attention: Literal["sparse", "full"] = "sparse",
        positions: Positions = "image",
        level_norm: bool = False,
        layers: int = 2,
        feed: int = 8,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if width < HEADS or width % HEADS:
            raise CrispsegError(f"width is {width}; UN-EPT has {HEADS} heads, so give a multiple of {HEADS}")
        self.width = self.out_channels = width
        self.stride = 8
        self.to_queries = encodings == "queries"
        self.in_pixels = positions == "pixels"
        self.laterals = nn.ModuleList(nn.Conv2d(level, width, 1) for level in channels)
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) if level_norm else nn.Identity() for _ in channels)
        self.scales = nn.Parameter(torch.randn(len(channels), width))
        self.encoder = nn.ModuleList(
            EncoderLayer(width, len(channels), points, reach, feed, dropout) for _ in range(layers)
        )
        dynamic, side = queries == "dynamic", self.naive_side
        self.spatial = SpatialBranch(in_chans, width) if dynamic else None
        self.detail_channels = width if dynamic else None
        self.learned = None if dynamic else nn.Parameter(torch.randn(1, width, side, side))
        self.context_queries = Tap()
        full = self_attention == "full"
        self.decoder = nn.ModuleList(
            DecoderLayer(width, len(channels), points, reach, feed, full, dropout) for _ in range(layers)
        )

    def forward(self, features: Sequence[Tensor], images: Tensor) -> Decoded:
        """Decode features `(B, channels[i], h_i, w_i)` and images `(B, in_chans, H, W)` to a map at 1/8."""
        layers = zip(self.laterals, self.norms, features, strict=True)
        levels = [norm(lateral(feature)) for lateral, norm, feature in layers]
        sizes = [level.shape[-2:] for level in levels]
        x = torch.cat([level.flatten(2).mT for level in levels], dim=1)  # X_ms: (B, S, width)
        extent = images.shape[-2:]
        encodings = [self._positions(size, extent, x) + scale for size, scale in zip(sizes, self.scales, strict=True)]
        x, added = self._with_encodings(x, torch.cat(encodings))
        reference = torch.cat([pixel_centres(size, x.device) for size in sizes])  # (S, 2)
        for layer in self.encoder:
            x = layer(x, added, reference, sizes)

        queries = detail = self.detail(images)
        if self.learned is not None:
            eighth = [ceil_div(side, 8) for side in images.shape[-2:]]
            queries = resize(self.learned, eighth, align_corners=False).expand(len(images), -1, -1, -1).to(x.dtype)
        context: Tensor = self.context_queries(queries)
        size = context.shape[-2:]
        y, added = self._with_encodings(context.flatten(2).mT, self._positions(size, extent, context))  # (B, Q, width)
        reference = pixel_centres(size, x.device)
        for layer in self.decoder:
            y = layer(y, added, reference, size, x, sizes)
        return Decoded(torch.unflatten(y.mT, 2, tuple(size)), detail=detail)  # (B, width, h, w)

    def detail(self, images: Tensor) -> Tensor | None:
        """Return the spatial branch's feature map, `(B, width, ⌈H / 8⌉, ⌈W / 8⌉)`; None for naive queries."""
        return None if self.spatial is None else self.spatial(images)

    def _positions(self, size: Sequence[int], extent: Sequence[int], like: Tensor) -> Tensor:
        """Return the encodings of a map's pixel centres; they are the same on all levels of images of this extent."""
        centres = pixel_centres(size, like.device)  # 0..1
        if self.in_pixels:
            height, width = extent
            centres = centres * torch.stack([centres.new_ones(()) * side for side in (width, height)]) / UNIT
        return sine_positions(centres, self.width).to(like.dtype)

    def _with_encodings(self, x: Tensor, encodings: Tensor) -> tuple[Tensor, Tensor | float]:
        """Return the input of the first layer, and the encodings that each layer adds to its queries."""
        return (x, encodings) if self.to_queries else (x + encodings, 0.0)


class Residual(nn.Module):
    """Residual connection in transformer layers (§4.2): norm(x + dropout(change))."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, change: Tensor) -> Tensor:
        return self.norm(x + self.dropout(change))


class FeedForward(nn.Module):
    """Feed-forward part (§4.2): two linear layers, with `factor` times the width between them."""

    def __init__(self, width: int, factor: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, factor * width),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(factor * width, width),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
        self.residual = Residual(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return an output of the shape of `x`, `(B, Q, width)`."""
        return self.residual(x, self.layers(x))


@models.register("unept")
@fitted(
    align_corners=False,
    inference_scale=1.33,
    points=4,
    reach=1.0,
    positions="pixels",
    level_norm=True,
    layers=1,
    feed=4,
)
def unept(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int | None = None,
    levels: Literal[1, 3] = 3,
    points: Literal[4, 16, 64] = 16,
    reach: PositiveFloat | None = None,
    queries: Literal["dynamic", "naive"] = "dynamic",
    encodings: Literal["queries", "features"] = "queries",
    self_attention: Literal["sparse", "full"] = "sparse",
    positions: Positions = "image",
    level_norm: bool = False,
    layers: Count = 2,
    feed: Count = 8,
    output_stride: Literal[8, 16, 32] | None = None,
    dropout: Probability = 0.1,
    frame: Frame = Frame(),
) -> SegmentationModel:
    """UN-EPT on a CNN, or on a ViT with equally spaced blocks as levels.

    Args:
        width: d_model, a multiple of 8. None: 256, or a width that fits the backbone.
        levels: L, 3 for stages 3 to 5 of a CNN or blocks 4, 8 and 12 of a ViT's 12. 1 uses the last of these (Table 6).
        points: N, the number of points on each level (Table 6).
        reach: distance of the last point at the start, in pixels of a level; None for N, as in the released code.
        queries: context queries: dynamic takes them from the spatial branch; naive learns them, equal for all images.
        encodings: queries adds position and scale encodings to the queries of each attention (§3.1.1). features adds
            them once to the inputs of encoder and decoder (§4.2).
        self_attention: self-attention of the decoder, sparse as in the paper, or full (Eq. 1).
        positions: position encodings relative to the image, as in DETR, or to 512 pixels, so that crops and whole
            images have the same.
        level_norm: normalise the levels before the encoder, because stages of a CNN differ in scale.
        layers: number of layers in the encoder, and in the decoder.
        feed: width of the feed-forward parts in multiples of d_model.
        output_stride: stride of a CNN's deepest feature; dilation keeps it at 8 (the paper's default) or 16 (on other
            backbones).
        dropout: dropout in every layer of encoder and decoder.
    """
    strides, deepest = plain_strides(spec.name), output_stride or (8 if spec.paper else 16)
    if not strides:  # a CNN
        backbone = spec.build(strides=(8, min(16, deepest), deepest)[-levels:], output_stride=deepest)
    elif output_stride in (None, strides[-1]):
        backbone = spec.build(blocks=levels)
    else:
        raise CrispsegError(
            f"backbone '{spec.name}' has stride {strides[-1]} throughout; leave out output_stride={output_stride}"
        )
    decoder = EPT(
        backbone.channels,
        spec.in_chans,
        spec.width(width, 256, backbone.channels),
        points=points,
        reach=reach,
        queries=queries,
        encodings=encodings,
        self_attention=self_attention,
        positions=positions,
        level_norm=level_norm,
        layers=layers,
        feed=feed,
        dropout=dropout,
    )
    return SegmentationModel(backbone, decoder, num_classes, frame)
