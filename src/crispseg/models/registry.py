"""Where models are registered, and the options that each has."""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.backbones import Backbone
from crispseg.decoders import fuses
from crispseg.errors import CrispsegError
from crispseg.options import checked_options, keyword_options
from crispseg.registry import Registry


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone to be built; the system that builds it chooses its strides."""

    name: str
    pretrained: bool | str | Path = False
    in_chans: int = 3

    def build(self, **options: Any) -> Backbone:
        """`Backbone(name, **options)` of this description."""
        return Backbone(self.name, pretrained=self.pretrained, in_chans=self.in_chans, **options)


Builder = Callable[..., Any]
"""`build(spec, num_classes, *, …)`: a `BackboneSpec`, the number of logits and options → a `SegmentationModel`."""

models: Registry[Builder] = Registry("model")


def preset(
    build: Builder, summary: str, *, part: str | None = None, fixed: Mapping[str, Any] | None = None, **defaults: Any
) -> Builder:
    """A builder that is another one with some options fixed and others with defaults of their own.

    Args:
        build: the other builder.
        summary: first line of the docstring.
        part: a fuse part that is the default, if it is not fixed, and whose options are options of the model too.
        fixed: options that are not offered, and their values.
        defaults: options that are, and theirs.
    """
    fixed = fixed or {}
    if part and "fuse" not in fixed:
        defaults["fuse"] = part
    own = keyword_options(fuses[part]) if part else {}

    def built(spec: BackboneSpec, num_classes: int, **options: Any) -> Any:
        of_part = {key: options.pop(key) for key in own if key in options}
        settings = {**fixed, **defaults, **options}
        if of_part and settings["fuse"] == part:
            settings["fuse_options"] = {**of_part, **(settings.get("fuse_options") or {})}
        return build(spec, num_classes, **settings)

    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(build, eval_str=True).parameters.items():
        parameters += own.values() if name == "fuse_options" else ()
        if name not in fixed:
            parameters.append(parameter.replace(default=defaults.get(name, parameter.default)))
    explained = _arguments(build) + (_arguments(fuses[part]) if part else "")
    built.__doc__ = f"{summary}\n\nArgs:\n{explained}"
    built.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    built.part = part  # type: ignore[attr-defined]
    return built


def _arguments(documented: object) -> str:
    """The lines of a docstring that explain the arguments."""
    found = re.search(r"Args:\n(.*?)(\n\n|$)", inspect.getdoc(documented) or "", re.DOTALL)
    return found[1].rstrip() + "\n" if found else ""


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return models.names()


def model_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a model, beyond what all models share, with their types and defaults."""
    return keyword_options(models[name])


def resolved_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model, defaults included, in the order and form in which they are saved.

    Options of the fuse part that a system is about, such as `pixels` of DDSM, stand beside the others, those given of
    any other fuse part in `fuse_options`; they may be given in either way.

    Raises:
        CrispsegError: an unknown model, part or option, or a value of the wrong type.
    """
    known = model_options(name)
    given = checked_options(f"model '{name}'", options, known)
    resolved = copy.deepcopy({key: parameter.default for key, parameter in known.items()} | given)
    given = resolved.pop("fuse_options", None) or {}
    part: str | None = getattr(models[name], "part", None)
    fuse = str(resolved.get("fuse", part))
    if fuse == part:
        return resolved | checked_options(f"fuse part '{fuse}'", given, keyword_options(fuses[fuse]))
    for key in keyword_options(fuses[part]) if part else ():
        if resolved[key] != known[key].default:
            raise CrispsegError(
                f"'{key}' is an option of fuse part '{part}', but fuse is '{fuse}'; leave it out, or name options of "
                f"{fuse} in fuse_options"
            )
    if given:
        there = {} if fuse == "concat" else keyword_options(fuses[fuse])  # concat is DeepLabV3+'s own way, no part
        given = checked_options(f"fuse part '{fuse}'", given, there)
        resolved["fuse_options"] = {key: parameter.default for key, parameter in there.items()} | given
    return resolved
