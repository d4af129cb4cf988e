"""Options by name: what there is, of which type, and one line for what is not."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_origin

from pydantic import TypeAdapter, ValidationError

from crispseg.config.wording import accepted
from crispseg.errors import CrispsegError, did_you_mean


def keyword_options(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of a function or class, with their types and defaults."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return {key: value for key, value in parameters.items() if value.kind is inspect.Parameter.KEYWORD_ONLY}


def checked_options(owner: str, options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """The options, all of which are known and of their types; a list, as JSON has it, may stand for a tuple.

    Raises:
        CrispsegError: one is not; the message names the owner, the option and the value.
    """
    checked = {}
    for option, value in options.items():
        if option not in known:
            hint = did_you_mean(option, known) if known else "; it has none"
            raise CrispsegError(f"{owner} has no option '{option}'{hint}")
        kind = known[option].annotation
        try:
            adapter = TypeAdapter(Any if kind is inspect.Parameter.empty else kind)
            is_tuple = get_origin(kind) is tuple and isinstance(value, list)
            checked[option] = adapter.validate_python(tuple(value) if is_tuple else value, strict=True)
        except ValidationError:
            raise CrispsegError(f"option '{option}' of {owner} is {value!r}; it must be {accepted(kind)}") from None
    return checked


def with_defaults(owner: str, options: Mapping[str, Any], known: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """All options, checked, those that are not given with their defaults.

    Raises:
        CrispsegError: as `checked_options`; an option without a default that is not given.
    """
    complete = {key: copy.deepcopy(option.default) for key, option in known.items()}
    complete |= checked_options(owner, options, known)
    for key, value in complete.items():
        if value is inspect.Parameter.empty:
            raise CrispsegError(f"{owner} needs a value for its option '{key}'")
    return complete
