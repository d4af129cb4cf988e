"""Types and values in words, for help and errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

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
