"""Catalogue of public data sets: sizes, licences, sources, mask values and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

import yaml
from pydantic import TypeAdapter


@dataclass(frozen=True)
class Entry:
    """One public data set, its file layout, and texts for its error messages.

    Paths end in "*" and the ending of the file names. "{}" means the official name of a split, and "{lists}" the folder
    of the lists in this package.
    """

    name: str  # name of the data source
    classes: str
    counts: Mapping[str, int]  # number of images with public masks in each split, as published
    licence: str
    home: str  # web page of the data set
    hint: str  # content of the root and its source, for error messages
    images: str
    masks: str
    marks: Sequence[Mapping[str, Any]]
    """Marks of a root: paths that must all exist, "holds", or be missing, "lacks", and optional "keys" of `data`."""
    values: str = ""  # name of the mask values in error messages; by default they are those of the data source
    list: str = ""  # file that lists the images of a split; by default all images are used
    parts: Mapping[str, str] = field(default_factory=dict)  # split → its official name, if different
    void: tuple[int, ...] = ()  # values without a class, which are ignored


@cache
def catalogue() -> dict[str, Entry]:
    """Return the entry of each data set in `catalogue.yaml`."""
    text = resources.files("crispseg.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in TypeAdapter(list[Entry]).validate_python(yaml.safe_load(text))}
