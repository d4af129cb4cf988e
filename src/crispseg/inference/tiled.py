"""Images larger than memory: a TIFF is read in bands, segmented in tiles and written as it goes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.progress import track

from crispseg.errors import CrispsegError
from crispseg.inference.segmenter import Segmenter
from crispseg.inference.tiling import OVERLAP, TILE, blended_rows, check_tile, enough_memory, spans
from crispseg.io.files import atomic_path
from crispseg.io.images import image_channels
from crispseg.io.opening import opened
from crispseg.io.tiff import open_dataset, write_map


def segment_tiff(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    tile: int | None = None,
    console: Console | None = None,
) -> None:
    """Segment a TIFF of any size into a TIFF of class ids with their colours, which keeps the position on a map.

    A refinement, and the segmenter's protocol, act in each tile on its own.

    Args:
        segmenter: its model sees each tile.
        source: TIFF of grey, RGB or, for models of 4 channels, RGB and a fourth one, of 8 or 16 bits.
        target: uint8 cloud-optimised GeoTIFF with a palette, deflated, in tiles of 256 pixels, with overviews; replaced
            only when it is complete.
        tile: side of the tiles in pixels, by default the segmenter's, or 1024. Neighbours overlap by an eighth of it.
        console: where progress is shown, if it is a terminal.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, or neither grey nor RGB; a tile is too
            small, or too large for memory.
    """
    side = (segmenter.tile or TILE) if tile is None else tile
    check_tile(side)
    classes, palette = len(segmenter.label_set), segmenter.label_set.palette
    with ExitStack() as stack:
        dataset = stack.enter_context(open_dataset(source))
        image = stack.enter_context(opened(source))
        if image.orientation() != 1:
            raise CrispsegError(f"{source} is stored turned (orientation {image.orientation()}); save it upright")
        channels = image_channels(segmenter.info.in_chans)
        image.check(channels)
        stack.enter_context(enough_memory(f"tiles of {side} pixels need", "make them smaller"))
        temporary = stack.enter_context(atomic_path(target))
        rows = blended_rows(
            segmenter.logits,
            lambda top, bottom: image.pixels(channels, segmenter.value_range, (top, bottom)),
            *(image.size, classes, side, segmenter.device),
        )
        count = len(spans(image.size[0], side, side // OVERLAP))
        quiet = console is None or not console.is_terminal
        shown = track(rows, Path(source).name, count, console=console, disable=quiet)
        write_map(temporary, dataset, shown, palette)
