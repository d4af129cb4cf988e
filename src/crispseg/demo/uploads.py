"""Files that strangers send: limits, reading without harm, and a bound on what is kept on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.imaging import image_size, read_image
from crispseg.inference.protocols import MIN_SIDE

MB = 10**6
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
"""That are read, by Pillow's names. Of the others some run programs (EPS), and some hold a picture larger than their
header says (ICO)."""
MOST_SCANS = 100
"""Of a JPEG. Each goes over the whole image, so a small file of very many keeps a decoder busy for hours. Encoders
write about ten, and libtiff has the same limit."""
LONGEST_NAME = 60
BLOCK = 4096
"""Bytes that even an empty file counts as: disks give space, and keep lists of files, in pieces."""
FOLDERS_KEPT = 120.0
"""Seconds after which an empty folder is removed; one that was just made may be about to get its file."""


@dataclass(frozen=True)
class Limits:
    """What the demo takes.

    Raises:
        CrispsegError: one that is not positive.
    """

    megabytes: float = 20
    """Of an uploaded file, 10⁶ bytes each."""
    pixels: int = 20_000_000
    """Of an image; one with more is refused before it is decoded."""
    working_pixels: int = 2**21
    """An image of which the network would see more is segmented as a reduced copy."""
    cache_megabytes: float = 500
    """Of uploads and masks on disk, of all users together; the oldest are removed."""
    cache_seconds: int = 900
    """After which uploads and masks are removed."""

    def __post_init__(self) -> None:
        for key, flag in (("megabytes", "--max-megabytes"), ("pixels", "--max-pixels")):
            if not getattr(self, key) > 0:
                raise CrispsegError(f"{flag} is {getattr(self, key)}; give a number above 0")

    @property
    def bytes(self) -> int:
        """Of an uploaded file."""
        return int(self.megabytes * MB)


@dataclass(frozen=True, eq=False)
class Picture:
    """An image to segment."""

    name: str
    """Of its file, for people."""
    size: tuple[int, int]
    """Height and width of the upright image in the file."""
    pixels: NDArray[np.uint8]
    """`(h, w, 3)`, or `(h, w, 4)` for a model that takes 4 channels; of `size` or reduced."""

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return Path(self.name).stem or "image"


def shown_name(name: object) -> str:
    """The last part of a file name that somebody sent, printable and not too long."""
    if not isinstance(name, str):
        return "image"
    last = PureWindowsPath(PurePosixPath(name).name).name
    clean = "".join(letter for letter in last if letter.isprintable() and letter not in '<>:"|?*').strip(" .")
    stem, ending = Path(clean).stem, Path(clean).suffix
    return stem[: LONGEST_NAME - len(ending[:10])] + ending[:10] if clean else "image"


def uploaded_path(upload: object, folder: Path) -> Path:
    """The file of what the browser sends for an uploaded image: a mapping with `path`.

    Raises:
        CrispsegError: it names no file in `folder`, where uploads are.
    """
    path = upload.get("path") if isinstance(upload, dict) else None
    if not isinstance(path, str) or not inside(path, folder):
        raise CrispsegError("this is no uploaded image; upload one first")
    return Path(path)


def inside(path: str, folder: Path) -> bool:
    """Whether a path leads into a folder, links and dots followed."""
    try:
        return Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, a loop of links
        return False


def read_upload(path: Path, name: str, channels: int, limits: Limits) -> Picture:
    """Read an uploaded image of one of `FORMATS`, upright and `reduced` to `limits.working_pixels`.

    Args:
        path: of the file.
        name: of the file for people; messages have it in place of the path.
        channels: 3 or 4, as for `read_image`.
        limits: over which an image is refused, before it is decoded.

    Raises:
        CrispsegError: too large, or as for `read_image`.
    """
    with _named(path, name):
        if path.stat().st_size > limits.bytes:
            raise CrispsegError(f"{name} is larger than {limits.megabytes:g} MB, the limit of this demo; shrink it")
        height, width = size = image_size(path, channels, FORMATS)
        if height * width > limits.pixels:
            raise CrispsegError(
                f"{name} has {width}×{height} pixels, and the limit of this demo is {limits.pixels:,} in all; shrink "
                "or cut it, or use 'crispseg predict', which has no such limit"
            )
        _check_scans(path, name)
        return Picture(name, size, reduced(read_image(path, channels, FORMATS), limits.working_pixels))


def _check_scans(path: Path, name: str) -> None:
    content = path.read_bytes()
    if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MOST_SCANS:
        raise CrispsegError(f"{name} is a JPEG of more than {MOST_SCANS} scans; save it anew, or as PNG")


def reduced(image: NDArray[np.uint8], pixels: int) -> NDArray[np.uint8]:
    """An image `(H, W, C)` as it is, or averaged to one of which the network sees at most about `pixels` pixels.

    It sees no side shorter than `MIN_SIDE`; so an image that is very long and narrow loses more of its length.
    """
    height, width = image.shape[:2]
    factor = min((pixels / (height * width)) ** 0.5, 1)
    longest = pixels // MIN_SIDE
    size = min(max(round(width * factor), 1), longest), min(max(round(height * factor), 1), longest)
    if size == (width, height):
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def enlarged(labels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Labels of a reduced copy at the size of the image, height and width, each from the nearest pixel."""
    if labels.shape == size:
        return labels
    return np.asarray(cv2.resize(labels, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)


@contextmanager
def _named(path: Path, name: str) -> Iterator[None]:
    """Name files in messages as people do; where they are on the server is nobody's business."""
    try:
        yield
    except FileNotFoundError:
        raise CrispsegError(f"{name} is no longer kept here; upload it again") from None
    except CrispsegError as error:
        if not path.exists():
            raise CrispsegError(f"{name} is no longer kept here; upload it again") from None
        message = str(error).replace(str(path), name)
        raise CrispsegError(message.replace("restore or remove it", "send another copy of it")) from None


def trim(folder: Path, limits: Limits, now: float | None = None) -> int:
    """Remove the oldest files until the rest, at most `cache_seconds` old, have at most `cache_megabytes` together.

    Folders that stay empty go later. Files that vanish meanwhile are no error.

    Args:
        folder: with all its sub-folders.
        limits: of size and age.
        now: seconds since 1970.

    Returns:
        The bytes that are left, each file with at least `BLOCK`.
    """
    now = time.time() if now is None else now
    files: list[tuple[float, int, Path]] = []
    for parent, folders, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found = (Path(parent) / name).lstat()
                files.append((found.st_mtime, max(found.st_size, BLOCK), Path(parent) / name))
        for name in folders:
            with suppress(OSError):  # mostly that it is not empty
                if now - (Path(parent) / name).lstat().st_mtime > FOLDERS_KEPT:
                    (Path(parent) / name).rmdir()
    left = 0
    for changed, size, path in sorted(files, key=_newest_first):
        if left + size > limits.cache_megabytes * MB or now - changed > limits.cache_seconds:
            path.unlink(missing_ok=True)
        else:
            left += size
    return left


def _newest_first(file: tuple[float, int, Path]) -> Any:
    return -file[0], file[2]
