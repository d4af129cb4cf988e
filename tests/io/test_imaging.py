"""Reading and writing of pictures: files that are rare but sound, and every way in which a file can be bad."""

import errno
import io
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from conftest import Refuses
from fuzz.damage import png_chunks, png_of
from PIL import Image, ImageFile

from crispseg.data.named import write_pairs
from crispseg.errors import CrispsegError
from crispseg.folders.tree import Tree
from crispseg.inference.image_files import read_source
from crispseg.io.images import find_images, image_size, read_image, read_mask, write_image
from crispseg.io.opening import faults, opened
from crispseg.io.tiff_reading import stack_pages

pytestmark = pytest.mark.filterwarnings("ignore")  # of rasterio, and of unknown value ranges
RGB = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
GREY = RGB[..., 0]
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90))


def claiming(width: int, height: int) -> bytes:
    """A grey PNG whose header claims a size; it has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")])


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_lossy_masks_are_read_on_demand_only(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "x.png", RGB, format="JPEG"), saved(tmp_path / "x.tif", RGB, compression="jpeg")):
        with pytest.raises(CrispsegError, match="JPEG"):
            read_mask(path)
        with opened(path) as raster:
            assert raster.labels(lossy=True).shape == RGB.shape


BAD = {  # file → what it holds, what is said of it
    "empty.png": (b"", "is empty"),
    "text.png": (b"hello", "is not an image"),
    "huge.png": (claiming(2**15, 2**12 + 1), "claims more than 134,217,728 pixels"),
    "absurd.png": (claiming(2**30, 2**30), "claims more than 134,217,728 pixels"),
    "missing.png": (None, "does not exist"),
    "folder.png": (None, "is a folder"),
    "good.png/x.png": (None, "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, refuses: Refuses) -> None:
    content, reason = BAD[name]
    (tmp_path / "folder.png").mkdir()
    saved(tmp_path / "good.png", RGB)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask, image_size):
        with refuses(str(tmp_path / name), reason, "; "):
            read(tmp_path / name)


def test_images_are_written_as_they_are(tmp_path: Path) -> None:
    for values in (RGB, RGB[::-1], RGB[:1].swapaxes(0, 1), GREY, GREY[:1].T, GREY.astype(np.uint16) * 200):
        write_image(tmp_path / "x.png", values)
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), values)
    with pytest.raises(CrispsegError, match=r"unknown image suffix '\.xyz'"):
        write_image(tmp_path / "x.xyz", RGB)
    (tmp_path / "y.png").write_bytes(imagecodecs.png_encode(RGB.astype(np.uint16) * 200))
    with opened(tmp_path / "y.png") as raster:
        np.testing.assert_array_equal(raster.values, RGB.astype(np.uint16) * 200)


def test_images_are_found_by_suffix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen = "notes.txt", ".hidden.png", "sub/._c.jpg", ".ipynb_checkpoints/a-checkpoint.jpg", "@eaDir/a.jpg/thumb.jpg"
    for name in ("b.PNG", "a.jpg", "sub/c.TifF", *unseen):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.jpg", "b.PNG", "sub/c.TifF"]
    with pytest.raises(CrispsegError, match="missing"):
        find_images(tmp_path / "nowhere")
    with pytest.raises(CrispsegError, match="not a folder"):
        find_images(tmp_path / "a.jpg")
    entries = os.scandir

    def without_permission(folder: Any) -> Any:
        if str(folder).endswith("sub"):
            raise PermissionError(13, "Permission denied", str(folder))
        return entries(folder)

    monkeypatch.setattr(os, "scandir", without_permission)
    for read in (find_images, Tree.of):
        with pytest.raises(CrispsegError, match=re.escape(f"{tmp_path / 'sub'} cannot be read (Permission denied)")):
            read(tmp_path)


@pytest.mark.parametrize("kind", ["EPS", "ICO"])
def test_formats_that_start_programs_or_lie_about_their_size_are_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was started"))
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path, kind)
    for read in (read_image, read_mask, image_size):
        with refuses(f"{path} is not an image in a known format"):
            read(path)


def deep_jpeg2000(values: np.ndarray, bits: int) -> bytes:
    """A JPEG 2000 file of more than 8 bits, which Pillow would shorten or scale."""
    return bytes(imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits, codecformat="jp2", reversible=True))


SUFFIXES_OF_FORMATS = {
    ".apng": "PNG",
    ".dib": "BMP",
    ".jpe": "JPEG",
    ".jpf": "JPEG2000",
    ".jpx": "JPEG2000",
    ".pbm": "PPM",
    ".pnm": "PPM",
}


def test_formats_of_phones_and_satellites(tmp_path: Path, refuses: Refuses) -> None:
    smooth = np.asarray(Image.fromarray(RGB[:6, :9]).resize((90, 60)))
    for name, most in (("a.avif", 30), ("a.jp2", 0), ("a.j2k", 0), ("a.tga", 0), ("a.jfif", 30)):
        path = saved(tmp_path / name, smooth, **({"format": "JPEG"} if name == "a.jfif" else {}))
        assert np.abs(read_image(path).astype(int) - smooth).max() <= most and image_size(path) == (60, 90)
        if name != "a.tga":
            with refuses(name, "may change values"):
                read_mask(path)
        path.write_bytes(path.read_bytes()[:-100])
        with refuses(name, "is broken"):
            read_image(path)
    for suffix, form in SUFFIXES_OF_FORMATS.items():
        path = saved(tmp_path / f"other{suffix}", GREY > 99 if suffix == ".pbm" else smooth, format=form)
        assert path in find_images(tmp_path) and read_image(path).shape == RGB.shape
    for bits, values in ((12, RGB.astype(np.uint16) * 16), (16, GREY.astype(np.uint16) * 200)):
        (tmp_path / "deep.jp2").write_bytes(deep_jpeg2000(values, bits))
        with opened(tmp_path / "deep.jp2") as raster:
            assert raster.bit_depth == bits and np.array_equal(raster.values.squeeze(), values)
    (tmp_path / "deep.jp2").write_bytes(deep_jpeg2000(GREY.astype(np.int16), 16))
    with refuses("deep.jp2 contains int16", "unsigned"):
        read_image(tmp_path / "deep.jp2")
    (tmp_path / "a.tga").write_bytes(b"TGA has no signature, so that a text could be one")
    with refuses("a.tga is not an image in a known format"):
        read_image(tmp_path / "a.tga")


def test_raw_photos_are_not_read_as_their_previews(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.dng", GREY)
    with refuses("a.dng is not an image in a known format"):
        read_image(tmp_path / "a.dng")


def as_png(values: np.ndarray | Image.Image) -> bytes:
    file = io.BytesIO()
    (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(file, "PNG")
    return file.getvalue()


def in_palette(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(values)
    picture.putpalette(list(range(12)))
    return picture


PNGS = {"grey": as_png(GREY), "palette": as_png(in_palette(GREY % 4)), "bits": as_png(GREY > 99), "rgb": as_png(RGB)}
PNGS["deep"] = as_png(GREY.astype(np.uint16) * 100)


@pytest.mark.parametrize("kind", PNGS)
def test_pngs_that_lost_their_tail_are_refused(kind: str, tmp_path: Path) -> None:
    """Cut, or zeros after a power loss, anywhere; or with fewer rows than the header says."""
    path, content = tmp_path / "a.png", PNGS[kind]
    chunks = dict(png_chunks(content))
    rows = zlib.decompress(chunks.pop(b"IDAT"))
    short = [*list(chunks.items())[:-1], (b"IDAT", zlib.compress(rows[: len(rows) // 2])), (b"IEND", b"")]
    ends = [*np.random.default_rng(0).integers(40, len(content) - 13, 15), len(content) - 13]  # IEND has 12 bytes
    for damaged in [
        png_of(short),
        *(content[:end] + bytes(keep * (len(content) - end)) for end in ends for keep in (0, 1)),
    ]:
        path.write_bytes(damaged)
        for read in (read_image, read_mask):
            with pytest.raises(CrispsegError, match=r"a\.png"):
                read(path)
        with pytest.raises((CrispsegError, OSError)):
            read_source(Image.open(path), 3)


def test_signed_bytes_are_refused(tmp_path: Path, refuses: Refuses) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), np.int8))
    for read in (read_image, read_mask):
        with refuses("a.tif contains int8", "unsigned"):
            read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.ones((4, 4), np.int16), photometric="miniswhite")
    with refuses("b.tif contains int16", "unsigned"):
        read_mask(tmp_path / "b.tif")


def test_ycbcr_without_jpeg_is_refused(tmp_path: Path, refuses: Refuses) -> None:
    Image.fromarray(RGB).convert("YCbCr").save(tmp_path / "a.tif", compression="tiff_lzw")
    with refuses("has YCbCr colours", "grey or RGB"):
        read_image(tmp_path / "a.tif")


def test_cut_jpegs_are_refused_in_programs_that_load_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    content = saved(tmp_path / "whole.jpg", RGB).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    read_image(tmp_path / "whole.jpg")
    with refuses("cut.jpg", "is broken"):
        read_image(tmp_path / "cut.jpg")


def test_pil_masks_with_a_short_palette(tmp_path: Path) -> None:
    """A PNG of 2 bits would make their 255 a 3."""
    ids = (GREY % 3).copy()
    ids[:5] = 255
    _, masks = write_pairs([RGB], [in_palette(ids)], tmp_path)
    assert np.array_equal(read_mask(masks / "00000.png"), ids)


def test_masked_pixels_are_ignored_in_masks_and_black_in_images(tmp_path: Path, refuses: Refuses) -> None:
    hidden = GREY > 128
    image = np.ma.masked_array(RGB, np.repeat(hidden[..., None], 3, 2))
    np.testing.assert_array_equal(read_source(image, 3)[0], np.where(image.mask, 0, RGB))
    for number, values in enumerate((GREY % 3, GREY % 3 > 0, (GREY % 3).astype(np.int8), (GREY % 3).astype(float))):
        _, masks = write_pairs([RGB], [np.ma.masked_array(values, hidden)], tmp_path / str(number))
        np.testing.assert_array_equal(read_mask(masks / "00000.png"), np.where(hidden, 255, values.astype(int)))
    with refuses("masks[0]", "no colour for masked pixels"):
        write_pairs([RGB], [image], tmp_path)


@pytest.mark.parametrize("kind", [np.matrix, np.recarray, np.ma.MaskedArray])
def test_subclasses_of_arrays_are_read_as_arrays(kind: Any) -> None:
    expected = read_source(GREY, 3)[0]
    values = read_source(GREY.view(kind), 3)[0]
    assert type(values) is np.ndarray and np.array_equal(values, expected)


ZEROS = torch.zeros(3, 60, 90)
ODD = {
    "no dimension": (np.zeros((), np.uint8), "is not an image"),
    "one dimension": (np.zeros(60, np.uint8), "is not an image"),
    "four dimensions": (np.zeros((2, 3, 4, 5), np.uint8), "is not an image"),
    "complex": (ZEROS.to(torch.complex64).conj(), "complex64"),
    "many pixels": (np.broadcast_to(np.float32(0), (100_000, 100_000, 3)), "more than 134,217,728 pixels"),
    "many channels": (np.broadcast_to(np.float32(0), (9, 9, 10**12)), "is not an image"),
    "large tensor": (torch.zeros(1, 1, 1).expand(3, 100_000, 100_000), "more than 134,217,728 pixels"),
    "large picture": (Image.new("1", (20_000, 20_000)), "more than 134,217,728 pixels"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_refused(name: str, tmp_path: Path, refuses: Refuses) -> None:
    values, reason = ODD[name]
    with refuses(reason):
        read_source(values, 3)
    with refuses("masks[0]"):
        write_pairs([RGB], [values], tmp_path)


def test_pil_images_that_cannot_be_read(tmp_path: Path, refuses: Refuses) -> None:
    (tmp_path / "cut.png").write_bytes(PNGS["rgb"][:-2000])
    (tmp_path / "a.png").write_bytes(PNGS["rgb"])
    with Image.open(tmp_path / "a.png") as closed:
        pass
    for picture, reason in ((closed, "its file is closed"), (Image.open(tmp_path / "cut.png"), "is broken")):
        with refuses("the PIL image", reason):
            read_source(picture, 3)
        with refuses("images[0]: the PIL image", reason):
            write_pairs([picture], [GREY], tmp_path)


@pytest.mark.parametrize(
    ("error", "phrase"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "cannot be read (Too many open files)"),
        (OSError(errno.EIO, "Input/output error"), "cannot be read (Input/output error)"),
        (ImportError("no decoder"), "cannot be read (no decoder)"),
        (OSError(errno.EINVAL, "Invalid argument"), "is broken"),
        (OSError("image file is truncated"), "is broken"),
    ],
)
def test_only_damage_is_reported_as_damage(error: Exception, phrase: str, tmp_path: Path) -> None:
    with pytest.raises(CrispsegError, match=re.escape(phrase)) as caught, faults(tmp_path / "a.png"):
        raise error
    assert ("remove it" in str(caught.value)) == (phrase == "is broken")


@pytest.mark.parametrize(
    ("axes", "shape", "options", "pages"),
    [
        ("ZYX", (3,), {"imagej": True}, 3),
        ("TZYX", (2, 3), {"imagej": True}, 6),
        ("ZYXS", (2,), {"imagej": True}, 2),
        ("ZYX", (3,), {"ome": True}, 3),
        ("TYX", (3,), {}, 3),
        ("CYX", (3,), {"imagej": True}, 0),  # pages that are channels
        ("ZCYX", (2, 3), {"imagej": True}, 0),
        ("QYX", (3,), {}, 0),  # as tifffile writes an array
        ("ZYX", (3,), {"imagej": True, "truncate": True}, 0),  # pages without headers
        ("YX", (), {}, 0),
    ],
)
def test_pages_are_images_if_their_axes_are_depth_or_time(
    axes: str, shape: tuple[int, ...], options: dict[str, Any], pages: int, tmp_path: Path
) -> None:
    path, form = tmp_path / "stack.tif", (*shape, 8, 9, *((3,) if axes.endswith("S") else ()))
    values = np.arange(np.prod(form)).astype(np.uint8).reshape(form)
    options |= {"photometric": "rgb" if axes.endswith("S") else "minisblack"}
    tifffile.imwrite(path, values, metadata={"axes": axes}, **options)
    assert stack_pages(path) == pages
    expected = values.reshape(-1, 8, 9, form[-1] if axes.endswith("S") else 1)
    for number in range(1, pages + 1):
        page = read_image(tmp_path / f"stack.tif[{number}]")
        assert np.array_equal(page, np.broadcast_to(expected[number - 1], (8, 9, 3)))


def test_files_of_several_pages_or_frames(tmp_path: Path, refuses: Refuses) -> None:
    """Smaller copies and masks, which maps have, are none."""
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack")
    frames = [Image.fromarray(255 - GREY)]
    for suffix in ("gif", "webp", "png"):
        Image.fromarray(GREY).save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames)
    for kind in ("imagej", "shaped"):  # files above 4 GB have only the first of the headers
        options: dict[str, Any] = {"imagej": True} if kind == "imagej" else {"photometric": "minisblack"}
        tifffile.imwrite(tmp_path / f"{kind}.tif", np.stack([GREY, GREY]), truncate=True, **options)
    for path in tmp_path.iterdir():
        for read in (read_image, read_mask):
            with refuses(str(path), "several pages or frames", "save each"):
                read(path)
    with tifffile.TiffWriter(tmp_path / "map.tif") as file:
        for step, kind in ((1, 0), (2, 1), (4, 1), (1, 4)):
            values = GREY > 9 if kind == 4 else GREY[::step, ::step]
            file.write(values, subfiletype=kind, tile=(16, 16), photometric="minisblack")
    assert np.array_equal(read_mask(tmp_path / "map.tif"), GREY)
    with Image.open(tmp_path / "a.tif") as stack:
        stack.seek(1)
        assert np.array_equal(read_source(stack, 3)[0][..., 0], GREY)


@pytest.mark.parametrize("description", ["ImageJ=1.11a\nimages=5\n", '{"shape": [5, 60, 90]}'])
def test_a_page_with_the_description_of_a_stack_is_read(description: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY, description=description, metadata=None)
    assert np.array_equal(read_mask(tmp_path / "a.tif"), GREY)


@pytest.mark.parametrize("tag", [258, 259, 262])
def test_broken_tags_of_pixels_are_refused(tag: int, tmp_path: Path, refuses: Refuses) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    content = bytearray(path.read_bytes())
    place = content.index(struct.pack("<HH", tag, 3))  # the tag, and its type
    content[place + 2 : place + 4] = b"\0\0"
    path.write_bytes(content)
    with refuses("a.tif is broken", f"tag {tifffile.TIFF.TAGS[tag]} "):
        read_image(path)
