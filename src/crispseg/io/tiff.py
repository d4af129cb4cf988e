"""TIFFs of labels with their position on a map, by rasterio."""

from __future__ import annotations

import importlib
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError, one_line
from crispseg.io.images import MADE_OF
from crispseg.io.opening import faults
from crispseg.labels import IGNORE, color_table

SUFFIXES = (".tif", ".tiff")
SIDE = 256  # side of the written tiles in pixels


@contextmanager
def open_dataset(path: str | Path) -> Iterator[Any]:
    """Open a TIFF with rasterio; raise a CrispsegError if it is not installed or the file is broken."""
    if find_spec("rasterio") is None:
        raise CrispsegError("maps and TIFFs in tiles need rasterio: pip install rasterio")
    with faults(Path(path)):
        Path(path).open("rb").close()  # for clearer errors
        dataset = _open(Path(path))
    with dataset:
        yield dataset


@contextmanager
def map_file(
    path: Path, image: Any, palette: Sequence[Sequence[int]] | None = None, made_of: str = ""
) -> Iterator[Callable[[NDArray[np.uint8]], None]]:
    """Write a uint8 cloud-optimised GeoTIFF at the map position of an image, an `open_dataset` of the same size.

    The yielded function takes the rows `(h, W)` from top to bottom. With a palette, values are class ids, overviews
    show the most frequent class, and pixels of the image's no-data value become 255 (ignore), black. Without one,
    values are grey, overviews show their mean, and those pixels become 0. The metadata include `made_of`.
    """
    empty = 0 if palette is None else IGNORE
    plain = path.with_name(f"{path.stem}-plain.tif")
    shutil, errors, gdal = (importlib.import_module(f"rasterio.{name}") for name in ("shutil", "errors", "_err"))
    (points, crs), transform = image.gcps, image.transform
    place = {"crs": image.crs, "transform": None if transform.is_identity else transform}
    options = {"count": 1, "dtype": "uint8", "nodata": None if image.nodata is None else empty, "BIGTIFF": "IF_SAFER"}
    options |= {"tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "compress": "deflate", "zlevel": 1}
    options |= {"height": image.height, "width": image.width, **({"gcps": points, "crs": crs} if points else place)}
    copied = {"compress": "deflate", "blocksize": SIDE, "bigtiff": "if_safer"}
    copied["overview_resampling"] = "average" if palette is None else "mode"
    written = crc = top = 0

    def append(strip: NDArray[np.uint8]) -> None:
        nonlocal written, top
        window = ((top, top + len(strip)), (0, image.width))
        if image.nodata is not None:
            strip[image.dataset_mask(window=window) == 0] = empty
        file.write(strip, 1, window=window)
        written = zlib.crc32(strip.tobytes(), written)
        top += len(strip)

    try:
        with _open(plain, "w", **options) as file:
            file.update_tags(**({MADE_OF: made_of} if made_of else {}))
            if palette is not None:
                file.write_colormap(1, dict(enumerate(color_table(palette).tolist())))
            yield append
        shutil.copy(plain, path, driver="COG", **copied)
        with _open(path) as file:
            for top in range(0, file.height, SIDE):
                crc = zlib.crc32(file.read(1, window=((top, top + SIDE), (0, file.width))), crc)
        if crc != written:  # GDAL may ignore a disk error when it closes a file
            raise OSError("it was not written completely")
    except (errors.RasterioError, gdal.CPLE_BaseError) as error:
        raise OSError(f"it was not written completely ({one_line(error)})") from None
    finally:
        plain.unlink(missing_ok=True)


def _open(path: Path, mode: str = "r", **options: Any) -> Any:
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most images have no map position
        return rasterio.open(path, mode, driver="GTiff", **options)
