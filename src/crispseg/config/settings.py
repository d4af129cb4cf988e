"""Settings: dataclasses whose types and ranges pydantic checks, with one line for what is wrong."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import docstring_parser
import pydantic
from pydantic import ModelWrapValidatorHandler, TypeAdapter, ValidationError

from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, did_you_mean

T = TypeVar("T")
Tree = dict[str, Any]
"""Settings by key, as a YAML file has them; those of a group are a tree of their own."""

CONFIG = "config.yaml"
"""The file in a run's folder that holds its settings."""

CHECKS = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)

LIMITS = {
    "greater_than": "give a number above {gt}",
    "greater_than_equal": "give at least {ge}",
    "less_than": "give a number below {lt}",
    "less_than_equal": "give at most {le}",
    "finite_number": "give a finite number",
}
"""Kinds of errors of pydantic about numbers, and what is said of them."""


class Text(str):
    """A value as it is typed on the command line: a number, a list and so on, if its key takes that."""


class Entries(Tree):
    """Entries that are added to a mapping, as by a flag for `loss.dice`, where another tree would replace it."""


class Field(NamedTuple):
    """A key of settings.

    Args:
        kind: its type, as annotated.
        default: its default; `dataclasses.MISSING` if a value must be given.
        about: what its docstring says.
    """

    kind: Any
    default: Any
    about: str


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> Tree:
    """Return `over` on top of `base`; `Entries` are added to the mapping that is there, if there is one."""
    tree = {**base, **over}
    for key, value in over.items():
        if isinstance(value, Entries) and isinstance(base.get(key), Mapping):
            tree[key] = type(base[key])(merged(base[key], value))
    return tree


def fields_of(settings: type) -> dict[str, Field]:
    """Return the fields of a dataclass, explained by the docstrings of it and its bases."""
    hints = get_type_hints(settings, include_extras=True)
    about = {key: text for base in reversed(settings.__mro__) for key, text in _explained(base).items()}
    checked = getattr(settings, "__pydantic_fields__", {})
    found = {}
    for field in dataclasses.fields(settings):
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in checked:
            info = checked[field.name]
            default = dataclasses.MISSING if info.is_required() else info.get_default(call_default_factory=True)
        found[field.name] = Field(hints[field.name], default, about.get(field.name, ""))
    return found


def options_of(function: Callable[..., Any]) -> dict[str, Field]:
    """Return the keyword-only arguments of a function, explained by its docstring."""
    about, found = _explained(getattr(function, "func", function)), {}  # of a partial one, what it is made of
    for key, each in inspect.signature(function, eval_str=True).parameters.items():
        if each.kind is each.KEYWORD_ONLY:
            default = dataclasses.MISSING if each.default is each.empty else each.default
            found[key] = Field(Any if each.annotation is each.empty else each.annotation, default, about.get(key, ""))
    return found


def _explained(documented: Any) -> dict[str, str]:
    parsed = docstring_parser.parse(inspect.cleandoc(documented.__doc__ or ""))
    return {entry.arg_name: " ".join((entry.description or "").split()) for entry in parsed.params}


def plain(value: Any, kind: Any) -> Any:
    """Return a value with each `Text` in it as what it means: as YAML, or as it is if only that fits the type.

    >>> plain(Text("[64, 96]"), int | tuple[int, int]), plain(Text("5"), str), plain(Text("0.5"), list[float])
    ([64, 96], '5', [0.5])
    """
    if isinstance(value, Mapping):
        entries = next((get_args(each)[1] for each in alternatives(kind) if get_origin(each) is dict), Any)
        return {key: plain(entry, entries) for key, entry in value.items()}
    if isinstance(value, list):
        items = {item for each in alternatives(kind) if get_origin(each) in (list, tuple) for item in get_args(each)}
        item = next((item for item in items if item is not Ellipsis), Any)
        return [plain(entry, item) for entry in value]
    if not isinstance(value, Text):
        return value
    text = str(value)
    try:
        read = parse_yaml(text)
    except ValueError:
        read = text
    read = text if isinstance(read, str) else read
    adapter = _adapter(kind)
    tries: list[list[Any]] = [[read]] if text.startswith(("[", "{")) else [[read, text], [[read], [text]]]
    for candidates in tries:
        for strict, candidate in itertools.product((True, False), candidates):
            with suppress(ValidationError):
                adapter.validate_python(candidate, strict=strict)
                return candidate
    return read


def construct(settings: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Return a dataclass with these values, checked and converted.

    Args:
        settings: any dataclass.
        values: by the names of its fields; they may be or contain `Text`.
        prefix: stands before a field's name in errors, such as "data.".

    Raises:
        CrispsegError: an unknown field, one that is missing, or a value that it cannot have.
    """
    known, typed = fields_of(settings), {}
    for key, value in values.items():
        if key not in known:
            raise unknown(prefix + key, (prefix + each for each in known))
        typed[key] = checked(known[key].kind, plain(value, known[key].kind), prefix + key)
    for key, field in known.items():
        if field.default is dataclasses.MISSING and key not in typed:
            raise CrispsegError(f"is missing; give {accepted(field.kind)}: {field.about.rstrip('.')}", prefix + key)
    return settings(**typed)


def checked(kind: Any, value: Any, field: str, *, strict: bool = False) -> Any:
    """Return the value as one of this type.

    Raises:
        CrispsegError: it is none.
    """
    try:
        return _adapter(kind).validate_python(value, strict=strict)
    except ValidationError as error:
        raise wrong(error, kind, value, field) from None


def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind, config=CHECKS)
    except pydantic.PydanticUserError:  # settings have a configuration of their own
        return TypeAdapter(kind)


def wrong(error: ValidationError, kind: Any, value: Any, field: str) -> CrispsegError:
    """Return the error of a field whose value is none of its type."""
    for each in error.errors():
        if remedy := LIMITS.get(each["type"]):
            return CrispsegError(f"is {shortened(str(value))}; {remedy.format(**each.get('ctx', {}))}", field)
    choices = [choice for each in alternatives(kind) for choice in get_args(each) if isinstance(choice, str)]
    hint = did_you_mean(value, choices) if isinstance(value, str) else ""
    meant = hint if "mean" in hint else f"; give {accepted(kind)}"
    shown = value if isinstance(value, str) else repr(value)
    return CrispsegError(f"is {shortened(shown) or 'empty'}{meant}", field)


def unknown(key: str, known: Iterable[str]) -> CrispsegError:
    """Return the error of a key that does not exist, with the one that may be meant."""
    known = list(known)
    inside = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    meant = f"; did you mean '{inside[0]}'?" if len(inside) == 1 else did_you_mean(key, known)
    return CrispsegError(f"is no key{meant}", key)


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Settings:
    """Base of frozen dataclasses of pydantic; a value that cannot be is a `CrispsegError`."""

    prefix: ClassVar[str] = ""
    """Stands before the keys in errors, such as "augment."."""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            if not first["loc"]:  # no settings at all, of which those that they are part of speak
                raise
            known, key = fields_of(cls), str(first["loc"][0])
            if key not in known:
                raise unknown(cls.prefix + key, (cls.prefix + each for each in known)) from None
            if first["type"] == "missing":
                raise CrispsegError(f"is missing; {known[key].about}", cls.prefix + key) from None
            value = (getattr(values, "kwargs", None) or {}).get(key, first["input"])
            raise wrong(error, known[key].kind, value, cls.prefix + key) from None


SCALARS = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("text", "texts"),
    Path: ("a path", "paths"),
    Any: ("a value", "values"),
    dict: ("a mapping", "mappings"),
}
"""Of one and of several."""
COUNTS = {1: "one ", 2: "two ", 3: "three ", 4: "four "}


def accepted(kind: Any) -> str:
    """Return what values of a type are.

    >>> accepted(int | tuple[int, int] | None)
    'a whole number, a list of two whole numbers or null'
    """
    kinds = list(alternatives(kind))
    phrases = [_phrase(each) for each in kinds if each is not NoneType and not (each is str and Path in kinds)]
    *most, last = dict.fromkeys([*phrases, *(["null"] if NoneType in kinds else [])])
    return f"{', '.join(most)} or {last}" if most else last


def alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types of a union, without what restricts them."""
    if get_origin(kind) is Annotated:
        yield from alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for each in get_args(kind):
            yield from alternatives(each)
    else:
        yield kind


def _phrase(kind: Any, many: bool = False) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind][many]
    if origin is Literal:
        choice = ", ".join(map(written, inner))
        return f"any of ({choice})" if many else f"one of {choice}" if len(inner) > 1 else choice
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{'mappings' if many else 'a mapping'} from names to {_several(inner[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        count = COUNTS.get(len(inner), "") if origin is tuple and inner[-1] is not Ellipsis else ""
        return f"{'lists' if many else 'a list'} of {count}{_several(inner[0])}"
    return str(getattr(kind, "__name__", kind))


def _several(kind: Any) -> str:
    return " or ".join(_phrase(each, many=True) for each in alternatives(kind))


def written(value: Any) -> str:
    """Return a value as a flag or a YAML file has it, numbers with four decimals."""
    plain = json.loads(json.dumps(value, default=str), parse_float=lambda digits: round(float(digits), 4))
    return json.dumps(plain, ensure_ascii=False).replace('"', "")


def shortened(text: str, most: int = 200) -> str:
    """Return the text, without its middle if it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 :]}"


def plural(count: int, noun: str) -> str:
    """Return `1 image`, `3 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
