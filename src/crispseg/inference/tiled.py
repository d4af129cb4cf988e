"""Images larger than memory: a TIFF is read in bands, segmented in tiles and written as it goes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
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
    resume: bool = False,
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
        resume: finished rows of tiles stay in the folder `TARGET.rows` until the target is complete, and the next call
            with the same `made_by` resumes there, with the same bytes in the end.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, turned, or not of these kinds; a tile is
            too small, or too large for memory.
    """
    side = (segmenter.tile or TILE) if tile is None else tile
    check_tile(side)
    source = Path(source)
    folder = Path(f"{target}.rows")
    with ExitStack() as stack:
        dataset = stack.enter_context(open_dataset(source))
        with faults(source):
            image = from_tiff(stack.enter_context(source.open("rb")), source)
            if image.orientation() != 1:
                raise CrispsegError(f"{source} is stored turned (orientation {image.orientation()}); save it upright")
        channels = image_channels(segmenter.info.in_chans)
        image.check(channels)
        stack.enter_context(enough_memory(f"tiles of {side} pixels need", "make them smaller"))
        temporary = stack.enter_context(atomic_path(target))
        size, count = image.size, len(spans(image.size[0], side, side // OVERLAP))
        made_so = f"{made_by}; {size}, {source.stat().st_size} bytes, tiles of {side}"
        kept = _kept_rows(folder, made_so) if resume else 0

        def read(top: int, bottom: int) -> NDArray[np.uint8]:
            with faults(source):
                return image.rows(top, bottom).pixels(channels, segmenter.value_range)

        rows = blended_rows(segmenter.logits, read, size, side, range(kept, count))
        rows = _resumed(folder, kept, rows) if resume else rows
        quiet = console is None or not console.is_terminal
        shown = track(rows, source.name, count, console=console, disable=quiet)
        write_map(temporary, dataset, shown, segmenter.label_set.palette, made_by)
    shutil.rmtree(folder, ignore_errors=True)


def _kept_rows(folder: Path, made_by: str) -> int:
    """How many rows of tiles, from the top, are in the folder; rows that were made otherwise are removed."""
    note = folder / "made_by.txt"
    if not note.is_file() or note.read_text(encoding="utf-8") != made_by:
        shutil.rmtree(folder, ignore_errors=True)
        with atomic_path(note) as temporary:
            temporary.write_text(made_by, encoding="utf-8")
    return len([*folder.glob("[0-9]*.npz")])


def _resumed(folder: Path, kept: int, following: Iterator[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    """Labels of all rows of tiles: those in the folder, and those that follow, which are kept there too."""
    for row in range(kept):
        with np.load(folder / f"{row:06}.npz") as file:
            yield file["labels"]
    for row, labels in enumerate(following, kept):
        with atomic_path(folder / f"{row:06}.npz") as temporary:
            np.savez_compressed(temporary, labels=labels)
        yield labels
