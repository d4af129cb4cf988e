"""The frame in which every model stands."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

from crispseg.backbones import Backbone
from crispseg.decoders import Decoded, DeepLabDecoder, TopDown
from crispseg.errors import CrispsegError
from crispseg.models.info import ModelInfo
from crispseg.models.saving import Saving
from crispseg.nn import conv_bn_relu, resize
from crispseg.refinement import BoundaryRefinement, Refinement, shift

if TYPE_CHECKING:
    from crispseg.models.unept import EPT


class Outputs(NamedTuple):
    """All a model can say about a batch of images, at their size; `None` is what it does not have."""

    logits: Tensor
    """Final `(N, num_classes, H, W)`."""
    unrefined: Tensor | None = None
    """Logits before refinement; only of a model with `refine`, as are the next two."""
    auxiliary: tuple[Tensor, ...] | None = None
    """Logits of the decoder's levels for deep supervision, finest first; only with `auxiliary=True`."""
    boundary: Tensor | None = None
    """Logit of a pixel to be on a boundary, `(N, 1, H, W)`."""
    direction: Tensor | None = None
    """Logits of its direction to the inside, one of `crispseg.refinement.targets.STEPS`, `(N, 8, H, W)`."""


class SegmentationModel(nn.Module, Saving):
    """image → backbone → decoder → classifier → logits → refinement, if any → logits.

    Build one with `crispseg.create_model`. A model is a plain module: it neither normalises images nor knows a loss.

    Args:
        backbone: gives the features.
        decoder: turns them into one map to classify.
        num_classes: number of logits.
        auxiliary: adds heads on the decoder's levels for deep supervision in training.
    """

    info: ModelInfo
    """Set by `create_model`; replace it (`dataclasses.replace`) to add class names, palette, recipe or metrics."""

    def __init__(
        self, backbone: Backbone, decoder: TopDown | DeepLabDecoder | EPT, num_classes: int, *, auxiliary: bool = False
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = decoder
        self.classifier = nn.Conv2d(decoder.out_channels, num_classes, 1)
        self.auxiliary_heads = (
            nn.ModuleList(_auxiliary_head(width, num_classes) for width in decoder.auxiliary_channels)
            if auxiliary
            else None
        )
        self.refiner: BoundaryRefinement | None = None

    def add_refinement(self, refine: Refinement) -> None:
        """Give the model a refinement of its logits, with random weights."""
        assert refine == "boundary"
        self.refiner = BoundaryRefinement(self.backbone.in_chans, detail_channels=self.detail_channels)

    @property
    def detail_channels(self) -> int | None:
        """Of `detail`."""
        return None

    def detail(self, images: Tensor) -> Tensor | None:
        """The feature map of a model's own spatial branch, which its refinement shares; most have none."""
        return None

    def decode(self, images: Tensor, detail: Tensor | None) -> Decoded:
        """What the decoder makes of `(N, in_chans, H, W)` images that were checked, and of their `detail`."""
        decoded: Decoded = self.decoder(self.backbone(images))
        return decoded

    def coarse_logits(self, images: Tensor) -> Tensor:
        """Logits at the decoder's stride s, which is 4, 8 for UN-EPT or, without a decoder, the backbone's last, `(N,
        num_classes, ⌈H / s⌉, ⌈W / s⌉)`: s² times smaller than `forward`'s, and not refined."""
        logits: Tensor = self.classifier(self.decode(self._checked(images), self.detail(images)).feature)
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """`(N, in_chans, H, W)` normalised images, H, W ≥ 32 → logits `(N, num_classes, H, W)`.

        Raises:
            CrispsegError: smaller images; in training, a single value per channel in a batch norm of the backbone.
        """
        detail = self.detail(self._checked(images))
        logits = resize(self.classifier(self.decode(images, detail).feature), images.shape[-2:], align_corners=True)
        return logits if self.refiner is None else self.refiner(logits, images, detail)

    def offsets(self, images: Tensor) -> Tensor | None:
        """From where `forward` takes the logits of each pixel, `(N, 2, H, W)`, x and y in pixels; see `shift`.

        None without a refinement.
        """
        if self.refiner is None:
            return None
        return self.refiner.offsets(*self.refiner.maps(images, self.detail(images)))

    def outputs(self, images: Tensor) -> Outputs:
        """All outputs at the images' size; see `Outputs`."""
        size = images.shape[-2:]
        detail = self.detail(self._checked(images))
        decoded = self.decode(images, detail)
        auxiliary = None
        if self.auxiliary_heads is not None:
            auxiliary = tuple(
                resize(head(level), size, align_corners=True)
                for head, level in zip(self.auxiliary_heads, decoded.levels, strict=True)
            )
        logits = resize(self.classifier(decoded.feature), size, align_corners=True)
        if self.refiner is None:
            return Outputs(logits, auxiliary=auxiliary)
        boundary, direction = self.refiner.maps(images, detail)
        refined = shift(logits, self.refiner.offsets(boundary, direction))
        return Outputs(refined, logits, auxiliary, boundary, direction)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by speed of learning: `backbone` and `decoder` (all the rest)."""
        inside = {id(parameter) for parameter in self.backbone.parameters()}
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return {
            "backbone": [parameter for parameter in trainable if id(parameter) in inside],
            "decoder": [parameter for parameter in trainable if id(parameter) not in inside],
        }

    def _checked(self, images: Tensor) -> Tensor:
        in_chans = self.backbone.in_chans
        if images.ndim != 4 or images.shape[1] != in_chans or not images.is_floating_point():
            raise CrispsegError(
                f"a model takes float images (N, {in_chans}, H, W), not {images.dtype} {tuple(images.shape)}; "
                "crispseg.Segmenter takes files and arrays"
            )
        height, width = images.shape[-2:]
        if height < 32 or width < 32:
            raise CrispsegError(f"images of {height}×{width} pixels are too small; both sides must be at least 32")
        return images


def _auxiliary_head(width: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn_relu(width, width, 3), nn.Dropout2d(0.1), nn.Conv2d(width, num_classes, 1))
