"""Files that strangers send: limits, reading without harm, and a bound on what is kept on disk."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.io.images import image_size, read_image
from crispseg.io.value_range import ValueRange

MB = 10**6
MOST_SCANS = 100
"""Scans of a JPEG. Each goes over the whole image, so a small file of very many keeps a decoder busy for hours.
Encoders write about ten, and libtiff has the same limit."""
EMPTY_SECONDS = 120
"""Age at which empty folders are removed; a younger one may be about to get its file."""


@dataclass(frozen=True)
class Limits:
    """What the demo takes.

    Raises:
        CrispsegError: one that is not positive.
    """

    megabytes: float = 20
    """Size of an uploaded file, in 10⁶ bytes."""
    pixels: int = 20_000_000
    """Pixels of an image; one with more is refused before it is decoded."""
    working_pixels: int = 2**21
    """An image of which the network would see more pixels is segmented as a reduced copy."""
    kept_megabytes: float = 500
    """Size of all uploads and masks on disk together; the oldest are removed."""
    kept_seconds: float = 900
    """Age at which uploads and masks are removed."""

    def __post_init__(self) -> None:
        for key, flag in (("megabytes", "--max-megabytes"), ("pixels", "--max-pixels")):
            if not getattr(self, key) > 0:
                raise CrispsegError(f"{flag} is {getattr(self, key)}; give a number above 0")


def read_upload(path: Path, channels: int, limits: Limits, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read an uploaded image, upright, `(H, W, channels)`.

    Args:
        path: of the file; messages hold its name only, as where it lies on the server is nobody's business.
        channels: 3 or 4, as for `read_image`.
        limits: over which an image is refused, before it is decoded.
        value_range: of images of 16 bits a channel, see `read_image`.

    Raises:
        CrispsegError: too large, or as for `read_image`.
    """
    try:
        if path.stat().st_size > limits.megabytes * MB:
            raise CrispsegError(f"{path} is larger than {limits.megabytes:g} MB, the limit of this demo; shrink it")
        height, width = image_size(path, channels)
        if height * width > limits.pixels:
            raise CrispsegError(
                f"{path} has {width}×{height} pixels, and the limit of this demo is {limits.pixels:,} in all; shrink "
                "or cut it, or use 'crispseg predict', which has no such limit"
            )
        content = path.read_bytes()
        if content.startswith(b"\xff\xd8") and content.count(b"\xff\xda") > MOST_SCANS:
            raise CrispsegError(f"{path} is a JPEG of more than {MOST_SCANS} scans; save it anew, or as PNG")
        return read_image(path, channels, value_range)
    except (CrispsegError, FileNotFoundError) as error:
        if not path.exists():
            raise CrispsegError(f"{path.name} is no longer kept here; upload it again") from None
        message = str(error).replace(str(path), path.name)
        raise CrispsegError(message.replace("restore or remove it", "send another copy of it")) from None


def sweep(folder: Path, limits: Limits) -> None:
    """Remove files that are too old, the oldest of the rest until they are small enough together, and empty folders.

    Not Gradio's own `delete_cache`: it ends with "Set changed size during iteration" while others upload, and never
    sees what an upload that broke off leaves.
    """
    files, total, now = [], 0, time.time()
    for parent, _, names in os.walk(folder, topdown=False):
        for path in (Path(parent, name) for name in names):
            with suppress(OSError):  # just moved to another name
                files.append((path.stat().st_mtime, path.stat().st_size, path))
        with suppress(OSError):  # not empty
            if Path(parent) != folder and now - Path(parent).stat().st_mtime > EMPTY_SECONDS:
                Path(parent).rmdir()
    for changed, size, path in sorted(files, reverse=True):
        total += size
        if total > limits.kept_megabytes * MB or now - changed > limits.kept_seconds:
            with suppress(OSError):
                path.unlink()
