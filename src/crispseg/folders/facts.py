"""Facts of an image and of a mask, from one decoding of each."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.io.images import as_picture
from crispseg.io.opening import Raster, opened
from crispseg.labels import Color, color_table

DISTINCT = 1024  # number of values or colours of a mask that are counted; a mask of labels has at most 256
GREY_TINT = 16  # largest difference between the channels of a grey that lossy compression tinted


class ImageFacts(NamedTuple):
    """Facts of a readable image. Values of more than 8 bits are stretched from the minimum to the maximum."""

    file: str
    size: tuple[int, int]  # `(H, W)` upright
    color: str  # a key of `crispseg.io.raster.RGB_BANDS`, such as grey or rgb
    bands: int  # number of channels, including alpha
    bit_depth: int  # bits per channel
    constant: bool  # whether all pixels have one colour
    digest: bytes  # hash of the decoded, upright pixels; mirroring and 90-degree rotations change only its last byte
    orientation: int = 1  # EXIF orientation, 1 to 8
    place: tuple[float, ...] = ()  # map position of a GeoTIFF, see `map_position`


class MaskFacts(NamedTuple):
    """Facts of a readable mask."""

    file: str
    size: tuple[int, int]  # `(H, W)` upright
    values: NDArray[Any]  # `(n,)` values, or `(n, 3)` colours if channels differ: the `DISTINCT` most frequent, sorted
    quarters: NDArray[np.int64]  # `(n, 2, 2)` pixel counts in the upper and lower, left and right quarters
    distinct: int  # total number of values or colours
    digest: bytes  # hash of the values of all pixels
    lossy: str = ""  # error message about lossy compression, which changes values; empty for exact files
    palette: tuple[Color, ...] = ()  # colours of the values of a palette file
    clear: frozenset[int] = frozenset()  # transparent values of a palette file
    transparent: float | None = None  # share of the transparent pixels; None if the file cannot have any
    inverted: bool = False  # whether the file is a TIFF in which 0 is white
    orientation: int = 1  # EXIF orientation, 1 to 8
    nodata: float | None = None  # value without data, from GDAL's metadata of a GeoTIFF
    place: tuple[float, ...] = ()  # map position of a GeoTIFF, see `map_position`

    @property
    def counts(self) -> NDArray[np.int64]:
        """`(n,)` pixel counts of each value."""
        return np.asarray(self.quarters.sum((1, 2)))

    @property
    def colors(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2

    @property
    def held(self) -> set[int]:
        """The values of a grey mask; none of a mask of colours."""
        return set() if self.colors else set(self.values.tolist())

    @property
    def pixels(self) -> Counter[Any]:
        """Pixel count of each value or colour."""
        keys = map(tuple, self.values.tolist()) if self.colors else self.values.tolist()
        return Counter(dict(zip(keys, self.counts.tolist(), strict=True)))

    def only(self, chosen: NDArray[np.bool_]) -> MaskFacts:
        """Return the facts of the chosen ones `(n,)` of the values."""
        return self._replace(values=self.values[chosen], quarters=self.quarters[chosen])

    @property
    def in_color(self) -> MaskFacts:
        """Facts with colours instead of values: those of the palette, or greys."""
        if self.colors:
            return self
        if not self.palette:
            return self._replace(values=self.values[:, None].repeat(3, 1))
        table = color_table(self.palette[:256])
        table[[*self.clear]] = 0
        return self._replace(values=table[self.values])


def read_image_facts(path: str | Path) -> ImageFacts:
    """Return the facts of an image file. Errors are those of `read_image`."""
    with opened(path) as raster:
        channels = natural_channels(raster)
        raster.check(channels)
        deep = raster.bit_depth > 8
        low, high = (int(raster.values.min()), int(raster.values.max())) if deep else (0, 255)
        facts = image_facts(str(path), as_picture(raster.pixels(channels, (low, max(high, low + 1)))))
        facts = facts._replace(color=raster.color, bands=raster.bands, bit_depth=raster.bit_depth)
        return facts._replace(orientation=raster.orientation(), place=raster.place)


def natural_channels(raster: Raster) -> int:
    """Return 3 for grey, RGB and palettes, and the number of bands of other images."""
    return 3 if raster.bands in (1, 3) or raster.color in ("cmyk", "palette") else raster.bands


def image_facts(file: str, pixels: NDArray[np.uint8]) -> ImageFacts:
    """Return the facts of an image `(H, W, 3)`."""
    height, width = pixels.shape[:2]
    turn = canonical_turn(pixels)
    upright = np.ascontiguousarray(turns(pixels)[turn])
    digest = hashlib.blake2b(upright.data, digest_size=16, key=f"{upright.shape}".encode()).digest()
    return ImageFacts(
        file,
        (height, width),
        color="rgb",
        bands=3,
        bit_depth=8,
        constant=bool((pixels[0] == pixels[0, 0]).all() and (pixels == pixels[0, 0]).all()),
        digest=digest + bytes([turn]),
    )


def turns(values: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the 8 mirrored and 90-degree turned versions of `(…, H, W, C)`, the unchanged one first."""
    quarters = range(4)
    mirrored = values[..., ::-1, :]
    rotated = [np.rot90(values, k, (-3, -2)) for k in quarters]
    return rotated + [np.rot90(mirrored, k, (-3, -2)) for k in quarters]


def canonical_turn(pixels: NDArray[np.uint8]) -> int:
    """Return the index in `turns` of the version that all turned versions of an image have in common."""
    height, width = pixels.shape[:2]
    rows = pixels[: height // 2], pixels[height - height // 2 :]
    sums = np.zeros((2, 2, 1))
    for row, half in enumerate(rows):
        for column, quarter in enumerate((half[:, : width // 2], half[:, width - width // 2 :])):
            sums[row, column] = sum(cv2.sumElems(quarter)) if quarter.size else 0
    versions = turns(sums)
    return min(range(8), key=lambda index: versions[index].ravel().tolist())


def read_mask_facts(path: str | Path) -> MaskFacts:
    """Return the facts of a mask file, even a lossy one. Errors are those of `read_mask`."""
    with opened(path) as raster:
        mask = raster.labels(lossy=True)
        if raster.lossy and mask.ndim == 3 and np.ptp(mask.astype(np.int16), axis=2).max() <= GREY_TINT:
            mask = mask[..., 1]
        return mask_facts(mask, str(path))._replace(
            lossy=raster.lossy,
            palette=raster.palette,
            clear=raster.clear,
            transparent=None if raster.visible is None else 1 - float(raster.visible.mean()),
            inverted=raster.inverted,
            orientation=raster.orientation(),
            nodata=raster.nodata,
            place=raster.place,
        )


def mask_facts(mask: NDArray[Any], file: str) -> MaskFacts:
    """Return the facts of a mask `(H, W)` or `(H, W, 3)`."""
    digest = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16, key=f"{mask.dtype}{mask.shape}".encode())
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    if mask.ndim == 3:
        packed, quarters, distinct = count_values(pack_colors(mask))
        values: NDArray[Any] = unpack_colors(packed)
    else:
        values, quarters, distinct = count_values(mask)
    return MaskFacts(file, mask.shape[:2], values, quarters, distinct, digest.digest())


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """Return the `DISTINCT` most frequent values, sorted, their pixel counts by quarter, and the number of values."""
    if mask.max() > 0xFFFF:
        values, ids = np.unique(mask, return_inverse=True)
    else:
        values, ids = np.arange(int(mask.max()) + 1, dtype=mask.dtype), mask
    quarters = np.zeros((len(values), 2, 2), np.int64)
    for row, half in enumerate(np.array_split(ids, 2)):
        for column, quarter in enumerate(np.array_split(half, 2, axis=1)):
            quarters[:, row, column] = np.bincount(quarter.ravel(), minlength=len(values))
    totals = quarters.sum((1, 2))
    present = np.flatnonzero(totals)
    frequent = np.sort(present[np.argsort(-totals[present], kind="stable")[:DISTINCT]])
    return values[frequent], quarters[frequent], len(present)


def pack_colors(mask: NDArray[Any]) -> NDArray[np.uint32]:
    """Return a mask of colours `(H, W, 3)` or grey values `(H, W)` as one number `(H, W)` for each colour."""
    numbers = mask.astype(np.uint32)
    if mask.ndim == 2:
        return numbers * np.uint32(0x010101)
    return numbers[..., 0] << np.uint32(16) | numbers[..., 1] << np.uint32(8) | numbers[..., 2]


def unpack_colors(values: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return the colours `(n, 3)` of numbers `(n,)` from `pack_colors`."""
    return np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
