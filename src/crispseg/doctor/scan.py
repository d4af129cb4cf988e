"""One pass over each file: it is decoded once, and leaves a few numbers and digests, never its pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, SAMPLESPERPIXEL, TiffImageFile

from crispseg.data.dataset import Pair, SegmentationDataset
from crispseg.data.mask_lookup import pack_colors
from crispseg.data.split_check import parallel
from crispseg.doctor.subject import Subject
from crispseg.errors import CrispsegError
from crispseg.io.images import as_picture, image_size, in_bands, mask_values, rgb_values, stretch_of
from crispseg.io.opening import ORIENTATION, opened, raw_mode
from crispseg.io.tiff import deep_bands, read_bands
from crispseg.io.value_range import to_8_bits

KEPT = 1024
"""So many values or colours of a mask are kept; a mask of labels has at most 256."""


class Unreadable(NamedTuple):
    """Why a file gives no facts."""

    code: str
    """That of the finding."""
    reason: str
    """The line that training would stop with."""


class Header(NamedTuple):
    """What a file says about itself."""

    file: str
    kind: str
    """Pillow's name of the format, such as PNG; empty for samples that are no files."""
    mode: str
    stored: tuple[int, int]
    """`(H, W)` as stored."""
    bits: int = 8
    """Bits a channel."""
    orientation: int = 1
    """EXIF's orientation, 1 to 8; 1 is upright."""
    frames: int = 1
    alpha: Literal["none", "opaque", "varying"] = "none"
    suffix_fits: bool = True
    """Whether the suffix is one of the format."""
    lossy: bool = False
    """Whether the compression changes values."""
    dropped: int = 0
    """Channels of the file that are not decoded."""


class ImageFacts(NamedTuple):
    """An image that can be read."""

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
    """The decoded, upright pixels, in short."""
    thumbnail: NDArray[np.uint8]
    """`(192,)`: 8×8 RGB."""


class MaskFacts(NamedTuple):
    """A mask that can be read."""

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
    """The share of the steps between flat areas that go over values in between; see `blended_steps`."""
    shown: NDArray[np.uint8] | None
    """`(n, 3)` what the file's own palette shows for each of the values; None without a palette."""
    digest: bytes
    """The decoded values, in short."""

    @property
    def colors(self) -> bool:
        """Whether the values are colours."""
        return self.values.ndim == 2


class PairFacts(NamedTuple):
    """One pair in a split."""

    split: str
    pair: Pair
    image: ImageFacts | Unreadable
    mask: MaskFacts | Unreadable

    @property
    def image_file(self) -> str:
        """The path of the image."""
        return str(self.pair.image)

    @property
    def mask_file(self) -> str:
        """The path of the mask."""
        return str(self.pair.mask)


def readable(facts: Sequence[PairFacts]) -> list[tuple[PairFacts, ImageFacts, MaskFacts]]:
    """The pairs of which both files can be read, with the facts of each."""
    return [
        (one, one.image, one.mask)
        for one in facts
        if isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts)
    ]


def files_of(facts: Iterable[ImageFacts | MaskFacts]) -> list[str]:
    """The paths of images or masks."""
    return [one.header.file for one in facts]


def scan(subject: Subject, workers: int | None = None) -> list[PairFacts]:
    """The facts of all pairs, split by split, in their order.

    Args:
        subject: what to examine.
        workers: threads; by default as many as there are processors, at most 8. Decoding releases the interpreter
            lock, and threads cost no start. Each holds one decoded pair. Samples that are no files take one thread.
    """
    facts: list[PairFacts] = []
    for split, items in subject.splits.items():
        title = f"Examining {split}"
        if isinstance(items, SegmentationDataset):
            sample = partial(_scan_sample, split, items)
            facts += parallel(sample, range(len(items)), title, 1)  # they do not promise to be safe in threads
        else:
            facts += parallel(partial(_scan_pair, split, subject.channels), items, title, workers)
    return facts


def _scan_sample(split: str, dataset: SegmentationDataset, index: int) -> PairFacts:
    """The facts of a sample that is not made of files. An error counts as an unreadable image and mask."""
    try:
        pixels, labels, name = dataset[index]
    except CrispsegError as error:
        fault, path = Unreadable("unreadable-file", str(error)), Path(f"{split} {index}")
        return PairFacts(split, Pair(path.name, path, path), fault, fault)
    image = _image_facts(Header(name, "", "RGB", pixels.shape[:2]), as_picture(pixels), 0)
    mask = _mask_facts(Header(name, "", "L", labels.shape), labels, None)
    return PairFacts(split, Pair(name, Path(name), Path(name)), image, mask)


def _scan_pair(split: str, channels: int, pair: Pair) -> PairFacts:
    """The facts of an image as training would read it, and of a mask, even one with lossy compression."""
    image: ImageFacts | Unreadable
    mask: MaskFacts | Unreadable
    try:
        image = _image_facts(*_load_image(pair.image, channels))
    except CrispsegError as error:
        image = Unreadable(getattr(error, "code", "channel-missing"), str(error))
    try:
        mask = _mask_facts(*load_mask(pair.mask))
    except CrispsegError as error:
        code = getattr(error, "code", "unusable-mask")
        mask = Unreadable("unusable-mask" if code == "value-range-unknown" else code, str(error))
    return PairFacts(split, pair, image, mask)


def _load_image(path: Path, channels: int) -> tuple[Header, NDArray[np.uint8], int]:
    """What an image's file says about itself, its upright RGB pixels, and its largest value if it is of 16 bits.

    Raises:
        CrispsegError: it cannot be read, or has not so many channels.
    """
    if in_bands(path, channels):
        return _load_bands(path, channels)
    if channels == 4:
        image_size(path, 4)  # raises where there is no fourth channel
    with opened(path, whole=True) as picture:
        header = _load(picture, path)
        peak = int(picture.getextrema()[1]) if picture.mode.startswith("I") else 0  # type: ignore[arg-type]
        ImageOps.exif_transpose(picture, in_place=True)
        return header, rgb_values(picture, (0, 0xFFFF)), peak if header.bits == 16 else 0


def _load_bands(path: Path, channels: int) -> tuple[Header, NDArray[np.uint8], int]:
    """As `_load_image`, of a TIFF that Pillow cannot read."""
    deep = deep_bands(path, channels)
    pixels = read_bands(path, channels) if deep is None else to_8_bits(deep, (0, 0xFFFF), path)
    header = Header(str(path), "TIFF", f"{channels} channels", pixels.shape[:2], bits=8 if deep is None else 16)
    return header, as_picture(pixels), 0 if deep is None else int(deep.max())


def load_mask(path: Path) -> tuple[Header, NDArray[Any], list[int] | None]:
    """What a mask's file says about itself, its upright values and the levels of its palette, if it has one.

    Raises:
        CrispsegError: it cannot be read.
    """
    with opened(path, whole=True) as picture:
        if picture.format == "PPM":  # whose values Pillow spreads over 0 to 255, and which training refuses
            raise CrispsegError(f"{path} is a PGM, PPM or PBM; save it as 8-bit PNG")
        stretch = stretch_of(picture)
        header = _load(picture, path)
        ImageOps.exif_transpose(picture, in_place=True)
        return header, mask_values(picture, path, stretch), picture.getpalette() if picture.mode == "P" else None


def _load(picture: Image.Image, path: Path) -> Header:
    """Decode an opened picture and read its header, some of which only one of before and after can tell."""
    stored, raw, kind = (picture.height, picture.width), raw_mode(picture), picture.format or ""
    orientation, dropped = 1, 0
    if isinstance(picture, TiffImageFile):  # Pillow turns it as it loads
        dropped = int(picture.tag_v2.get(SAMPLESPERPIXEL, 1)) - len(picture.getbands())
        stored = (int(picture.tag_v2[IMAGELENGTH]), int(picture.tag_v2[IMAGEWIDTH]))
        orientation = int(picture.tag_v2.get(ORIENTATION, 1))
    suffix_of = Image.registered_extensions().get(path.suffix.lower())
    frames = getattr(picture, "n_frames", 1) if kind in ("TIFF", "GIF", "PNG", "WEBP") else 1
    picture.load()
    if not isinstance(picture, TiffImageFile):  # a PNG may say it behind its pixels
        orientation = picture.getexif().get(ORIENTATION, 1)
    return Header(
        str(path),
        kind,
        picture.mode,
        stored,
        bits=16 if ";16" in raw or picture.mode.startswith("I") else 8,
        orientation=orientation if orientation in range(1, 9) else 1,
        frames=int(frames),
        alpha=_alpha(picture),
        suffix_fits=suffix_of == kind or (suffix_of, kind) == ("JPEG", "MPO"),
        lossy=_is_lossy(picture, path),
        dropped=max(dropped, 0),
    )


def _alpha(picture: Image.Image) -> Literal["none", "opaque", "varying"]:
    if not picture.has_transparency_data or picture.mode[0] in "1IF":
        return "none"
    return "opaque" if picture.convert("RGBA").getchannel("A").getextrema()[0] == 255 else "varying"


def _is_lossy(picture: Image.Image, path: Path) -> bool:
    if picture.format == "TIFF":
        return picture.info.get("compression") in ("jpeg", "tiff_jpeg")
    if picture.format != "WEBP":
        return picture.format in ("JPEG", "MPO")
    with path.open("rb") as file:
        head = file.read(4096)
    return b"VP8 " in head and b"VP8L" not in head


def _image_facts(header: Header, pixels: NDArray[np.uint8], peak: int) -> ImageFacts:
    picture = Image.fromarray(pixels)
    return ImageFacts(
        header,
        pixels.shape[:2],
        grey=bool((pixels == pixels[..., :1]).all()),
        constant=all(low == high for low, high in picture.getextrema()),  # type: ignore[misc]
        peak=peak,
        digest=_digest(pixels),
        thumbnail=np.asarray(picture.resize((8, 8), Image.Resampling.BOX), np.uint8).ravel(),
    )


def _mask_facts(header: Header, mask: NDArray[Any], palette: list[int] | None) -> MaskFacts:
    digest, shown = _digest(mask), None
    if mask.ndim == 3 and (mask == mask[..., :1]).all():
        mask = mask[..., 0]
    values, counts, distinct = count_values(pack_colors(mask) if mask.ndim == 3 else mask)
    if mask.ndim == 3:
        values = np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
    elif palette is not None:
        table = np.zeros((256, 3), np.uint8)
        table[: len(palette) // 3] = np.array(palette, np.uint8).reshape(-1, 3)
        shown = table[values]
    levels = mask.astype(np.int32)
    blended = blended_steps(levels.sum(axis=-1) if mask.ndim == 3 else levels) if distinct > 2 else 0.0
    return MaskFacts(header, mask.shape[:2], values, counts, distinct, blended, shown, digest)


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """The `KEPT` most frequent values, sorted, their pixels, and how many values there are."""
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))  # labels come in long runs
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, np.diff(np.append(starts, flat.size))).astype(np.int64)
    most = np.sort(np.argsort(-counts, kind="stable")[:KEPT])
    return values[most], counts[most], len(values)


def blended_steps(values: NDArray[np.int32]) -> float:
    """The share of the steps between two flat areas, of unequal values, that pass over values in between.

    Where a mask was resized or turned with interpolation nearly all do; where class ids were drawn, few do, by
    chance. A flat area is two equal neighbours in a row or a column. Masks with fewer than 20 such steps, and noise, of
    which no more than half of the neighbours are equal, give 0.
    """
    over = steps = equal = neighbours = 0
    for lines in (values, values.T):
        change = np.diff(lines, axis=1)
        flat = change == 0
        equal, neighbours = equal + int(flat.sum()), neighbours + flat.size
        up, down = change > 0, change < 0
        # from a flat area, two changes in one direction
        monotone = (up[:, 1:-1] & up[:, 2:]) | (down[:, 1:-1] & down[:, 2:])
        over += int((flat[:, :-2] & monotone).sum())
        # one change by more than 1, between two flat areas
        steps += int((flat[:, :-2] & (abs(change[:, 1:-1]) > 1) & flat[:, 2:]).sum())
    return over / (over + steps) if over >= 20 and 2 * equal > neighbours else 0.0


def _digest(array: NDArray[Any]) -> bytes:
    shape = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16, key=shape[:64]).digest()
