"""Checkpoints of SFNet's official release as models of this package."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from torch import Tensor

from crispseg.backbones import read_state_dict
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel, create_model

_RELEASED = {  # what a key begins with in our models → in the release
    "backbone.net.model.conv1.": "layer0.0.",
    "backbone.net.model.bn1.": "layer0.1.",
    "backbone.net.model.layer": "layer",
    "backbone.net.stage": "backbone.stage",
    "decoder.context.": "head.ppm.",
    "decoder.laterals.": "head.fpn_in.",
    **{f"decoder.smooths.{i}.": f"head.fpn_out.{i}.0." for i in range(3)},
    **{f"decoder.fuses.{i}.compress_coarse.": f"head.fpn_out_align.{i}.down_h." for i in range(3)},
    **{f"decoder.fuses.{i}.compress_fine.": f"head.fpn_out_align.{i}.down_l." for i in range(3)},
    **{f"decoder.fuses.{i}.predict_flow.": f"head.fpn_out_align.{i}.flow_make." for i in range(3)},
    "decoder.merge.conv.": "head.conv_last.0.",
    "classifier.": "head.conv_last.1.",
}
_TRAINING_ONLY = re.compile(r"head\.dsn\.|dsn\.|fc\.")
_DF_NETS = {"backbone.stage5.0.conv1.weight": "df1", "backbone.stage4_2.0.conv1.weight": "df2"}
_RESNETS = {("basic", 2): "resnet18_deep", ("bottleneck", 6): "resnet50_deep", ("bottleneck", 23): "resnet101_deep"}


def convert_official(path: str | Path, labels: LabelSet | None = None) -> SegmentationModel:
    """Build the SFNet that a checkpoint of the official release holds, in eval mode.

    Weights may be wrapped (`state_dict`), prefixed (`module.`) and of any float type; training-only heads are dropped.

    Args:
        path: path of the checkpoint.
        labels: class names and colours, which the checkpoint lacks, in the order of its classes.

    Raises:
        CrispsegError: the file cannot be read, or is no checkpoint of an official SFNet on ResNet-18, 50 or 101, DF1 or
            DF2; its weights are not finite; it has another number of classes than `labels`.
    """
    given = {
        key: value.float() if value.is_floating_point() else value
        for key, value in read_state_dict(path).items()
        if not _TRAINING_ONLY.match(key)
    }
    if any(key.startswith("head.flow_align_module.") for key in given):
        raise CrispsegError(f"{path} is a checkpoint of SFNet-Lite, which is not read; give one of SFNet")
    needed = ("head.conv_last.1.weight", "head.ppm.bottleneck.0.weight")
    absent = [key for key in needed if key not in given or given[key].ndim != 4]
    if absent:
        raise CrispsegError(f"{path} is no checkpoint of an official SFNet: it has no {', '.join(absent)}")
    num_classes = len(given["head.conv_last.1.weight"])
    if labels is not None and len(labels) != num_classes:
        raise CrispsegError(f"{path} has {num_classes} classes, not {len(labels)}; name the data it was trained on")
    backbone = _backbone_of(path, given)
    try:
        model = create_model(
            "sfnet",
            num_classes=num_classes,
            backbone=backbone,
            width=len(given["head.ppm.bottleneck.0.weight"]),
            released_dilation=backbone in _RESNETS.values(),
        )
    except CrispsegError as error:
        raise CrispsegError(f"{path} holds an SFNet that cannot be built: {error}") from None

    own = model.state_dict()
    names = {_released(name): name for name in own}  # the file's → ours
    # A bias in front of a batch norm only shifts its mean; our laterals have none.
    shifts = {
        f"head.fpn_in.{index}.0.bias": f"decoder.laterals.{index}.1.running_mean"
        for index in range(len(model.backbone.channels) - 1)
    }
    shapes = {key: own[name].shape for key, name in (names | shifts).items()}
    wrong = {
        "unknown": [key for key in given if key not in shapes],
        "missing": [key for key in names if key not in given and not key.endswith("num_batches_tracked")],
        "of another shape": [key for key, value in given.items() if shapes.get(key, value.shape) != value.shape],
        "with values that are not finite": [key for key, value in given.items() if not value.isfinite().all()],
    }
    if any(wrong.values()):
        raise CrispsegError(
            f"{path} does not fit an SFNet on {backbone}: "
            + "; ".join(f"{len(keys)} keys {what}, first {', '.join(keys[:3])}" for what, keys in wrong.items() if keys)
        )
    weights = {names[key]: value for key, value in given.items() if key in names}
    for bias, mean in shifts.items():
        if bias in given:
            weights[mean] = weights[mean] - given[bias]
    model.load_state_dict(weights, strict=False)
    if labels is not None:
        model.info = dataclasses.replace(model.info, class_names=labels.names, palette=labels.palette)
    return model.eval()


def _released(name: str) -> str:
    """The release's name of a tensor of ours."""
    ours, released = next((pair for pair in _RELEASED.items() if name.startswith(pair[0])), ("", ""))
    return released + name.removeprefix(ours)


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
