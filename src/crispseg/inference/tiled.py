"""Images larger than memory: a TIFF is read in bands, segmented in tiles and written as it goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from crispseg.errors import CrispsegError
from crispseg.inference.segmenter import Segmenter
from crispseg.inference.tiling import OVERLAP, TILE, blended_rows, check_tile, enough_memory, spans
from crispseg.io.files import atomic_path
from crispseg.io.images import image_channels
from crispseg.io.opening import faults, from_tiff
from crispseg.io.tiff import open_dataset, write_map


def segment_tiff(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    tile: int | None = None,
    console: Console | None = None,
    made_by: str = "",
) -> None:
    """Segment a TIFF of any size into a TIFF of class ids with their colours, which keeps the position on a map.

    A refinement, and the segmenter's protocol, act in each tile on its own.

    Args:
        segmenter: its model sees each tile.
        source: TIFF that `read_image` would read if it were small.
        target: uint8 cloud-optimised GeoTIFF with a palette, deflated, in tiles of 256 pixels, with overviews; replaced
            only when it is complete.
        tile: side of the tiles in pixels, by default the segmenter's, or 1024. Neighbours overlap by an eighth of it.
        console: where progress is shown, if it is a terminal.
        made_by: model and options, in words, which the target's metadata keep.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, turned, or not of these kinds; a tile is
            too small, or too large for memory.
    """
    side = (segmenter.tile or TILE) if tile is None else tile
    check_tile(side)
    source = Path(source)
    with open_dataset(source) as dataset, source.open("rb") as file:
        with faults(source):
            image = from_tiff(file, source)
            if image.orientation() != 1:
                raise CrispsegError(f"{source} is stored turned (orientation {image.orientation()}); save it upright")
        channels = image_channels(segmenter.info.in_chans)
        image.check(channels)

        def read(top: int, bottom: int) -> NDArray[np.uint8]:
            with faults(source):
                return image.rows(top, bottom).pixels(channels, segmenter.value_range)

        rows = blended_rows(segmenter.logits, read, image.size, side)
        count, quiet = len(spans(image.size[0], side, side // OVERLAP)), console is None or not console.is_terminal
        shown = track(rows, source.name, count, console=console, disable=quiet)
        with enough_memory(f"tiles of {side} pixels need", "make them smaller"), atomic_path(target) as temporary:
            write_map(temporary, dataset, shown, segmenter.label_set.palette, made_by)
