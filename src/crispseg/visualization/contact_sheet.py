"""A sheet of images beside the same under their labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data.dataset import SegmentationDataset
from crispseg.data.overview import spread
from crispseg.io.images import as_picture
from crispseg.labels import LabelSet
from crispseg.visualization.pictures import PAPER, overlay, panels

CELL = (240, 320)
"""Height and width of a picture in the sheet, in pixels."""


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
