"""Reading and writing pictures, and every way in which a file can be bad."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from crispseg.errors import CrispsegError
from crispseg.inference.image_files import read_source
from crispseg.io.images import colorize, find_images, image_size, read_image, read_mask, write_image, write_labels

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90))


def png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    """A grey PNG, made by hand where Pillow cannot write one."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(RGB, (9, 9, 1))).save(buffer, form)
    return buffer.getvalue()


def test_exif_orientation_of_a_photo_is_applied(tmp_path: Path) -> None:
    corners = np.full((32, 48, 3), 128, np.uint8)
    corners[:16, :24] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "x.jpg", corners, exif=exif)
    assert np.abs(read_image(path).astype(int) - np.rot90(corners, -1)).mean() < 4 and image_size(path) == (48, 32)


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", ".tif"), ("CMYK", ".jpg"), ("CMYK", ""), ("LAB", ".tif")])
def test_other_colours_are_refused(tmp_path: Path, mode: str, suffix: str, refuses: Any) -> None:
    picture = Image.fromarray(RGB).convert("RGB" if mode == "LAB" else mode)
    picture = (
        ImageCms.profileToProfile(picture, *map(ImageCms.createProfile, ("sRGB", "LAB")), outputMode="LAB")
        if mode == "LAB"
        else picture
    )
    with refuses(f"has {mode.replace('LAB', 'CIELAB')} colours", "grey or RGB"):
        if suffix:
            picture.save(tmp_path / f"x{suffix}")
            read_image(tmp_path / f"x{suffix}")
        else:
            read_source(picture, 3)


def test_lossy_masks_are_read_on_demand_only(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "x.png", RGB, format="JPEG"), saved(tmp_path / "x.tif", RGB, compression="jpeg")):
        with pytest.raises(CrispsegError, match="JPEG"):
            read_mask(path)
        assert read_mask(path, lossy=True).shape == RGB.shape


GOOD_PNG = encoded("PNG")
BAD = {  # file → what it holds, what is said of it
    "empty.png": (b"", "is empty"),
    "truncated.png": (GOOD_PNG[: len(GOOD_PNG) // 2], "is broken"),
    "truncated.jpg": (encoded("JPEG")[:-900], "is broken"),
    "text.png": (b"hello", "is not an image"),
    "huge.png": (png(2**15, 2**12 + 1, 8, b""), "claims more than 134,217,728 pixels"),
    "absurd.png": (png(2**30, 2**30, 8, b""), "claims more than 134,217,728 pixels"),
    "missing.png": (None, "does not exist"),
    "folder.png": (None, "is a folder"),
    "good.png/x.png": (None, "does not exist"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, refuses: Any) -> None:
    content, reason = BAD[name]
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "good.png").write_bytes(GOOD_PNG)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    # What is truncated has a whole header, and a JPEG is no mask anyway.
    for read in [read_image] if name.startswith("truncated") else [read_image, read_mask, image_size]:
        with refuses(str(tmp_path / name), reason, "; "):
            read(tmp_path / name)


def test_labels_are_written_as_ids(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 2], [255, 2, 0]])
    write_labels(tmp_path / "new" / "x.png", labels, PALETTE)
    np.testing.assert_array_equal(read_mask(tmp_path / "new" / "x.png"), labels)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "x.png"), colorize(labels, PALETTE))
    np.testing.assert_array_equal(colorize(labels, PALETTE)[:, 0], [PALETTE[0], (0, 0, 0)])


@pytest.mark.parametrize("wrong", [3, -1, 256, 258])
def test_labels_outside_the_palette_are_refused(tmp_path: Path, wrong: int) -> None:
    for attempt in (colorize, lambda *args: write_labels(tmp_path / "x.png", *args)):
        with pytest.raises(ValueError, match="palette of 3"):
            attempt(np.array([[0, wrong]]), PALETTE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (37, 50, 3), (5, 6), (5, 6, 2), (5, 6, 4)])
def test_images_are_written_as_they_are(shape: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    for picture in (values, values[::-1], np.zeros(shape, np.uint8)):
        write_image(tmp_path / "x.png", picture)
        np.testing.assert_array_equal(np.array(Image.open(tmp_path / "x.png")), picture)
    with pytest.raises(CrispsegError, match=r"unknown image suffix '\.xyz'"):
        write_image(tmp_path / "x.xyz", values)
    with pytest.raises(TypeError):
        write_image(tmp_path / "y.png", np.zeros((4, 4, 3), np.uint16))
    assert not (tmp_path / "y.png").exists()


def test_images_are_found_by_suffix(tmp_path: Path) -> None:
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


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PDF", "PCX"])
def test_formats_that_start_programs_or_lie_about_their_size_are_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was started"))
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path, kind)
    for read in (read_image, read_mask, image_size):
        with refuses(f"{path} is not an image in a known format"):
            read(path)
