"""Looking at data: what a sample of each split holds, and a sheet of its images under their labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.table import Table
from rich.text import Text

from crispseg.data.dataset import DataSource, SegmentationDataset
from crispseg.data.mask_lookup import Meaning
from crispseg.data.split_check import SplitReport
from crispseg.errors import CrispsegError
from crispseg.io.images import as_picture
from crispseg.labels import IGNORE, LabelSet
from crispseg.visualization.pictures import PAPER, overlay, panels

CELL = (240, 320)
"""Height and width of a picture in the sheet, in pixels."""


def class_table(rows: Sequence[Meaning], reports: Sequence[SplitReport] = ()) -> Table:
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


def contact_sheet(splits: dict[str, SegmentationDataset], labels: LabelSet, rows: int) -> NDArray[np.uint8]:
    """Images beside the same under their labels, two columns a split, evenly spaced through each, and the classes.

    Returns:
        `(H, W, 3)` RGB.

    Raises:
        CrispsegError: an image or mask among them cannot be read.
    """
    blank = np.full((*CELL, 3), PAPER, np.uint8)
    columns: list[list[NDArray[np.uint8]]] = []
    for dataset in splits.values():
        images, covered = [], []
        for index in spread(len(dataset), rows):
            sample = dataset[index]
            images.append(fitted(as_picture(sample.image)))
            covered.append(fitted(overlay(as_picture(sample.image), sample.labels, labels, opacity=0.7)))
        columns += [column + [blank] * (rows - len(column)) for column in (images, covered)]
    titles = [title for split in splits for title in (split, f"{split}, labels")]
    tall = max(sum(cell is not blank for cell in column) for column in columns)
    return panels([list(row) for row in zip(*columns, strict=True)][:tall], titles, labels)


def fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """An RGB picture made to fit into a `CELL`, whole, on white."""
    scale = min(CELL[0] / image.shape[0], CELL[1] / image.shape[1])
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    top, left = round((CELL[0] - height) / 2), round((CELL[1] - width) / 2)
    picture = np.full((*CELL, 3), PAPER, np.uint8)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.BOX)
    picture[top : top + height, left : left + width] = np.asarray(small)
    return picture


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
