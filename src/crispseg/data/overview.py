"""Looking at data: what mask values mean, and what a sample of each split holds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from crispseg.data.dataset import DataSource, SegmentationDataset
from crispseg.data.mask_lookup import ColorLookup, MaskLookup
from crispseg.data.split_check import SplitReport
from crispseg.errors import CrispsegError
from crispseg.labels import IGNORE, Color, LabelSet


class ClassMeaning(NamedTuple):
    """What some values, or colours, of masks mean."""

    values: str
    """As they are in the files: "7", "0–3, 9", or colours "[128, 64, 128]"."""
    label: int
    """The class id; 255 means ignore."""
    name: str
    color: Color


def class_meanings(lookup: MaskLookup | None, labels: LabelSet) -> list[ClassMeaning]:
    """What a lookup makes of masks: a line for each class, in the order of the ids, and one for what is ignored.

    Without a lookup, of data that are not made of files, the values are empty.
    """
    found: dict[int, list[Any]] = defaultdict(list)
    for value, label in lookup.meaning.items() if lookup else ():
        found[label].append(value)
    if isinstance(lookup, ColorLookup):
        names = {color: f" {name}" for color, name in zip(lookup.palette, lookup.names, strict=bool(lookup.names))}
        shown = {
            label: ", ".join(f"{list(one)}{names.get(one, '')}" for one in every) for label, every in found.items()
        }
    else:
        shown = {label: spans(every) for label, every in found.items()}
    rows = [
        ClassMeaning(shown.get(index, "–" if lookup else ""), index, name, color)
        for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True))
    ]
    return [*rows, ClassMeaning(shown[IGNORE], IGNORE, "ignored", (0, 0, 0))] if IGNORE in shown else rows


def spans(values: Iterable[int]) -> str:
    """Numbers in order, those in a row as "first–last"."""
    runs: list[list[int]] = []
    for value in sorted(set(values)):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def class_table(rows: Sequence[ClassMeaning], reports: Sequence[SplitReport] = ()) -> Table:
    """What mask values mean, and the share of each class in the pixels of each split."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    values = any(row.values for row in rows)
    if values:
        table.add_column("mask value", overflow="fold", max_width=48)
    table.add_column("id", justify="right", no_wrap=True)
    table.add_column("class")
    table.add_column("colour", no_wrap=True)
    for report in reports:
        table.add_column(report.split, justify="right", no_wrap=True)
    for row in rows:
        color = Text("██ ", style=f"rgb({','.join(map(str, row.color))})") + Text(" ".join(map(str, row.color)))
        # Text, since brackets would be taken for markup
        cells = [Text(row.values)] if values else []
        cells += [Text(str(row.label)), Text(row.name), Text("") if row.label == IGNORE else color]
        for report in reports:
            share = report.void if row.label == IGNORE else report.shares[row.label]
            cells.append(Text(f"{share:.2%}" if share or row.label == IGNORE else "never"))
        table.add_row(*cells)
    return table


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the indices from 0 on, evenly spaced, with the first and the last."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most)).tolist()]


def readable_splits(source: DataSource) -> tuple[dict[str, SegmentationDataset], dict[str, str]]:
    """The splits that can be found, and why the others cannot."""
    found: dict[str, SegmentationDataset] = {}
    faults = {}
    for split in source.splits():
        try:
            found[split] = source.dataset(split)
        except CrispsegError as error:
            faults[split] = str(error)
    return found, faults
