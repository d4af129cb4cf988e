"""One pass over each file: it is decoded once, and its facts are gathered from the decoded pixels."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, SAMPLESPERPIXEL, TiffImageFile

from crispseg.data.base import Pair, SegmentationDataset
from crispseg.data.check import parallel
from crispseg.doctor.facts import Header, ImageFacts, ImageResult, MaskFacts, MaskResult, PairFacts, Unreadable
from crispseg.doctor.subject import Split, Subject
from crispseg.errors import CrispsegError
from crispseg.imaging import MAX_PIXELS, ORIENTATION, image_size, mask_values, opened, raw_mode, rgb_values, stretch_of

KEPT = 1024
"""So many values or colours of a mask are kept; a mask of labels has at most 256."""

THUMBNAIL = (8, 8)


def scan(subject: Subject, workers: int | None = None) -> list[PairFacts]:
    """The facts of all pairs, split by split, in their order.

    Args:
        subject: what to examine.
        workers: threads; by default as many as there are processors, at most 8. Decoding releases the interpreter
            lock, and threads cost no start. Each holds one decoded pair. Samples that are no files take one thread.
    """
    facts: list[PairFacts] = []
    for split in subject.splits:
        title = f"Examining {split.name}"
        if isinstance(split.items, SegmentationDataset):
            sample = partial(_scan_sample, split, split.items)
            facts += parallel(sample, range(len(split)), title, 1)  # they do not promise to be safe in threads
        else:
            facts += parallel(partial(_scan_pair, split.name, subject.channels), split.items, title, workers)
    return facts


def _scan_pair(split: str, channels: int, pair: Pair) -> PairFacts:
    return PairFacts(split, pair, scan_image(pair.image, channels), scan_mask(pair.mask))


def _scan_sample(split: Split, dataset: SegmentationDataset, index: int) -> PairFacts:
    """Of a data set that is not made of files. An error of its own counts as an unreadable image."""
    try:
        image, labels, name = dataset[index]
    except CrispsegError as error:
        broken, name = Unreadable("unreadable-file", str(error)), f"{split.name} {index}"
        return PairFacts(split.name, Pair(name, Path(name), Path(name)), broken, broken)
    header = Header(name, "", "RGB", 8, image.shape[:2], 1, 1, "none", True, False)
    return PairFacts(
        split.name,
        Pair(name, Path(name), Path(name)),
        _image_facts(header, np.ascontiguousarray(image[..., :3]), 0),
        _mask_facts(header._replace(mode="L", stored=labels.shape), labels, None),
    )


def scan_image(path: Path, channels: int = 3) -> ImageResult:
    """Read an image as training would."""
    try:
        if channels == 4:
            image_size(path, 4)  # raises where there is no fourth channel
        with opened(path) as picture:
            header = _load(picture, path)
            peak = int(picture.getextrema()[1]) if picture.mode.startswith("I") else 0  # type: ignore[arg-type]
            ImageOps.exif_transpose(picture, in_place=True)
            pixels = rgb_values(picture)
    except CrispsegError as error:
        return _unreadable(path, error, "image")
    return _image_facts(header, pixels, peak)


def scan_mask(path: Path) -> MaskResult:
    """Read a mask, even one that training refuses for its lossy compression."""
    try:
        with opened(path) as picture:
            if picture.format == "PPM":  # whose values Pillow spreads over 0 to 255, and which training refuses
                return Unreadable("unusable-mask", f"{path} is a PGM, PPM or PBM; save it as 8-bit PNG")
            stretch = stretch_of(picture)
            header = _load(picture, path)
            ImageOps.exif_transpose(picture, in_place=True)
            palette = picture.getpalette() if picture.mode == "P" else None
            values = mask_values(picture, path, stretch)
    except CrispsegError as error:
        return _unreadable(path, error, "mask")
    return _mask_facts(header, values, palette)


def _unreadable(path: Path, error: CrispsegError, role: str) -> Unreadable:
    """Which kind of fault it is that `opened` met."""
    reason = str(error)
    try:
        if not path.exists():
            return Unreadable("missing-file", reason)
        if path.stat().st_size == 0:
            return Unreadable("empty-file", reason)
        with path.open("rb") as file, Image.open(file) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                return Unreadable("too-large", reason)
            mode = picture.mode
            try:
                picture.load()
            except Exception:  # on broken data Pillow's decoders raise almost anything
                return Unreadable("unreadable-file", reason)
            if role == "mask":
                return Unreadable("unusable-mask", reason)
            return Unreadable("value-range-unknown" if mode[0] in "IF" else "channel-missing", reason)
    except Image.DecompressionBombError:
        return Unreadable("too-large", reason)
    except PermissionError:
        return Unreadable("no-permission", reason)
    except UnidentifiedImageError:
        return Unreadable("no-image-format", reason)
    except Exception:
        return Unreadable("unreadable-file", reason)


def _load(picture: Image.Image, path: Path) -> Header:
    """Decode an opened picture and read its header, some of which only one of before and after can tell."""
    stored, raw, kind = (picture.height, picture.width), raw_mode(picture), picture.format or ""
    orientation, dropped = 1, 0
    if isinstance(picture, TiffImageFile):  # Pillow turns it as it loads
        dropped = int(picture.tag_v2.get(SAMPLESPERPIXEL, 1)) - len(picture.getbands())
        stored = (int(picture.tag_v2[IMAGELENGTH]), int(picture.tag_v2[IMAGEWIDTH]))
        orientation = int(picture.tag_v2.get(ORIENTATION, 1))
    frames = getattr(picture, "n_frames", 1) if kind in ("TIFF", "GIF", "PNG", "WEBP") else 1
    picture.load()
    if not isinstance(picture, TiffImageFile):  # a PNG may say it behind its pixels
        orientation = picture.getexif().get(ORIENTATION, 1)
    bits = 16 if ";16" in raw or picture.mode.startswith("I") else 8
    return Header(
        str(path),
        kind,
        picture.mode,
        bits,
        stored,
        orientation if orientation in range(1, 9) else 1,
        int(frames),
        _alpha(picture),
        path.suffix.lower() in _suffixes(kind),
        _is_lossy(picture, path),
        max(dropped, 0),
    )


def _alpha(picture: Image.Image) -> Any:
    if picture.mode in ("RGBA", "LA", "PA"):
        lowest = picture.getchannel("A").getextrema()[0]
    elif "transparency" in picture.info and picture.mode in ("P", "L", "RGB"):
        lowest = picture.convert("RGBA").getchannel("A").getextrema()[0]
    else:
        return "none"
    return "opaque" if lowest == 255 else "varying"


@lru_cache
def _suffixes(kind: str) -> frozenset[str]:
    kinds = {"MPO": ("JPEG", "MPO")}.get(kind, (kind,))
    return frozenset(suffix for suffix, known in Image.registered_extensions().items() if known in kinds)


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
    thumbnail = picture.resize(THUMBNAIL, Image.Resampling.BOX)
    (red, red_top), (green, green_top), (blue, blue_top) = picture.getextrema()  # type: ignore[misc]
    return ImageFacts(
        header,
        pixels.shape[:2],
        _is_grey(pixels),
        bool((red, green, blue) == (red_top, green_top, blue_top)),
        peak if header.bits == 16 else 0,
        _digest(pixels),
        np.asarray(thumbnail, np.uint8).ravel(),
    )


def _is_grey(pixels: NDArray[np.uint8]) -> bool:
    for step in (16, 1):  # a few pixels tell of most images that they are not
        part = pixels[::step, ::step]
        red, green, blue = part[..., 0], part[..., 1], part[..., 2]
        if not (np.array_equal(red, green) and np.array_equal(green, blue)):
            return False
    return True


def _mask_facts(header: Header, mask: NDArray[Any], palette: list[int] | None) -> MaskFacts:
    digest = _digest(mask)
    if mask.ndim == 3:
        if _is_grey(mask):
            mask = mask[..., 0]
        else:
            red, green, blue = (mask[..., channel].astype(np.uint32) for channel in range(3))
            packed = (red << np.uint32(16)) | (green << np.uint32(8)) | blue
            values, counts, distinct = count_values(packed)
            colors = np.stack([values >> 16 & 0xFF, values >> 8 & 0xFF, values & 0xFF], axis=-1).astype(np.uint8)
            blended = blended_steps((red + green + blue).astype(np.int32))
            return MaskFacts(header, mask.shape[:2], colors, counts, distinct, blended, None, digest)
    values, counts, distinct = count_values(mask)
    shown = None
    if palette is not None:
        table = np.zeros((256, 3), np.uint8)
        table[: len(palette) // 3] = np.array(palette, np.uint8).reshape(-1, 3)
        shown = table[values]
    blended = blended_steps(mask.astype(np.int32)) if distinct > 2 else 0.0
    return MaskFacts(header, mask.shape, values, counts, distinct, blended, shown, digest)


def count_values(mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64], int]:
    """The `KEPT` most frequent values, sorted, their pixels, and how many values there are."""
    if mask.dtype == np.uint8:
        histogram = sum((np.bincount(rows.ravel(), minlength=256) for rows in _blocks(mask)), np.zeros(256, np.int64))
        values = np.flatnonzero(histogram)
        return values, histogram[values], len(values)
    flat = mask.ravel()
    starts = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))  # labels come in long runs
    lengths = np.diff(np.append(starts, flat.size))
    values, inverse = np.unique(flat[starts], return_inverse=True)
    counts = np.bincount(inverse, lengths).astype(np.int64)
    distinct = len(values)
    if distinct > KEPT:
        most = np.sort(np.argsort(-counts, kind="stable")[:KEPT])
        values, counts = values[most], counts[most]
    return values, counts, distinct


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


def _blocks(array: NDArray[Any]) -> list[NDArray[Any]]:
    """Blocks of rows of about 4 million pixels, which bound the memory that counting takes."""
    rows = max(2**22 // max(array.shape[1], 1), 1)
    return [array[start : start + rows] for start in range(0, array.shape[0], rows)]


def _digest(array: NDArray[Any]) -> bytes:
    shape = f"{array.dtype}{array.shape}".encode()
    return hashlib.blake2b(np.ascontiguousarray(array).data, digest_size=16, key=shape[:64]).digest()
