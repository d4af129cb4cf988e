"""Image files as rasters, with errors of one line."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import regular_file
from crispseg.io.pillow_reading import HEIC_SUFFIXES, decoding, from_pillow
from crispseg.io.raster import Raster, check_channels, from_array
from crispseg.io.tiff_reading import MAX_PIXELS, SEVERAL, from_tiff

__all__ = ["HEIC_SUFFIXES", "Raster", "check_channels", "faults", "from_array", "from_pillow", "from_tiff", "opened"]

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # of both byte orders, and of BigTIFF

TIFF_PAGE = re.compile(r"(?P<file>.+\.tiff?)\[(?P<number>\d+)\]", re.IGNORECASE)

TIFF_LIKE_SUFFIXES = (".arw", ".cr2", ".dng", ".nef", ".orf", ".rw2", ".svs")  # a reader of TIFFs would show a preview

CUT = "cut it, or save it as a TIFF and segment it with 'crispseg predict' in tiles of 1024"
FAULTS: Mapping[type[Exception], str] = {
    FileNotFoundError: "does not exist; check the path",
    NotADirectoryError: "does not exist; check the path",
    IsADirectoryError: "is a folder, not an image file; give a file",
    PermissionError: "cannot be read; check its permissions",
    Image.DecompressionBombError: f"claims more than {MAX_PIXELS:,} pixels; {CUT}",
    UnidentifiedImageError: "is not an image in a known format; convert it to PNG or JPEG",
}
"""Errors when a file is opened, with the rest of the message."""


def file_and_page(path: Path) -> tuple[Path, int | None]:
    """Return the file of an image, and the page if its name has one, such as 3 in `stack.tif[3]`; the first is 1."""
    match = TIFF_PAGE.fullmatch(str(path))
    return (path, None) if match is None else (Path(match["file"]), int(match["number"]))


@contextmanager
def opened(path: str | Path) -> Iterator[Raster]:
    """Open a TIFF or an image that Pillow reads, with one page or frame; errors are those of `read_image`.

    A page of a TIFF is opened by `file_and_page`.
    """
    path = regular_file(path)
    stored, page = file_and_page(path)
    with faults(path), stored.open("rb") as file:
        if path.suffix.lower() in TIFF_LIKE_SUFFIXES:
            raise UnidentifiedImageError
        if file.read(4) in TIFF_STARTS:
            yield from_tiff(file, path, page)
            return
        with decoding(file) as picture:
            if getattr(picture, "is_animated", False) and picture.format != "MPO":  # MPO has several photos of a camera
                raise CrispsegError(f"{path} {SEVERAL}")
            yield from_pillow(picture, path)


@contextmanager
def faults(name: object) -> Iterator[None]:
    """Convert any error of the block into a CrispsegError about `name`, a path or another name."""
    try:
        yield
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data decoders raise almost anything
        is_empty = isinstance(name, Path) and name.is_file() and name.stat().st_size == 0
        fault = "is empty (0 bytes); restore or remove it" if is_empty else fault_of(error)
        raise CrispsegError(f"{name} {fault}") from None


def fault_of(error: Exception) -> str:
    """Return the message about an error of a decoder or of the system, after the name of the file."""
    for kind, fault in FAULTS.items():
        if isinstance(error, kind):
            return fault
    number = getattr(error, "errno", None)
    if isinstance(error, ImportError) or number not in (None, errno.EINVAL):  # EINVAL: a broken offset
        reason = getattr(error, "strerror", None) or one_line(error)
        return f"cannot be read ({reason}); check the system, and try again"
    return f"is broken ({one_line(error)}); restore or remove it"
