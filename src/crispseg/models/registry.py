"""Registry of models, and their options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from crispseg.config.registry import Registry, checked_options, with_defaults
from crispseg.config.settings import Field, fields_of, options_of
from crispseg.decoders import contexts, fuses, merges
from crispseg.errors import CrispsegError
from crispseg.models.frame import Frame, PartChoice

Builder = Callable[..., Any]
"""Function `build(spec, num_classes, *, …)` from a `BackboneSpec` and the number of logits to a `SegmentationModel`.

An argument of type `PartChoice`, such as `fuse`, gives two options, `fuse` and `fuse_options`, and one of type `Frame`
gives one for each of its fields. The default of `fuse` is the model's own fuse part; options of this part are also
options of the model."""

models: Registry[Builder] = Registry("model")
PARTS: dict[str, Registry[Any]] = {"context": contexts, "fuse": fuses, "merge": merges}
"""Registry of each kind of part."""

PART_NAMES = {
    "context": "context part on the deepest feature: conv, linear, ppm, aspp, denseaspp, nonlocal, crisscross or apnb",
    "fuse": "fuse part between levels: add, fam, gdfam, ddsm, cfb, dcn, carafe, sapa, fade, dysample or sharp_flow",
    "merge": "merge part for all levels: concat, aligned, or sum, which adds the projected levels",
}


def list_models() -> list[str]:
    """Return the names of all models that `create_model` can build."""
    return models.names()


def variant(name: str, builder: Builder, about: str, **defaults: Any) -> Builder:
    """Register a model that differs from another one in its defaults; `about` is its docstring."""
    made: Any = partial(builder, **defaults)
    made.__doc__ = about
    made.fitted = getattr(builder, "fitted", {})
    return models.register(name)(made)


def model_options(name: str) -> dict[str, Field]:
    """Return the options that are specific to a model, with its paper's defaults: its builder's and its own part's."""
    return _builder_options(name) | _own_part(name)[1]


def _builder_options(name: str) -> dict[str, Field]:
    options: dict[str, Field] = {}
    for key, field in options_of(models[name]).items():
        if isinstance(field.default, PartChoice):
            options[key] = Field(str, field.default.name, PART_NAMES[key])
            about = f"options of the {key} part by name"
            options[f"{key}_options"] = Field(dict[str, Any] | None, field.default.options, about)
        elif isinstance(field.default, Frame):
            fields = fields_of(Frame).items()
            options |= {name: option._replace(default=getattr(field.default, name)) for name, option in fields}
        else:
            options[key] = field
    return options


def _own_part(name: str) -> tuple[str | None, dict[str, Field]]:
    """Return a model's own fuse part and its options; no options if the default is not a part."""
    options = _builder_options(name)
    part = options["fuse"].default if "fuse" in options else None
    own = options_of(fuses[part]) if part in fuses.names() else {}
    return part, {key: option for key, option in own.items() if key not in options}


def resolved_options(name: str, options: Mapping[str, Any], *, paper: bool = True) -> dict[str, Any]:
    """Return all options of a model with defaults, in the saved form.

    Options of a model's own fuse part, such as `pixels` of DDSM, are also options of the model, and may be given in
    `fuse_options`. Options of other parts stay in `context_options`, `fuse_options` and `merge_options`.

    Args:
        name: the model.
        options: given options.
        paper: defaults are the paper's, instead of those that fit other backbones (see `crispseg.models.frame`).

    Raises:
        CrispsegError: a model, part or option is unknown; a value has the wrong type; an option is given twice.
    """
    own, own_options = _own_part(name)
    resolved = with_defaults(f"model '{name}'", {**_fitted(models[name], paper), **options}, model_options(name))
    for kind in PARTS:
        if kind not in resolved:
            continue
        given = resolved.pop(f"{kind}_options", None) or {}
        if kind == "fuse" and resolved[kind] == own:
            resolved |= _own_options(name, options, given, paper)
        elif complete := _part_options(kind, resolved[kind], given, paper):
            resolved[f"{kind}_options"] = complete
    for key, option in own_options.items():
        if resolved["fuse"] != own and resolved[key] != option.default:
            raise CrispsegError(
                f"'{key}' is an option of fuse part '{own}', but fuse is '{resolved['fuse']}'; leave it out, or name "
                f"options of {resolved['fuse']} in fuse_options"
            )
    return resolved


def _fitted(maker: Any, paper: bool) -> dict[str, Any]:
    """Return the defaults of a model or part for other backbones than the papers'; nothing for a paper's defaults."""
    return {} if paper else dict(getattr(maker, "fitted", {}))


def _own_options(name: str, given: Mapping[str, Any], nested: Mapping[str, Any], paper: bool) -> dict[str, Any]:
    """Return the options of a model's own fuse part that are fitted or given in `fuse_options`."""
    own, own_options = _own_part(name)
    nested = checked_options(f"{fuses.kind} '{own}'", nested, own_options)
    if twice := nested.keys() & given.keys():
        raise CrispsegError(f"'{min(twice)}' is given both directly and in fuse_options; leave one out")
    fits = _fitted(fuses[str(own)], paper) if own_options else {}
    return {key: value for key, value in fits.items() if key not in given} | nested


def _part_options(kind: str, part: str, given: Mapping[str, Any], paper: bool) -> dict[str, Any]:
    """Return all options of another part if some are fitted or given."""
    parts = PARTS[kind]
    chosen = {**_fitted(parts[part], paper), **given}
    return with_defaults(f"{parts.kind} '{part}'", chosen, options_of(parts[part])) if chosen else {}


def builder_arguments(name: str, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a model's builder for `resolved_options`."""
    own, own_options = _own_part(name)
    options = dict(resolved)
    own_values = {key: options.pop(key) for key in own_options}
    arguments: dict[str, Any] = {}
    for key, field in options_of(models[name]).items():
        if isinstance(field.default, PartChoice):
            own_part = key == "fuse" and options[key] == own
            arguments[key] = PartChoice(options[key], own_values if own_part else options.get(f"{key}_options"))
        elif isinstance(field.default, Frame):
            arguments[key] = Frame(**{name: options[name] for name in fields_of(Frame)})
        else:
            arguments[key] = options[key]
    return arguments
