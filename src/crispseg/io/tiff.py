"""TIFFs larger than memory, and TIFFs of labels with their position on a map, by rasterio."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import check_installed, one_line
from crispseg.io.files import regular_file
from crispseg.io.images import MADE_OF
from crispseg.io.opening import Raster, faults
from crispseg.io.tiff_reading import black_is_zero
from crispseg.labels import IGNORE, color_table

TIFF_SUFFIXES = (".tif", ".tiff")
MAP_TILE = 256  # side of the written tiles in pixels


@contextmanager
def open_dataset(path: str | Path) -> Iterator[Any]:
    """Open a TIFF with rasterio; raise a CrispsegError if it is not installed or the file is broken."""
    check_installed("rasterio", str(path), "rasterio")
    with faults(Path(path)):
        regular_file(path).open("rb").close()  # for clearer errors
        dataset = _open(Path(path))
    with dataset:
        yield dataset


def with_rows_of(image: Raster, dataset: Any) -> Raster:
    """Return the image with rows that rasterio decodes, without the rest of the file."""

    def load(top: int, bottom: int) -> NDArray[Any]:
        values = dataset.read(window=((top, bottom), (0, dataset.width)))  # (bands, h, W)
        return black_is_zero(np.moveaxis(values, 0, 2), image.inverted, image.bit_depth)

    return replace(image, load=load)


@contextmanager
def map_file(
    path: Path, image: Any, palette: Sequence[Sequence[int]] | None = None, made_of: str = "", channels: int = 3
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write a uint8 cloud-optimised GeoTIFF at the map position of an image, an `open_dataset` of the same size.

    The yielded function takes the rows `(h, W)` from top to bottom. With a palette, values are class ids, overviews
    show the most frequent class, and pixels without data become 255 (ignore), black. Without one, values are grey,
    overviews show their mean, and those pixels become 0. The metadata include `made_of`; a model reads `channels`.
    """
    import rasterio
    from rasterio._err import CPLE_BaseError
    from rasterio.shutil import copy

    empty, overview = (0, "average") if palette is None else (IGNORE, "mode")
    is_masked = declares_empty_pixels(image, channels)
    plain = path.with_name(f"{path.stem}-plain.tif")
    profile = {
        "height": image.height,
        "width": image.width,
        "count": 1,
        "dtype": "uint8",
        "BIGTIFF": "IF_SAFER",
        "tiled": True,
        "blockxsize": MAP_TILE,
        "blockysize": MAP_TILE,
        "compress": "deflate",
        "zlevel": 1,
        "nodata": empty if is_masked else None,
        **position_of(image),
    }
    copied = {"compress": "deflate", "blocksize": MAP_TILE, "bigtiff": "if_safer", "overview_resampling": overview}
    written = top = 0  # checksum, and next row

    def append(strip: NDArray[np.uint8]) -> None:
        nonlocal written, top
        window = ((top, top + len(strip)), (0, image.width))
        if is_masked:
            with faults(Path(image.name)):
                strip[image.dataset_mask(window=window) == 0] = empty
        file.write(strip, 1, window=window)
        written = zlib.crc32(strip.tobytes(), written)
        top += len(strip)

    try:
        with _open(plain, "w", **profile) as file:
            if made_of:
                file.update_tags(**{MADE_OF: made_of})
            if palette is not None:
                file.write_colormap(1, dict(enumerate(color_table(palette).tolist())))
            yield append
        copy(plain, path, driver="COG", **copied)
        if checksum_of(path) != written:  # GDAL may ignore a disk error when it closes a file
            raise OSError("it was not written completely")
    except (rasterio.errors.RasterioError, CPLE_BaseError) as error:
        raise OSError(f"it was not written completely ({one_line(error)})") from None
    finally:
        plain.unlink(missing_ok=True)


def declares_empty_pixels(image: Any, channels: int) -> bool:
    """Return whether a dataset has a no-data value, a mask, also in a .msk file, or a band of alpha.

    The alpha of a dataset whose bands are all `channels` of a model is data: GDAL also declares near infrared so.
    """
    from rasterio.enums import MaskFlags

    full = [[MaskFlags.all_valid]]
    if channels == image.count:
        full.append([MaskFlags.per_dataset, MaskFlags.alpha])
    return any(flags not in full for flags in image.mask_flag_enums)


def position_of(image: Any) -> dict[str, Any]:
    """Return the map position of a dataset as options for a new one: ground control points, or a transform if any."""
    points, crs = image.gcps
    if points and crs:  # rasterio writes no points without
        return {"gcps": points, "crs": crs}
    place = image.transform
    x = place.a * image.width + place.b * image.height + place.c
    y = place.d * image.width + place.e * image.height + place.f
    is_position = isfinite(x + y) and not (place.is_identity or place.is_degenerate)
    return {"crs": image.crs, "transform": place if is_position else None}


def checksum_of(path: Path) -> int:
    """Return the checksum of the values of a map, read by rows of tiles."""
    checksum = 0
    with _open(path) as file:
        for top in range(0, file.height, MAP_TILE):
            checksum = zlib.crc32(file.read(1, window=((top, top + MAP_TILE), (0, file.width))), checksum)
    return checksum


def _open(path: Path, mode: str = "r", **options: Any) -> Any:
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most images have no map position
        return rasterio.open(path, mode, driver="GTiff", **options)
