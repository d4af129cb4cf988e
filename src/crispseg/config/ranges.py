"""Ranges of models' options: the settings of a saved model from elsewhere must neither hang nor fill the memory."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_WIDTH = 4096  # channels of a layer, in the settings of a model
MAX_COUNT = 256  # points, descriptors, layers or pixels, in the settings of a model
MAX_COUNTS = 16  # numbers of a list, in the settings of a model
Count: TypeAlias = Annotated[int, Field(ge=1, le=MAX_COUNT)]
Counts: TypeAlias = Annotated[tuple[Count, ...], Field(min_length=1, max_length=MAX_COUNTS)]
Channels: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Probability: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""Share of values that dropout sets to zero."""
