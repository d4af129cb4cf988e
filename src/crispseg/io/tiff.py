"""TIFFs that are never in memory as a whole, and where they lie on a map.

GDAL reads and writes them, through rasterio, which `pip install 'crispseg[tiff]'` brings.
"""

from __future__ import annotations

import importlib
import math
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray
from PIL.TiffImagePlugin import TiffImageFile

from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_path
from crispseg.io.opening import MAX_PIXELS, ORIENTATION, UnreadablePicture
from crispseg.io.value_range import ValueRange, to_8_bits
from crispseg.labels import IGNORE, color_table

SUFFIXES = (".tif", ".tiff")

SIDE = 256
"""Side in pixels of the tiles that are written."""

CACHE = 2**25
"""Bytes of decoded tiles that GDAL keeps; its default is a twentieth of the machine's memory."""


@dataclass(frozen=True)
class TiffImage:
    """An open TIFF, whose rows are read as `(h, W, channels)` uint8."""

    path: Path
    channels: int
    """3, as RGB, or as many as the file has."""
    value_range: ValueRange | None
    """Of values of 16 bits, see `to_8_bits`."""
    dataset: Any
    """rasterio's own view of it."""

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)`."""
        return self.dataset.shape  # type: ignore[no-any-return]

    def read(self, top: int, bottom: int, left: int = 0, right: int | None = None) -> NDArray[np.uint8]:
        """Read rows `[top, bottom)`, and columns `[left, right)`: `(bottom - top, right - left, channels)`.

        Raises:
            CrispsegError: they are broken.
        """
        values = self.values(top, bottom, left, self.size[1] if right is None else right)
        if values.itemsize == 2:
            values = to_8_bits(values, self.value_range, self.path)
        grey = self.channels == 3 and values.shape[2] <= 2
        return np.repeat(values[..., :1], 3, 2) if grey else values[..., : self.channels]

    def values(self, top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
        """Read the values as they are in the file, of all its channels."""
        values = np.empty((bottom - top, right - left, self.dataset.count), self.dataset.dtypes[0])
        with _one_line_errors(self.path):
            self.dataset.read(out=values.transpose(2, 0, 1), window=((top, bottom), (left, right)))
        return values

    def write_labels(self, path: Path, rows: Iterable[NDArray[np.uint8]], palette: Sequence[Sequence[int]]) -> None:
        """Write class ids as a uint8 cloud-optimised GeoTIFF with a palette, at the image's place on the map.

        Overviews show the most frequent class. Pixels of the image's no-data value become 255 (ignore), black.

        Args:
            path: file to write.
            rows: the ids from top to bottom, some rows `(h, W)` at a time.
            palette: RGB of each class.
        """
        plain = path.with_name(f"{path.stem}-plain.tif")
        shutil, errors, gdal = (importlib.import_module(f"rasterio.{name}") for name in ("shutil", "errors", "_err"))
        options = {"compress": "deflate", "blocksize": SIDE, "overview_resampling": "mode", "bigtiff": "if_safer"}
        try:
            written = self._write_plain(plain, rows, palette)
            shutil.copy(plain, path, driver="COG", **options)
            if _checksum(path) != written:  # GDAL may lose an error of the disk when it closes a file
                raise OSError("it was not written whole")
        except (errors.RasterioError, gdal.CPLE_BaseError) as error:
            raise OSError(f"it was not written whole ({one_line(error)})") from None
        finally:
            plain.unlink(missing_ok=True)

    def _write_plain(self, path: Path, rows: Iterable[NDArray[np.uint8]], palette: Sequence[Sequence[int]]) -> int:
        """Write the rows without overviews; return their CRC-32."""
        crc = 0
        no_data = self.dataset.nodata is not None
        options = {"count": 1, "dtype": "uint8", "nodata": IGNORE if no_data else None, "BIGTIFF": "IF_SAFER"}
        options |= {"tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "compress": "deflate", "zlevel": 1}
        height, width = self.size
        with _open(path, "w", height=height, width=width, **options, **self._position()) as file:
            file.write_colormap(1, dict(enumerate(color_table(palette).tolist())))
            top = 0
            for strip in _strips(rows, width):
                window = ((top, top + len(strip)), (0, width))
                if no_data:
                    with _one_line_errors(self.path):
                        holes = self.dataset.dataset_mask(window=window) == 0
                    strip[holes] = IGNORE
                file.write(strip, 1, window=window)
                crc = zlib.crc32(strip.tobytes(), crc)
                top += len(strip)
        return crc

    def _position(self) -> dict[str, Any]:
        """Options of rasterio that place another file of this size on the map."""
        points, crs = self.dataset.gcps
        if points:
            return {"gcps": points, "crs": crs}
        transform = self.dataset.transform
        return {"crs": self.dataset.crs, "transform": None if transform.is_identity else transform}


@contextmanager
def open_tiff(
    path: str | Path,
    channels: int = 3,
    value_range: ValueRange | None = None,
) -> Iterator[TiffImage]:
    """Open a TIFF to be read in parts; as in `read_image`, grey becomes RGB, alpha is dropped, 16 bits become 8.

    Args:
        path: file to read.
        channels: 3 for RGB, or as many as the file has.
        value_range: of values of 16 bits, see `to_8_bits`.

    Raises:
        CrispsegError: rasterio is not installed; the file is missing, broken, neither grey nor RGB, or has another
            number of channels.
    """
    with open_dataset(path) as dataset:
        _check(Path(path), channels, dataset)
        yield TiffImage(Path(path), channels, value_range, dataset)


@contextmanager
def open_dataset(path: str | Path) -> Iterator[Any]:
    """Open a TIFF as a dataset of rasterio.

    Raises:
        CrispsegError: rasterio is not installed; the file is missing or broken.
    """
    path = Path(path)
    try:
        rasterio = importlib.import_module("rasterio")
    except ImportError:
        raise CrispsegError(
            "reading TIFFs in parts, or of many channels, needs rasterio: pip install 'crispseg[tiff]'"
        ) from None
    if not path.is_file():
        raise CrispsegError(f"{path} does not exist; check the path")
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        with _one_line_errors(path):
            dataset = _open(path)
        with dataset:
            yield dataset


def read_bands(path: str | Path, channels: int, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read a TIFF of any number of channels as `read_image` does. Raises as `open_tiff`, and over `MAX_PIXELS`."""
    with open_tiff(path, channels, value_range) as tiff:
        return tiff.read(0, _height(tiff))


def deep_bands(path: str | Path, channels: int) -> NDArray[np.uint16] | None:
    """Read the 16-bit values of a TIFF as they are in the file; None for a file of 8. Raises as `read_bands`."""
    with open_tiff(path, channels) as tiff:
        return None if tiff.dataset.dtypes[0] == "uint8" else tiff.values(0, _height(tiff), 0, tiff.size[1])


def _height(tiff: TiffImage) -> int:
    if math.prod(tiff.size) > MAX_PIXELS:
        raise UnreadablePicture(
            f"{tiff.path} claims more than {MAX_PIXELS:,} pixels; segment it by 'crispseg predict' in tiles of 1024",
            "too-large",
        )
    return tiff.size[0]


def _check(path: Path, channels: int, dataset: Any) -> None:
    kinds, values = [kind.name for kind in dataset.colorinterp], dataset.dtypes[0]
    if values not in ("uint8", "uint16"):
        raise CrispsegError(f"{path} has {values} values; save it with 8 or 16 unsigned bits a channel")
    bits = {dataset.tags(band, ns="IMAGE_STRUCTURE").get("NBITS", "8") for band in dataset.indexes} - {"8", "16"}
    if bits:  # which GDAL does not scale to those of the type
        raise CrispsegError(f"{path} has {min(bits)} bits a channel ({values}); save it with 8 or 16 unsigned bits")
    colors = dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE")
    if colors in ("CIELAB", "CMYK"):
        raise CrispsegError(f"{path} has {colors} colours; save it as grey or RGB")
    if channels != 3 and len(kinds) != channels:
        raise CrispsegError(
            f"{path} has {len(kinds)} channel(s), not {channels}; give such TIFFs, or a model of in_chans "
            f"{3 if len(kinds) == 1 else len(kinds)}"
        )
    fits = channels != 3 or kinds[:3] == ["red", "green", "blue"] or (kinds[0] == "gray" and len(kinds) <= 2)
    if not fits:
        raise CrispsegError(f"{path} has the channels {', '.join(kinds)}; save it as grey or RGB")
    orientation = 1  # of which GDAL takes no notice
    with suppress(Exception), TiffImageFile(path) as header:  # Pillow cannot read all of them
        orientation = header.getexif().get(ORIENTATION, 1)
    if orientation != 1:
        raise CrispsegError(f"{path} is stored turned (orientation {orientation}); save it upright")


def keep_position(image: Path, pictures: Iterable[Path]) -> None:
    """Write the position of a GeoTIFF beside pictures of its size: `PICTURE.aux.xml`, which GDAL and QGIS read.

    Nothing is written without rasterio, or if the image has no position.
    """
    with suppress(CrispsegError), open_tiff(image) as source:
        crs, transform = source.dataset.crs, source.dataset.transform
        if transform.is_identity:
            return
        root = ElementTree.Element("PAMDataset")
        if crs is not None:
            ElementTree.SubElement(root, "SRS").text = crs.to_wkt()
        ElementTree.SubElement(root, "GeoTransform").text = ", ".join(map(repr, transform.to_gdal()))
        for picture in pictures:
            with atomic_path(f"{picture}.aux.xml") as temporary:
                ElementTree.ElementTree(root).write(temporary)


def _open(path: Path, mode: str = "r", **options: Any) -> Any:
    import rasterio

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most pictures are not
        return rasterio.open(path, mode, driver="GTiff", **options)


@contextmanager
def _one_line_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # on broken data GDAL's and rasterio's errors are of many kinds
        reason = one_line(error.__cause__ or error)
        raise UnreadablePicture(f"{path} cannot be read as a TIFF ({reason}); restore or convert it") from None


def _checksum(path: Path) -> int:
    """The CRC-32 of the first channel."""
    crc = 0
    with _open(path) as file:
        for top in range(0, file.height, SIDE):
            window = ((top, min(top + SIDE, file.height)), (0, file.width))
            crc = zlib.crc32(file.read(1, window=window), crc)
    return crc


def _strips(rows: Iterable[NDArray[np.uint8]], width: int) -> Iterator[NDArray[np.uint8]]:
    """The same rows, `SIDE` at a time, so that each tile is written once."""
    waiting = np.empty((0, width), np.uint8)
    for some in rows:
        waiting = np.concatenate([waiting, some])
        while len(waiting) >= SIDE:
            yield waiting[:SIDE]
            waiting = waiting[SIDE:]
    if len(waiting):
        yield waiting
