"""Images and masks.

Of PNGs damage has to be noticed, since they hold checksums. Other formats hold none: of these it counts only how they
are refused.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rasterio import Affine
from rasterio.io import MemoryFile

from crispseg.data import check_split
from crispseg.data.dataset import FileDataset, Pair
from crispseg.data.mask_lookup import IdLookup
from crispseg.doctor.facts import Unreadable, load_mask, scan
from crispseg.doctor.subject import Subject
from crispseg.errors import CrispsegError
from crispseg.io.images import deep_values, read_image, read_mask, write_image
from crispseg.io.opening import ORIENTATION
from crispseg.labels import LabelSet
from fuzz.kinds import Case, Kind, digest
from fuzz.mutations import damaged, forged_png, png_chunks, png_of

SIZE = (24, 32)
CLASSES = 3


class Pictures(Kind):
    """Files of pictures of several formats."""

    def __init__(self, place: Path) -> None:
        self.seeds = self.sound_files()
        self.truth: dict[str, dict[str, str]] = {}
        for name, content in self.seeds.items():
            (place / name).write_bytes(content)
            self.truth[name] = {}
            for reader, read in self.readers(place / name).items():
                if name.endswith(".png"):
                    try:
                        self.truth[name][reader] = digest(read())
                    except CrispsegError:
                        assert reader not in self.needed

    needed: tuple[str, ...]
    """Readers that read all that is sound."""

    def sound_files(self) -> dict[str, bytes]:
        """Content by name."""
        raise NotImplementedError

    def readers(self, path: Path) -> dict[str, Callable[[], Any]]:
        """Of such a file."""
        raise NotImplementedError

    def case(self, random: Random, folder: Path) -> Case:
        name = random.choice(list(self.seeds))
        content, png = self.seeds[name], name.endswith(".png")
        others = [seed for other, seed in self.seeds.items() if other != name]
        changed = forged_png(random, content) if png and random.random() < 0.15 else damaged(random, content, others)
        path = folder / name
        path.write_bytes(changed.content)
        return Case(f"{name}: {changed.what}", self.readers(path), {} if changed.forged else self.truth[name])


class Images(Pictures):
    name = "images"
    needed = ("check", "doctor")

    def __init__(self, place: Path) -> None:
        self.mask = place / "mask.png"
        write_image(self.mask, np.random.default_rng(0).integers(0, CLASSES, SIZE, np.uint8))
        super().__init__(place)

    def sound_files(self) -> dict[str, bytes]:
        values = np.random.default_rng(1).integers(0, 256, (*SIZE, 4), np.uint8)
        rgb, rgba = Image.fromarray(values[..., :3]), Image.fromarray(values)
        deep = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
        turned = Image.Exif()
        turned[ORIENTATION] = 3
        files = {f"rgb.{suffix}": encoded(rgb, suffix) for suffix in ("png", "jpg", "webp", "tif", "bmp", "gif", "ppm")}
        return files | {
            "rgba.png": encoded(rgba, "png"),
            "palette.png": encoded(rgb.quantize(50), "png", transparency=3),
            "deep.png": encoded(deep, "png"),
            "deep.tif": encoded(deep, "tif", compression="tiff_lzw"),
            "rgba.tif": encoded(rgba, "tif", compression="tiff_deflate"),
            "turned.jpg": encoded(rgb, "jpg", exif=turned),
            "turned.png": encoded(rgb, "png", exif=turned),
            "turned_late.png": late(encoded(rgb, "png", exif=turned)),
            "progressive.jpg": encoded(rgb, "jpg", progressive=True),
            "cmyk.jpg": encoded(rgb.convert("CMYK"), "jpg"),
            "five.tif": five_bands(values),
            "program.jpg": encoded(rgb, "eps"),  # for which Pillow would start Ghostscript; it is refused
        }

    def readers(self, path: Path) -> dict[str, Callable[[], Any]]:
        pair, labels = Pair("x", path, self.mask), LabelSet.numbered(CLASSES)

        def checked() -> Any:
            data = FileDataset([pair], labels, IdLookup(CLASSES))
            check_split(data, "val")
            return data[0][0]

        def examined() -> Any:
            (facts,) = scan(Subject(None, {"val": [pair]}, None, 3, (), (), {}), 1)  # type: ignore[arg-type]
            if isinstance(facts.image, Unreadable):
                raise CrispsegError(facts.image.reason)
            return facts.image.digest

        return {
            "check": checked,
            "doctor": examined,
            "four channels": lambda: (read_image(path, 4), None)[1],
            "five channels": lambda: (read_image(path, 5), None)[1],
            "16 bits": lambda: (deep_values(path), None)[1],
        }


class Masks(Pictures):
    name = "masks"
    needed = ("data", "doctor")

    def sound_files(self) -> dict[str, bytes]:
        random = np.random.default_rng(2)
        ids = random.integers(0, CLASSES, SIZE, np.uint8)
        colors = Image.fromarray(ids)
        colors.putpalette(random.integers(0, 256, 768, np.uint8).tobytes())
        rgb = Image.fromarray(random.integers(0, 2, (*SIZE, 3), np.uint8) * 255)
        turned = Image.Exif()
        turned[ORIENTATION] = 6
        plain = Image.fromarray(ids)
        return {
            "ids.png": encoded(plain, "png"),
            "palette.png": encoded(colors, "png"),
            "palette_2.png": encoded(colors, "png", bits=2),
            "palette_4.png": encoded(colors, "png", bits=4),
            "bits.png": encoded(Image.fromarray(ids > 0), "png"),
            "grey_4.png": grey_png(ids, 4),
            "deep.png": encoded(Image.fromarray(ids.astype(np.uint16) * 300), "png"),
            "rgb.png": encoded(rgb, "png"),
            "rgba.png": encoded(rgb.convert("RGBA"), "png"),
            "alpha.png": encoded(plain.convert("LA"), "png"),
            "turned.png": encoded(plain, "png", exif=turned),
            "turned_late.png": late(encoded(plain, "png", exif=turned)),
            "parts.png": parts(encoded(rgb, "png", compress_level=0)),
            "ids.tif": encoded(plain, "tif", compression="tiff_deflate"),
            "deep.tif": encoded(Image.fromarray(ids.astype(np.uint16) * 300), "tif"),
            "ids.bmp": encoded(plain, "bmp"),
            "palette.gif": encoded(colors, "gif"),
            "rgb.webp": encoded(rgb, "webp", lossless=True),
        }

    def readers(self, path: Path) -> dict[str, Callable[[], Any]]:
        return {"data": lambda: read_mask(path), "doctor": lambda: load_mask(path)[1]}


def encoded(picture: Image.Image, suffix: str, **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, Image.registered_extensions()[f".{suffix}"], **options)
    return buffer.getvalue()


def five_bands(values: NDArray[np.uint8]) -> bytes:
    """Values `(H, W, C)`, a channel of them twice, as a TIFF of 16 bits."""
    with MemoryFile() as file:
        height, width, channels = values.shape
        options = {"height": height, "width": width, "count": channels + 1, "dtype": "uint16", "compress": "deflate"}
        with file.open(driver="GTiff", transform=Affine.scale(2), **options) as picture:
            picture.write(values.transpose(2, 0, 1)[[*range(channels), 0]].astype(np.uint16) * 50)
        return bytes(file.read())


def late(content: bytes) -> bytes:
    """A PNG whose EXIF stands behind its pixels."""
    chunks = list(png_chunks(content))
    exif = next(chunk for chunk in chunks if chunk[0] == b"eXIf")
    rest = [chunk for chunk in chunks if chunk is not exif]
    return png_of([*rest[:-1], exif, rest[-1]])


def parts(content: bytes) -> bytes:
    """A PNG whose pixels are in many chunks."""
    head, *_, end = png_chunks(content)
    pixels = b"".join(data for kind, data in png_chunks(content) if kind == b"IDAT")
    return png_of([head, *((b"IDAT", pixels[at : at + 200]) for at in range(0, len(pixels), 200)), end])


def grey_png(ids: np.ndarray, bits: int) -> bytes:
    """A grey PNG of few bits, which Pillow does not write."""
    packed = np.packbits(np.unpackbits(ids[..., None], axis=2)[..., -bits:].reshape(len(ids), -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], bits, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])
