"""Settings whose types and ranges pydantic checks, told in one line."""

from __future__ import annotations

from typing import Any, ClassVar, Self, get_type_hints

import pydantic
from pydantic import ModelWrapValidatorHandler

from crispseg.config.wording import accepted, shortened
from crispseg.errors import CrispsegError, did_you_mean

CHECKS = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)


WORDED = ("greater_than", "less_than", "literal_error", "finite_number")
"""Beginnings of the kinds of errors that pydantic says in words for people."""


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
        except pydantic.ValidationError as error:
            first = min(error.errors(), key=lambda each: each["type"] == "missing")
            if not first["loc"]:  # no settings at all, of which those that they are part of speak
                raise
            key, value, remedy = str(first["loc"][0]), first["input"], first["msg"].replace("Input should", "it should")
            hints = get_type_hints(cls)
            kinds = {name: hints[name] for name in cls.__dataclass_fields__ if name != "prefix"}
            if key not in kinds:
                raise CrispsegError(f"{cls.__name__} has no '{key}'{did_you_mean(key, kinds)}") from None
            if first["type"] == "missing":
                raise CrispsegError(f"{cls.prefix}{key} is missing; give it") from None
            if not first["type"].startswith(WORDED):
                value = (getattr(values, "kwargs", None) or {}).get(key, value)
                remedy = f"it should be {accepted(kinds[key])}"
            raise CrispsegError(f"{cls.prefix}{key} is {shortened(repr(value))}; {remedy}") from None
