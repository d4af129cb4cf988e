"""Sources of images: files, PIL images, arrays and tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from crispseg.errors import CrispsegError, one_line
from crispseg.io.arrays import FORMS, image_array
from crispseg.io.images import as_rgb, image_channels, read_image, rgb_values
from crispseg.io.opening import UnknownRange
from crispseg.io.value_range import ValueRange, to_8_bits

Source: TypeAlias = str | Path | Image.Image | NDArray[Any] | Tensor
"""An image: a file's path, a PIL image, or values in memory as `image_array` takes them, such as `(H, W, 3)` RGB.

All are treated like files: turned upright (EXIF), grey becomes RGB, a fourth channel is dropped, 16 bits are scaled to
8. For models of C channels, other than 1 and 3, an array is `(H, W, C)`, a file as for `read_image`, and for 4 a PIL
image RGBA.
"""


def read_source(
    source: Source, in_chans: int, value_range: ValueRange | None = None
) -> tuple[NDArray[np.uint8], Path | None]:
    """`(H, W, 3)`, or `(H, W, C)` of a source, as the model needs it, and, if it is a file, its path.

    Values of 16 bits are scaled from `value_range`.
    """
    channels = image_channels(in_chans)
    if isinstance(source, str | Path):
        return read_image(source, channels, value_range=value_range), Path(source)
    if isinstance(source, Image.Image) and source.width and source.height:
        return _pixels(source, channels, value_range), None
    if not isinstance(source, np.ndarray | Tensor):
        kind = type(source).__name__
        raise CrispsegError(f"cannot segment a {kind}; give a path, a PIL image, {FORMS}, or a list of them")
    values = image_array(source)
    if (1 if values.ndim == 2 else values.shape[2]) not in ((1, 3, 4) if channels == 3 else (channels,)):
        raise CrispsegError(
            f"the model takes {channels} channels, not values of shape {values.shape}; give (H, W, {channels})"
        )
    kept = values if values.ndim == 2 else values[..., :channels]
    if values.dtype == np.uint16:
        return as_rgb(to_8_bits(kept, value_range, "the array")), None
    return as_rgb(np.array(kept, order="C")), None  # a copy: the caller may reuse the array


def _pixels(picture: Image.Image, channels: int, value_range: ValueRange | None) -> NDArray[np.uint8]:
    if channels != 3 and (channels, picture.mode) not in ((4, "RGBA"), (4, "RGBX")):
        remedy = "give one of RGBA" if channels == 4 else f"give an array (H, W, {channels})"
        raise CrispsegError(f"a PIL image of mode {picture.mode} has not the model's {channels} channels; {remedy}")
    try:
        upright = ImageOps.exif_transpose(picture)
        if channels == 4:
            return np.array(upright)
        return rgb_values(upright, value_range)
    except UnknownRange:
        raise CrispsegError(f"the range of a PIL image of mode {picture.mode} is unknown; scale it to 8 bits") from None
    except Exception as error:  # a PIL image reads its file late, and on broken data raises almost anything
        raise CrispsegError(f"the PIL image {picture} cannot be read ({one_line(error)}); restore its file") from None
