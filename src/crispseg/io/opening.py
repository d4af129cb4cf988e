"""Opening pictures of the formats that are read, and what is wrong with one in a line."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import SAMPLESPERPIXEL, ImageFileDirectory_v2

from crispseg.errors import CrispsegError, one_line

MAX_PIXELS = 2**27
"""A file that claims more pixels is refused before it is decoded: 134 million, 400 MB as RGB."""

FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
"""Formats that are read, by Pillow's names. Others start programs (EPS), or are larger than their header says (ICO)."""

ORIENTATION = 0x0112
"""EXIF's tag for how a picture is to be turned."""


class UnreadablePicture(CrispsegError):
    """A picture that cannot be decoded; `code` is one of the kinds of findings of `crispseg doctor`."""

    def __init__(self, message: str, code: str = "unreadable-file") -> None:  # a data worker's is made of its message
        super().__init__(message)
        self.code = code


class UnknownRange(ValueError):
    """Values of more than 16 bits, or fractions."""


@contextmanager
def opened(path: str | Path, whole: bool = False) -> Iterator[Image.Image]:
    """Open a picture of one of `FORMATS`, and turn every way in which a file can be bad into one line.

    With `whole`, all checksums of a PNG are compared, of which Pillow skips those of pixels.

    Raises:
        CrispsegError: as for `read_image`, also for what goes wrong in the block.
    """
    path = Path(path)
    try:
        if not path.is_file() and stat.S_IFMT(path.stat().st_mode) != stat.S_IFDIR:
            raise ValueError("it is no file but a pipe or a device")  # which may never end, or never begin
        with path.open("rb") as file:
            if whole:
                with decoding(file) as picture:
                    picture.verify()
                file.seek(0)
            with decoding(file) as picture:
                yield picture
    except (CrispsegError, MemoryError):
        raise
    except Exception as error:  # on broken data Pillow's decoders raise almost anything
        code, reason = _fault(path, error)
        raise UnreadablePicture(f"{path} {reason}", code) from None


@contextmanager
def decoding(file: BinaryIO) -> Iterator[Image.Image]:
    """Open what should be a picture of one of `FORMATS`; on broken data Pillow raises almost anything.

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
        return "no-permission", "cannot be read; check that it is a file and its permissions"
    if isinstance(error, Image.DecompressionBombError):
        return "too-large", (
            f"claims more than {MAX_PIXELS:,} pixels; cut it into smaller images, or save it as a TIFF and segment it "
            "by 'crispseg predict' in tiles of 1024"
        )
    if path.is_file() and path.stat().st_size == 0:
        return "empty-file", "is empty (0 bytes); restore or remove it"
    if isinstance(error, UnidentifiedImageError):
        if (channels := _tiff_channels(path)) > 3:
            return "channel-missing", (
                f"has {channels} channels, which only models of as many take: train with model.in_chans {channels}"
            )
        return "no-image-format", "is not an image in a known format; convert it to PNG or JPEG"
    if isinstance(error, UnknownRange):
        return "value-range-unknown", f"holds {error}"
    return "unreadable-file", f"is broken ({one_line(error)}); restore or remove it"


def _tiff_channels(path: Path) -> int:
    """The channels of a TIFF; 0 if it is none."""
    with suppress(Exception), path.open("rb") as file:  # on broken headers Pillow raises almost anything
        head = file.read(8)
        directory = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)  # 43 is BigTIFF
        file.seek(directory.next)
        directory.load(file)
        return int(directory.get(SAMPLESPERPIXEL, 1))
    return 0


def raw_mode(picture: Image.Image) -> str:
    """Return how Pillow will unpack the values of a file that it has not loaded; empty if that is not known."""
    args = picture.tile[0].args if isinstance(picture, ImageFile.ImageFile) and picture.tile else None
    return str(args[0] if isinstance(args, tuple) else args or "")
