"""Ranges of models' options: the settings of a saved model from elsewhere must neither hang nor fill the memory."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_WIDTH = 4096
Count: TypeAlias = Annotated[int, Field(ge=1, le=256)]
"""Number of points, descriptors, layers or pixels."""
Counts: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)]
Channels: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Probability: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""Share of values that dropout sets to zero."""
