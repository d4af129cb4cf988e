"""Checkpoints of SFNet's official release as models of this package."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from crispseg.backbones import read_state_dict
from crispseg.errors import CrispsegError
from crispseg.models import SegmentationModel, create_model

_RENAMES = (  # pattern of a whole key in the release → ours; the first that matches counts
    (r"layer0\.0\.(.+)", r"backbone.net.model.conv1.\1"),
    (r"layer0\.1\.(.+)", r"backbone.net.model.bn1.\1"),
    (r"(layer[1-4]\..+)", r"backbone.net.model.\1"),
    (r"backbone\.(stage.+)", r"backbone.net.\1"),
    (r"head\.ppm\.(.+)", r"decoder.context.\1"),
    (r"head\.fpn_in\.(.+)", r"decoder.laterals.\1"),
    (r"head\.fpn_out\.(\d)\.0\.(.+)", r"decoder.smooths.\1.\2"),
    (r"head\.fpn_out_align\.(\d)\.down_h\.(.+)", r"decoder.fuses.\1.compress_coarse.\2"),
    (r"head\.fpn_out_align\.(\d)\.down_l\.(.+)", r"decoder.fuses.\1.compress_fine.\2"),
    (r"head\.fpn_out_align\.(\d)\.flow_make\.(.+)", r"decoder.fuses.\1.predict_flow.\2"),
    (r"head\.conv_last\.0\.(.+)", r"decoder.merge.conv.\1"),
    (r"head\.conv_last\.1\.(.+)", r"classifier.\1"),
)
_TRAINING_ONLY = re.compile(r"head\.dsn\.|dsn\.|fc\.")
_DF_NETS = {"backbone.stage5.0.conv1.weight": "df1", "backbone.stage4_2.0.conv1.weight": "df2"}
_RESNETS = {("basic", 2): "resnet18_deep", ("bottleneck", 6): "resnet50_deep", ("bottleneck", 23): "resnet101_deep"}


def convert_official(path: str | Path) -> SegmentationModel:
    """Build the SFNet that a checkpoint of the official release holds, in eval mode.

    Weights may be wrapped (`state_dict`), prefixed (`module.`) and of any float type; training-only heads are dropped.

    Raises:
        CrispsegError: the file cannot be read, or is no checkpoint of an official SFNet on ResNet-18, 50 or 101, DF1 or
            DF2.
    """
    given = {key: value for key, value in read_state_dict(path).items() if not _TRAINING_ONLY.match(key)}
    needed = ("head.conv_last.1.weight", "head.ppm.bottleneck.0.weight")
    absent = [key for key in needed if key not in given or given[key].ndim != 4]
    if absent:
        raise CrispsegError(f"{path} is no checkpoint of an official SFNet: it has no {', '.join(absent)}")
    backbone = _backbone_of(path, given)
    try:
        model = create_model(
            "sfnet",
            num_classes=len(given["head.conv_last.1.weight"]),
            backbone=backbone,
            width=len(given["head.ppm.bottleneck.0.weight"]),
            released_dilation=backbone in _RESNETS.values(),
        )
    except CrispsegError as error:
        raise CrispsegError(f"{path} holds an SFNet that cannot be built: {error}") from None

    weights: dict[str, Tensor] = {}
    unknown = []
    for key, value in given.items():
        name = next((re.sub(old, new, key) for old, new in _RENAMES if re.fullmatch(old, key)), None)
        if name is None:
            unknown.append(key)
        else:
            weights[name] = value.float() if value.is_floating_point() else value  # before the sums below
    for index in range(len(model.decoder.laterals)):
        # A bias in front of a batch norm only shifts its mean; our laterals have none.
        bias, mean = f"decoder.laterals.{index}.0.bias", f"decoder.laterals.{index}.1.running_mean"
        if bias in weights and mean in weights and weights[bias].shape == weights[mean].shape:
            weights[mean] = weights[mean] - weights.pop(bias)

    own = model.state_dict()
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    other = [key for key in weights if key not in own or own[key].shape != weights[key].shape]
    if unknown or missing or other:
        raise CrispsegError(
            f"{path} does not fit an SFNet on {model.info.backbone}: "
            + "; ".join(
                f"{len(keys)} keys {what}, first {', '.join(keys[:3])}"
                for what, keys in (("unknown", unknown), ("missing", missing), ("of another shape", other))
                if keys
            )
        )
    model.load_state_dict(weights, strict=False)
    return model.eval()


def _backbone_of(path: str | Path, given: dict[str, Tensor]) -> str:
    for key, name in _DF_NETS.items():
        if key in given:
            return name
    if "layer3.0.conv1.weight" not in given:
        raise CrispsegError(
            f"{path} is no checkpoint of an official SFNet on a ResNet, DF1 or DF2: it has no layer3.0.conv1.weight "
            f"nor {' nor '.join(_DF_NETS)}"
        )
    block = "bottleneck" if "layer3.0.conv3.weight" in given else "basic"
    depth = len({key.split(".")[1] for key in given if key.startswith("layer3.")})
    if (block, depth) not in _RESNETS:
        raise CrispsegError(f"{path} has {depth} {block} blocks in layer3, which is none of ResNet-18, 50 and 101")
    return _RESNETS[block, depth]
