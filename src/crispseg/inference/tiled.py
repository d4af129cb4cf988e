"""Images larger than memory: a TIFF is read in bands, segmented in tiles and written as it goes."""

from __future__ import annotations

from pathlib import Path

from crispseg.files import atomic_path
from crispseg.imaging import image_channels
from crispseg.inference.blending import TILE, Progress, blended_rows, check_tile
from crispseg.inference.memory import enough_memory
from crispseg.inference.segmenter import Segmenter
from crispseg.tiff import open_tiff


def segment_tiff(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    tile: int | None = None,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Segment a TIFF of any size into a TIFF of class ids with their colours, which keeps the position on a map.

    A refinement, and the segmenter's protocol, act in each tile on its own.

    Args:
        segmenter: its model sees each tile.
        source: TIFF of grey, RGB or, for models of 4 channels, RGB and a fourth one, of 8 or 16 bits.
        target: uint8 TIFF with a palette, deflated, in tiles of 256 pixels; replaced only when it is complete.
        tile: side of the tiles in pixels, by default the segmenter's, or 1024. Neighbours overlap by an eighth of it.
        progress: see `Progress`.

    Returns:
        Height and width.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, or neither grey nor RGB; a tile is too
            small, or too large for memory.
    """
    if tile is None:
        tile = segmenter.tile or TILE
    check_tile(tile)
    channels = image_channels(segmenter.info.in_chans)
    with open_tiff(source, channels, segmenter.value_range) as image, atomic_path(target) as temporary:
        labels = segmenter.label_set
        rows = blended_rows(segmenter.logits, image.read, image.size, len(labels), tile, segmenter.device, progress)
        with enough_memory(f"tiles of {tile} pixels need", "make them smaller"):
            image.write_labels(temporary, rows, labels.palette)
        return image.size
