"""Where models are registered and how one is built by name."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from crispseg.backbones import Backbone
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.models.info import ModelInfo
from crispseg.refinement import Refinement
from crispseg.registry import Registry

if TYPE_CHECKING:
    from crispseg.models.base import SegmentationModel


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone to be built; the system that builds it chooses its strides."""

    name: str
    pretrained: bool | str | Path = False
    in_chans: int = 3

    def build(self, **options: Any) -> Backbone:
        """`Backbone(name, **options)` of this description."""
        return Backbone(self.name, pretrained=self.pretrained, in_chans=self.in_chans, **options)


Builder = Callable[..., "SegmentationModel"]

models: Registry[Builder] = Registry("model")


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return models.names()


def model_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a model, beyond what all models share, with their types and defaults."""
    parameters = inspect.signature(models[name], eval_str=True).parameters
    return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def create_model(
    name: str,
    *,
    num_classes: int,
    backbone: str = "resnet18_deep",
    pretrained: bool | str | Path = False,
    in_chans: int = 3,
    refine: Refinement | None = None,
    **options: Any,
) -> SegmentationModel:
    """Build a model.

    Args:
        name: one of `list_models()`.
        num_classes: number of logits.
        backbone: `resnet18_deep`, `resnet50_deep`, `resnet101_deep`, `df1`, `df2`, `shufflenetv2_x1_0`, or any timm
            name with a feature pyramid; for unept, a ViT of timm too.
        pretrained: `True` for the published backbone weights, or a path to a local backbone weight file.
        in_chans: channels of the images.
        refine: `boundary` for UN-EPT's refinement of the logits along boundaries (`crispseg.refinement`).
        **options: of the model, see its builder in `crispseg.models`.

    Raises:
        CrispsegError: an unknown model, backbone, part or option; weights that are not there or do not fit.
    """
    known = model_options(name)
    for option, value in options.items():
        if option not in known:
            raise CrispsegError(f"model '{name}' has no option '{option}'{did_you_mean(option, known)}")
        expected = known[option].annotation
        if not _is_of(value, expected):
            raise CrispsegError(f"option '{option}' of model '{name}' is {value!r}; it must be {_describe(expected)}")
    if not isinstance(num_classes, int) or not 2 <= num_classes <= 255:
        raise CrispsegError(f"num_classes is {num_classes!r}; 2 to 255 classes are possible (two for binary masks)")
    if not isinstance(in_chans, int) or isinstance(in_chans, bool) or in_chans < 1:
        raise CrispsegError(f"in_chans is {in_chans!r}; it must be at least 1")
    if refine not in (None, *get_args(Refinement)):
        raise CrispsegError(f"refine is {refine!r}; it must be {' or '.join(get_args(Refinement))}, or None")
    model = models[name](BackboneSpec(backbone, pretrained, in_chans), num_classes, **options)
    resolved = copy.deepcopy({key: parameter.default for key, parameter in known.items()} | options)
    resolved.pop("auxiliary", None)  # training only
    for option in ("width", "fuse_levels"):
        if resolved.get(option, 0) is None:
            resolved[option] = getattr(model.decoder, option)
    if refine is not None:
        model.add_refinement(refine)
        resolved["refine"] = refine
    model.info = ModelInfo(
        name, num_classes, backbone, in_chans, resolved, mean=model.backbone.mean, std=model.backbone.std
    )
    return model


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is what an option's annotation says; `True` is no 1."""
    kinds = get_args(annotation)
    if get_origin(annotation) is Literal:
        return any(type(value) is type(kind) and value == kind for kind in kinds)
    if get_origin(annotation) is list:
        return isinstance(value, list) and all(_is_of(entry, kinds[0]) for entry in value)
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_of(value, kind) for kind in kinds)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(str(kind) for kind in get_args(annotation))}"
    return f"of type {annotation.__name__ if isinstance(annotation, type) else annotation}"
