"""Public data sets: sizes, licences and where to get them; what mask values mean and what splits hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import yaml
from pydantic import TypeAdapter
from rich.table import Column, Table
from rich.text import Text

from crispseg.data.mask_lookup import MaskLookup
from crispseg.data.split_check import SplitReport
from crispseg.labels import IGNORE, LabelSet


@dataclass(frozen=True)
class Archive:
    """A file at an open address.

    Without a published checksum, a zip's own checksums are verified when it is unpacked.
    """

    url: str
    md5: str | None = None
    size: int | None = None
    """Bytes, where published."""
    folder: str = "."
    """Below the folder that is downloaded to, where it is unpacked."""

    @property
    def file(self) -> str:
        """Its name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Layout:
    """Files of a data set below its root, and how errors call its mask values.

    Paths end in "*" and the ending of the files' names; "{}" stands for the official name of a split.
    """

    hint: str
    """What the root holds and where to get it, for errors."""
    values: str
    """How errors call the mask values."""
    images: str
    masks: str
    marks: Sequence[Mapping[str, Any]]
    """How a root is recognised: paths of which it "holds" all, and, where these call for it, "keys" of `data`."""
    list: str = ""
    """The file that names the images of a split; without it all that are there count."""
    parts: Mapping[str, str] = field(default_factory=dict)
    """Split → its official name, where that is another."""
    void: bool = False
    """Whether values that mean no class, up to the last that does, are ignored; else they are refused."""


@dataclass(frozen=True)
class Entry:
    """One data set."""

    name: str
    """That of the data source."""
    title: str
    classes: str
    counts: Mapping[str, int]
    """Images with public masks in each split, as published."""
    licence: str
    home: str
    """Where its owners describe it."""
    layout: Layout
    get: str = ""
    """What to get there and where to put it, where it cannot be downloaded here; or what to do with it."""
    archives: tuple[Archive, ...] = ()
    root: str = "."
    """Below the folder that is downloaded to, what `data.root` is."""


@cache
def catalogue() -> dict[str, Entry]:
    """Return what `catalogue.yaml` says about each data set."""
    text = resources.files("crispseg.data").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return {entry.name: entry for entry in TypeAdapter(list[Entry]).validate_python(yaml.safe_load(text))}


def class_meanings(lookup: MaskLookup) -> dict[int, str]:
    """Return for each class id, and 255, the values that mean it: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items():
        found[label].append(value)
    return {
        label: ", ".join(str(list(one)) for one in every) if lookup.colors else spans(every)
        for label, every in found.items()
    }


def spans(values: Iterable[int]) -> str:
    """Return numbers in order, those in a row as "first–last"."""
    numbers = np.unique(list(values))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def class_table(lookup: MaskLookup, labels: LabelSet, reports: Sequence[SplitReport]) -> Table:
    """Return a table of what mask values mean, and the share of each class in the pixels of each split."""
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
