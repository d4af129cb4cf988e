"""What a type accepts, in words for people."""

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
}
"""Of one and of several."""
EXAMPLES = {bool: True, int: 64, float: 0.5, str: "name", Path: "path"}
COUNTS = {1: "one ", 2: "two ", 3: "three ", 4: "four "}


def accepted(kind: Any, example: Any = None, none: str = "None") -> str:
    """What values of this type are, as the end of "give …".

    Args:
        kind: a type as it is annotated.
        example: a value that is accepted, such as the default; for lists and mappings one is made up without.
        none: how None is written.

    >>> accepted(int | tuple[int, int] | None)
    'a whole number, a list of two whole numbers or None, such as [64, 64]'
    """
    kinds = list(alternatives(kind))
    structured = [each for each in kinds if isinstance(get_origin(each), type)]  # lists and mappings
    if structured:
        example = example if example and isinstance(example, Mapping | list | tuple) else _example(structured[0])
    elif not {int, float} & {*kinds} or isinstance(example, str):
        example = None
    return taken(kind, none) + ("" if example is None else f", such as {written(example)}")


def taken(kind: Any, none: str = "None") -> str:
    """As `accepted`, without an example."""
    kinds = list(alternatives(kind))
    phrases = [_phrase(each) for each in kinds if each is not NoneType and not (each is str and Path in kinds)]
    *most, last = dict.fromkeys([*phrases, *([none] if NoneType in kinds else [])])
    return f"{', '.join(most)} or {last}" if most else last


def written(value: Any) -> str:
    """A value as a flag or a YAML file has it, of numbers four decimals."""
    plain = json.loads(json.dumps(value, default=str), parse_float=lambda digits: round(float(digits), 4))
    return json.dumps(plain).replace('"', "")


def alternatives(kind: Any) -> Iterator[Any]:
    """The types of a union, without what restricts them."""
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
        return f"{'mappings' if many else 'a mapping'} from names to {several(inner[1])}"
    if isinstance(origin, type) and issubclass(origin, Sequence):
        count = COUNTS.get(len(inner), "") if origin is tuple and inner[-1] is not Ellipsis else ""
        return f"{'lists' if many else 'a list'} of {count}{several(inner[0])}"
    return str(getattr(kind, "__name__", kind))


def several(kind: Any) -> str:
    """More than one value of this type, such as "whole numbers"."""
    return " or ".join(_phrase(each, many=True) for each in alternatives(kind))


def _example(kind: Any) -> Any:
    kind = next(alternatives(kind))
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return inner[0]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"name": _example(inner[1])}
    if isinstance(origin, type):
        every = [_example(each) for each in inner if each is not Ellipsis]
        return [0.5, 1.5] if every == [0.5, 0.5] else every  # which may be a range
    return EXAMPLES.get(kind, 1)


def shortened(text: str, most: int = 200) -> str:
    """The text, without its middle where it is longer."""
    return text if len(text) <= most else f"{text[: most // 2]}…{text[len(text) - most // 2 :]}"


def plural(count: int, noun: str) -> str:
    """`1 image`, `3 images`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
