"""One reading of pixels: a file, its rows, its PIL image and its array are one image and mask, or refused alike."""

import io
import struct
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from fuzz.damage import png_of
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from crispseg.data.named import write_pairs
from crispseg.errors import CrispsegError
from crispseg.inference.image_files import read_source
from crispseg.io.images import image_size, read_image, read_mask
from crispseg.io.opening import opened

Draw = Callable[[st.SearchStrategy[Any]], Any]
UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda values: np.rot90(values, 2),
    4: np.flipud,
    5: lambda values: values.swapaxes(0, 1),
    6: lambda values: np.rot90(values, -1),
    7: lambda values: np.rot90(values, 2).swapaxes(0, 1),
    8: np.rot90,
}


@dataclass
class Case:
    """A file, and what is in it."""

    name: str
    content: bytes = field(repr=False)
    values: NDArray[Any]  # (H, W, C) upright, 0 is black
    white: int
    color: str
    palette: NDArray[np.uint8] | None = field(default=None, repr=False)
    turn: int = 1

    def image(self, channels: int, low: int, high: int) -> NDArray[Any] | None:
        """What a model sees; None if it is refused."""
        bands = self.values.shape[2]
        if self.color == "other":
            return None
        if self.palette is not None:
            return self.palette[self.values[..., 0]] if channels == 3 else None
        rgb = self.color == "rgb" or bands == 3
        most = {"rgb": 4, "bands": 0}.get(self.color, 4 if rgb else 2)
        if bands != channels and not (channels == 3 and bands <= most):
            return None
        kept = self.values[..., : channels if channels != 3 or rgb else 1].astype(float)
        scaled = kept / self.white if self.white <= 255 else ((kept - low) / (high - low)).clip(0, 1)
        return np.rint(255 * scaled) * np.ones(channels)

    def mask(self) -> NDArray[Any] | None:
        """Its raw values, 0 where they are at most half as opaque as others; None if it is refused."""
        bands, alpha = self.values.shape[2], self.values[..., -1:]
        values = (
            self.values if bands not in (2, 4) or self.color == "bands" else self.values * (alpha > alpha.max() // 2)
        )
        if self.color == "palette" or (self.color == "grey" and bands <= 2):
            return values[..., 0]
        readable = self.color != "other" and bands in (3, 4) and self.white == 255 and self.is_rgb
        return values[..., :3] if readable else None

    @property
    def is_rgb(self) -> bool:
        return self.color == "rgb" or self.values.shape[2] == 3


def drawn_values(draw: Draw, bands: int, white: int) -> NDArray[Any]:
    shape = draw(st.integers(1, 40)), draw(st.integers(1, 40)), bands
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    return random.integers(0, white, shape, np.uint16, endpoint=True).astype(np.uint8 if white < 256 else np.uint16)


def tiff(draw: Draw) -> Case:
    bits, bands = draw(st.sampled_from([1, 2, 4, 8, 8, 12, 16, 16])), draw(st.sampled_from([1, 1, 2, 3, 3, 4, 5, 16]))
    kinds = ["minisblack", "miniswhite", *(["palette"] if bands == 1 and bits == 8 else [])]
    kinds = kinds if bands < 3 else ["rgb", "minisblack", *(["separated"] if bands == 4 else [])]
    kind, white = draw(st.sampled_from(kinds)), 2**bits - 1
    values = stored = drawn_values(draw, bands, white)
    if kind == "miniswhite":
        stored = white - values
    extra = bands - (3 if kind == "rgb" else 4 if kind == "separated" else 1)
    planar = draw(st.sampled_from(["contig", "separate"])) if bands > 1 else "contig"
    packed = bits not in (8, 16)
    compression = None if packed else draw(st.sampled_from([None, "deflate", "lzw", "zstd", "packbits", "lzma"]))
    turn = draw(st.sampled_from([1, 1, *range(1, 10)]))
    options: dict[str, Any] = {"photometric": kind, "planarconfig": planar, "compression": compression}
    options |= {"bitspersample": bits} if packed else {}
    options |= {"predictor": True} if compression not in (None, "packbits") and draw(st.booleans()) else {}
    meaning = draw(st.sampled_from(["unassalpha", "assocalpha", "unspecified"]))
    options |= {"extrasamples": [meaning] * extra}
    options |= {"tile": (16, 32)} if not packed and draw(st.booleans()) else {"rowsperstrip": draw(st.integers(1, 50))}
    options |= {"extratags": [(274, "H", 1, turn, True)], "metadata": None, "bigtiff": draw(st.booleans())}
    palette = None
    if kind == "palette":
        colors = np.random.default_rng(0).integers(0, 65536, (3, 2**bits), np.uint16)
        options["colormap"], palette = colors, (colors >> 8).T.astype(np.uint8)
    file = io.BytesIO()
    written = np.moveaxis(stored, 2, 0) if planar == "separate" else stored if bands > 1 else stored[..., 0]
    order = "<" if packed else draw(st.sampled_from("<>"))  # tifffile packs the bits of ">" in a wrong order
    tifffile.imwrite(file, written, byteorder=order, **options)
    color = {"palette": "palette", "separated": "other", "rgb": "rgb"}.get(kind, "grey")
    if bands == 2 and meaning == "unspecified":
        color = "bands"
    return Case("a.tif", file.getvalue(), values, white, color, palette, turn if turn < 9 else 1)


def png(draw: Draw) -> Case:
    kind = draw(st.sampled_from([0, 2, 3, 4, 6]))
    bits = draw(st.sampled_from({0: [1, 2, 4, 8, 16], 3: [1, 2, 4, 8]}.get(kind, [8, 16])))
    values = drawn_values(draw, {2: 3, 4: 2, 6: 4}.get(kind, 1), 2**bits - 1)
    height, width = values.shape[:2]

    def rows(part: NDArray[Any]) -> bytes:
        samples = part.astype(">u2").view(np.uint8) if bits == 16 else part
        lines = samples.reshape(len(part), -1)
        if bits < 8:
            lines = np.packbits(np.unpackbits(lines[..., None], axis=2)[..., 8 - bits :].reshape(len(part), -1), axis=1)
        return b"".join(b"\0" + line.tobytes() for line in lines)

    interlaced = draw(st.booleans())
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    parts = [values[y::down, x::right] for y, x, down, right in passes] if interlaced else [values]
    data = zlib.compress(b"".join(rows(np.ascontiguousarray(part)) for part in parts if part.size))
    turn = draw(st.sampled_from([1, 1, *range(1, 10)]))
    exif = Image.Exif()
    exif[274] = turn
    exif_data = exif.tobytes()[6:][: draw(st.sampled_from([None, None, 2, 5, 9]))]
    colors = np.random.default_rng(0).integers(0, 256, (2**bits, 3), np.uint8)
    cut = draw(st.integers(0, len(data)))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced))]
    chunks += [(b"PLTE", colors.tobytes())] if kind == 3 else []
    chunks += [(b"eXIf", exif_data), (b"IDAT", data[:cut]), (b"IDAT", data[cut:])]
    color = {0: "grey", 4: "grey", 3: "palette"}.get(kind, "rgb")
    turn = turn if turn < 9 and len(exif_data) > 9 else 1
    content = png_of([*chunks, (b"IEND", b"")])
    return Case("a.png", content, values, 2**bits - 1, color, colors if kind == 3 else None, turn)


def pnm(draw: Draw) -> Case:
    kind, white = draw(st.sampled_from("2356")), draw(st.sampled_from([100, 255, 255, 255, 4095, 65535]))
    values = drawn_values(draw, 1 if kind in "25" else 3, white)
    data = (
        values.astype(">u2" if white > 255 else np.uint8).tobytes()
        if kind in "56"
        else " ".join(map(str, values.flat)).encode()
    )
    content = f"P{kind}\n# made here\n{values.shape[1]} {values.shape[0]}\n{white}\n".encode() + data
    read = white == 255 or (white == 65535 and kind == "5")
    return Case("a.pgm", content, values, white, ("grey" if kind in "25" else "rgb") if read else "other")


def pillows(draw: Draw) -> Case:
    """Formats that Pillow writes, of 8 bits."""
    kinds = ["bmp L", "bmp RGB", "bmp P", "gif P", "webp RGB", "webp RGBA", "ppm 1"]
    suffix, mode = draw(st.sampled_from(kinds)).split()
    values, palette = drawn_values(draw, {"RGB": 3, "RGBA": 4}.get(mode, 1), 1 if mode == "1" else 255), None
    shown = values if values.shape[2] > 1 else values[..., 0]
    picture = Image.fromarray(shown > 0 if mode == "1" else shown)
    if mode == "P":
        palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
        picture.putpalette(palette.tobytes())
    file = io.BytesIO()
    options = {"webp": {"lossless": True, "exact": True}, "gif": {"optimize": False}}.get(suffix, {})
    picture.save(file, suffix, **options)
    color = {"P": "palette", "L": "grey", "1": "grey"}.get(mode, "rgb")
    return Case(f"a.{suffix}", file.getvalue(), values, 1 if mode == "1" else 255, color, palette)


def attempt(read: Callable[..., Any], *args: Any, pick: int = 0, **options: Any) -> Any:
    """What is read, one of it if it is a pair, or None if it is refused."""
    try:
        result = read(*args, **options)
    except CrispsegError as error:
        assert "\n" not in str(error)
        return None
    return result[pick] if isinstance(result, tuple) and read is not image_size else result


def read_lossy_mask(path: Path) -> NDArray[Any]:
    with opened(path) as raster:
        return raster.labels(lossy=True)


def same(values: NDArray[Any] | None, expected: NDArray[Any] | None, way: str) -> None:
    assert (values is None) == (expected is None), f"{way}: {'refused' if values is None else 'read'}"
    if values is not None and expected is not None:
        np.testing.assert_array_equal(values, expected, way)


def check(case: Case, channels: int, low: int, high: int, cuts: list[int], folder: Path) -> None:
    path = folder / case.name
    path.write_bytes(case.content)
    case.values = UPRIGHT.get(case.turn, np.asarray)(case.values)
    image, mask = case.image(channels, low, high), case.mask()
    same(attempt(read_image, path, channels, (low, high)), image, "whole")
    same(attempt(read_lossy_mask, path), mask, "mask")
    if channels == 3:
        assert attempt(image_size, path) == (None if image is None else image.shape[:2])
    if case.turn == 1 and not (case.name == "a.pgm" and image is None):
        height = len(case.values)
        ends = sorted({0, height, *(cut % height for cut in cuts)})
        with opened(path) as raster:
            rows = [attempt(raster.rows(*span).pixels, channels, (low, high)) for span in pairwise(ends)]
        assert all((row is None) == (image is None) for row in rows)
        same(None if image is None else np.concatenate(rows), image, "rows")
    try:
        picture = Image.open(path if len(cuts) % 2 else io.BytesIO(case.content))
    except (UnidentifiedImageError, SyntaxError):
        picture = None
    sources: list[Any] = [] if picture is None else [picture]
    shown = "rgb" if case.values.shape[2] in (3, 4) else "grey"
    if case.white in (255, 4095, 65535) and (case.color == shown or case.values.shape[2] > 4):
        sources.append(case.values if case.values.shape[2] > 1 else case.values[..., 0])
    for source in sources:
        way = type(source).__name__
        same(attempt(read_source, source, channels, (low, high)), image, way)
        by_itself = attempt(read_image, path, channels, value_range="image")
        same(attempt(read_source, source, channels, "image"), by_itself, f"{way}, by its own range")
        files = attempt(write_pairs, [source], [np.zeros((2, 2), np.uint8)], folder)
        if files is not None:
            same(attempt(read_image, *files.iterdir(), channels, (low, high)), image, f"{way}, written")
        files = attempt(write_pairs, [np.zeros((2, 2), np.uint8)], [source], folder, pick=1)
        exact = mask if way == "ndarray" or case.name != "a.webp" else None
        same(files if files is None else attempt(read_mask, *files.iterdir()), exact, f"{way}, written mask")


@st.composite
def cases(draw: Draw) -> tuple[Case, int, int, int, list[int]]:
    case = draw(st.sampled_from([tiff, tiff, tiff, png, png, pnm, pillows]))(draw)
    low = draw(st.integers(0, 1000))
    channels = draw(st.sampled_from([3, 3, case.values.shape[2] if case.values.shape[2] > 1 else 3]))
    return case, channels, low, low + draw(st.integers(1, 70000)), draw(st.lists(st.integers(0, 40), max_size=3))


def campaign(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(cases())
    def run(drawn: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            check(*drawn, Path(folder))

    run()


def test_every_way_of_reading_gives_one_answer() -> None:
    campaign(60)
