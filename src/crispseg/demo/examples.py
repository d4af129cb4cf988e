"""Images that the demo offers to try a model on."""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import SegmentationDataset
from crispseg.data.overview import spread
from crispseg.io.images import as_picture

COUNT = 6
SIDE = 160
"""Pixels of a thumbnail's longer side."""


class Examples:
    """Some images of a split, evenly spaced. Only these can be asked for, by their number.

    Raises:
        CrispsegError: one of them cannot be read.
    """

    def __init__(self, dataset: SegmentationDataset) -> None:
        self._dataset, self._ids = dataset, spread(len(dataset), COUNT)
        self.thumbnails = [_thumbnail(self.image(at)) for at in range(len(self))]
        """`(h, w, 3)` RGB each."""

    def __len__(self) -> int:
        return len(self._ids)

    def name(self, at: int) -> str:
        """The name of an image, without its folders."""
        return PurePosixPath(self._dataset.name_of(self._ids[at])).name

    def image(self, at: int) -> NDArray[np.uint8]:
        """An image, `(H, W, 3)` RGB or `(H, W, 4)`, read when it is asked for.

        Raises:
            CrispsegError: it cannot be read any more.
        """
        return self._dataset[self._ids[at]].image


def _thumbnail(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = Image.fromarray(as_picture(image))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(picture)
