"""Base class of all models, and the function that builds a model by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from crispseg.backbones import Backbone, read_state_dict
from crispseg.backbones.weights import weights_licence
from crispseg.config.ranges import MAX_WIDTH
from crispseg.config.settings import checks_arguments, shortened
from crispseg.decoders import Decoded, Decoder
from crispseg.errors import CrispsegError, one_line
from crispseg.licences import CODE
from crispseg.models.frame import BackboneSpec, Design, Frame, is_paper
from crispseg.models.info import MIN_SIDE, ModelInfo
from crispseg.models.novelty import Novelty, mean_features
from crispseg.models.refinement import (
    REFINE_OPTIONS,
    STEPS_TAKEN,
    BoundaryRefinement,
    Refinement,
    RefinePath,
    checked_refinement,
    shift,
)
from crispseg.models.registry import builder_arguments, model_options, models, resolved_options
from crispseg.models.saving import CONFIG_FILE, NOVELTY_KEYS, WEIGHTS_FILE, Saving, located
from crispseg.nn import ceil_div, conv_bn_relu, pad_to_multiple, resize, resize_to_images
from crispseg.nn.uninitialised import Uninitialised


class Outputs(NamedTuple):
    """All outputs of a model for a batch of images, at their size; `None` for an output that the model lacks."""

    logits: Tensor
    """Final logits `(N, num_classes, H, W)`."""
    unrefined: Tensor | None = None
    """Logits before refinement; only with `refine`."""
    auxiliary: tuple[Tensor, ...] | None = None
    """Logits of the decoder's levels for deep supervision, finest first; only with `auxiliary=True`."""
    boundary: Tensor | None = None
    """Logit that a pixel is on a boundary, `(N, 1, H, W)`; only with `refine`."""
    direction: Tensor | None = None
    """Logits of the inward direction (`STEPS` in `refinement.py`), `(N, 8, H, W)`; only with `refine`."""


class SegmentationModel(nn.Module, Saving):
    """Model that runs backbone, decoder, classifier and, if present, refinement.

    Build one with `crispseg.create_model`. A model is a plain module without image normalisation and loss.

    Args:
        backbone: network that computes the features.
        decoder: network that turns the features into one map to classify.
        num_classes: number of logits.
        frame: alignment, and scale of images at inference; the decoder must align its levels in the same way. At pixel
            centres, images are padded below and on the right to multiples of the coarsest stride, so that levels are
            aligned in the same way for all sizes. They are padded too if the backbone's padding depends on the parity
            of sizes, as in TensorFlow, because its levels would otherwise shift by up to half a stride. Upscaling
            compensates for the different scale of objects in training crops and whole images (Touvron et al., *Fixing
            the Train-Test Resolution Discrepancy*, NeurIPS 2019).

    Attributes:
        align_corners: levels and logits are aligned with the image at corner pixels, as in the papers' code.
        inference_scale: factor by which images are upscaled in eval mode, as a fraction.
        multiple: multiple of pixels to which images are padded; 1 for no padding.
        stride: stride of the logits.
    """

    labels_only = False
    """Whether it computes labels instead of logits, as some exported files do."""
    novelty: Novelty | None = None
    """Score of images that are unlike the training images, set at the end of training."""
    info: ModelInfo
    """Description set by `create_model`; use `dataclasses.replace` to add class names, palette, recipe or metrics."""

    def __init__(self, backbone: Backbone, decoder: Decoder, num_classes: int, frame: Frame | None = None) -> None:
        super().__init__()
        frame = frame or Frame()
        self.align_corners = frame.align_corners
        self.inference_scale = Fraction(frame.inference_scale).limit_denominator(100)
        self.backbone = backbone
        self.decoder = decoder
        self.num_classes = num_classes
        pads = not frame.align_corners or backbone.pads_by_size
        self.multiple = max(backbone.strides) if pads else 1
        self.stride = decoder.stride or backbone.strides[0]
        self.classifier = nn.Conv2d(decoder.out_channels, num_classes, 1)
        self.auxiliary_heads: nn.ModuleList | None = None
        self.refiner: BoundaryRefinement | None = None

    def add_auxiliary_heads(self) -> None:
        """Add a head to each of the decoder's levels, for deep supervision in training."""
        self.auxiliary_heads = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, self.num_classes, 1))
            for width in self.decoder.auxiliary_channels
        )

    def features(self, images: Tensor) -> Decoded:
        """Run backbone and decoder on images as for `forward`; maps cover the images, upscaled in eval mode."""
        self.check(images)
        seen = self.upscaled(images) if self.upscales else images
        padded = self.padded(seen)
        feature, levels, detail = self.decoder(self.backbone(padded), padded)
        if padded is seen:
            return Decoded(feature, levels, detail)
        feature, *inside = (within(x, padded, seen) for x in (feature, *levels))
        return Decoded(feature, tuple(inside), None if detail is None else within(detail, padded, seen))

    def logits(self, images: Tensor) -> Tensor:
        """Return unrefined logits at their own stride s, s² times smaller than those of `forward` (see `resized`)."""
        return self.classified(self.features(images).feature)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits `(N, num_classes, H, W)` of normalised images `(N, in_chans, H, W)`; H, W ≥ 32.

        Raises:
            CrispsegError: the images are smaller.
        """
        decoded = self.features(images)
        logits = self.resized(self.classified(decoded.feature), images.shape[-2:])
        return logits if self.refiner is None else shift(logits, self.refined_by(images, decoded))

    def outputs(self, images: Tensor) -> Outputs:
        """Return all outputs at the images' size; see `Outputs`."""
        size = images.shape[-2:]
        decoded = self.features(images)
        auxiliary = None
        if self.auxiliary_heads is not None:
            strides = self.backbone.strides[: len(decoded.levels)]
            auxiliary = tuple(
                self.resized(head(level), size, stride)
                for head, level, stride in zip(self.auxiliary_heads, decoded.levels, strides, strict=True)
            )
        logits = self.resized(self.classified(decoded.feature), size)
        if self.refiner is None:
            return Outputs(logits, auxiliary=auxiliary)
        boundary, direction = self.refiner.maps(images, decoded.detail, upscaled=self.upscales)
        refined = shift(logits, self.refiner.offsets(boundary, direction))
        return Outputs(refined, logits, auxiliary, boundary, direction)

    def classified(self, feature: Tensor) -> Tensor:
        """Compute logits; those in bfloat16 become planes of float32, which CPUs resize in half of the time."""
        logits: Tensor = self.classifier(feature)
        if logits.dtype != torch.bfloat16:
            return logits
        return logits.to(torch.float32, memory_format=torch.contiguous_format)

    @property
    def upscales(self) -> bool:
        """Whether images are upscaled for the backbone."""
        return self.inference_scale > 1 and not self.training

    def upscaled(self, images: Tensor) -> Tensor:
        """Upscale images for inference; each side becomes the nearest multiple of `multiple`."""
        times, per = self.inference_scale.numerator, self.inference_scale.denominator * self.multiple
        sides = [(2 * side * times + per) // (2 * per) * self.multiple for side in images.shape[-2:]]  # rounded
        return resize(images, sides, align_corners=False)

    def padded(self, images: Tensor) -> Tensor:
        """Pad images below and on the right with zeros (the mean colour) to multiples of `multiple` pixels.

        Upscaled images already have such sizes.
        """
        return images if self.upscales else pad_to_multiple(images, self.multiple)

    def resized(self, logits: Tensor, size: Sequence[int], stride: int | None = None) -> Tensor:
        """Resize logits to images of this size.

        Args:
            logits: logits `(N, C, h, w)` of the images, or of upscaled images in eval mode; unchanged at this size.
            size: height and width of the images.
            stride: stride of the logits; by default that of `logits`.
        """
        whole = not torch.compiler.is_exporting() and logits.shape[-2:] == torch.Size(size)
        if whole or self.upscales or self.align_corners:
            return resize(logits, size, align_corners=self.align_corners)
        return resize_to_images(logits, size, stride or self.stride)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub: Any) -> Self:
        """Load a saved model, in eval mode, from its folder, a finished run's folder, by name or from the hub.

        Names refer to bundled models, see `crispseg.models.saving.shipped_folder`.

        Keyword arguments (`revision`, `cache_dir`, `token`, …) go to `huggingface_hub.hf_hub_download`. No backbone is
        downloaded.

        Raises:
            CrispsegError: the model is missing, damaged, of a later format, or its weights do not match.
        """
        source = pretrained_model_name_or_path
        config_path, weights_path = (located(source, name, hub) for name in (CONFIG_FILE, WEIGHTS_FILE))
        info, weights = ModelInfo.parse(config_path.read_bytes(), config_path), read_state_dict(weights_path)
        of_novelty = [weights.pop(key) for key in NOVELTY_KEYS if key in weights]
        try:
            with torch.device("meta"), Uninitialised():  # takes no memory before the weights match
                described(info).load_state_dict(weights, assign=True)
        except (CrispsegError, RuntimeError, TypeError, OverflowError) as error:
            reason = shortened(one_line(error))
            raise CrispsegError(
                f"{weights_path} does not match its {CONFIG_FILE} ({reason}); save the model again"
            ) from error
        with Uninitialised():
            model = described(info)
        assert isinstance(model, cls)
        model.info, model.folder = info, config_path.parent
        model.novelty = Novelty(*of_novelty) if of_novelty else None
        model.load_state_dict(weights)
        return model.eval()

    def novelty_of(self, images: Tensor) -> float | None:
        """Return how much an image `(1, C, H, W)` is unlike the training images, above 1 if it is; None if unknown."""
        return self.novelty.scores(mean_features(self.backbone, images)).item() if self.novelty else None

    def offsets(self, images: Tensor) -> Tensor | None:
        """Return the offset at which `forward` reads each pixel's logits, `(N, 2, H, W)`, x and y in pixels.

        They depend on the images only, so just the spatial branch and its heads run. None without a refinement.
        """
        if self.refiner is None:
            return None
        seen = self.upscaled(images) if self.upscales else images
        padded = self.padded(seen)
        detail = self.decoder.detail(padded)
        detail = None if detail is None else within(detail, padded, seen)
        return self.refined_by(images, Decoded(padded, detail=detail))

    def refined_by(self, images: Tensor, decoded: Decoded) -> Tensor:
        """Return the offsets of `offsets` for a decoder's result; the model must have a refinement."""
        assert self.refiner is not None
        return self.refiner.offsets(*self.refiner.maps(images, decoded.detail, upscaled=self.upscales))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the trainable parameters of the learning-rate groups `backbone` and `decoder` (all others).

        The layers of a simple feature pyramid are in `decoder`.
        """
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "decoder": []}
        inside = {id(parameter) for parameter in self.backbone.body.parameters()}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups["backbone" if id(parameter) in inside else "decoder"].append(parameter)
        return groups

    def check(self, images: Tensor) -> None:
        """Raise a CrispsegError if the images have a wrong type, shape or size."""
        in_chans = self.backbone.in_chans
        if images.ndim != 4 or images.shape[1] != in_chans or not images.is_floating_point():
            raise CrispsegError(
                f"a model needs float images (N, {in_chans}, H, W), not {images.dtype} {tuple(images.shape)}; "
                "crispseg.Segmenter accepts files and arrays"
            )
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise CrispsegError(
                f"images of {height}×{width} pixels are too small; both sides must be at least {MIN_SIDE}"
            )


def within(x: Tensor, padded: Tensor, images: Tensor) -> Tensor:
    """Crop a map of padded images to the images."""
    rows, columns = (ceil_div(images.shape[at], padded.shape[at] // x.shape[at]) for at in (-2, -1))
    return x[..., :rows, :columns]


def described(info: ModelInfo) -> SegmentationModel:
    """Build a model from the content of its `config.json`, with random weights; it must not name files to read."""
    if strange := info.options.keys() - {*REFINE_OPTIONS, *model_options(info.name)}:
        raise CrispsegError(f"'{min(strange)}' is not an option of {info.name}")
    options = {"refine": None, **info.options}
    return create_model(
        info.name,
        num_classes=info.num_classes,
        backbone=info.backbone,
        in_chans=info.in_chans,
        design="paper",  # an option that an earlier version lacked had its paper's value
        **options,
    )


@checks_arguments
def create_model(
    name: str,
    *,
    num_classes: int,
    backbone: str = "tf_efficientnet_lite0",
    pretrained: bool | str | Path = False,
    in_chans: int = 3,
    refine: Refinement | None = "auto",
    refine_steps: int | None = None,
    refine_path: RefinePath = "chained",
    auxiliary: bool = False,
    class_names: Sequence[str] = (),
    design: Design = "auto",
    **options: Any,
) -> SegmentationModel:
    """Build a model.

    Args:
        name: a name in `list_models()`.
        num_classes: number of logits.
        backbone: `resnet18_deep`, `resnet50_deep`, `resnet101_deep`, `df1`, `df2`, `stdc1`, `stdc2`,
            `shufflenetv2_x1_0`, or any timm ViT or model with a feature pyramid.
        pretrained: `True` for the published backbone weights, or the path of a local backbone weight file.
        in_chans: channels of the images.
        refine: `boundary` adds UN-EPT's refinement of the logits along boundaries (`crispseg.models.refinement`), None
            disables it. `auto` refines only unept.
        refine_steps: steps from a boundary pixel to the pixel whose logits it takes; default 2.
        refine_path: `chained` (each step follows the direction of the pixel where it starts) or `straight` (all steps
            follow the direction of the first pixel). Two straight steps equal SegFix's doubled step.
        auxiliary: add heads on the decoder's levels for deep supervision; saved models do not contain them.
        class_names: one name per class, shown in results; by default numbers.
        design: source of unspecified options: paper, or fitted to the backbone and to custom data (see
            `crispseg.models.frame`); auto is paper for the backbones of the papers' tables.
        **options: options of the model, see its builder in `crispseg.models`. Options of its fuse part may be in
            `fuse_options`: `create_model("sfnet", fuse="ddsm", fuse_options={"pixels": 9}, …)`.

    Raises:
        CrispsegError: a model, backbone, part or option is unknown; weights are missing or do not match.
    """
    if not 2 <= num_classes <= 255:
        raise CrispsegError(f"num_classes is {num_classes}; give 2 to 255 (2 for binary masks)")
    if not 1 <= in_chans <= MAX_WIDTH:
        raise CrispsegError(f"in_chans is {in_chans}; give 1 to {MAX_WIDTH}")
    paper = is_paper(design, backbone)
    resolved = resolved_options(name, options, paper=paper)
    if (width := resolved.get("width")) is not None and not 2 <= width <= MAX_WIDTH:
        raise CrispsegError(f"width is {width}; give 2 to {MAX_WIDTH}")
    refines = checked_refinement(name, refine, refine_steps)
    spec = BackboneSpec(backbone, pretrained, in_chans, paper)
    model: SegmentationModel = models[name](spec, num_classes, **builder_arguments(name, resolved))
    resolved |= chosen_options(model, resolved)
    if auxiliary:
        model.add_auxiliary_heads()
    if refines:
        steps, corners = refine_steps or STEPS_TAKEN, "boundary" in resolved.get("corner_parts", ())
        model.refiner = BoundaryRefinement(
            in_chans,
            detail_channels=model.decoder.detail_channels,
            steps=steps,
            path=refine_path,
            align_corners=model.align_corners or corners,
        )
        resolved |= {"refine": "boundary", "refine_steps": steps, "refine_path": refine_path}
    mean, std = model.backbone.mean, model.backbone.std
    fields: dict[str, Any] = {"class_names": tuple(class_names), "mean": mean, "std": std}
    fields["licences"] = (*CODE, weights_licence(backbone, pretrained)) if pretrained else CODE
    model.info = ModelInfo(name, num_classes, backbone, in_chans, resolved, **fields)
    return model


def chosen_options(model: SegmentationModel, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a builder chose, because they were None."""
    chosen = {
        "width": getattr(model.decoder, "width", None),
        "fuse_levels": getattr(model.decoder, "fuse_levels", None),
        "output_stride": model.backbone.strides[-1],
    }
    return {option: value for option, value in chosen.items() if option in options and options[option] is None}
