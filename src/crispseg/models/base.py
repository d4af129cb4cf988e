"""The frame in which every model stands, and how one is built by name."""

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


class Outputs(NamedTuple):
    """All a model can say about a batch of images, at their size; `None` is what it does not have."""

    logits: Tensor
    """Final `(N, num_classes, H, W)`."""
    unrefined: Tensor | None = None
    """Logits before refinement; only with `refine`."""
    auxiliary: tuple[Tensor, ...] | None = None
    """Logits of the decoder's levels for deep supervision, finest first; only with `auxiliary=True`."""
    boundary: Tensor | None = None
    """Logit of a pixel to be on a boundary, `(N, 1, H, W)`; only with `refine`."""
    direction: Tensor | None = None
    """Logits of its direction to the inside, one of `STEPS` in `refinement.py`, `(N, 8, H, W)`; only with `refine`."""


class Coarse(NamedTuple):
    """The result of one pass through a network, before logits are resized to the images."""

    logits: Tensor
    """`(N, num_classes, ⌈H / s⌉, ⌈W / s⌉)`, s the stride of the decoder's map; of crisp at the images' size."""
    decoded: Decoded
    """The decoder's maps of the images."""


class SegmentationModel(nn.Module, Saving):
    """image → backbone → decoder → classifier → logits → refinement, if any → logits.

    Build one with `crispseg.create_model`. A model is a plain module: it neither normalises images nor knows a loss.

    Args:
        backbone: gives the features.
        decoder: turns them into one map to classify.
        num_classes: number of logits.
        pad: images are padded below and on the right to multiples of the coarsest stride, so that levels of images of
            any size lie on each other as those of crops of such sizes do. None: where the backbone pads by the parity
            of sizes, as TensorFlow does, whose levels move by up to half a stride otherwise.

    Attributes:
        align_corners: levels and logits lie on the image by their corner pixels, as in the papers' code.
        multiple: the multiple of pixels to which images are padded; 1 for none.
    """

    align_corners = True
    info: ModelInfo
    """Set by `create_model`; replace it (`dataclasses.replace`) to add class names, palette, recipe or metrics."""

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
        """Give the model a head on each of the decoder's levels, for deep supervision in training."""
        self.auxiliary_heads = nn.ModuleList(
            nn.Sequential(*conv_bn_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, self.num_classes, 1))
            for width in self.decoder.auxiliary_channels
        )

    def coarse(self, images: Tensor) -> Coarse:
        """The one walk through the network, on which all other methods stand; images as for `forward`."""
        self.check(images)
        decoded = self.decoded(images)
        return Coarse(self.classifier(decoded.feature), decoded)

    def decoded(self, images: Tensor) -> Decoded:
        """Run backbone and decoder on the images, padded if the model pads; crop the maps to the images."""
        padded = self.padded(images)
        feature, levels, detail = self.decoder(self.backbone(padded), padded)
        if padded is images:
            return Decoded(feature, levels, detail)
        feature, *inside = (_within(x, padded, images) for x in (feature, *levels))
        return Decoded(feature, tuple(inside), None if detail is None else _within(detail, padded, images))

    def padded(self, images: Tensor) -> Tensor:
        """The images with zeros, the mean colour, below and on the right, up to multiples of `multiple` pixels."""
        return pad_to_multiple(images, self.multiple)

    def on_images(self, logits: Tensor, stride: int, size: torch.Size) -> Tensor:
        """Logits of a level with a place each `stride` pixels, brought to the images' size."""
        return resize(logits, size, align_corners=self.align_corners)

    def detail(self, images: Tensor) -> Tensor | None:
        """Run the decoder's own spatial branch alone; see `Decoded.detail`."""
        padded = self.padded(images)
        detail = self.decoder.detail(padded)
        return None if detail is None else _within(detail, padded, images)

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Logits at their own stride s, s² times smaller than `forward`'s, and not refined; see `Coarse`."""
        return self.coarse(images).logits

    def forward(self, images: Tensor) -> Tensor:
        """`(N, in_chans, H, W)` normalised images, H, W ≥ 32 → logits `(N, num_classes, H, W)`.

        Raises:
            CrispsegError: smaller images.
        """
        coarse, decoded = self.coarse(images)
        logits = resize(coarse, images.shape[-2:], align_corners=self.align_corners)
        return logits if self.refiner is None else self.refiner(logits, images, decoded.detail)

    def outputs(self, images: Tensor) -> Outputs:
        """All outputs at the images' size; see `Outputs`."""
        size = images.shape[-2:]
        coarse, decoded = self.coarse(images)
        auxiliary = None
        if self.auxiliary_heads is not None:
            strides = self.backbone.strides[: len(decoded.levels)]
            auxiliary = tuple(
                self.on_images(head(level), stride, size)
                for head, level, stride in zip(self.auxiliary_heads, decoded.levels, strides, strict=True)
            )
        logits = resize(coarse, size, align_corners=self.align_corners)
        if self.refiner is None:
            return Outputs(logits, auxiliary=auxiliary)
        boundary, direction = self.refiner.maps(images, decoded.detail)
        refined = shift(logits, self.refiner.offsets(boundary, direction))
        return Outputs(refined, logits, auxiliary, boundary, direction)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **hub: Any) -> Self:
        """Load a saved model, in eval mode, from its folder, a finished run's folder, by its name or from the hub.

        The names are those of the bundled models, see `crispseg.models.saving.shipped_folder`.

        Keyword arguments (`revision`, `cache_dir`, `token`, …) go to `huggingface_hub.hf_hub_download`. No backbone is
        downloaded.

        Raises:
            CrispsegError: it is not there, damaged, of a later format, or its weights do not fit.
        """
        source = pretrained_model_name_or_path
        config_path, weights_path = (located(source, name, hub) for name in (CONFIG_FILE, WEIGHTS_FILE))
        info, weights = ModelInfo.parse(config_path.read_bytes(), config_path), read_state_dict(weights_path)
        try:
            with torch.device("meta"):  # whatever is described, it takes no memory before it fits
                described(info).load_state_dict(weights, assign=True)
        except (CrispsegError, RuntimeError, TypeError, OverflowError) as error:
            reason = shortened(one_line(error))
            raise CrispsegError(
                f"{weights_path} does not fit its {CONFIG_FILE} ({reason}); save the model again"
            ) from error
        model = described(info)
        assert isinstance(model, cls)
        model.info = info
        model.load_state_dict(weights)
        return model.eval()

    def offsets(self, images: Tensor) -> Tensor | None:
        """Return the offset at which `forward` reads each pixel's logits, `(N, 2, H, W)`, x and y in pixels.

        They follow from the images alone: only the spatial branch and its heads run. None without a refinement.
        """
        if self.refiner is None:
            return None
        return self.refiner.offsets(*self.refiner.maps(images, self.detail(images)))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by speed of learning: `backbone` and `decoder` (all the rest)."""
        groups: dict[str, list[nn.Parameter]] = {"backbone": [], "decoder": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups["backbone" if name.startswith("backbone.") else "decoder"].append(parameter)
        return groups

    def check(self, images: Tensor) -> None:
        """Raise a CrispsegError if these are no images that the model takes."""
        in_chans = self.backbone.in_chans
        if images.ndim != 4 or images.shape[1] != in_chans or not images.is_floating_point():
            raise CrispsegError(
                f"a model takes float images (N, {in_chans}, H, W), not {images.dtype} {tuple(images.shape)}; "
                "crispseg.Segmenter takes files and arrays"
            )
        height, width = images.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise CrispsegError(
                f"images of {height}×{width} pixels are too small; both sides must be at least {MIN_SIDE}"
            )


def _within(x: Tensor, padded: Tensor, images: Tensor) -> Tensor:
    """The part of a map of padded images that lies on the images."""
    rows, columns = (ceil_div(images.shape[at], padded.shape[at] // x.shape[at]) for at in (-2, -1))
    return x[..., :rows, :columns]


def described(info: ModelInfo) -> SegmentationModel:
    """A model as its `config.json` says, with random weights; nothing there may name a file to be read."""
    if strange := info.options.keys() - {*REFINE_OPTIONS, *model_options(info.name)}:
        raise CrispsegError(f"'{min(strange)}' is no option of {info.name}")
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
        name: one of `list_models()`.
        num_classes: number of logits.
        backbone: `resnet18_deep`, `resnet50_deep`, `resnet101_deep`, `df1`, `df2`, `stdc1`, `stdc2`,
            `shufflenetv2_x1_0`, or any timm name with a feature pyramid; for unept, a ViT of timm too.
        pretrained: `True` for the published backbone weights, or a path to a local backbone weight file.
        in_chans: channels of the images.
        refine: `boundary` for UN-EPT's refinement of the logits along boundaries (`crispseg.models.refinement`), None
            for none. `auto` refines in unept alone, by one step, as its released code does.
        refine_steps: steps from a boundary pixel to the one whose logits it takes, by default 2.
        refine_path: `chained`, each step in the direction of the pixel where it starts, or `straight`, all in that of
            the first; two straight steps are SegFix's doubled one.
        auxiliary: add heads on the decoder's levels for deep supervision; they are in no saved model.
        class_names: one a class, by which results are shown; by default numbers.
        **options: those of the model, see its builder in `crispseg.models`. Those of its fuse part may be given in
            `fuse_options`, `create_model("sfnet", fuse="ddsm", fuse_options={"pixels": 9}, …)`.

    Raises:
        CrispsegError: an unknown model, backbone, part or option; weights that are not there or do not fit.
    """
    resolved = resolved_options(name, options)
    if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
        raise CrispsegError(f"num_classes is {num_classes!r}; 2 to 255 classes are possible (two for binary masks)")
    if refine not in (None, *get_args(Refinement)) or refine_path not in get_args(RefinePath):
        raise CrispsegError("refine must be auto, boundary or None, and refine_path chained or straight")
    if refine_steps is not None and not (isinstance(refine_steps, int) and refine_steps >= 1):
        raise CrispsegError(f"refine_steps is {refine_steps}; it must be a whole number of at least 1")
    if (width := resolved.get("width")) is not None and width < 2:
        raise CrispsegError(f"width is {width}; it must be at least 2")
    if refine == "auto":
        refine = "boundary" if name in REFINED_BY_DEFAULT else None
        refine_steps = refine_steps or REFINED_BY_DEFAULT.get(name)
    if refine is None and refine_steps not in (None, STEPS_TAKEN):
        raise CrispsegError(
            f"refine_steps is {refine_steps}, but the model has no refinement; give refine boundary too"
        )
    spec = BackboneSpec(backbone, pretrained, in_chans)
    model: SegmentationModel = models[name](spec, num_classes, **builder_options(name, resolved))
    for option in ("width", "fuse_levels"):
        if option in resolved and resolved[option] is None:  # the builder chose it
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
