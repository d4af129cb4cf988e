"""From the name of a network to the network, of this library or of another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import yaml
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

from crispseg.backbones import DEEP_RESNETS
from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.inference.runtime import AnyModel, is_exported, open_model
from crispseg.io.normalize import Normalize
from crispseg.models import SegmentationModel, create_model, list_models
from crispseg.models.base import described, shapes_alone
from crispseg.models.saving import shipped_folder

FIXED = {"name", "num_classes", "backbone", "pretrained", "auxiliary"}
"""What `create_model` takes that is the same for all that are compared, or that a name says."""


@dataclass(frozen=True, eq=False)
class Contender:
    """A network to be measured, with random weights unless it was saved with others."""

    name: str
    """As it was asked for."""
    net: nn.Module
    """`(N, in_chans, H, W)` → logits `(N, num_classes, H, W)`, or the features of a backbone."""
    backbone: str
    num_classes: int | None
    """`None` for a backbone, which has no classes."""
    normalize: Normalize
    """What its images need."""
    miou: float | None = None
    """In percent on the val split at the end of training, where a saved model says it."""
    counted: nn.Module | None = None
    """What is counted in the place of `net`: of an exported file its network, without values."""


def find_contender(name: str, *, backbone: str, num_classes: int) -> Contender:
    """Build the network that a name means.

    Args:
        name: `MODEL` or `MODEL:BACKBONE` of `crispseg.create_model`, and behind it options as YAML has them, such as
            `sfnet:resnet50{fuse: add}`; `smp:ARCHITECTURE` or `smp:ARCHITECTURE:ENCODER` of
            segmentation-models-pytorch; `timm:BACKBONE`; or a run, a saved model's folder, a hub id, the name of a
            model inside crispseg, or a file of `crispseg export`.
        backbone: backbone where the name has none.
        num_classes: number of classes; saved models have their own.

    Raises:
        CrispsegError: nothing is known by that name, it cannot be built, or its library is missing.
    """
    plain, brace, written = name.partition("{")
    kind, *rest = plain.rstrip().split(":")
    if "" in rest:
        raise CrispsegError(f"'{name}' ends in the middle; write what follows the colon, or leave the colon out")
    if kind in list_models():
        options = _options(name, brace + written)
        for option in FIXED & options.keys():
            raise CrispsegError(f"'{name}': {option} is no option in braces; leave it out (backbone: {kind}:BACKBONE)")
        return _own(name, create_model(kind, num_classes=num_classes, backbone=":".join(rest) or backbone, **options))
    if kind in ("smp", "timm") and brace:
        raise CrispsegError(f"'{name}': only crispseg's models take options; leave {brace}{written} out")
    match kind, rest:
        case "smp", [architecture, *encoder]:
            return _smp(name, architecture, ":".join(encoder), backbone, num_classes)
        case "timm", [_, *_]:
            return _timm(name, ":".join(rest))
    if is_exported(name):
        return _exported(name)
    if "/" in name or Path(name).is_dir() or shipped_folder(name):
        return _own(name, SegmentationModel.from_pretrained(name))
    known = did_you_mean(kind, list_models())
    raise CrispsegError(f"unknown model '{name}'{known} (or smp:ARCHITECTURE[:ENCODER], timm:BACKBONE, a run's folder)")


def _options(name: str, written: str) -> dict[str, Any]:
    """The options that a name ends in; of these, `create_model` says what it does not know."""
    try:
        options = yaml.safe_load(written or "{}")
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict) or not all(isinstance(option, str) for option in options):
        raise CrispsegError(f"'{name}' has no readable options; write '{{option: value}}' at the end of the name")
    return options


def _own(name: str, model: AnyModel) -> Contender:
    info = model.info
    normalize = Normalize(info.mean, info.std, info.in_chans)
    return Contender(name, model, info.backbone, info.num_classes, normalize, info.metrics.get("val_miou"))


def _exported(name: str) -> Contender:
    model = open_model(name)
    contender = _own(name, model)
    with shapes_alone():
        return replace(contender, counted=described(model.info))


def _smp(name: str, architecture: str, encoder: str, backbone: str, num_classes: int) -> Contender:
    """On the encoder of that name; without one, on timm's network that a model of ours has as its backbone."""
    try:
        import segmentation_models_pytorch as smp
    except ImportError:
        raise CrispsegError(f"'{name}' needs segmentation-models-pytorch: pip install 'crispseg[benchmarks]'") from None
    known = {kind.__name__.lower(): kind.__name__ for kind in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    if architecture.lower() not in known:
        raise CrispsegError(f"'{name}': no architecture '{architecture}'{did_you_mean(architecture, known.values())}")
    chosen, own = encoder, smp.encoders.get_encoder_names()
    options: dict[str, Any] = {}
    if not encoder:
        network, options = _in_timm(backbone)
        if not network:
            raise CrispsegError(f"'{name}': timm has no backbone '{backbone}'; name an encoder: {name}:ENCODER")
        chosen = f"tu-{network}"
    elif encoder not in own and not (encoder.startswith("tu-") and timm.is_model(encoder.removeprefix("tu-"))):
        remedy = did_you_mean(encoder, [*own, *(f"tu-{network}" for network in timm.list_models())])
        raise CrispsegError(
            f"'{name}': no encoder '{encoder}'{remedy} (its library has its own, and those of timm as tu-NETWORK)"
        )
    net = _build(name, smp.create_model, architecture, chosen, encoder_weights=None, classes=num_classes, **options)
    normalize = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return Contender(name, net, encoder or backbone, num_classes, normalize)


def _timm(name: str, network: str) -> Contender:
    known, options = _in_timm(network)
    if not known:
        remedy = did_you_mean(network, [*DEEP_RESNETS, *timm.list_models()])
        raise CrispsegError(f"'{name}': no network '{network}'{remedy} (timm.list_models() names all)")
    net = _build(name, timm.create_model, known, num_classes=0, **options)
    config = net.pretrained_cfg
    return Contender(name, Features(net), network, None, Normalize(config["mean"], config["std"]))


class Features(nn.Module):
    """A timm network up to its last feature map, without pooling and classifier."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """`(N, 3, H, W)` → `(N, C, h, w)`, or what else the network calls its features."""
        features: Tensor = self.net.forward_features(images)
        return features


def _in_timm(name: str) -> tuple[str, dict[str, Any]]:
    """The name and the options by which timm knows a backbone; no name if it does not."""
    network, options = DEEP_RESNETS.get(name, (name, {}))
    return (network, options) if timm.is_model(network) else ("", {})


def _build(name: str, build: Callable[..., Any], *args: Any, **options: Any) -> Any:
    try:
        return build(*args, **options)
    except Exception as error:  # the libraries raise many types for parts that do not fit each other
        raise CrispsegError(f"'{name}' cannot be built ({one_line(error)}); choose another backbone") from error
