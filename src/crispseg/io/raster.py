"""An image with its header and values, and its reading as model input or as a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.io.value_range import OF_IMAGE, Limits, ValueRange, bit_depth_range, percentile_range, sampled, to_8_bits
from crispseg.labels import Color, color_table

RGB_BANDS = {"grey": 2, "rgb": 4, "palette": 2, "bands": 0}
"""Supported colours, and the largest number of channels, with alpha, that is read as RGB."""
ARRAY_COLORS = {1: "grey", 2: "grey", 3: "rgb", 4: "rgb"}  # colours of arrays by their number of channels

ORIENTATIONS = {  # EXIF orientation → whether rows and columns are exchanged, and then the directions of both
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}

LOSSY = ", which may change values; save PNGs"


def check_channels(name: object, color: str, bands: int, channels: int) -> None:
    """Raise a CrispsegError unless an image has these channels; 3 means RGB, which includes grey."""
    if color not in RGB_BANDS:
        raise CrispsegError(f"{name} has {color} colours; save it as grey or RGB")
    as_bands = bands == channels and color != "palette"
    fits = bands <= RGB_BANDS[color] if channels == 3 else as_bands
    if not fits:
        remedy = f"give other images, or train a model with model.in_chans {3 if bands == 1 else bands}"
        raise CrispsegError(f"{name} has {bands} channel(s), not {channels}; {remedy}")


@dataclass(frozen=True)
class Raster:
    """An image with its header and values, which are decoded on demand."""

    name: object  # for messages
    stored: tuple[int, int]  # height and width before EXIF orientation is applied
    bands: int  # number of channels, including alpha
    white: int  # largest value, such as 255
    color: str  # one of `RGB_BANDS`; others are refused
    load: Callable[[int, int], NDArray[Any]]  # decodes stored rows `[top, bottom)` as `(h, W, bands)`
    orientation: Callable[[], int] = lambda: 1  # EXIF orientation, 1 to 8; a PNG may have it after its pixels
    palette: tuple[Color, ...] = ()
    clear: frozenset[int] = frozenset()  # indices of a palette that are fully transparent
    lossy: str = ""  # error message if lossy compression may have changed values
    inverted: bool = False  # whether 0 is white in the file; `load` then inverts the values
    nodata: float | None = None  # value without data, from GDAL's metadata of a GeoTIFF
    place: tuple[float, ...] = ()  # map position of a GeoTIFF, see `crispseg.io.tiff_reading.map_position`
    limits: Limits | None = None  # values that become black and white in the whole image, if these are rows of it

    @property
    def visible(self) -> NDArray[np.bool_] | None:
        """`(H, W)` whether pixels are visible: at least half as opaque as any other; None without transparency."""
        if self.clear:
            return ~np.isin(self.values[..., 0], [*self.clear])
        alpha = self.values[..., -1]
        return alpha > alpha.max() // 2 if self.bands == RGB_BANDS.get(self.color) else None

    @property
    def bit_depth(self) -> int:
        """Bits per channel."""
        return self.white.bit_length()

    @property
    def size(self) -> tuple[int, int]:
        """`(H, W)` upright."""
        return self.stored[::-1] if self.orientation() >= 5 else self.stored

    @cached_property
    def values(self) -> NDArray[Any]:
        """Return the values of the file, upright, `(H, W, bands)`."""
        values = self.load(0, self.stored[0])
        transposed, down, right = ORIENTATIONS[self.orientation()]  # only known after the pixels in some PNGs
        return (values.swapaxes(0, 1) if transposed else values)[::down, ::right]

    def rows(self, top: int, bottom: int) -> Raster:
        """Return some rows as an image; a TIFF decodes only these rows."""
        size = bottom - top, self.stored[1]
        return replace(self, stored=size, load=lambda first, last: self.load(top + first, top + last))

    def check(self, channels: int) -> None:
        """Raise a CrispsegError unless it has these channels; 3 means RGB, which includes grey."""
        check_channels(self.name, self.color, self.bands, channels)

    def numbers(self, channels: int) -> NDArray[Any]:
        """Return the values of these channels as uint8 or uint16, and a palette as RGB; see `check` for errors."""
        self.check(channels)
        if self.color == "palette":
            return color_table(self.palette[:256]).take(self.values[..., 0], axis=0)
        return self._scaled(1 if channels == 3 and self.bands < 3 else channels)  # of 3 channels, none is alpha

    def pixels(self, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
        """Return the image as model input `(H, W, channels)`; arguments and errors are those of `read_image`."""
        values = self.numbers(channels)
        if value_range == "image":
            value_range = self.limits or percentile_range([sampled(values)], OF_IMAGE)
            values = values.astype(np.uint16)
        if values.dtype == np.uint16:
            values = to_8_bits(values, value_range or self._range_of_bits(values))
        return np.repeat(values, 3, axis=2) if values.shape[2] < channels else np.array(values, order="C")

    def _range_of_bits(self, values: NDArray[np.uint16]) -> Limits:
        """Return the range of the bits that the file declares, else of those that its values need."""
        if self.white < 0xFFFF:
            return 0, self.white
        return self.limits or bit_depth_range([sampled(values)], self.name)

    def plain(self) -> NDArray[Any]:
        """Return all bands in 8 or 16 bits, and palettes as RGB."""
        return self._scaled(self.bands) if self.color in ("grey", "rgb", "bands") else self.pixels()

    def _scaled(self, bands: int) -> NDArray[Any]:
        """Return the first bands as uint16, or as uint8 if they have up to 8 bits, which become 0 to 255."""
        values = self.values[..., :bands]
        if self.white > 255:
            return whole_numbers(values, self.name)
        if self.white == 255 and values.dtype == np.uint8:  # the table would change nothing
            return values
        return np.rint(np.arange(self.white + 1) / self.white * 255).astype(np.uint8).take(values)

    def labels(self, most: int = 0xFFFF, lossy: bool = False, in_color: bool = False) -> NDArray[Any]:
        """Return a mask as for `crispseg.io.images.read_mask`, and palette files as colours if `in_color`."""
        if self.lossy and not lossy:
            raise CrispsegError(self.lossy)
        if in_color and self.color == "palette":
            return self._opaque(self.pixels())
        values = self.values if self.palette else self._opaque(self.values)
        fits = self.bands <= RGB_BANDS.get(self.color, 0)
        if fits and self.color != "rgb":
            ids = values[..., 0]
            return ids if ids.dtype == np.uint8 else whole_numbers(ids, self.name, most, "fiu")
        if fits and self.bit_depth == 8:
            return np.array(values[..., :3], order="C")
        content = f"{self.bands} channels of {self.bit_depth} bits ({self.color})"
        raise CrispsegError(f"{self.name} has {content}; save masks as grey, palette or RGB PNG")

    def _opaque(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values `(H, W, C)` with 0 for transparent pixels."""
        visible = self.visible
        return values if visible is None else np.where(visible[..., None], values, 0)


def whole_numbers(values: NDArray[Any], name: object, most: int = 0xFFFF, kinds: str = "iu") -> NDArray[Any]:
    """Return integers from 0 to `most` as uint16, or as int32 if needed; `kinds` are the allowed dtype kinds.

    Other values raise a CrispsegError.
    """
    low, high = values.min(), values.max()  # NaN if one value is
    in_range = values.dtype.kind in kinds and low >= 0 and high <= most
    if not in_range or (values % 1).any():
        content = f"{name} contains {values.dtype} values from {low} to {high}, not whole numbers from 0 to {most}"
        raise CrispsegError(f"{content}; save it with 8 or 16 bits, and in masks 255 for pixels without data")
    return values.astype(np.uint16 if high <= 0xFFFF else np.int32)


def from_array(values: NDArray[Any], name: str) -> Raster:
    """Return the image of a uint8 or uint16 array `(H, W)` or `(H, W, C)`: grey, RGB, alpha or bands."""
    values = values if values.ndim == 3 else values[..., None]
    height, width, bands = values.shape
    white = 2 ** (8 * values.itemsize) - 1
    color = ARRAY_COLORS.get(bands, "bands")
    return Raster(name, (height, width), bands, white, color, lambda top, bottom: values[top:bottom])
