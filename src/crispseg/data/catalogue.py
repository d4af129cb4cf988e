"""Public data sets: sizes, licences and where to get them; what mask values mean and what splits hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from pydantic import TypeAdapter
from rich.table import Table
from rich.text import Text

from crispseg.data.mask_lookup import MaskLookup
from crispseg.data.split_check import SplitReport
from crispseg.labels import IGNORE, Color, LabelSet


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


class ClassMeaning(NamedTuple):
    """A class, and the mask values or colours that mean it."""

    values: str
    """As they are in the files: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    label: int
    """The class id; 255 means ignore."""
    name: str
    color: Color


def class_meanings(lookup: MaskLookup, labels: LabelSet) -> list[ClassMeaning]:
    """Return the meaning of each class, in the order of the ids, and of what is ignored."""
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items():
        found[label].append(value)
    shown = {
        label: ", ".join(str(list(one)) for one in every) if lookup.colors else spans(every)
        for label, every in found.items()
    }
    rows = [
        ClassMeaning(shown.get(index, "–"), index, name, color)
        for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True))
    ]
    return [*rows, ClassMeaning(shown[IGNORE], IGNORE, "ignored", (0, 0, 0))] if IGNORE in shown else rows


def spans(values: Iterable[int]) -> str:
    """Return numbers in order, those in a row as "first–last"."""
    runs = [
        [value for _, value in run]
        for _, run in groupby(enumerate(sorted(set(values))), lambda pair: pair[1] - pair[0])
    ]
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs)


def class_table(rows: Sequence[ClassMeaning], reports: Sequence[SplitReport]) -> Table:
    """Return a table of what mask values mean, and the share of each class in the pixels of each split."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("mask value", overflow="fold", max_width=48)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("class")
    table.add_column("colour", no_wrap=True)
    for report in reports:
        table.add_column(report.split, justify="right", no_wrap=True)
    for row in rows:
        color = Text("██ ", style=f"rgb({','.join(map(str, row.color))})") + Text(" ".join(map(str, row.color)))
        cells = [Text(row.values), Text(str(row.label)), Text(row.name), Text("") if row.label == IGNORE else color]
        for report in reports:  # Text, since brackets would be taken for markup
            share = report.void if row.label == IGNORE else report.shares[row.label]
            cells.append(Text(f"{share:.2%}" if share or row.label == IGNORE else "never"))
        table.add_row(*cells)
    return table
