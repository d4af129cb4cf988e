"""Registry of models, and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from crispseg.backbones import Backbone
from crispseg.config.registry import Registry, checked_options, with_defaults
from crispseg.config.settings import Field, options_of
from crispseg.decoders import contexts, fuses, merges
from crispseg.errors import CrispsegError


@dataclass(frozen=True)
class BackboneSpec:
    """Description of a backbone to build; the model that builds it chooses the strides."""

    name: str
    pretrained: bool | str | Path = False
    in_chans: int = 3

    def build(self, **options: Any) -> Backbone:
        """Build the `Backbone` with further options."""
        return Backbone(self.name, pretrained=self.pretrained, in_chans=self.in_chans, **options)


Builder = Callable[..., Any]
"""Function `build(spec, num_classes, *, …)` from a `BackboneSpec` and the number of logits to a `SegmentationModel`.

The default of its option `fuse` is the model's own fuse part; options of this part are also options of the model."""

models: Registry[Builder] = Registry("model")


def list_models() -> list[str]:
    """Return the names of all models that `create_model` can build."""
    return models.names()


def variant(name: str, builder: Builder, about: str, **defaults: Any) -> Builder:
    """Register a model that differs from another one in its defaults; `about` is its docstring."""
    made = partial(builder, **defaults)
    made.__doc__ = about
    return models.register(name)(made)


def model_options(name: str) -> dict[str, Field]:
    """Return the options that are specific to a model: those of its builder and of its own fuse part."""
    return options_of(models[name]) | _own_part(name)[1]


def _own_part(name: str) -> tuple[str | None, dict[str, Field]]:
    """Return a model's own fuse part and its options; no options if the default is not a part."""
    options = options_of(models[name])
    part = options["fuse"].default if "fuse" in options else None
    return part, options_of(fuses[part]) if part in fuses.names() else {}


def resolved_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of a model with defaults, in the saved form.

    Options of a model's own fuse part, such as `pixels` of DDSM, are also options of the model, and may be given in
    `fuse_options`. Options of other parts stay in `context_options`, `fuse_options` and `merge_options`.

    Raises:
        CrispsegError: a model, part or option is unknown; a value has the wrong type; an option is given twice.
    """
    own, own_options = _own_part(name)
    known = model_options(name)
    resolved = with_defaults(f"model '{name}'", options, known)
    for kind, parts in (("context", contexts), ("fuse", fuses), ("merge", merges)):
        given = resolved.pop(f"{kind}_options", None)
        part = str(resolved.get(kind))
        owner = f"{parts.kind} '{part}'"
        if kind == "fuse" and part == own:
            given = checked_options(owner, given or {}, own_options)
            if twice := given.keys() & options.keys():
                raise CrispsegError(f"'{min(twice)}' is given both directly and in fuse_options; leave one out")
            resolved |= given
        elif given:
            resolved[f"{kind}_options"] = with_defaults(owner, given, options_of(parts[part]))
    for key, option in own_options.items():
        if resolved["fuse"] != own and resolved[key] != option.default:
            raise CrispsegError(
                f"'{key}' is an option of fuse part '{own}', but fuse is '{resolved['fuse']}'; leave it out, or name "
                f"options of {resolved['fuse']} in fuse_options"
            )
    return resolved


def builder_options(name: str, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return `resolved_options` for the builder, with the options of its own fuse part in `fuse_options`."""
    own, own_options = _own_part(name)
    options = {key: value for key, value in resolved.items() if key not in own_options}
    if own_options and resolved["fuse"] == own:
        options["fuse_options"] = {key: resolved[key] for key in own_options}
    return options
