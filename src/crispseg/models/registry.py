"""The registry of models, and the options of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.backbones import Backbone
from crispseg.config.registry import Registry, checked_options, keyword_options, with_defaults
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
"""`build(spec, num_classes, *, …)`: a `BackboneSpec`, the number of logits and options → a `SegmentationModel`.

An option `fuse` is by default the fuse part that the model is about, whose options may be the model's own too."""

models: Registry[Builder] = Registry("model")


def list_models() -> list[str]:
    """Names that `create_model` knows."""
    return models.names()


def model_options(name: str) -> dict[str, inspect.Parameter]:
    """The options of a model, beyond what all models share, with their types and defaults."""
    return keyword_options(models[name])


def explained_options(name: str) -> dict[str, str]:
    """Return the explanation of each option, from the builder's docstring."""
    from docstring_parser import parse

    builder = getattr(models[name], "func", models[name])  # a variant's is that of the model with other defaults
    explained = parse(inspect.getdoc(builder) or "").params
    return {each.arg_name: " ".join((each.description or "").split()) for each in explained}


def resolved_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a model, defaults included, in the order and form in which they are saved.

    Options of the fuse part that a system is about, such as `pixels` of DDSM, are options of the model too, and may be
    given in `fuse_options` as well; those of other parts stay in `context_options`, `fuse_options` and `merge_options`.

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
    own = known["fuse"].default if "fuse" in known else None  # None: a model of one fuse part
    fuse = resolved.get("fuse")
    owner = f"fuse part '{fuse}'" if fuse else f"model '{name}'"
    # `concat` is DeepLabV3+'s own way, which has no options.
    of_own, of_fuse = ({} if part in (None, "concat") else keyword_options(fuses[part]) for part in (own, fuse))
    beside = known if own is None else {key: each for key, each in of_own.items() if key in known}
    if fuse == own:
        for key in given.keys() & options.keys():
            raise CrispsegError(f"'{key}' is given both by itself and in fuse_options; leave one out")
        return resolved | checked_options(owner, given, beside)
    for key in beside:
        if resolved[key] != known[key].default:
            raise CrispsegError(
                f"'{key}' is an option of fuse part '{own}', but fuse is '{fuse}'; leave it out, or name options of "
                f"{fuse} in fuse_options"
            )
    if given:
        resolved["fuse_options"] = with_defaults(owner, given, of_fuse)
    return resolved
