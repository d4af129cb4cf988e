"""Options by name: what there is, of which type, and one line for what is not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from crispseg.errors import CrispsegError, did_you_mean


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a function or class, with their types and defaults."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def check_options(owner: str, options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> None:
    """Make sure that all options are known and of their types.

    Raises:
        CrispsegError: one is not; the message names the owner, the option and the value.
    """
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known) if known else "; it has none"
            raise CrispsegError(f"{owner} has no option '{option}'{hint}")
        expected = known[option].annotation
        if not _is_of(value, expected):
            raise CrispsegError(f"option '{option}' of {owner} is {value!r}; it must be {_describe(expected)}")


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is what an option's annotation says; `True` is no 1."""
    if annotation is Any:
        return True
    kinds = get_args(annotation)
    if get_origin(annotation) is Literal:
        return any(type(value) is type(kind) and value == kind for kind in kinds)
    if get_origin(annotation) is list:
        return isinstance(value, list) and all(_is_of(entry, kinds[0]) for entry in value)
    if get_origin(annotation) is dict:
        return isinstance(value, dict) and all(_is_of(key, kinds[0]) for key in value)
    if get_origin(annotation) in (Union, UnionType):
        return any(_is_of(value, kind) for kind in kinds)
    return isinstance(value, annotation) and (annotation is bool or not isinstance(value, bool))


def _describe(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(str(kind) for kind in get_args(annotation))}"
    return f"of type {annotation.__name__ if isinstance(annotation, type) else annotation}"
