"""Base class of all models, and the function that builds a model by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from crispseg.backbones import Backbone, read_state_dict
from crispseg.config.settings import shortened
from crispseg.decoders import Decoded, Decoder
from crispseg.errors import CrispsegError, one_line
from crispseg.models.info import MIN_SIDE, ModelInfo
from crispseg.models.refinement import (
    REFINE_OPTIONS,
    REFINED_BY_DEFAULT,
    STEPS_TAKEN,
    BoundaryRefinement,
    Refinement,
    RefinePath,
    shift,
)
from crispseg.models.registry import BackboneSpec, builder_options, model_options, models, resolved_options
from crispseg.models.saving import CONFIG_FILE, WEIGHTS_FILE, Saving, located
from crispseg.nn import ceil_div, conv_bn_relu, pad_to_multiple, resize
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


class Coarse(NamedTuple):
    """Result of one pass through a network, before logits are resized to the images."""

    logits: Tensor
    """Logits `(N, num_classes, ⌈H / s⌉, ⌈W / s⌉)` with the stride s of the decoder's map; crisp has s = 1."""
    decoded: Decoded
    """Maps of the decoder."""


class SegmentationModel(nn.Module, Saving):
    """Model that runs backbone, decoder, classifier and, if present, refinement.

    Build one with `crispseg.create_model`. A model is a plain module without image normalisation and loss.

    Args:
        backbone: network that computes the features.
        decoder: network that turns the features into one map to classify.
        num_classes: number of logits.
        pad: pad images below and on the right to multiples of the coarsest stride, so that levels are aligned in the
            same way for all sizes. None pads if the backbone's padding depends on the parity of sizes, as in
            TensorFlow. Its levels would otherwise shift by up to half a stride.

    Attributes:
        align_corners: levels and logits are aligned with the image at corner pixels, as in the papers' code.
        multiple: multiple of pixels to which images are padded; 1 for no padding.
    """

    align_corners = True
    info: ModelInfo
    """Description set by `create_model`; use `dataclasses.replace` to add class names, palette, recipe or metrics."""

    def __init__(self, backbone: Backbone, decoder: Decoder, num_classes: int, *, pad: bool | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.num_classes = num_classes
        self.multiple = max(backbone.strides) if (backbone.pads_by_size if pad is None else pad) else 1
        self.classifier = nn.Conv2d(decoder.out_channels, num_classes, 1)
        self.auxiliary_heads: nn.ModuleList | None = None
        self.refiner: BoundaryRefinement | None = None

    def add_auxiliary_heads(self) -> None:
        """Add a head to each of the decoder's levels, for deep supervision in training."""
        self.auxiliary_heads = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, self.num_classes, 1))
            for width in self.decoder.auxiliary_channels
        )

    def coarse(self, images: Tensor) -> Coarse:
        """Run the network once on images as for `forward`; all other methods use this result."""
        self.check(images)
        decoded = self.decoded(images)
        return Coarse(self.classified(decoded.feature), decoded)

    def classified(self, feature: Tensor) -> Tensor:
        """Compute logits; those in bfloat16 become planes of float32, which CPUs resize in half of the time."""
        logits: Tensor = self.classifier(feature)
        if logits.dtype != torch.bfloat16:
            return logits
        return logits.to(torch.float32, memory_format=torch.contiguous_format)

    def decoded(self, images: Tensor) -> Decoded:
        """Run backbone and decoder on the images, padded if the model pads; crop the maps to the images."""
        padded = self.padded(images)
        feature, levels, detail = self.decoder(self.backbone(padded), padded)
        if padded is images:
            return Decoded(feature, levels, detail)
        feature, *inside = (within(x, padded, images) for x in (feature, *levels))
        return Decoded(feature, tuple(inside), None if detail is None else within(detail, padded, images))

    def padded(self, images: Tensor) -> Tensor:
        """Pad images below and on the right with zeros (the mean colour) to multiples of `multiple` pixels."""
        return pad_to_multiple(images, self.multiple)

    def on_images(self, logits: Tensor, stride: int, size: torch.Size) -> Tensor:
        """Resize logits of a level with this stride to the images' size."""
        return resize(logits, size, align_corners=self.align_corners)

    def enlarged(self, coarse: Tensor, size: torch.Size) -> Tensor:
        """Resize coarse logits to the images' size."""
        return resize(coarse, size, align_corners=self.align_corners)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Return unrefined logits at their own stride s, s² times smaller than those of `forward`; see `Coarse`."""
        return self.coarse(images).logits

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits `(N, num_classes, H, W)` of normalised images `(N, in_chans, H, W)`; H, W ≥ 32.

        Raises:
            CrispsegError: the images are smaller.
        """
        coarse, decoded = self.coarse(images)
        logits = self.enlarged(coarse, images.shape[-2:])
        return logits if self.refiner is None else self.refiner(logits, images, decoded.detail)

    def outputs(self, images: Tensor) -> Outputs:
        """Return all outputs at the images' size; see `Outputs`."""
        size = images.shape[-2:]
        coarse, decoded = self.coarse(images)
        auxiliary = None
        if self.auxiliary_heads is not None:
            strides = self.backbone.strides[: len(decoded.levels)]
            auxiliary = tuple(
                self.on_images(head(level), stride, size)
                for head, level, stride in zip(self.auxiliary_heads, decoded.levels, strides, strict=True)
            )
        logits = self.enlarged(coarse, size)
        if self.refiner is None:
            return Outputs(logits, auxiliary=auxiliary)
        boundary, direction = self.refiner.maps(images, decoded.detail)
        refined = shift(logits, self.refiner.offsets(boundary, direction))
        return Outputs(refined, logits, auxiliary, boundary, direction)

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
        try:
            with torch.device("meta"):  # takes no memory before the weights match
                described(info).load_state_dict(weights, assign=True)
        except (CrispsegError, RuntimeError, TypeError, OverflowError) as error:
            reason = shortened(one_line(error))
            raise CrispsegError(
                f"{weights_path} does not match its {CONFIG_FILE} ({reason}); save the model again"
            ) from error
        with Uninitialised():
            model = described(info)
        assert isinstance(model, cls)
        model.info = info
        model.load_state_dict(weights)
        return model.eval()

    def offsets(self, images: Tensor) -> Tensor | None:
        """Return the offset at which `forward` reads each pixel's logits, `(N, 2, H, W)`, x and y in pixels.

        They depend on the images only, so just the spatial branch and its heads run. None without a refinement.
        """
        if self.refiner is None:
            return None
        padded = self.padded(images)
        detail = self.decoder.detail(padded)
        detail = None if detail is None else within(detail, padded, images)
        return self.refiner.offsets(*self.refiner.maps(images, detail))

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
        info.name, num_classes=info.num_classes, backbone=info.backbone, in_chans=info.in_chans, **options
    )


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
            disables it. `auto` refines only unept, by one step, like its released code.
        refine_steps: steps from a boundary pixel to the pixel whose logits it takes; default 2.
        refine_path: `chained` (each step follows the direction of the pixel where it starts) or `straight` (all steps
            follow the direction of the first pixel). Two straight steps equal SegFix's doubled step.
        auxiliary: add heads on the decoder's levels for deep supervision; saved models do not contain them.
        class_names: one name per class, shown in results; by default numbers.
        **options: options of the model, see its builder in `crispseg.models`. Options of its fuse part may be in
            `fuse_options`: `create_model("sfnet", fuse="ddsm", fuse_options={"pixels": 9}, …)`.

    Raises:
        CrispsegError: a model, backbone, part or option is unknown; weights are missing or do not match.
    """
    resolved = resolved_options(name, options)
    if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
        raise CrispsegError(f"num_classes is {num_classes!r}; give 2 to 255 (2 for binary masks)")
    if refine not in (None, *get_args(Refinement)) or refine_path not in get_args(RefinePath):
        given = f"refine is {refine} and refine_path {refine_path}"
        raise CrispsegError(f"{given}; refine must be auto, boundary or None, refine_path chained or straight")
    if refine_steps is not None and not (isinstance(refine_steps, int) and refine_steps >= 1):
        raise CrispsegError(f"refine_steps is {refine_steps}; give a whole number of at least 1")
    if (width := resolved.get("width")) is not None and width < 2:
        raise CrispsegError(f"width is {width}; give at least 2")
    if refine == "auto":
        refine = "boundary" if name in REFINED_BY_DEFAULT else None
        refine_steps = refine_steps or REFINED_BY_DEFAULT.get(name)
    if refine is None and refine_steps not in (None, STEPS_TAKEN):
        raise CrispsegError(
            f"refine_steps is {refine_steps}, but the model has no refinement; also give refine boundary"
        )
    spec = BackboneSpec(backbone, pretrained, in_chans)
    model: SegmentationModel = models[name](spec, num_classes, **builder_options(name, resolved))
    for option in ("width", "fuse_levels"):
        if option in resolved and resolved[option] is None:  # the builder chose the value
            resolved[option] = getattr(model.decoder, option, None)
    if auxiliary:
        model.add_auxiliary_heads()
    if refine is not None:
        steps, detail = refine_steps or STEPS_TAKEN, model.decoder.detail_channels
        model.refiner = BoundaryRefinement(in_chans, detail_channels=detail, steps=steps, path=refine_path)
        resolved |= {"refine": refine, "refine_steps": steps, "refine_path": refine_path}
    mean, std = model.backbone.mean, model.backbone.std
    model.info = ModelInfo(name, num_classes, backbone, in_chans, resolved, tuple(class_names), mean=mean, std=std)
    return model
