"""Conversion of SFNet's and SFNet-Lite's official checkpoints to models of this package."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crispseg.backbones import read_state_dict
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet
from crispseg.licences import UNKNOWN, Licence
from crispseg.models import SegmentationModel, create_model
from crispseg.nn.uninitialised import Uninitialised

RELEASE = "https://github.com/lxtGH/SFSegNets"
UNKNOWN_DATA = Licence("data", "of the checkpoint", UNKNOWN, RELEASE)
_RELEASED = {  # prefix of a key in crispseg → prefix in the release
    "backbone.net.model.conv1.": "layer0.0.",
    "backbone.net.model.bn1.": "layer0.1.",
    "backbone.net.model.layer": "layer",
    "backbone.net.stage": "backbone.stage",
    "backbone.net.": "backbone.features.",
    "decoder.context.": "head.ppm.",
    "decoder.laterals.": "head.fpn_in.",
    **{f"decoder.smooths.{i}.": f"head.fpn_out.{i}.0." for i in range(3)},
    **{f"decoder.fuses.{i}.compress_coarse.": f"head.fpn_out_align.{i}.down_h." for i in range(3)},
    **{f"decoder.fuses.{i}.compress_fine.": f"head.fpn_out_align.{i}.down_l." for i in range(3)},
    **{f"decoder.fuses.{i}.predict_flow.": f"head.fpn_out_align.{i}.flow_make." for i in range(3)},
    "decoder.fuse.compress_coarse.": "head.flow_align_module.down_h.",
    "decoder.fuse.compress_fine.": "head.flow_align_module.down_l.",
    "decoder.fuse.predict_flow.": "head.flow_align_module.flow_make.",
    "decoder.fuse.predict_gate.": "head.flow_align_module.flow_gate.0.",
    "decoder.merge.conv.": "head.conv_last.0.",
    "classifier.": "head.conv_last.1.",
}
_UNUSED = (  # beginnings of keys
    *("head.dsn.", "dsn.", "fc."),  # used in training only
    *("backbone.conv_last.", "backbone.fc.", "backbone.bn.", "backbone.linear."),  # STDC's ImageNet classifier
    *(f"backbone.x{stride}." for stride in (2, 4, 8, 16, 32)),  # duplicates of the tensors in backbone.features
)
_UNUSED_LITE = (*_UNUSED, "head.fpn_in.2.")  # on ResNet-18 it has an unused lateral of C5
_HEAD_KEYS = ("head.conv_last.1.weight", "head.ppm.bottleneck.0.weight")
_LITE = "head.flow_align_module.down_h.weight"
_GATE = "head.flow_align_module.flow_gate.0.weight"
_OWN_NETS = {  # the last key found in a file determines its backbone
    "backbone.stage5.0.conv1.weight": "df1",
    "backbone.stage4_2.0.conv1.weight": "df2",
    "backbone.features.7.conv_list.0.conv.weight": "stdc1",
    "backbone.features.13.conv_list.0.conv.weight": "stdc2",
}
_RESNETS = {("basic", 2): "resnet18_deep", ("bottleneck", 6): "resnet50_deep", ("bottleneck", 23): "resnet101_deep"}


def convert_official(
    path: str | Path, labels: LabelSet | None = None, data: Licence = UNKNOWN_DATA
) -> SegmentationModel:
    """Build the SFNet or SFNet-Lite of an official checkpoint, in eval mode.

    Weights may be wrapped (`state_dict`), prefixed (`module.`) and of any float type. Weights that prediction does not
    need, such as training-only heads, are dropped.

    Args:
        path: path of the checkpoint.
        labels: class names and colours in the order of the checkpoint's classes, because the checkpoint lacks them.
        data: licence of its training data.

    Raises:
        CrispsegError: the file is unreadable, or not a checkpoint of an official SFNet or SFNet-Lite on ResNet-18, 50
            or 101, DF1, DF2, STDC-1 or STDC-2; it has another number of classes than `labels`.
    """
    given = _needed_weights(path)
    title, options = "SFNet", dict[str, Any]()
    if _LITE in given:
        is_pooled = _GATE in given and given[_GATE].shape[1:2] == (4,)
        title, options = "SFNet-Lite", {"gate": "pooled" if is_pooled else "features"}
    if absent := [key for key in _HEAD_KEYS if key not in given or given[key].ndim != 4]:
        raise CrispsegError(f"{path} is not a checkpoint of an official {title}: it has no {', '.join(absent)}")
    num_classes, width = (len(given[key]) for key in _HEAD_KEYS)
    if labels is not None and len(labels) != num_classes:
        raise CrispsegError(f"{path} has {num_classes} classes, not {len(labels)}; give its training data")
    backbone = _backbone_of(path, given)
    options |= {"width": width, "released_dilation": backbone in _RESNETS.values()}
    with Uninitialised():
        model = create_model(title.lower().replace("-", "_"), num_classes=num_classes, backbone=backbone, **options)
    weights = _weights_of(model, given, f"{path} does not match an {title} on {backbone}")
    model.load_state_dict(weights, strict=False)
    licences = (*model.info.licences, Licence.of_file(Path(path).name, "MIT", Path(path), RELEASE), data)
    model.info = dataclasses.replace(model.info, licences=licences)
    if labels is not None:
        model.info = dataclasses.replace(model.info, class_names=labels.names, palette=labels.palette)
    return model.eval()


def _needed_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint that prediction needs, in float32."""
    weights = read_state_dict(path)
    unused = _UNUSED_LITE if _LITE in weights else _UNUSED
    needed = {key: value for key, value in weights.items() if not key.startswith(unused)}
    return {key: value.float() if value.is_floating_point() else value for key, value in needed.items()}


def _weights_of(model: SegmentationModel, given: Mapping[str, Tensor], mismatch: str) -> dict[str, Tensor]:
    """Return a checkpoint's weights by crispseg's keys; other keys or shapes raise a `CrispsegError`."""
    own = model.state_dict()
    names = {_released_name(name): name for name in own}  # key in the file → key in crispseg
    # A bias before a batch norm only shifts its mean; crispseg's laterals have no bias.
    shifts = {
        f"head.fpn_in.{index}.0.bias": f"decoder.laterals.{index}.1.running_mean"
        for index in range(len(model.backbone.channels) - 1)  # C5 has no lateral
    }
    shapes = {key: own[name].shape for key, name in (names | shifts).items()}
    wrong = [key for key, value in given.items() if shapes.get(key) != value.shape]  # includes unknown keys
    wrong += [key for key in names if key not in given and not key.endswith("num_batches_tracked")]
    if wrong:
        first = ", ".join(wrong[:3])
        raise CrispsegError(f"{mismatch}: {len(wrong)} keys are unknown, missing or of another shape, first {first}")
    weights = {names[key]: value for key, value in given.items() if key in names}
    for bias, mean in shifts.items():
        if bias in given:
            weights[mean] = weights[mean] - given[bias]
    return weights


def _released_name(name: str) -> str:
    """Return the key of the released code for a key of crispseg."""
    for ours, released in _RELEASED.items():
        if name.startswith(ours):
            return released + name.removeprefix(ours)
    return name


def _backbone_of(path: str | Path, given: dict[str, Tensor]) -> str:
    if nets := [name for key, name in _OWN_NETS.items() if key in given]:
        return nets[-1]
    block = "bottleneck" if "layer3.0.conv3.weight" in given else "basic"
    depth = len({key.split(".")[1] for key in given if key.startswith("layer3.")})
    if (block, depth) not in _RESNETS:
        raise CrispsegError(
            f"{path} is not a checkpoint of an official SFNet on a ResNet-18, 50 or 101, DF or STDC; it has {depth} "
            f"{block} blocks in layer3, and no {' or '.join(_OWN_NETS)}"
        )
    return _RESNETS[block, depth]
