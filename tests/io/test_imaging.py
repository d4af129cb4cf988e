"""Reading and writing pictures, and every way in which a file can be bad."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.damage import png_of
from PIL import Image, ImageCms

from crispseg.errors import CrispsegError
from crispseg.io.images import colorize, find_images, image_size, read_image, read_mask, write_image, write_labels

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
PALETTE = ((10, 20, 30), (40, 50, 60), (70, 80, 90))


def claiming(width: int, height: int) -> bytes:
    """A grey PNG whose header claims a size; it has no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return png_of([(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")])


def saved(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def test_exif_orientation_of_a_photo_is_applied(tmp_path: Path) -> None:
    corners = np.full((32, 48, 3), 128, np.uint8)
    corners[:16, :24] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path / "x.jpg", corners, exif=exif)
    assert np.abs(read_image(path).astype(int) - np.rot90(corners, -1)).mean() < 4 and image_size(path) == (48, 32)


def test_other_colours_are_refused(tmp_path: Path, refuses: Any) -> None:
    profiles = map(ImageCms.createProfile, ("sRGB", "LAB"))
    ImageCms.profileToProfile(Image.fromarray(RGB), *profiles, outputMode="LAB").save(tmp_path / "CIELAB.tif")
    saved(tmp_path / "CMYK.jpg", RGB, "CMYK")
    for path in tmp_path.iterdir():
        with refuses(f"has {path.stem} colours", "grey or RGB"):
            read_image(path)


def test_lossy_masks_are_read_on_demand_only(tmp_path: Path) -> None:
    for path in (saved(tmp_path / "x.png", RGB, format="JPEG"), saved(tmp_path / "x.tif", RGB, compression="jpeg")):
        with pytest.raises(CrispsegError, match="JPEG"):
            read_mask(path)
        assert read_mask(path, lossy=True).shape == RGB.shape


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
def test_bad_files_are_named_in_one_line(tmp_path: Path, name: str, refuses: Any) -> None:
    content, reason = BAD[name]
    (tmp_path / "folder.png").mkdir()
    saved(tmp_path / "good.png", RGB)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (read_image, read_mask, image_size):
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


def test_images_are_written_as_they_are(tmp_path: Path) -> None:
    for values in (RGB, RGB[::-1], RGB[..., 0], RGB[..., 0].astype(np.uint16) * 200):
        write_image(tmp_path / "x.png", values)
        np.testing.assert_array_equal(read_mask(tmp_path / "x.png"), values)
    with pytest.raises(CrispsegError, match=r"unknown image suffix '\.xyz'"):
        write_image(tmp_path / "x.xyz", RGB)
    with pytest.raises(TypeError):
        write_image(tmp_path / "y.png", RGB.astype(np.uint16))
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


@pytest.mark.parametrize("kind", ["EPS", "ICO"])
def test_formats_that_start_programs_or_lie_about_their_size_are_not_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("a program was started"))
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path, kind)
    for read in (read_image, read_mask, image_size):
        with refuses(f"{path} is not an image in a known format"):
            read(path)
