"""Images larger than memory: reading in bands, blending tiles, writing as it goes, staying on the map."""

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from commands import Capture
from PIL import Image
from torch import Tensor

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.errors import CrispsegWarning
from crispseg.inference import tiling
from crispseg.inference.tiled import segment_tiff
from crispseg.inference.tiling import free_bytes, spans, tiled
from crispseg.io.images import read_mask
from crispseg.io.tiff import declares_empty_pixels, map_file, open_dataset

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

PALETTE = ((128, 64, 128), (70, 130, 180), (60, 130, 40), (20, 20, 160))


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (height, width, channels), dtype, endpoint=True)


def blocks(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
    return small.repeat(16, 0).repeat(16, 1)[:height, :width].copy()


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    """A TIFF of `(H, W, channels)`, RGB where it has three or four."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = image.shape
    options = {"photometric": "rgb" if count > 2 else "minisblack", "interleave": "pixel", **options}
    options |= {"height": height, "width": width, "count": count, "dtype": image.dtype}
    with rasterio.open(path, "w", driver="GTiff", **options) as file:
        file.write(image.transpose(2, 0, 1))
    return path


def ids(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def test_files_that_cannot_be_segmented_in_tiles(segmenter: Segmenter, tmp_path: Path, refuses: Any) -> None:
    image = noise(64, 64)
    Image.fromarray(image).save(tmp_path / "turned.tif", tiffinfo={274: 6})
    (tmp_path / "text.tif").write_text("no picture")
    cut = write(tmp_path / "cut.tif", noise(300, 200), compress="deflate", blockysize=16)
    cut.write_bytes(cut.read_bytes()[:-30000])
    (tmp_path / "out.tif").write_text("earlier")
    for path, phrases in [
        (tmp_path / "missing.tif", ("missing.tif does not exist",)),
        (tmp_path / "text.tif", ("text.tif is broken",)),
        (write(tmp_path / "float.tif", image / np.float32(2)), ("float32", "8 or 16")),
        (write(tmp_path / "bands.tif", noise(64, 64, 5), photometric="minisblack"), ("5 channel(s)", "in_chans 5")),
        (write(tmp_path / "two.tif", noise(64, 64, 2)), ("2 channel(s)", "in_chans 2")),
        (tmp_path / "turned.tif", ("orientation 6", "upright")),
        (write(tmp_path / "lab.tif", image, photometric="cielab"), ("colours", "grey or RGB")),
        (cut, ("cut.tif", "restore")),
    ]:
        with refuses(*phrases):
            segment_tiff(segmenter, path, tmp_path / "out.tif", tile=128)
    assert (tmp_path / "out.tif").read_text() == "earlier" and len([*tmp_path.iterdir()]) == 8


def test_rasterio_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuses: Any) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with refuses("needs rasterio", "pip install rasterio"), open_dataset(tmp_path / "a.tif"):
        pass


def test_labels_are_written_as_they_come(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (300, 517), np.uint8)
    labels[5, 5] = 255
    source = write(tmp_path / "in.tif", noise(300, 517))
    with open_dataset(source) as image, map_file(tmp_path / "labels.tif", image, PALETTE) as append:
        for top, bottom in ((0, 1), (1, 257), (257, 300)):
            append(labels[top:bottom])
    assert np.array_equal(read_mask(tmp_path / "labels.tif"), labels)
    with rasterio.open(tmp_path / "labels.tif") as file:
        assert np.array_equal(file.read(1), labels)
        assert file.block_shapes == [(256, 256)] and file.compression.name == "deflate" and file.nodata is None
        colors = file.colormap(1)
        assert [colors[index][:3] for index in (*range(4), 255)] == [*PALETTE, (0, 0, 0)]


TRANSFORM = rasterio.Affine(0.5, 0.1, 4e5, 0.1, -0.5, 5e6)
POINTS = [
    rasterio.control.GroundControlPoint(*values, 0.0) for values in ((0, 0, 7, 50), (99, 0, 7, 49), (0, 99, 8, 50))
]


@pytest.mark.parametrize("place", [{"transform": TRANSFORM, "nodata": 0}, {"gcps": POINTS}])
def test_labels_lie_where_the_image_lies(
    place: dict[str, Any], segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "info", replace(segmenter.info, temperature=0.2))
    image = blocks(150, 200) | 1
    image[:40, :50] = 0
    write(tmp_path / "in.tif", image, crs="EPSG:32632", **place)
    segment_tiff(segmenter, tmp_path / "in.tif", tmp_path / "out.tif", tmp_path / "sure.tif", tile=256)
    with rasterio.open(tmp_path / "sure.tif") as sure, rasterio.open(tmp_path / "in.tif") as before:
        confidence, place_of_it = sure.read(1), (sure.crs, sure.transform, len(sure.gcps[0]))
        assert place_of_it == (before.crs, before.transform, len(before.gcps[0]))
        expected = segmenter(before.read().transpose(1, 2, 0)).probabilities().max(0)
        if "nodata" in place:
            assert sure.nodata == 0
            expected[:40, :50] = 0
        assert abs(confidence / 255 - expected).max() < 0.01
    with rasterio.open(tmp_path / "in.tif") as before, rasterio.open(tmp_path / "out.tif") as after:
        assert (after.crs, after.transform) == (before.crs, before.transform)
        assert [point.asdict() for point in after.gcps[0]] == [point.asdict() for point in before.gcps[0]]
        assert after.gcps[1] == before.gcps[1]
        labels = after.read(1)
        if "nodata" in place:
            assert after.nodata == 255 and (labels[:40, :50] == 255).all()
            labels = labels[40:, 50:]
        assert (labels < 4).all()


@pytest.mark.parametrize("kind", ["nodata", "alpha", "band", "msk", "nothing"])
def test_pixels_without_data(kind: str, segmenter: Segmenter, tmp_path: Path) -> None:
    """They are ignored, whichever way a map declares them."""
    image, seen, options = blocks(150, 200) | 1, np.full((150, 200), 255, np.uint8), dict[str, Any]()
    seen[:40, :50] = 0
    if kind == "alpha":
        image, options = np.dstack([image, seen]), {"alpha": "yes"}
    elif kind == "nodata":
        image[:40, :50], options = 0, {"nodata": 0}
    path = write(tmp_path / "in.tif", image, **options)
    if kind in ("band", "msk"):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "band"), rasterio.open(path, "r+") as file:
            file.write_mask(seen)
    assert (tmp_path / "in.tif.msk").exists() == (kind == "msk")
    segment_tiff(segmenter, path, tmp_path / "out.tif", tile=256)
    labels = ids(tmp_path / "out.tif")
    np.testing.assert_array_equal(labels == 255, (seen == 0) & (kind != "nothing"))


def test_alpha_that_a_model_reads_is_data(tmp_path: Path) -> None:
    """GDAL calls the fourth of four bands alpha, also near infrared."""
    path = write(tmp_path / "in.tif", np.zeros((40, 40, 4), np.uint8), alpha="yes")
    with open_dataset(path) as image:
        assert declares_empty_pixels(image, 3) and not declares_empty_pixels(image, 4)


def test_overlaps_are_blended_linearly() -> None:
    """Against a blend in full, with weights laid out over the whole image."""
    image, tile, overlap = noise(333, 270), 128, 16
    kernel = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def convolved(pixels: np.ndarray) -> Tensor:
        return F.conv2d(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), kernel, padding=2)[0]

    total = torch.zeros(4, *image.shape[:2], dtype=torch.float64)
    weights = torch.zeros(image.shape[:2], dtype=torch.float64)
    down, across = (spans(length, tile, overlap) for length in image.shape[:2])

    def profile(index: int, tiles: list[Any], length: int) -> np.ndarray:
        """Corners of the weight along a side; half a pixel from the first to the last centre."""
        positions = np.arange(length) + 0.5
        here = tiles[index]
        rise = np.clip((positions - here.used) / overlap, 0, 1) if index else np.ones(length)
        fall = np.clip((here.end - positions) / overlap, 0, 1) if index < len(tiles) - 1 else np.ones(length)
        return rise * fall * (positions >= here.used) * (positions < here.end)

    for (i, row), (j, column) in itertools.product(enumerate(down), enumerate(across)):
        weight = torch.from_numpy(np.outer(profile(i, down, 333), profile(j, across, 270)))
        logits = torch.zeros_like(total)
        part = convolved(image[row.start : row.end, column.start : column.end])
        logits[:, row.start : row.end, column.start : column.end] = part.double()
        total += logits * weight
        weights += weight
    torch.testing.assert_close(weights, torch.ones_like(weights))
    agreeing = tiled(convolved, image, tile)[0] == total.argmax(0).numpy()
    assert agreeing.mean() > 0.9999
    whole = convolved(image).argmax(0).numpy()
    assert not np.array_equal(whole, total.argmax(0).numpy())


def test_an_array_in_tiles(segmenter: Segmenter, folder: Path, refuses: Any) -> None:
    image, in_tiles = blocks(150, 200), Segmenter(folder, "cpu", tile=128)
    result = in_tiles(image)
    assert np.array_equal(result.labels, tiled(segmenter.logits, image, 128)[0]) and len(np.unique(result.labels)) > 1
    assert np.array_equal(in_tiles.labels(image), result.labels)
    with refuses("the image", "tiles"):
        result.probabilities()
    assert in_tiles(image[:128, :128]).probabilities().shape == (4, 128, 128)  # no larger than a tile
    with refuses("tile is 64; give a number greater than or equal to 128"):
        Segmenter(folder, "cpu", tile=64)


def test_memory_asks_for_tiles(
    segmenter: Segmenter, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    image = blocks(300, 300)
    for name in ("a.png", "b.png"):
        Image.fromarray(image).save(tmp_path / name)
    need = segmenter._tiling.bytes_per_pixel * image.shape[0] * image.shape[1]
    monkeypatch.setattr(tiling, "LARGE", 1000)
    argv = ["predict", str(folder), str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    monkeypatch.setattr(tiling, "free_bytes", lambda device: int(1.1 * need))
    assert main([*argv, f"--out={tmp_path / 'tiles'}"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "tiles of 256 pixels" in line
    for name in ("a.png", "b.png"):
        assert np.array_equal(read_mask(tmp_path / "tiles" / name), tiled(segmenter.logits, image, 256)[0])
    for enough in (int(2 * need), None):
        monkeypatch.setattr(tiling, "free_bytes", lambda device, enough=enough: enough)
        assert main([*argv, f"--out={tmp_path / 'whole'}"]) == 0
        assert capsys.readouterr().err == ""
        assert np.array_equal(read_mask(tmp_path / "whole/a.png"), segmenter(image).labels)
    monkeypatch.setattr(tiling, "free_bytes", lambda device: 1)
    with pytest.warns(CrispsegWarning, match="tiles of 128 pixels"):
        Segmenter(folder, "cpu").labels(image)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_is_free_on_a_gpu() -> None:
    device = torch.device("cuda", 0)
    before = free_bytes(device)
    held = torch.zeros(2**26, device=device)
    assert before is not None and before - (free_bytes(device) or 0) >= held.nbytes
