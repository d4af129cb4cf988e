"""Where models are registered, and the options that each has."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.backbones import Backbone
from crispseg.config.options import checked_options, keyword_options, with_defaults
from crispseg.config.registry import Registry
from crispseg.decoders import contexts, fuses, merges
from crispseg.errors import CrispsegError


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
    name: str,
    build: Builder,
    summary: str,
    *,
    part: str | None = None,
    fixed: Mapping[str, Any] | None = None,
    **defaults: Any,
) -> Builder:
    """Register a model that is another builder with some options fixed and others with defaults of their own.

    Args:
        name: the model's name, which the result is assigned to.
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
    for key, parameter in inspect.signature(build, eval_str=True).parameters.items():
        parameters += own.values() if key == "fuse_options" else ()
        if key not in fixed:
            parameters.append(parameter.replace(default=defaults.get(key, parameter.default)))
    explained = _arguments(build) + (_arguments(fuses[part]) if part else "")
    built.__doc__ = f"{summary}\n\nArgs:\n{explained}"
    built.__name__ = built.__qualname__ = name
    built.__module__ = sys._getframe(1).f_globals["__name__"]  # as of a function that is written there
    built.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    built.part = part  # type: ignore[attr-defined]
    return models.register(name)(built)


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

    Options of the fuse part that a system is about, such as `pixels` of DDSM, stand beside the others, though they may
    be given in `fuse_options`; those of other parts stay in `context_options`, `fuse_options` and `merge_options`.

    Raises:
        CrispsegError: an unknown model, part or option, or a value of the wrong type; an option given in two ways.
    """
    known = model_options(name)
    resolved = with_defaults(f"model '{name}'", options, known)
    for kind, parts in (("context", contexts), ("merge", merges)):
        if given := resolved.pop(f"{kind}_options", None):
            chosen = resolved[kind]
            of_part = with_defaults(f"{parts.kind} '{chosen}'", given, keyword_options(parts[chosen]))
            resolved[f"{kind}_options"] = of_part
    given = resolved.pop("fuse_options", None) or {}
    part: str | None = getattr(models[name], "part", None)
    fuse = str(resolved.get("fuse", part))
    owner = f"fuse part '{fuse}'"
    if fuse == part:
        for key in given.keys() & options.keys():
            raise CrispsegError(f"'{key}' is given both by itself and in fuse_options; leave one out")
        return resolved | checked_options(owner, given, keyword_options(fuses[fuse]))
    for key in keyword_options(fuses[part]) if part else ():
        if resolved[key] != known[key].default:
            raise CrispsegError(
                f"'{key}' is an option of fuse part '{part}', but fuse is '{fuse}'; leave it out, or name options of "
                f"{fuse} in fuse_options"
            )
    if given:
        there = {} if fuse == "concat" else keyword_options(fuses[fuse])  # concat is DeepLabV3+'s own way, no part
        resolved["fuse_options"] = with_defaults(owner, given, there)
    return resolved
