"""Settings: dataclasses that pydantic checks for types and ranges; an error is a single line."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING
from functools import cache, wraps
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import docstring_parser
import pydantic
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ArgsKwargs, to_jsonable_python

from crispseg.config.yaml_files import parse_yaml
from crispseg.errors import CrispsegError, did_you_mean

P = ParamSpec("P")
T = TypeVar("T")
Tree = dict[str, Any]  # settings by key, in the structure of a YAML file; each group is a nested tree

CONFIG = "config.yaml"  # file of settings in a run's folder

CHECKS = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)


class Text(str):
    """Unparsed value from the command line: text of a number, a list or another type that its key accepts."""


class Field(NamedTuple):
    """Key of settings: its type, its default (`MISSING` if a value is required) and its documentation."""

    kind: Any
    default: Any
    about: str


def fields_of(settings: type) -> dict[str, Field]:
    """Return the init fields of a dataclass, documented by its docstring and those of its bases."""
    hints, about = get_type_hints(settings, include_extras=True), ChainMap(*map(_explained, settings.__mro__))
    of_pydantic = getattr(settings, "__pydantic_fields__", {})
    known = {}
    for field in dataclasses.fields(settings):
        if not field.init:
            continue
        info = of_pydantic.get(field.name) or FieldInfo.from_annotated_attribute(hints[field.name], field)
        kind = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
        default = MISSING if info.is_required() else info.get_default(call_default_factory=True)
        known[field.name] = Field(kind, default, about.get(field.name, ""))
    return known


@cache
def options_of(function: Callable[..., Any]) -> dict[str, Field]:
    """Return the keyword-only arguments of a function or class, documented by its docstring."""
    about = _explained(getattr(function, "func", function))  # a partial function has the docstring of `partial`
    options = {}
    for key, option in inspect.signature(function, eval_str=True).parameters.items():
        if option.kind is option.KEYWORD_ONLY:
            kind = Any if option.annotation is option.empty else option.annotation
            default = MISSING if option.default is option.empty else option.default
            options[key] = Field(kind, default, about.get(key, ""))
    return options


@cache
def _explained(documented: Any) -> dict[str, str]:
    """Return the descriptions of arguments in a docstring."""
    texts: dict[str, str] = {}
    for entry in docstring_parser.parse(inspect.cleandoc(documented.__doc__ or "")).params:
        text = " ".join((entry.description or "").split())
        texts |= dict.fromkeys(entry.arg_name.split(", "), text)
    return texts


def construct(settings: type[T], values: Mapping[str, Any], prefix: str = "") -> T:
    """Build a dataclass from the values of its fields, which `checked_fields` checks and converts."""
    return settings(**checked_fields(settings, values, prefix))


def checked_fields(settings: type, values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return the values of a dataclass's fields in their types; the values may contain `Text`.

    An unknown, missing or wrong field raises a `CrispsegError`, which shows its name after the prefix, such as "data.".
    """
    known = fields_of(settings)
    for key in values:
        if key not in known:
            raise unknown(prefix + key, (prefix + name for name in known))
    for key, (kind, default, about) in known.items():
        if default is MISSING and key not in values:
            raise CrispsegError(f"is missing; give {accepted(kind)}: {about.rstrip('.')}", prefix + key)
    return {key: checked(known[key].kind, value, prefix + key) for key, value in values.items()}


def checked(kind: Any, value: Any, field: str) -> Any:
    """Return the value converted to this type, or raise a `CrispsegError`. The type decides what a `Text` means.

    >>> checked(int | tuple[int, int], Text("[64, 96]"), "crop"), checked(str, Text("5"), "name")
    ((64, 96), '5')
    """
    if isinstance(value, Text) and not value.strip():  # "" would be the working folder as a path
        raise CrispsegError(f"is empty; give {accepted(kind)}", field)
    value = _expanded(value)
    if "\\x00" in repr(value).replace("\\\\", ""):  # repr doubles the backslashes of texts
        raise CrispsegError("contains a null character; remove it", field)
    value = _meaning(kind, value) if isinstance(value, Text) else value
    _check_numbers(kind, value, field)
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        raise wrong(error, kind, value, field) from None


def _check_numbers(kind: Any, value: Any, field: str) -> None:
    """Raise a `CrispsegError` for true or false instead of a number, because pydantic converts them to 1 and 0."""
    kinds = {*alternatives(kind), *alternatives(entry_of(kind))}
    entries = value if isinstance(value, list | tuple) else [value]
    if kinds & {int, float} and not kinds & {bool, Any} and any(isinstance(entry, bool) for entry in entries):
        raise CrispsegError(f"is {written(value)}; give {accepted(kind)}", field)


def checks_arguments(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a function whose keyword arguments are checked and converted to the types of its signature."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        known = options_of(function)
        own: Mapping[str, Any] = {key: checked(known[key].kind, kwargs[key], key) for key in kwargs if key in known}
        return function(*args, **{**kwargs, **own})

    return call


def plain(value: Any, field: str) -> Any:
    """Return a value of Python in the types of YAML files, with lists for arrays and columns of pandas.

    Sets, whose order is arbitrary, and other objects raise a `CrispsegError`.
    """

    def listed(other: Any) -> Any:
        if hasattr(other, "tolist"):
            return other.tolist()
        raise CrispsegError(f"has a value of type {type(other).__name__}; give numbers, text, lists or mappings", field)

    if isinstance(value, set | frozenset):
        raise CrispsegError("is a set, which has no order; give a list", field)
    if isinstance(value, dict):
        value = {key: plain(entry, f"{field}.{key}") for key, entry in value.items()}
    return to_jsonable_python(value, fallback=listed)


def _expanded(value: Any) -> Any:
    """Return a value with paths of the home folder in full; paths are the only settings that begin with `~/`."""
    if isinstance(value, list):
        return [_expanded(entry) for entry in value]
    is_path = isinstance(value, str) and value.startswith("~/")
    return type(value)(Path(value).expanduser()) if is_path else value


NUMBER_WORD = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.IGNORECASE)
CONSTANTS: dict[Any, tuple[Any, ...]] = {bool: (True, False), NoneType: (None,)}


def takes_word(kind: Any, word: str) -> bool:
    """Return whether a single word has the form of a value of this type: text, a number, a constant or a choice."""
    kinds = {*alternatives(kind)}
    number = kinds & {int, float} and NUMBER_WORD.fullmatch(word)
    return bool(kinds & {str, Path, Any} or number or word in _fixed_words(kind))


def _fixed_words(kind: Any) -> dict[str, Any]:
    """Return the values of a type that have a word each: constants and choices."""
    words: dict[str, Any] = {}
    for constant in alternatives(kind):
        choices = get_args(constant) if get_origin(constant) is Literal else CONSTANTS.get(constant, ())
        words |= {written(choice): choice for choice in choices}
    return words


def entry_of(kind: Any) -> Any:
    """Return the type of the entries of lists and tuples of this type; None if it has neither.

    >>> entry_of(int | tuple[int, int]), entry_of(str)
    (<class 'int'>, None)
    """
    return next((get_args(listed)[0] for listed in alternatives(kind) if get_origin(listed) in SEQUENCES), None)


def is_pair(kind: Any) -> bool:
    """Return whether a type is a tuple of a fixed length."""
    return get_origin(kind) is tuple and Ellipsis not in get_args(kind)


def _meaning(kind: Any, text: Text) -> Any:
    """Return what a text means for a type: one of its words, text as it is, or else a YAML value."""
    words, kinds = _fixed_words(kind), {*alternatives(kind)}
    if text in words:
        return words[text]
    listed, mapped = entry_of(kind) is not None, dict in {get_origin(alternative) for alternative in kinds}
    brackets = "[" * listed + "{" * mapped
    if {str, Path} & kinds and not text.startswith(tuple(brackets)):
        return str(text)
    try:
        value = parse_yaml(text)
    except ValueError:
        value = str(text)
    alone = listed and not isinstance(value, list) and not takes_word(kind, text)
    return [value] if alone else value  # a single value can replace a list of one


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(kind, config=CHECKS)
    except pydantic.PydanticUserError:  # settings have their own configuration
        return TypeAdapter(kind)


def wrong(error: ValidationError, kind: Any, value: Any, field: str) -> CrispsegError:
    """Return the error for a field with a value of the wrong type."""
    for fault in error.errors():
        if fault["type"].startswith(("greater", "less")):
            limit = fault["msg"].removeprefix("Input should be ")
            return CrispsegError(f"is {shortened(str(fault['input']))}; give a number {limit}", field)
    shown = value if isinstance(value, str) else repr(value)
    return CrispsegError(f"is {shortened(shown) or 'empty'}; give {accepted(kind)}", field)


def unknown(key: str, known: Iterable[str]) -> CrispsegError:
    """Return the error for an unknown key, with a suggestion."""
    return CrispsegError(f"is not a known key{did_you_mean(key, known) or '; correct or remove it'}", key)


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Settings:
    """Base of frozen dataclasses of pydantic; an invalid value raises a `CrispsegError`."""

    prefix: ClassVar[str] = ""  # prefix of the keys in error messages, such as "augment."

    @pydantic.model_validator(mode="before")
    @classmethod
    def _with_checked_fields(cls, values: Any) -> Any:
        if isinstance(values, dict):
            values = ArgsKwargs((), values)
        if not isinstance(values, ArgsKwargs):
            return values
        positional = [field.name for field in dataclasses.fields(cls) if not field.kw_only]
        given = dict(zip(positional, values.args, strict=False)) | (values.kwargs or {})
        return ArgsKwargs(values.args[len(positional) :], checked_fields(cls, given, cls.prefix))


SEQUENCES = (list, tuple, Sequence)
SCALARS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    dict: "a mapping",
    Callable: "a function",
    NoneType: "null",
    Any: "a value",
}


def accepted(kind: Any) -> str:
    """Describe the values of a type.

    >>> accepted(int | tuple[int, int] | None)
    'a whole number, a list of 2 (each a whole number) or null'
    """
    *most, last = dict.fromkeys(map(_phrase, alternatives(kind)))
    return f"{', '.join(most)} or {last}" if most else last


def alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types of a union, without their constraints."""
    if get_origin(kind) is Annotated:
        yield from alternatives(get_args(kind)[0])
    elif get_origin(kind) in (Union, UnionType):
        for alternative in get_args(kind):
            yield from alternatives(alternative)
    else:
        yield kind


def _phrase(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if kind in SCALARS:
        return SCALARS[kind]
    if origin is Literal:
        return f"one of {', '.join(map(written, inner))}" if len(inner) > 1 else written(inner[0])
    if origin in (dict, Mapping):
        return f"a mapping of {accepted(inner[0])} to {accepted(inner[1])}"
    if origin in SEQUENCES:
        return f"a list{f' of {len(inner)}' if is_pair(kind) else ''} (each {accepted(inner[0])})"
    return str(getattr(kind, "__name__", kind))


def written(value: Any) -> str:
    """Return a value in the notation of flags and YAML files, with four decimals at most."""
    plain = json.loads(json.dumps(value, default=str), parse_float=lambda digits: round(float(digits), 4))
    return json.dumps(plain, ensure_ascii=False).replace('"', "")


def shortened(text: str, most: int = 200) -> str:
    """Return the text, without its middle part if it is longer than `most`."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 :]}"


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 image` or `3 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
