"""Reading and writing pictures: images of RGB or of bands, masks as raw values, labels as palette PNGs."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import SAMPLESPERPIXEL, TiffImageFile

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path, writable_file
from crispseg.io.opening import ORIENTATION, UnknownRange, UnreadablePicture, opened, raw_mode
from crispseg.io.tiff import deep_bands, open_tiff, read_bands
from crispseg.io.value_range import ValueRange, to_8_bits
from crispseg.labels import color_table

MOST_CHANNELS = 16

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def image_channels(in_chans: int) -> int:
    """Return how many channels of an image a model needs: `in_chans`, and 3 (RGB) for 1, which sees their mean.

    Raises:
        CrispsegError: fewer than 1, or more than `MOST_CHANNELS`.
    """
    if not 1 <= in_chans <= MOST_CHANNELS:
        raise CrispsegError(f"in_chans is {in_chans}, but images have 1 to {MOST_CHANNELS} channels; give so many")
    return 3 if in_chans == 1 else in_chans


def as_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(H, W, 3)` of an image `(H, W, C)`: its first three channels, or of two the first as grey."""
    return np.ascontiguousarray(image[..., :3] if image.shape[2] > 2 else image[..., :1].repeat(3, 2))


def read_image(path: str | Path, channels: int = 3, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Read a picture as `(H, W, channels)`, upright as its EXIF orientation asks.

    Of several frames or pages the first is read.

    Args:
        path: path of the file.
        channels: 3 for RGB: alpha is dropped, grey, palette and CMYK become RGB, 16 bits a channel are scaled to 8.
            4 for the values of RGB and a fourth channel as they are in the file; other numbers, and 4 of 16 bits, for
            the bands of a TIFF that has as many, for which rasterio is needed.
        value_range: of images of 16 bits a channel, see `to_8_bits`.

    Raises:
        CrispsegError: missing, not an image, broken, over `MAX_PIXELS`, of 32-bit values without a known range, or of
            another number of channels; for 4 anything but an RGBA PNG or WebP of 8 bits a channel, or a TIFF.
    """
    if in_bands(path, channels):
        return read_bands(path, channels, value_range)
    with opened(path) as picture:
        if channels == 4:
            _keep_fourth(picture, path)
        elif is_deep(picture):
            return as_rgb(to_8_bits(_deep_values(picture, path), value_range, path))
        ImageOps.exif_transpose(picture, in_place=True)
        if channels == 4:
            return np.array(picture)
        return rgb_values(picture)


def in_bands(path: str | Path, channels: int) -> bool:
    """Return whether `read_image` reads the bands of a TIFF for this number of channels, which Pillow cannot.

    Raises:
        CrispsegError: for 4 channels, as for `read_image`; for others nothing is opened.
    """
    if channels != 4:
        return channels != 3
    try:
        with opened(path) as picture:
            return isinstance(picture, TiffImageFile) and is_deep(picture)
    except UnreadablePicture as error:
        if error.code == "channel-missing":  # so it is a TIFF of many channels
            return True
        raise


def deep_values(path: str | Path, channels: int = 3) -> NDArray[np.uint16] | None:
    """Return the values of an image of 16 bits a channel, upright, `(H, W)` or `(H, W, C)`; None for one of 8 bits.

    Raises:
        CrispsegError: as for `read_image`; an image of 8 bits is not decoded.
    """
    if in_bands(path, channels):
        return deep_bands(path, channels)
    with opened(path) as picture:
        return _deep_values(picture, path) if is_deep(picture) else None


def is_deep(picture: Image.Image) -> bool:
    """Return whether a picture that has not been loaded has more than 8 bits a channel, all of which are read."""
    return picture.mode[0] in "IF" or (picture.mode in ("RGB", "RGBA", "RGBX", "LA") and ";16" in raw_mode(picture))


def _deep_values(picture: Image.Image, path: str | Path) -> NDArray[np.uint16]:
    """`deep_values` of an opened picture. Of colours Pillow gives 8 bits only, so OpenCV reads them."""
    if picture.mode[0] in "IF":
        ImageOps.exif_transpose(picture, in_place=True)
        return deep_grey(picture)
    turn = picture.getexif().get(ORIENTATION, 1)
    picture.load()  # raises where the file is broken, in which OpenCV may leave zeros
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
    values = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if values is None:
        raise ValueError("16 bits a channel that cannot be decoded")
    values = values[..., ::-1].swapaxes(0, 1) if turn >= 5 else values[..., ::-1]
    upright: NDArray[np.uint16] = values[:: -1 if turn in (3, 4, 7, 8) else 1, :: -1 if turn in (2, 3, 6, 7) else 1]
    return upright


def as_rgb(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `(H, W)` grey or `(H, W, 3)` as `(H, W, 3)`."""
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def rgb_values(picture: Image.Image, value_range: ValueRange | None = None) -> NDArray[np.uint8]:
    """Return the pixels of an opened picture as `(H, W, 3)` RGB; `value_range` as for `to_8_bits`."""
    if picture.mode[0] in "IF":
        return as_rgb(to_8_bits(deep_grey(picture), value_range, getattr(picture, "filename", "") or "the image"))
    picture.info.pop("transparency", None)  # Pillow would warn that the conversion loses it
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))


def read_mask(path: str | Path, most: int = 0xFFFF) -> NDArray[Any]:
    """Read the raw values of a mask.

    Returns `(H, W)` uint8 for grey, palette (indices, not colours) and 1-bit (0 and 1) files, `(H, W)` uint16 for
    16-bit grey ones, int32 where they hold more, and `(H, W, 3)` uint8 for RGB ones. Alpha is dropped, EXIF orientation
    is applied.

    Raises:
        CrispsegError: as for `read_image`; for a PNG whose checksums say that it is damaged, which Pillow would not
        notice; for lossy compression and PNM files, which do not keep the values as they were; and for grey values of
            more than 8 bits that are no whole numbers from 0 to `most`.
    """
    with opened(path, whole=True) as picture:
        check_mask(picture, path)
        stretch = stretch_of(picture)
        ImageOps.exif_transpose(picture, in_place=True)
        return mask_values(picture, path, stretch, most)


def check_mask(picture: Image.Image, path: str | Path) -> None:
    """Refuse an opened mask that does not keep its values: lossy compression, and PNM, of which Pillow spreads them.

    Raises:
        UnreadablePicture: it is one.
    """
    lossy = picture.format in ("JPEG", "MPO") or picture.info.get("compression") in ("jpeg", "tiff_jpeg")
    if picture.format == "WEBP":
        with Path(path).open("rb") as file:
            head = file.read(4096)
        lossy = b"VP8 " in head and b"VP8L" not in head
    if lossy or picture.format == "PPM":
        what = f"is stored with lossy compression ({picture.format})" if lossy else "is a PGM, PPM or PBM"
        code = "lossy-mask" if lossy else "unusable-mask"
        raise UnreadablePicture(f"{path} {what}, which may change label values; save masks as PNG", code)


def mask_values(picture: Image.Image, path: str | Path, stretch: int, most: int = 0xFFFF) -> NDArray[Any]:
    """Return the values of an upright mask as `read_mask` does, given `stretch_of` it, known before it is loaded."""
    if picture.mode in ("1", "L", "P", "RGB"):
        values = np.array(picture, np.uint8)
        return values // stretch if stretch > 1 else values
    if picture.mode in ("LA", "PA"):
        return np.array(picture)[..., 0]
    if picture.mode == "RGBA":
        return np.array(picture)[..., :3]
    if picture.mode == "F" and np.array_equal(values := np.asarray(picture), np.floor(values).clip(0, most)):
        picture = Image.fromarray(values.astype(np.int32))  # whole numbers that are stored as float
    if picture.mode[0] in "IF":
        return deep_grey(picture, most)
    raise CrispsegError(f"{path} has the colour mode {picture.mode}; save masks as grey, palette or RGB PNG")


def image_size(path: str | Path, channels: int = 3, whole: bool = False) -> tuple[int, int]:
    """Return `(H, W)` of the upright picture from its header; `channels` as for `read_image`, `whole` as for `opened`.

    An orientation that a PNG states only behind its pixels is not seen.

    Raises:
        CrispsegError: missing, not an image, over `MAX_PIXELS`, or `read_image` cannot give so many channels.
    """
    if in_bands(path, channels):
        with open_tiff(path, channels) as tiff:
            return tiff.size
    with opened(path, whole) as picture:
        if channels == 4:
            _keep_fourth(picture, path)
        # Pillow has turned a TIFF's size already, and would decode a PNG without EXIF in front to find some.
        known = picture.format != "TIFF" and (picture.format != "PNG" or "exif" in picture.info)
        turned = known and picture.getexif().get(ORIENTATION, 1) >= 5
        return picture.size if turned else (picture.height, picture.width)


def write_image(path: str | Path, rgb: NDArray[np.uint8 | np.uint16]) -> None:
    """Write an `(H, W, 3)` RGB or `(H, W)` grey picture, the latter of 16 bits too; the suffix chooses the format.

    Raises:
        CrispsegError: the suffix is not one of `SUFFIXES` or the folder cannot be written.
    """
    path = check_picture(path)
    with atomic_path(path) as temporary:
        if path.suffix.lower() == ".png" and rgb.dtype == np.uint8 and rgb.shape[2:] == (3,) and rgb.size:
            fast = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
            bgr = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGR)
            temporary.write_bytes(cv2.imencode(".png", bgr, fast)[1].data)
        else:
            Image.fromarray(rgb).save(temporary)


def check_picture(path: str | Path) -> Path:
    """Return `path`, to which `write_image` can write.

    Raises:
        CrispsegError: the suffix is not one of `SUFFIXES` or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise CrispsegError(f"cannot write {path}: unknown picture suffix '{path.suffix}'; use .png or .jpg")
    return writable_file(path)


def write_labels(path: str | Path, labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> None:
    """Write `(H, W)` class ids as a palette PNG whose pixel values are the ids; 255 (ignore) is black.

    Raises:
        CrispsegError: the suffix is not .png or the folder cannot be written.
        ValueError: an id is neither in the palette nor 255.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise CrispsegError(f"cannot write labels to {path}: they are kept exactly only in PNG; use the suffix .png")
    picture = Image.fromarray(_ids(labels, palette))
    picture.putpalette(color_table(palette).tobytes())
    with atomic_path(path) as temporary:
        picture.save(temporary, compress_level=1, compress_type=zlib.Z_RLE)


def colorize(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return RGB `(H, W, 3)` of class ids `(H, W)`; 255 (ignore) is black.

    Raises:
        ValueError: an id is neither in the palette nor 255.
    """
    return color_table(palette).take(_ids(labels, palette), axis=0)


def find_images(folder: str | Path) -> list[Path]:
    """Return all pictures in a folder and its sub-folders, by their suffix, sorted.

    Hidden files are left out. Links that lead nowhere are among them, and fail when they are read.

    Raises:
        CrispsegError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CrispsegError(f"{folder} is {'not a folder' if folder.exists() else 'missing'}; give a folder of images")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and not path.is_dir()
    )


def _keep_fourth(picture: Image.Image, path: str | Path) -> None:
    """Prepare an opened picture of RGB and a fourth channel to load all four as they are.

    Pillow drops a TIFF's fourth channel if it is not called alpha, and divides by it if it is called premultiplied.
    """
    stored = raw_mode(picture)
    count = picture.tag_v2.get(SAMPLESPERPIXEL, 1) if isinstance(picture, TiffImageFile) else len(picture.getbands())
    remedy = "give RGBA PNGs or RGB TIFFs with a fourth channel, or a model of in_chans 3"
    if count != 4 or picture.mode not in ("RGB", "RGBX", "RGBA"):
        raise CrispsegError(f"{path} has {count} channel(s) (mode {picture.mode}), not RGB and a fourth one; {remedy}")
    if ";16" in stored:
        raise CrispsegError(f"{path} has 16 bits a channel; scale it to 8 bits a channel, or save it as a TIFF")
    if isinstance(picture, TiffImageFile) and stored in ("RGBX", "RGBa"):
        picture._mode = "RGBA"
        picture.tile = [tile._replace(args=("RGBA", *(tile.args or ())[1:])) for tile in picture.tile]


def deep_grey(picture: Image.Image, most: int = 0xFFFF) -> NDArray[Any]:
    """Return the values of a grey picture of more than 8 bits: uint16, or int32 if some are larger.

    Raises:
        UnknownRange: they are no whole numbers from 0 to `most`.
    """
    values = np.asarray(picture)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > most:
        found = f"{values.dtype} values from {values.min()} to {values.max()}"
        raise UnknownRange(f"{found}, not whole numbers from 0 to {most}; save it with 8 or 16 bits")
    return values.astype(np.uint16 if values.max() <= 0xFFFF else np.int32)


def stretch_of(picture: Image.Image) -> int:
    """Return the factor by which Pillow spreads the values of a 2-bit or 4-bit grey PNG over 0 to 255 on loading."""
    return {"L;2": 85, "L;4": 17}.get(raw_mode(picture), 1) if picture.format == "PNG" else 1


def _ids(labels: NDArray[Any], palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Check the ids against the palette and make them uint8."""
    ids = labels.astype(np.uint8)
    known = ids < len(palette)
    if not ((known | (ids == 255)) & (ids == labels)).all():
        raise ValueError(f"labels from {labels.min()} to {labels.max()} with a palette of {len(palette)} colours")
    return ids


def side_factor(size: Sequence[int], longer_side: int | None, shorter_side: int | None) -> float:
    """Return the factor that brings an image of `(H, W)` to a longer or a shorter side, or within both.

    >>> side_factor((600, 800), 2048, 512) == 512 / 600
    True
    """
    wanted = ((longer_side, max(size)), (shorter_side, min(size)))
    return min((side / length for side, length in wanted if side is not None), default=1.0)
