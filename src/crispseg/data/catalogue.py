"""Catalogue of public data sets: sizes, licences, sources, mask values and splits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from typing import Any

import numpy as np
import yaml
from pydantic import TypeAdapter
from rich.table import Column, Table
from rich.text import Text

from crispseg.data.mask_lookup import MaskLookup
from crispseg.data.split_check import SplitReport
from crispseg.labels import IGNORE, LabelSet


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
    values: str  # name of the mask values in error messages
    images: str
    masks: str
    marks: Sequence[Mapping[str, Any]]
    """Marks of a root: paths that must all exist, "holds", or be missing, "lacks", and optional "keys" of `data`."""
    list: str = ""  # file that lists the images of a split; by default all images are used
    parts: Mapping[str, str] = field(default_factory=dict)  # split → its official name, if different
    void: tuple[int, ...] = ()  # values without a class, which are ignored


@cache
def catalogue() -> dict[str, Entry]:
    """Return the entry of each data set in `catalogue.yaml`."""
    text = resources.files("crispseg.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in TypeAdapter(list[Entry]).validate_python(yaml.safe_load(text))}


def class_meanings(lookup: MaskLookup) -> dict[int, str]:
    """Return the mask values of each class id and of 255: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items():
        found[label].append(value)
    return {
        label: ", ".join(str(list(one)) for one in every) if lookup.colors else spans(every)
        for label, every in found.items()
    }


def spans(values: Iterable[int]) -> str:
    """Return sorted numbers, with consecutive ones as "first–last"."""
    numbers = np.unique(list(values))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def class_table(lookup: MaskLookup, labels: LabelSet, reports: Sequence[SplitReport]) -> Table:
    """Return a table of mask values, classes and the pixel share of each class in each split."""
    number = partial(Column, justify="right", no_wrap=True)
    columns = Column("mask value", overflow="fold", max_width=48), number("id"), "class", Column("colour", no_wrap=True)
    table = Table(*columns, *(number(one.split) for one in reports), box=None, pad_edge=False, header_style="bold")
    meanings = class_meanings(lookup)
    for label, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        swatch = Text("██ ", style=f"rgb({','.join(map(str, color))})") + Text(" ".join(map(str, color)))
        shares = [f"{one.shares[label]:.2%}" if one.shares[label] else "never" for one in reports]
        table.add_row(Text(meanings.get(label, "–")), str(label), Text(name), swatch, *shares)  # Text has no markup
    if IGNORE in meanings:
        table.add_row(Text(meanings[IGNORE]), str(IGNORE), "ignored", "", *(f"{one.void:.2%}" for one in reports))
    return table
