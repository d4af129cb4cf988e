"""Settings whose types and ranges pydantic checks, told in one line."""

from __future__ import annotations

from typing import Any, Self

import pydantic
from pydantic import ModelWrapValidatorHandler

from crispseg.errors import CrispsegError

CHECKS = pydantic.ConfigDict(allow_inf_nan=False, extra="forbid", arbitrary_types_allowed=True)


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Settings:
    """Base of frozen dataclasses of pydantic; a value that cannot be is a `CrispsegError`."""

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _in_one_line(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            key, remedy = first["loc"][0], first["msg"].replace("Input should", "it should")
            raise CrispsegError(f"{key} is {first['input']!r}; {remedy}") from None
