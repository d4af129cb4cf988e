"""Images larger than memory: reading in bands, blending tiles, writing as it goes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg import SegmentationModel, Segmenter, create_model
from crispseg.cli.main import main
from crispseg.imaging import read_image, read_mask
from crispseg.inference.tiff import TiffBands, write_label_tiff
from crispseg.inference.tiled import blended_rows, segment_tiff, spans

tifffile = pytest.importorskip("tifffile")

PALETTE = ((128, 64, 128), (70, 130, 180), (60, 130, 40), (20, 20, 160))
Capture = pytest.CaptureFixture[str]


def noise(height: int, width: int, channels: int = 3, dtype: Any = np.uint8) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, top, (height, width, channels), dtype, endpoint=True)


def blocks(height: int, width: int) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 256, (-(-height // 16), -(-width // 16), 3), np.uint8)
    return small.repeat(16, 0).repeat(16, 1)[:height, :width].copy()


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    """A small model whose classes all occur."""
    torch.manual_seed(0)
    model = create_model("fpn", num_classes=4, backbone="test_efficientnet", width=8)
    images = torch.from_numpy(blocks(128, 128)).permute(2, 0, 1)[None] / 128 - 1  # (1, 3, 128, 128)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9  # one batch sets the statistics
    with torch.no_grad():
        model.train()(images)
        model.classifier.bias -= model.eval().coarse_logits(images).mean(dim=(0, 2, 3))
    return model


@pytest.fixture(scope="module")
def segmenter(model: SegmentationModel) -> Segmenter:
    return Segmenter(model, "cpu")


# Reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "zlib"},
        {"rowsperstrip": 13, "compression": "lzw", "predictor": True},
        {"tile": (32, 48)},
        {"tile": (32, 48), "compression": "zlib"},
        {"compression": "zlib", "bigtiff": True, "byteorder": ">"},
        {"compression": "zlib", "predictor": True, "tile": (32, 48), "byteorder": ">"},
    ],
)
def test_bands_are_the_rows_of_the_image(options: dict[str, Any], tmp_path: Path) -> None:
    if "predictor" in options:
        pytest.importorskip("imagecodecs")
    image = noise(101, 75)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", **options)
    with TiffBands(tmp_path / "a.tif") as bands:
        assert bands.size == (101, 75)
        for top, bottom in ((0, 101), (0, 1), (13, 14), (20, 64), (32, 96), (100, 101)):
            assert np.array_equal(bands.read(top, bottom), image[top:bottom])


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_other_kinds_become_rgb_as_elsewhere(byteorder: str, compression: str | None, tmp_path: Path) -> None:
    grey16, rgba = noise(40, 50, 1, np.uint16)[..., 0], noise(40, 50, 4)
    options: dict[str, Any] = {"byteorder": byteorder, "compression": compression, "rowsperstrip": 8}
    tifffile.imwrite(tmp_path / "grey16.tif", grey16, photometric="minisblack", **options)
    tifffile.imwrite(tmp_path / "grey.tif", (grey16 >> 8).astype(np.uint8), photometric="minisblack", **options)
    tifffile.imwrite(tmp_path / "rgba.tif", rgba, photometric="rgb", extrasamples=["unassalpha"], **options)
    for name in ("grey16", "grey", "rgba"):
        with TiffBands(tmp_path / f"{name}.tif") as bands:
            assert np.array_equal(bands.read(3, 37), read_image(tmp_path / f"{name}.tif")[3:37])
    with TiffBands(tmp_path / "rgba.tif", 4) as bands:
        assert np.array_equal(bands.read(0, 40), rgba)


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
@pytest.mark.parametrize("chunks", [{"rowsperstrip": 32}, {"tile": (32, 48)}])
def test_jpeg_inside_a_tiff(chunks: dict[str, Any], photometric: str, tmp_path: Path) -> None:
    """Its tables are tags of their own, read from the file between two strips."""
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(
        tmp_path / "a.tif", blocks(101, 75), photometric=photometric, compression="jpeg", metadata=None, **chunks
    )
    whole = read_image(tmp_path / "a.tif").astype(int)
    for top, bottom in ((40, 80), (0, 101)):
        with TiffBands(tmp_path / "a.tif") as bands:  # the first band of all is the one that looks for the tables
            assert abs(bands.read(top, bottom) - whole[top:bottom]).max() <= 2


def test_files_that_cannot_be_read_in_parts(tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(64, 64)

    def write(name: str, array: np.ndarray = image, **options: Any) -> Path:
        tifffile.imwrite(tmp_path / name, array, **{"photometric": "rgb", **options})
        return tmp_path / name

    for path, channels, phrases in [
        (tmp_path / "missing.tif", 3, ("missing.tif does not exist",)),
        (write("float.tif", image.astype(np.float32)), 3, ("32 bits", "8 or 16 unsigned")),
        (write("planes.tif", image.transpose(2, 0, 1), planarconfig="separate"), 3, ("plane by plane",)),
        (write("white.tif", image[..., 0], photometric="miniswhite"), 3, ("MINISWHITE", "grey or RGB")),
        (write("ycbcr.tif", photometric="ycbcr"), 3, ("YCbCr", "save it as RGB")),
        (write("rgb.tif"), 4, ("3 channel(s) of 8 bits", "in_chans 3")),
        (write("turned.tif", extratags=[(274, 3, 1, 6, True)]), 3, ("orientation 6", "upright")),
    ]:
        with refuses(*phrases), TiffBands(path, channels):
            pass
    (tmp_path / "text.tif").write_text("no picture")
    with refuses("text.tif is no TIFF"), TiffBands(tmp_path / "text.tif"):
        pass
    whole = write("half.tif", compression="zlib", rowsperstrip=8)
    whole.write_bytes(whole.read_bytes()[:-6000])
    with refuses("half.tif"), TiffBands(whole) as bands:
        bands.read(0, 64)
    plain = write("cut.tif", rowsperstrip=64)
    plain.write_bytes(plain.read_bytes()[:-6000])
    with refuses("cut.tif", "rows 20 to 63", "ends before them"), TiffBands(plain) as bands:
        assert np.array_equal(bands.read(0, 20), image[:20])
        bands.read(20, 64)
    monkeypatch.setattr("crispseg.inference.tiff.MAX_SEGMENT", 64 * 64)
    with refuses("one.tif is compressed in strips of 12,288 bytes", "tiffcp -t"):
        TiffBands(write("one.tif", compression="zlib", rowsperstrip=64))
    with TiffBands(write("plain.tif", rowsperstrip=64)) as bands:  # rows that are not compressed can be found
        assert np.array_equal(bands.read(9, 33), image[9:33])


# Writing ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("heights", [[300], [1, 256, 43], [100, 100, 100]])
def test_labels_are_written_as_they_come(heights: list[int], tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (300, 517), np.uint8)
    labels[5, 5] = 255
    path = tmp_path / "labels.tif"
    ends = list(itertools.accumulate(heights))
    rows = (labels[end - height : end] for height, end in zip(heights, ends, strict=True))
    write_label_tiff(path, rows, labels.shape, PALETTE)
    assert np.array_equal(tifffile.imread(path), labels) and np.array_equal(read_mask(path), labels)
    page = tifffile.TiffFile(path).pages[0]
    assert page.is_tiled and page.photometric.name == "PALETTE" and page.dtype == np.uint8
    assert (page.colormap[:, :4].T >> 8).tolist() == [list(color) for color in PALETTE]
    assert not page.colormap[:, 255].any()


# Blending -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [5, 128, 129, 143, 144, 240, 241, 1000])
def test_tiles_cover_a_side_and_overlap(length: int) -> None:
    tiles = spans(length, 128, 16)
    assert tiles[0].used == tiles[0].start == 0 and tiles[-1].end == length
    for left, right in itertools.pairwise(tiles):
        assert right.used == left.end - 16 >= right.start and right.end > left.end
        assert right.end - right.start == 128
    # No more than two tiles count anywhere, so two ramps that add up to 1 are all there is.
    assert all(after.used >= before.end for before, after in zip(tiles, tiles[2:], strict=False))


def labels_of(function: Any, image: np.ndarray, classes: int, tile: int) -> np.ndarray:
    rows = blended_rows(
        function, lambda top, bottom: image[top:bottom], image.shape[:2], classes, tile, torch.device("cpu")
    )
    return np.concatenate(list(rows))


@pytest.mark.parametrize("size", [(300, 290), (128, 400), (129, 128), (60, 61)])
def test_tiles_of_a_pixelwise_model_give_the_labels_of_the_whole_image(size: tuple[int, int]) -> None:
    image = noise(*size)

    def pixelwise(pixels: np.ndarray) -> Tensor:
        return torch.from_numpy(pixels).permute(2, 0, 1).float()

    assert np.array_equal(labels_of(pixelwise, image, 3, 128), image.argmax(2))


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
    agreeing = labels_of(convolved, image, 4, tile) == total.argmax(0).numpy()
    assert agreeing.mean() > 0.9999
    whole = convolved(image).argmax(0).numpy()
    assert not np.array_equal(whole, total.argmax(0).numpy())


def test_a_tiff_is_segmented_as_an_image_is(segmenter: Segmenter, tmp_path: Path) -> None:
    image = blocks(260, 300)
    tags = [(33550, 12, 3, (0.5, 0.5, 0.0), True), (33922, 12, 6, (0.0, 0.0, 0.0, 4e5, 5e6, 0.0), True)]
    tifffile.imwrite(
        tmp_path / "in.tif", image, photometric="rgb", tile=(64, 64), compression="zlib", extratags=tags, metadata=None
    )
    seen: list[tuple[int, int]] = []
    one_tile = tmp_path / "one.tif"
    assert segment_tiff(segmenter, tmp_path / "in.tif", one_tile, 512) == (260, 300)
    labels, whole = tifffile.imread(one_tile), segmenter(image).labels
    assert (labels == whole).mean() > 0.999 and len(np.unique(whole)) > 1
    segment_tiff(segmenter, tmp_path / "in.tif", tmp_path / "tiles.tif", 160, lambda *count: seen.append(count))
    tiles = tifffile.imread(tmp_path / "tiles.tif")
    assert (tiles == whole).mean() > 0.8
    assert seen == [(done, 4) for done in range(1, 5)]
    page = tifffile.TiffFile(tmp_path / "tiles.tif").pages[0]
    assert page.tags[33550].value == (0.5, 0.5, 0.0) and page.tags[33922].value[3:5] == (4e5, 5e6)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.tif", "one.tif", "tiles.tif"]


def test_a_broken_tiff_leaves_nothing_behind(segmenter: Segmenter, tmp_path: Path, refuses: Any) -> None:
    tifffile.imwrite(tmp_path / "in.tif", noise(300, 200), photometric="rgb", compression="zlib", rowsperstrip=16)
    (tmp_path / "in.tif").write_bytes((tmp_path / "in.tif").read_bytes()[:-30000])
    (tmp_path / "out.tif").write_text("earlier")
    with refuses("in.tif"):
        segment_tiff(segmenter, tmp_path / "in.tif", tmp_path / "out.tif", 128)
    assert (tmp_path / "out.tif").read_text() == "earlier" and len(list(tmp_path.iterdir())) == 2


def test_tiles_that_are_too_large(
    segmenter: Segmenter, tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "in.tif", noise(150, 150), photometric="rgb")

    def full(pixels: np.ndarray) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(segmenter, "logits", full)
    with refuses("tiles of 128 pixels need more memory", "smaller"):
        segment_tiff(segmenter, tmp_path / "in.tif", tmp_path / "out.tif", 128)
    assert len(list(tmp_path.iterdir())) == 1


def test_images_that_are_too_large_name_the_tiles(
    tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "in.tif", noise(30, 30), photometric="rgb")
    monkeypatch.setattr("crispseg.imaging.MAX_PIXELS", 800)
    with refuses("in.tif claims more than 800 pixels", "--tiles 1024"):
        read_image(tmp_path / "in.tif")


# The command line ---------------------------------------------------------------------------------------------------


def test_predict_in_tiles(model: SegmentationModel, segmenter: Segmenter, tmp_path: Path, capsys: Capture) -> None:
    model.save_pretrained(tmp_path / "model")
    for name in ("a.tif", "deep/b.tiff"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(tmp_path / "in" / name, blocks(150, 200), photometric="rgb")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "model"), str(tmp_path / "in"), f"--out={out}", "--tiles=128"]) == 0
    assert "200×150 pixels" in capsys.readouterr().out
    segment_tiff(segmenter, tmp_path / "in/a.tif", tmp_path / "expected.tif", 128)
    for name in ("a.tif", "deep/b.tif"):
        assert np.array_equal(tifffile.imread(out / name), tifffile.imread(tmp_path / "expected.tif"))
    assert len([file for file in out.rglob("*") if file.is_file()]) == 2


def test_a_tiff_that_cannot_be_read_is_left_out(model: SegmentationModel, tmp_path: Path, capsys: Capture) -> None:
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.tif").write_text("no picture")
    tifffile.imwrite(tmp_path / "in/b.tif", blocks(150, 200), photometric="rgb")
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "model"), str(tmp_path / "in"), f"--out={out}", "--tiles=128"]) == 2
    printed = capsys.readouterr()
    assert "1 of 2 images segmented" in printed.out and "left out:" in printed.err and "a.tif" in printed.err
    assert [path.name for path in out.iterdir()] == ["b.tif"]


@pytest.mark.parametrize(
    ("flags", "phrase"),
    [
        (["--tiles=64"], "tiles of 64 pixels are too small; give a side of at least 128"),
        (["--tiles=256", "--format=ade20k"], "--tiles writes TIFFs"),
        (["--tiles=256"], "photo.png is none"),
    ],
)
def test_tiles_that_do_not_fit(flags: list[str], phrase: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "photo.png").touch()
    out = tmp_path / "out"
    assert main(["predict", "model", str(tmp_path / "photo.png"), f"--out={out}", *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert phrase in line and not out.exists()


def test_tifffile_may_be_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, refuses: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with refuses("needs tifffile", "pip install 'crispseg[tiff]'"):
        TiffBands(tmp_path / "a.tif")
