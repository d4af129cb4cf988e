"""crisp: a combination of the four papers' parts, and the default model of `crispseg train`.

Every level of the backbone is projected at its own resolution, and all are summed from coarse to fine along SFNet's
flow. The sum is normalised, rectified and classified. This is a cheap variant of SegFormer's decoder of four levels,
with a flow instead of upsampling. Levels and logits are aligned at pixel centres for every size. The saved time
allows upscaled images at inference. docs/results.md has the measurements for each part, and
docs/development/trials.md for rejected parts.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crispseg.backbones import Backbone
from crispseg.decoders import (
    Decoded,
    Decoder,
    FusePart,
    Sum,
    TopDown,
    UpsampleAdd,
    configured,
    contexts,
    fuse_steps,
    fuses,
    merges,
)
from crispseg.errors import CrispsegError
from crispseg.models.base import Coarse, SegmentationModel, within
from crispseg.models.registry import BackboneSpec, models, variant
from crispseg.models.sfnet import FlowAlignment
from crispseg.nn import ceil_div, grid_sample, resize
from crispseg.nn.points import Corners, gathers, groups_of, maps_of, rows_of

MARGIN = 0.01  # minimum distance in pixels from points to the centres of the outermost pixels


class ComposedFlowAlignment(FlowAlignment):
    """Cheaper `FlowAlignment` between levels that are aligned at pixel centres.

    The flow is linear in both levels, so it does not compute the compressed levels: see `products`. Correlation and
    learned upsampling are not composed.

    Args:
        align_corners: align levels at corner pixels, and use SFNet's warp.
        options: options of `FlowAlignment`.

    Raises:
        CrispsegError: Eq. 2's coordinates are requested without aligned corners.
    """

    def __init__(self, fine_channels: int, coarse_channels: int, align_corners: bool = False, **options: Any) -> None:
        super().__init__(fine_channels, coarse_channels, **options)
        self.align_corners = align_corners
        self.composed = self.correlation is None and isinstance(self.enlarge, nn.Identity)
        if self.literal and not align_corners:
            raise CrispsegError("flow_coordinates is paper, which needs align_corners; leave out flow_coordinates")

    def flow_between(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute Eq. 1 of SFNet, (N, 2, H, W)."""
        if not self.composed:
            return super().flow_between(fine, coarse)
        of_coarse, of_fine = self.products()
        return self.flow_of(F.conv2d(fine, of_fine[..., None, None]), F.conv2d(coarse, of_coarse[..., None, None]))

    def products(self) -> tuple[Tensor, Tensor]:
        """Return the weights of `products` of the coarse and the fine level, (2 · k², C) each."""
        kernels = self.predict_flow.weight.chunk(2, dim=1)  # (2, D, k, k) each
        return products(kernels[0], self.compress_coarse), products(kernels[1], self.compress_fine)

    def flow_of(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Compute the flow (N, 2, H, W) from the products of the fine and the coarse level, (N, 2 · k², ·, ·)."""
        return shifted_sum(self.upsample(coarse, fine.shape[-2:]) + fine, self.predict_flow.kernel_size[0])

    def warp(self, coarse: Tensor, flow: Tensor) -> Tensor:
        """Warp the coarse level by the flow; see `warp_within`."""
        return super().warp(coarse, flow) if self.align_corners else warp_within(coarse, flow)


def products(kernel: Tensor, compress: nn.Conv2d) -> Tensor:
    """Return weights (O · k², C) for the product of each point of a kernel with the input of a 1×1 convolution.

    One product with the product of both weights replaces two products. The result can be upsampled like the compressed
    level, but has fewer channels. These are 18 instead of 128 for a level of 256 channels and a flow of two.
    `shifted_sum` adds the points up.

    Args:
        kernel: kernel `(O, D, k, k)` of a convolution after `compress`.
        compress: 1×1 convolution with weight `(D, C, 1, 1)` and without bias.
    """
    return kernel.permute(0, 2, 3, 1).flatten(0, 2) @ compress.weight.flatten(1)  # (O · k², D) · (D, C)


def shifted_sum(products: Tensor, side: int) -> Tensor:
    """Shift each of `products` (N, O · k², H, W) by its position in a kernel of this side; return (N, O, H, W)."""
    height, width = products.shape[-2:]
    points = torch.unflatten(F.pad(products, [side // 2] * 4), 1, (-1, side**2))  # (N, O, k², ·, ·)
    places = (divmod(point, side) for point in range(side**2))
    first, *others = (points[:, :, y * side + x, y : y + height, x : x + width] for y, x in places)
    return sum(others, start=first)


def warp_within(coarse: Tensor, flow: Tensor) -> Tensor:
    """Warp like SFNet, but at pixel centres: `coarse` (N, C, h, w) by a flow (N, 2, H, W) to (N, C, H, W).

    Coordinates -1..1 are from edge to edge, and the flow moves a point by Δ / (W, H). Pixels outside have the values
    at the edge. Coordinates are always float32. If gradients are required, points beyond the centres of the outermost
    pixels are moved inside by a hundredth of a pixel. The flow there gets the gradient of the moved point if it leads
    inward.
    """
    height, width = flow.shape[-2:]
    ys, xs = ((torch.arange(size, device=flow.device) * 2 + 1) / size - 1 for size in (height, width))
    dx, dy = flow.float().unbind(1)  # (N, H, W) each
    points = [xs + dx / width, ys[:, None] + dy / height]
    if flow.requires_grad and not torch.compiler.is_exporting():
        sizes = coarse.shape[-1], coarse.shape[-2]
        bounds = [max(1 - (1 + 2 * MARGIN) / size, 0) for size in sizes]
        points = [KeptWithin.apply(each, bound) for each, bound in zip(points, bounds, strict=True)]
    grid = torch.stack(points, dim=-1)  # (N, H, W, 2)
    warped = grid_sample(coarse.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    return warped.to(coarse.dtype)


def corners_within(flow: Tensor, size: Sequence[int]) -> Corners:
    """Return the corners of the points of `warp_within` for a flow (N, 2, H, W) to a coarse level of this size."""

    def parts(moved: Tensor, index: Tensor, length: int, side: int) -> tuple[Tensor, Tensor]:
        # Pixel (index + 1 / 2) · side / length - 1 / 2; one more is positive, and division truncates.
        position = (2 * index + 1) * side + length
        pixel = torch.div(position, 2 * length, rounding_mode="trunc")
        return pixel - 1, (moved * side + (position - pixel * 2 * length)) / (2 * length)

    (dx, dy), (height, width) = flow.unbind(1), flow.shape[-2:]
    xs, ys = (torch.arange(length, device=flow.device) for length in (width, height))
    return Corners.around(*parts(dx, xs, width, size[1]), *parts(dy, ys[:, None], height, size[0]), size, "border")


class KeptWithin(torch.autograd.Function):
    """Clamp coordinates -1..1 from edge to edge of a level to ±`bound`, just inside the outermost pixels' centres.

    Points beyond get the gradient at the edge if it leads inward. In a coarser level, a ring of points is beyond even
    at a flow of zero. Without any gradient, Adam would make large steps from the neighbours' small gradients, and the
    whole flow might drift away. An outward gradient would push a point outward for ever, because clamping stops its
    motion.
    """

    @staticmethod
    def forward(points: Tensor, bound: float) -> Tensor:
        return points.clamp(-bound, bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        points, ctx.bound = inputs
        ctx.save_for_backward(points)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (points,) = ctx.saved_tensors
        # Gradient descent moves points against their gradient.
        outward = (points > ctx.bound) & (gradient < 0) | (points < -ctx.bound) & (gradient > 0)
        return gradient.masked_fill(outward, 0), None


def multiplied(levels: Sequence[Tensor], weight: Tensor) -> Tensor:
    """Multiply rows of channels, given in groups (R, ·), by a weight (O, C) to (R, O)."""
    first, *others = (F.linear(level, each) for level, each in zip(levels, groups_of(weight), strict=True))
    return sum(others, start=first)


class Crisp(SegmentationModel):
    """Model with levels and logits aligned at pixel centres; it upscales images at inference.

    Args:
        decoder: network that turns the features into one map to classify; it must align its levels in the same way.
        align_corners: align logits with the image at corner pixels, as in the papers' code. This shifts them by up to
            half a stride, depending on the size. Otherwise images are padded below and on the right to multiples of
            the coarsest stride, which aligns levels in the same way for all sizes.
        inference_scale: factor by which images are upscaled in eval mode, 1 to 4; each side becomes the nearest
            multiple of the padding. It compensates for the different scale of objects in training crops and whole
            images (Touvron et al., *Fixing the Train-Test Resolution Discrepancy*, NeurIPS 2019).

    Raises:
        CrispsegError: the inference scale is below 1 or above 4.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        num_classes: int,
        *,
        align_corners: bool = False,
        inference_scale: float = 1.33,
    ) -> None:
        if not 1 <= inference_scale <= 4:
            raise CrispsegError(f"inference_scale is {inference_scale:g}; give a factor from 1 to 4")
        super().__init__(backbone, decoder, num_classes, pad=not align_corners or None)
        self.align_corners = align_corners
        self.inference_scale = Fraction(inference_scale).limit_denominator(100)

    def coarse(self, images: Tensor) -> Coarse:
        """Run the network once; unless corners are aligned, the logits already have the images' size."""
        self.check(images)
        size = images.shape[-2:]
        seen = self.upscaled(images) if self.upscales else images
        if gathers() and self.sums_along_flow:
            padded = self.padded(seen)
            logits = within(self.gathered_logits(self.backbone(padded)), padded, seen)
            decoded = Decoded(logits, (), None)
        else:
            decoded = self.decoded(seen)
            logits = self.classified(decoded.feature)
        if not self.align_corners:
            logits = self.on_images(logits, self.backbone.strides[0], size)
        return Coarse(logits, decoded)

    def enlarged(self, coarse: Tensor, size: torch.Size) -> Tensor:
        return super().enlarged(coarse, size) if self.align_corners else coarse  # which has this size

    @property
    def sums_along_flow(self) -> bool:
        """Whether the decoder is the default one, a sum of levels along flows at pixel centres."""
        fuses, merge = getattr(self.decoder, "fuses", ()), getattr(self.decoder, "merge", None)
        flows = all(isinstance(fuse, ComposedFlowAlignment) and fuse.composed for fuse in fuses)
        return isinstance(merge, Sum) and flows and not self.align_corners

    def gathered_logits(self, features: Sequence[Tensor]) -> Tensor:
        """Compute the logits of the finest level like decoder and classifier, but from rows of few channels at a time.

        Rows that are gathered thus stay in cache, and a fine level of all channels is never stored.
        """
        decoder: Any = self.decoder
        finest, norm = decoder.fuses[0], decoder.merge.norm
        scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * scale
        level, _ = decoder.context(features[-1])
        levels, shape = groups_of(rows_of(level)), (level.shape[0], *level.shape[2:])
        for feature, lateral, fuse in reversed(list(zip(features, decoder.laterals, decoder.fuses, strict=False))):
            weight = lateral.weight.flatten(1)
            of_coarse, of_fine = fuse.products()
            coarse = maps_of(multiplied(levels, of_coarse), shape)
            flow = fuse.flow_of(F.conv2d(feature, (of_fine @ weight)[..., None, None]), coarse)
            corners, rows = corners_within(flow, shape[1:]), rows_of(feature)
            if fuse is finest:
                levels = [level * each for level, each in zip(levels, groups_of(scale, 0), strict=True)]
                weight = weight * scale[:, None]
            biases = groups_of(shift if fuse is finest else torch.zeros_like(shift), 0)
            levels = [
                corners.sample(level) + F.linear(rows, each, bias)
                for level, each, bias in zip(levels, groups_of(weight, 0), biases, strict=True)
            ]
            shape = (feature.shape[0], *feature.shape[2:])
        assert self.classifier.bias is not None
        logits = multiplied([F.relu(level) for level in levels], self.classifier.weight.flatten(1))
        return maps_of(logits + self.classifier.bias, shape)

    @property
    def upscales(self) -> bool:
        """Whether images are upscaled for the backbone."""
        return self.inference_scale > 1 and not self.training

    def upscaled(self, images: Tensor) -> Tensor:
        """Upscale images for inference."""
        times, per = self.inference_scale.numerator, self.inference_scale.denominator * self.multiple
        sides = [(2 * side * times + per) // (2 * per) * self.multiple for side in images.shape[-2:]]  # rounded
        return resize(images, sides, align_corners=False)

    def padded(self, images: Tensor) -> Tensor:
        """Pad images with zeros to multiples of `multiple` pixels; upscaled images already have such sizes."""
        return images if self.upscales else super().padded(images)

    def on_images(self, logits: Tensor, stride: int, size: torch.Size) -> Tensor:
        if self.upscales or self.align_corners:
            return resize(logits, size, align_corners=self.align_corners)
        height, width = size
        rows, columns = (ceil_div(side, stride) * stride for side in size)
        return resize(logits, (rows, columns), align_corners=False)[..., :height, :width]


@models.register("crisp")
def crisp(
    spec: BackboneSpec,
    num_classes: int,
    *,
    width: int = 128,
    context: str = "linear",
    context_options: dict[str, Any] | None = None,
    fuse: str = "fam",
    fuse_levels: list[int] | None = None,
    fuse_options: dict[str, Any] | None = None,
    merge: str = "sum",
    merge_options: dict[str, Any] | None = None,
    align_corners: bool = False,
    inference_scale: float = 1.33,
) -> SegmentationModel:
    """Sum of levels along a flow, with images upscaled by a third at inference; the default of `crispseg train`.

    Args:
        width: channels of every level.
        context: context part on C5: conv, linear, ppm, aspp, denseaspp, nonlocal, crisscross or apnb.
        context_options: options of the context part by name, such as rates of aspp.
        fuse: fuse part between levels: add, dcn, fam, gdfam, ddsm or cfb.
        fuse_levels: coarse levels F_l whose step to F_(l-1) uses the fuse part. The default is all: 3, 4 and 5 (4 and 5
            on DF1 and DF2, which have no F2). Other steps upsample and add.
        fuse_options: options of another fuse part by name, such as pixels of ddsm.
        merge: merge part for all levels: sum adds the projected levels; concat and aligned first normalise, rectify and
            smooth them.
        merge_options: options of the merge part by name, such as flow_kernel of aligned.
        align_corners: align levels and logits at corner pixels instead of pixel centres; images are then not padded to
            multiples of the coarsest stride.
        inference_scale: factor by which images are upscaled in eval mode, 1 to 4; each side becomes a multiple of the
            coarsest stride. Time and memory grow with the square.
    """
    fam = partial(ComposedFlowAlignment, align_corners=align_corners)
    if fuse == "fam":
        part: FusePart = partial(fam, **(fuse_options or {}))
    else:
        part = configured(fuses, fuse, fuse_options, align_corners=align_corners)
    add = partial(UpsampleAdd, align_corners=align_corners)
    backbone = spec.build()
    decoder = TopDown(
        backbone.channels,
        width,
        width,
        context=configured(contexts, context, context_options),
        fuses=fuse_steps(part, fuse_levels, len(backbone.channels), add),
        merge=configured(merges, merge, merge_options, align_corners=align_corners, alignment=fam),
    )
    return Crisp(backbone, decoder, num_classes, align_corners=align_corners, inference_scale=inference_scale)


crisp_s = variant("crisp_s", crisp, "`crisp` without upscaling of images.", inference_scale=1.0)
crisp_l = variant(
    "crisp_l",
    crisp,
    "Larger `crisp`: 256 channels, images upscaled by half at inference.",
    width=256,
    inference_scale=1.5,
)
