"""Networks of segmentation-models-pytorch (smp) and torchvision as models of crispseg, and a control of AGLN.

    crispseg train benchmarks/camvid.yaml --plugins benchmarks/peers.py --model smp_fpn ...

smp builds its networks with its defaults, on the same timm backbone with the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from types import SimpleNamespace
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.segmentation.lraspp import LRASPPHead

from crispseg.decoders import Decoded
from crispseg.models import SegmentationModel
from crispseg.models.agln import SemanticDistribution, agln
from crispseg.models.frame import BackboneSpec
from crispseg.models.registry import models


class Peer(SegmentationModel):
    """Network of another library with the interface of a crispseg model."""

    def __init__(self, spec: BackboneSpec, build: Callable[..., nn.Module], num_classes: int) -> None:
        nn.Module.__init__(self)
        ours = spec.build()
        self.net = build(f"tu-{spec.name}", encoder_weights=None, in_channels=spec.in_chans, classes=num_classes)
        if spec.pretrained:
            self.net.encoder.model.load_state_dict(ours.net.model.state_dict())  # raises if a key differs
        self.backbone = SimpleNamespace(
            mean=ours.mean,
            std=ours.std,
            in_chans=spec.in_chans,
            strides=ours.strides,
            early_share=ours.early_share,
            freeze=self.freeze,
        )
        ours.freeze(early=True)
        modules = ours.net.model.named_modules()
        self.early = [key for key, value in ours.net.model.named_parameters() if not value.requires_grad]
        self.early_modules = [key for key, value in modules if any(value is module for module in ours.frozen)]
        self.frozen: list[nn.Module] = []
        self.auxiliary_heads = self.refiner = self.decoder = None

    def freeze(self, *, early: bool = False) -> None:
        """Freeze as `Backbone.freeze` does; `early` freezes the same weights as in a crispseg network."""
        body = self.net.encoder.model
        for parameter in map(body.get_parameter, self.early) if early else body.parameters():
            parameter.requires_grad_(False)
        self.frozen += map(body.get_submodule, self.early_modules) if early else body.modules()
        self.train(self.training)

    def train(self, mode: bool = True) -> Peer:
        super().train(mode)
        for module in self.frozen:
            module.training = False
        return self

    align_corners = False
    inference_scale = 1

    def features(self, images: Tensor) -> Decoded:
        """Return logits at image size, because these networks upscale them; `classified` returns them unchanged."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % 32, 0, -height % 32))  # encoders need multiples of 32
        logits: Tensor = self.net(padded)[..., :height, :width]
        return Decoded(logits)

    def classified(self, feature: Tensor) -> Tensor:
        return feature

    def add_auxiliary_heads(self) -> None:
        """Do nothing, as there are no levels to supervise."""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        inside = {id(parameter) for parameter in self.net.encoder.parameters()}
        return {
            "backbone": list(self.net.encoder.parameters()),
            "decoder": [parameter for parameter in self.parameters() if id(parameter) not in inside],
        }


@models.register("smp_fpn")
def smp_fpn(spec: BackboneSpec, num_classes: int) -> Any:
    """Feature pyramid network of segmentation-models-pytorch."""
    return Peer(spec, smp.FPN, num_classes)


@models.register("smp_unet")
def smp_unet(spec: BackboneSpec, num_classes: int) -> Any:
    """U-Net of segmentation-models-pytorch."""
    return Peer(spec, smp.Unet, num_classes)


@models.register("smp_deeplabv3plus")
def smp_deeplabv3plus(spec: BackboneSpec, num_classes: int) -> Any:
    """DeepLabV3+ of segmentation-models-pytorch, output stride 16."""
    return Peer(spec, smp.DeepLabV3Plus, num_classes)


@models.register("smp_deeplabv3")
def smp_deeplabv3(spec: BackboneSpec, num_classes: int) -> Any:
    """DeepLabV3 of segmentation-models-pytorch, output stride 8."""
    return Peer(spec, smp.DeepLabV3, num_classes)


@models.register("smp_pspnet")
def smp_pspnet(spec: BackboneSpec, num_classes: int) -> Any:
    """PSPNet of segmentation-models-pytorch, features of stride 8."""
    return Peer(spec, smp.PSPNet, num_classes)


@models.register("smp_upernet")
def smp_upernet(spec: BackboneSpec, num_classes: int) -> Any:
    """UPerNet of segmentation-models-pytorch."""
    return Peer(spec, smp.UPerNet, num_classes)


@models.register("smp_segformer")
def smp_segformer(spec: BackboneSpec, num_classes: int) -> Any:
    """SegFormer's decoder of segmentation-models-pytorch."""
    return Peer(spec, smp.Segformer, num_classes)


class Lraspp(nn.Module):
    """LR-ASPP head of torchvision on features of strides 8 and 16; the encoder's last stage is dilated."""

    def __init__(self, encoder: str, encoder_weights: None, in_channels: int, classes: int) -> None:
        super().__init__()
        self.encoder = smp.encoders.get_encoder(encoder, in_channels, weights=encoder_weights, output_stride=16)
        low, high = (self.encoder.out_channels[level] for level in (3, 5))
        self.head = LRASPPHead(low, high, classes, inter_channels=128)

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        logits = self.head({"low": features[3], "high": features[5]})
        return F.interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)


@models.register("lraspp")
def lraspp(spec: BackboneSpec, num_classes: int) -> Any:
    """LR-ASPP of torchvision (Howard et al., Searching for MobileNetV3, §6.4)."""
    return Peer(spec, Lraspp, num_classes)


@models.register("agln_closed")
@wraps(agln)
def agln_closed(*given: Any, **options: Any) -> Any:
    """Build AGLN with α fixed at 0: descriptors reach the decoder's feature by its refinement only (§III-A2, Eq. 3)."""
    model = agln(*given, **options)
    for module in model.modules():
        if isinstance(module, SemanticDistribution):
            del module.alpha
            module.alpha = 0.0
    return model
