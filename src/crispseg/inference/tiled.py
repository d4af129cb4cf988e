"""Segmentation of TIFFs larger than memory: rows are read, segmented in tiles and written step by step."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from crispseg.config.settings import checks_arguments
from crispseg.errors import CrispsegError
from crispseg.inference.segmenter import Segmenter
from crispseg.inference.tiling import OVERLAP, TILE, Tile, blended_rows, enough_memory, spans
from crispseg.io.files import atomic_path, user_path
from crispseg.io.images import image_channels
from crispseg.io.opening import Raster, faults, from_tiff
from crispseg.io.progress import progress
from crispseg.io.tiff import map_file, open_dataset, with_rows_of
from crispseg.io.value_range import OF_IMAGE, ValueRange, bit_depth_range, percentile_range, sampling_step


@checks_arguments
def segment_tiff(
    segmenter: Segmenter,
    source: str | Path,
    target: str | Path,
    confidence: Path | None = None,
    *,
    tile: Tile | None = None,
    console: Console | None = None,
    made_by: str = "",
) -> None:
    """Segment a TIFF of any size, and write class ids with colours and map position as a TIFF.

    Refinement and protocol are applied to each tile separately.

    Args:
        segmenter: segmenter of the tiles.
        source: TIFF of a kind that `read_image` supports.
        target: uint8 cloud-optimised GeoTIFF with a palette, deflated, in tiles of 256 pixels, with overviews; it is
            replaced only when complete.
        confidence: another TIFF, for the largest probability of each pixel from 0 to 255; by default none is written.
        tile: side of the tiles in pixels, by default that of the segmenter, or 1024. Tiles overlap by an eighth of it.
        console: console for progress, if it is a terminal.
        made_by: model and options as text for the metadata of the target.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing, broken, rotated or not supported; or tiles are
            too small, or too large for memory.
    """
    side = tile or segmenter.tile or TILE
    source = user_path(source)
    palettes = {Path(target): segmenter.label_set.palette, **({} if confidence is None else {confidence: None})}
    channels = image_channels(segmenter.info.in_chans)
    with open_dataset(source) as dataset:
        image = map_image(source, dataset, channels, segmenter.value_range)

        def read(top: int, bottom: int) -> NDArray[np.uint8]:
            with faults(source):
                return image.rows(top, bottom).pixels(channels, segmenter.value_range)

        rows = blended_rows(segmenter.logits, read, image.size, side, segmenter.info.temperature)
        shown = progress(rows, source.name, len(spans(image.size[0], side, side // OVERLAP)), console)
        with enough_memory(f"tiles of {side} pixels need", "make them smaller"), ExitStack() as stack:
            writers = []
            for path, palette in palettes.items():
                temporary = stack.enter_context(atomic_path(path))
                with faults(source):  # its position or metadata may be invalid
                    writers.append(stack.enter_context(map_file(temporary, dataset, palette, made_by, channels)))
            for strips in shown:
                for write, strip in zip(writers, strips, strict=False):
                    write(strip)


def map_image(source: Path, dataset: Any, channels: int, value_range: ValueRange | None) -> Raster:
    """Return the image of a dataset, whose rows are decoded on demand, with its own limits if no range is known."""
    with faults(source):
        with source.open("rb") as file:
            image = with_rows_of(from_tiff(file, source), dataset)
        if image.orientation() != 1:
            raise CrispsegError(f"{source} is stored rotated (orientation {image.orientation()}); save it upright")
        image.check(channels)
        if value_range == "image":
            return replace(image, limits=percentile_range(sampled_bands(image, channels), OF_IMAGE))
        if value_range is None and image.white == 0xFFFF:
            return replace(image, limits=bit_depth_range(sampled_bands(image, channels), image.name))
        return image


def sampled_bands(image: Raster, channels: int) -> list[NDArray[Any]]:
    """Return evenly spread pixels of an image, which are read in bands."""
    height, step = image.size[0], sampling_step(*image.size)
    band = step * (1 + 256 // step)
    sampled = []
    for top in range(0, height, band):
        rows = image.rows(top, min(top + band, height))
        sampled.append(rows.numbers(channels)[::step, ::step])
    return sampled
