"""Opening pictures of the formats that are read, and what is wrong with one in a line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from crispseg.errors import CrispsegError, one_line
from crispseg.io.raster import Raster, UnreadablePicture, from_pillow, from_tiff

MAX_PIXELS = 2**27
"""A file that claims more pixels is refused before it is decoded: 134 million, 400 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")
"""Formats that Pillow reads. Others start programs (EPS), or are larger than their header says (ICO)."""


@contextmanager
def opened(path: str | Path, whole: bool = False, in_parts: bool = False) -> Iterator[Raster]:
    """Open a picture, and turn every way in which a file can be bad into one line.

    Args:
        path: of a TIFF, or one of `FORMATS`.
        whole: compare all checksums of a PNG, of which Pillow skips those of pixels.
        in_parts: allow more than `MAX_PIXELS`.

    Raises:
        CrispsegError: as for `read_image`, also for what goes wrong in the block.
    """
    path = Path(path)
    try:
        with ExitStack() as stack:
            file = stack.enter_context(path.open("rb"))
            is_tiff = file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
            file.seek(0)
            if is_tiff:
                raster = from_tiff(file, path)
            else:
                if whole:
                    with decoding(file) as picture:
                        picture.verify()
                    file.seek(0)
                raster = from_pillow(stack.enter_context(decoding(file)), path, lambda: np.fromfile(path, np.uint8))
            if raster.stored[0] * raster.stored[1] > MAX_PIXELS and not in_parts:
                raise Image.DecompressionBombError
            yield raster
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data decoders raise almost anything
        code, reason = _fault(path, error)
        raise UnreadablePicture(f"{path} {reason}", code) from None


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open what should be a picture of one of `FORMATS` by Pillow; on broken data it raises almost anything.

    Raises:
        Image.DecompressionBombError: over `MAX_PIXELS`.
    """
    # Pillow warns from 89 million pixels on. A filter set at import may be lost, and one set repeatedly makes every
    # other warning repeat itself.
    if not any(category is Image.DecompressionBombWarning for _, _, category, *_ in warnings.filters):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with Image.open(file, formats=FORMATS) as picture:
        if picture.width * picture.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        yield picture


def _fault(path: Path, error: Exception) -> tuple[str, str]:
    """The code of what is wrong with a picture whose reading raised an error, and the rest of the message."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return "missing-file", "does not exist; check the path"
    if isinstance(error, IsADirectoryError):
        return "unreadable-file", "is a folder, not an image file; give a file"
    if isinstance(error, PermissionError):
        return "no-permission", "cannot be read; check its permissions"
    if isinstance(error, Image.DecompressionBombError):
        return "too-large", (
            f"claims more than {MAX_PIXELS:,} pixels; cut it into smaller images, or save it as a TIFF and segment it "
            "by 'crispseg predict' in tiles of 1024"
        )
    if path.stat().st_size == 0:
        return "empty-file", "is empty (0 bytes); restore or remove it"
    if isinstance(error, UnidentifiedImageError):
        return "no-image-format", "is not an image in a known format; convert it to PNG or JPEG"
    return "unreadable-file", f"is broken ({one_line(error)}); restore or remove it"
