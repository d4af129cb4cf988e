"""TIFFs that are never in memory as a whole: images read in bands of rows, labels written in tiles.

It is done by tifffile, which `pip install 'crispseg[tiff]'` brings with the codecs of imagecodecs.
"""

from __future__ import annotations

import importlib
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError

SIDE = 256
"""Of the tiles that are written."""

MAX_SEGMENT = 2**28
"""Bytes of a strip or tile once it is decoded. Larger ones, of files in a single strip, are no reading in parts."""

_MAP_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""GeoTIFF: pixel scale, tie points, transformation, keys and their values."""

_ORIENTATION = 274
_NATIVE = "<" if sys.byteorder == "little" else ">"
_PHOTOMETRICS = {1: (1, 2), 2: (3, 4), 6: (3,)}
"""Photometric interpretation (black is zero, RGB, YCbCr) → samples a pixel may have."""
_JPEG = (6, 7, 33007, 34892)
"""Compressions whose decoder makes RGB of YCbCr."""


class TiffBands:
    """The first page of a TIFF as rows `(h, W, channels)` uint8.

    As `read_image` does it, grey becomes RGB, an alpha channel is dropped unless four channels are asked for, and 16
    bits are scaled to 8.

    Args:
        path: of the file.
        channels: 3 or 4.

    Raises:
        CrispsegError: tifffile is not installed; the file is missing, broken, or of a kind not read in bands.
    """

    size: tuple[int, int]
    """`(H, W)`."""

    def __init__(self, path: str | Path, channels: int = 3) -> None:
        self.path, self.channels = Path(path), channels
        tifffile = _tifffile()
        if not self.path.is_file():
            raise CrispsegError(f"{path} does not exist; check the path")
        try:
            self._file = tifffile.TiffFile(self.path)
        except Exception as error:  # on broken data tifffile raises almost anything
            raise CrispsegError(f"{path} is no TIFF that can be read ({_reason(error)}); --tiles takes TIFFs") from None
        try:
            self._page = self._file.pages[0]
            self._check()
        except CrispsegError:
            self._file.close()
            raise
        except Exception as error:
            self._file.close()
            raise CrispsegError(f"{path} is broken ({_reason(error)}); restore or remove it") from None
        self.size = int(self._page.imagelength), int(self._page.imagewidth)

    def __enter__(self) -> TiffBands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, top: int, bottom: int) -> NDArray[np.uint8]:
        """Rows `[top, bottom)`, `(bottom - top, W, channels)`.

        Raises:
            CrispsegError: they are broken, or compressed in a way that has no decoder here.
        """
        page = self._page
        band = np.zeros((bottom - top, self.size[1], page.samplesperpixel), page.dtype)
        try:
            if page.is_final:  # its rows follow each other in the file, in strips of any size
                stored = self._file.filehandle
                stored.seek(page.dataoffsets[0] + top * band[0].nbytes)
                if stored.readinto(band.data.cast("B")) < band.nbytes:
                    raise ValueError("the file ends before them")
                if self._file.byteorder != _NATIVE:
                    band.byteswap(inplace=True)
            else:
                self._decode(band, top)
        except MemoryError:
            raise
        except Exception as error:
            raise CrispsegError(
                f"{self.path}: rows {top} to {bottom - 1} cannot be decoded ({_reason(error)}); "
                "restore the file, or save it deflated or uncompressed"
            ) from None
        return self._as_channels(band)

    def map_tags(self) -> list[tuple[int, int, int, Any, bool]]:
        """The tags that place a GeoTIFF on a map, as tifffile writes them."""
        tags = [self._page.tags[code] for code in _MAP_TAGS if code in self._page.tags]
        return [(tag.code, int(tag.dtype), tag.count, tag.value, True) for tag in tags]

    def _check(self) -> None:
        page, path = self._page, self.path
        samples, bits = page.samplesperpixel, page.bitspersample
        if page.dtype is None or page.dtype.kind != "u" or bits not in (8, 16):
            raise CrispsegError(f"{path} has {bits} bits a channel ({page.dtype}); save it with 8 or 16 unsigned bits")
        if page.planarconfig == 2 and samples > 1:
            raise CrispsegError(f"{path} is stored plane by plane; save it pixel-interleaved")
        if samples not in _PHOTOMETRICS.get(int(page.photometric), ()):
            raise CrispsegError(
                f"{path} has {samples} channel(s) of kind {page.photometric.name}; save it as grey or RGB"
            )
        if page.photometric == 6 and page.compression not in _JPEG:
            raise CrispsegError(f"{path} holds YCbCr that is not compressed as JPEG; save it as RGB")
        if self.channels == 4 and (samples != 4 or bits != 8):
            raise CrispsegError(
                f"{path} has {samples} channel(s) of {bits} bits, not RGB and a fourth one of 8 bits; give such TIFFs, "
                "or a model of in_chans 3"
            )
        orientation = page.tags.valueof(_ORIENTATION, 1)
        if orientation != 1:
            raise CrispsegError(f"{path} is stored turned (orientation {orientation}); save it upright")
        segment = int(np.prod(page.chunks)) * page.dtype.itemsize
        if not page.is_final and segment > MAX_SEGMENT:
            kind = "tile" if page.is_tiled else "strip"
            raise CrispsegError(
                f"{path} is compressed in {kind}s of {segment:,} bytes, more than {MAX_SEGMENT:,}; save it in tiles, "
                "for instance by 'gdal_translate -co TILED=YES' or 'tiffcp -t'"
            )

    def _decode(self, band: NDArray[Any], top: int) -> None:
        """Fill a band, from the row `top` on, with the segments that it meets."""
        page, stored = self._page, self._file.filehandle
        height, width = page.chunks[:2]
        across = -(-self.size[1] // width)
        bottom = top + len(band)
        for index in range(top // height * across, -(-bottom // height) * across):
            offset, count = page.dataoffsets[index], page.databytecounts[index]
            if count == 0:  # a sparse file leaves out what is 0
                continue
            stored.seek(offset)
            data = stored.read(count)  # at once: looking up the decoder may read tags, which moves the file's position
            values, _, _ = page.decode(data, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)
            row, left = index // across * height, index % across * width
            values = values[0, :, : self.size[1] - left]  # (h, w, samples), h beyond the image in its last tiles
            first, last = max(row, top), min(row + len(values), bottom)
            band[first - top : last - top, left : left + values.shape[1]] = values[first - row : last - row]

    def _as_channels(self, band: NDArray[Any]) -> NDArray[np.uint8]:
        """The band, which may be changed, as `read` gives it."""
        if band.dtype.itemsize == 2:
            band >>= 8
        eight: NDArray[np.uint8] = band.astype(np.uint8, copy=False)
        if eight.shape[2] <= 2:  # grey, perhaps with alpha
            return np.repeat(eight[..., :1], 3, axis=2)
        return eight[..., : self.channels]


def write_label_tiff(
    path: Path,
    rows: Iterable[NDArray[np.uint8]],
    size: tuple[int, int],
    palette: Sequence[Sequence[int]],
    tags: Sequence[tuple[int, int, int, Any, bool]] = (),
) -> None:
    """Write class ids as a uint8 TIFF with a palette, deflated, in tiles; 255 (ignore) is black.

    Args:
        path: of the file.
        rows: the ids from top to bottom, some rows `(h, W)` at a time, which are taken one by one.
        size: `(H, W)`.
        palette: RGB of each class.
        tags: more of them, as tifffile takes them.

    Raises:
        CrispsegError: tifffile is not installed.
    """
    tifffile = _tifffile()
    colors = np.zeros((256, 3), np.uint16)
    colors[: len(palette)] = palette
    height, width = size
    big = height * width > 2**31  # deflate never makes them larger by much
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        file.write(
            _deflated_tiles(rows, width),
            shape=size,
            dtype=np.uint8,
            photometric="palette",
            colormap=(colors * 257).T,
            tile=(SIDE, SIDE),
            compression="zlib",
            metadata=None,
            extratags=tags,
        )


def _deflated_tiles(rows: Iterable[NDArray[np.uint8]], width: int) -> Iterator[bytes]:
    for strip in _strips(rows, width):
        strip = np.pad(strip, [(0, SIDE - len(strip)), (0, -width % SIDE)])
        for left in range(0, width, SIDE):
            yield zlib.compress(strip[:, left : left + SIDE].tobytes())


def _strips(rows: Iterable[NDArray[np.uint8]], width: int) -> Iterator[NDArray[np.uint8]]:
    """The same rows, `SIDE` at a time; the last are fewer."""
    waiting = np.empty((0, width), np.uint8)
    for some in rows:
        waiting = np.concatenate([waiting, some])
        whole = len(waiting) // SIDE * SIDE
        for top in range(0, whole, SIDE):
            yield waiting[top : top + SIDE]
        waiting = waiting[whole:].copy()
    if len(waiting):
        yield waiting


def _tifffile() -> ModuleType:
    try:
        return importlib.import_module("tifffile")
    except ImportError:
        raise CrispsegError("reading TIFFs in parts needs tifffile: pip install 'crispseg[tiff]'") from None


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
