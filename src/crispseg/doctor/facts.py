"""What one pass over a file leaves: a few numbers and digests, never its pixels."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.data.base import Pair


class Unreadable(NamedTuple):
    """Why a file gives no facts."""

    code: str
    """Of the finding."""
    reason: str
    """The line that training would stop with."""


class Header(NamedTuple):
    """What a file says about itself."""

    file: str
    kind: str
    """Pillow's name of the format, such as PNG; empty for samples that are no files."""
    mode: str
    bits: int
    """A channel."""
    stored: tuple[int, int]
    """`(H, W)` as stored."""
    orientation: int
    """Of EXIF, 1 to 8; 1 is upright."""
    frames: int
    alpha: Literal["none", "opaque", "varying"]
    suffix_fits: bool
    """Whether the suffix is one of the format."""
    lossy: bool
    """Whether the compression changes values."""
    dropped: int = 0
    """Channels of the file that are not decoded."""


class ImageFacts(NamedTuple):
    """Of an image that can be read."""

    header: Header
    size: tuple[int, int]
    """`(H, W)` upright."""
    grey: bool
    """Whether its three channels agree everywhere."""
    constant: bool
    """Whether all pixels have one colour."""
    peak: int
    """The largest value of an image of 16 bits a channel that has one channel; 0 otherwise."""
    digest: bytes
    """Of the decoded, upright pixels."""
    thumbnail: NDArray[np.uint8]
    """`(192,)`: 8×8 RGB."""


class MaskFacts(NamedTuple):
    """Of a mask that can be read."""

    header: Header
    size: tuple[int, int]
    """`(H, W)` upright."""
    values: NDArray[Any]
    """`(n,)` values, or `(n, 3)` colours where the channels differ: the `KEPT` most frequent ones, sorted."""
    counts: NDArray[np.int64]
    """`(n,)` pixels of each."""
    distinct: int
    """How many values or colours there are in all."""
    blended: float
    """The share of the steps between flat areas that go over values in between; see `scan.blended_steps`."""
    shown: NDArray[np.uint8] | None
    """`(n, 3)` what the file's own palette shows for each of the values, of a palette file."""
    digest: bytes
    """Of the decoded values."""

    @property
    def colors(self) -> bool:
        return self.values.ndim == 2


ImageResult: TypeAlias = ImageFacts | Unreadable
MaskResult: TypeAlias = MaskFacts | Unreadable


class PairFacts(NamedTuple):
    """Of one pair in a split."""

    split: str
    pair: Pair
    image: ImageResult
    mask: MaskResult

    @property
    def image_file(self) -> str:
        return str(self.pair.image)

    @property
    def mask_file(self) -> str:
        return str(self.pair.mask)
