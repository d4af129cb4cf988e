"""Checkpoints of SFNet's official release as models of this package."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from crispseg.backbones import read_state_dict
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet
from crispseg.models import SegmentationModel, create_model

_RENAMES = {  # what a key begins with in the release → in our models; the first that fits counts
    "layer0.0.": "backbone.net.model.conv1.",
    "layer0.1.": "backbone.net.model.bn1.",
    "layer": "backbone.net.model.layer",
    "backbone.stage": "backbone.net.stage",
    "head.ppm.": "decoder.context.",
    "head.fpn_in.": "decoder.laterals.",
    **{f"head.fpn_out.{i}.0.": f"decoder.smooths.{i}." for i in range(3)},
    **{f"head.fpn_out_align.{i}.down_h.": f"decoder.fuses.{i}.compress_coarse." for i in range(3)},
    **{f"head.fpn_out_align.{i}.down_l.": f"decoder.fuses.{i}.compress_fine." for i in range(3)},
    **{f"head.fpn_out_align.{i}.flow_make.": f"decoder.fuses.{i}.predict_flow." for i in range(3)},
    "head.conv_last.0.": "decoder.merge.conv.",
    "head.conv_last.1.": "classifier.",
}
_RELEASED = {ours: released for released, ours in _RENAMES.items()}
_TRAINING_ONLY = re.compile(r"head\.dsn\.|dsn\.|fc\.")
_DF_NETS = {"backbone.stage5.0.conv1.weight": "df1", "backbone.stage4_2.0.conv1.weight": "df2"}
_RESNETS = {("basic", 2): "resnet18_deep", ("bottleneck", 6): "resnet50_deep", ("bottleneck", 23): "resnet101_deep"}


def convert_official(path: str | Path, labels: LabelSet | None = None) -> SegmentationModel:
    """Build the SFNet that a checkpoint of the official release holds, in eval mode.

    Weights may be wrapped (`state_dict`), prefixed (`module.`) and of any float type; training-only heads are dropped.

    Args:
        path: of the checkpoint.
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
    # A bias in front of a batch norm only shifts its mean; our laterals have none.
    shifts = {
        f"decoder.laterals.{index}.0.bias": f"decoder.laterals.{index}.1.running_mean"
        for index in range(len(model.backbone.channels) - 1)
    }
    shapes = {key: value.shape for key, value in own.items()}
    shapes |= {bias: shapes[mean] for bias, mean in shifts.items()}
    names = {key: _renamed(key, _RENAMES) for key in given}  # the file's → ours
    wrong = {
        "unknown": [key for key, name in names.items() if name not in shapes],
        "missing": [
            _renamed(name, _RELEASED)
            for name in own
            if name not in names.values() and not name.endswith("num_batches_tracked")
        ],
        "of another shape": [key for key, name in names.items() if name in shapes and shapes[name] != given[key].shape],
        "with values that are not finite": [key for key, value in given.items() if not value.isfinite().all()],
    }
    if any(wrong.values()):
        raise CrispsegError(
            f"{path} does not fit an SFNet on {backbone}: "
            + "; ".join(f"{len(keys)} keys {what}, first {', '.join(keys[:3])}" for what, keys in wrong.items() if keys)
        )
    weights = {names[key]: value for key, value in given.items()}
    for bias, mean in shifts.items():
        if bias in weights:
            weights[mean] = weights[mean] - weights.pop(bias)
    model.load_state_dict(weights, strict=False)
    if labels is not None:
        model.info = dataclasses.replace(model.info, class_names=labels.names, palette=labels.palette)
    return model.eval()


def _renamed(key: str, prefixes: Mapping[str, str]) -> str:
    """The key with the first of the prefixes that it has replaced; empty where it has none."""
    return next((new + key.removeprefix(old) for old, new in prefixes.items() if key.startswith(old)), "")


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
