"""Maps: a full disk, overviews, and labels as polygons."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from commands import small_files

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.inference.tiled import segment_tiff
from crispseg.io.files import atomic_path
from crispseg.io.outlines import write_polygons
from crispseg.io.tiff import map_file, open_dataset

from .test_tiled import TRANSFORM, blocks, ids, noise, write

rasterio = pytest.importorskip("rasterio")
features = pytest.importorskip("rasterio.features")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A map of six rows of two tiles, of which a part has no data."""
    image = blocks(640, 200) | 1
    image[600:, :50] = 0
    return write(tmp_path / "map.tif", image, crs="EPSG:32632", transform=TRANSFORM, nodata=0)


@pytest.fixture
def undisturbed(source: Path, segmenter: Segmenter, tmp_path: Path) -> bytes:
    segment_tiff(segmenter, source, tmp_path / "undisturbed.tif", tile=128, made_by="model")
    return (tmp_path / "undisturbed.tif").read_bytes()


def test_a_disk_that_is_full_leaves_no_half_map(tmp_path: Path) -> None:
    """GDAL does not tell of all errors by itself."""
    source, target = write(tmp_path / "in.tif", noise(700, 1100)[..., :1]), tmp_path / "out.tif"
    labels = np.random.default_rng(0).integers(0, 4, (700, 1100), np.uint8)

    def write_labels() -> None:
        with (
            open_dataset(source) as image,
            atomic_path(target) as temporary,
            map_file(temporary, image, [(0, 0, 0)] * 4) as append,
        ):
            append(labels)

    write_labels()
    size = target.stat().st_size
    target.unlink()
    with pytest.raises(OSError), small_files(int(0.95 * size)):
        write_labels()
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_labels_have_overviews_that_show_the_most_frequent_class(segmenter: Segmenter, tmp_path: Path) -> None:
    source = write(tmp_path / "in.tif", blocks(700, 1100))
    segment_tiff(segmenter, source, tmp_path / "out.tif", tile=512)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert file.overviews(1) == [2, 4, 8]
        labels, half = file.read(1), file.read(1, out_shape=(350, 550))
    four = labels.reshape(350, 2, 550, 2).swapaxes(1, 2).reshape(350, 550, 4)
    counts = (four[..., None] == np.arange(4)).sum(2)  # (350, 550, classes)
    assert (np.take_along_axis(counts, half[..., None].astype(int), 2)[..., 0] == counts.max(2)).all()


def test_polygons_are_the_areas_of_the_classes(
    source: Path, undisturbed: bytes, segmenter: Segmenter, tmp_path: Path
) -> None:
    count = write_polygons(tmp_path / "undisturbed.tif", tmp_path / "out.geojson", ["a", "b", "c", "d"])
    written = json.loads((tmp_path / "out.geojson").read_text())
    assert written["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32632"
    labels = ids(tmp_path / "undisturbed.tif")
    whole = [value for _, value in features.shapes(labels) if value != 255]
    assert len(written["features"]) == count == len(whole) > 10
    shapes = [(feature["geometry"], feature["properties"]["id"]) for feature in written["features"]]
    assert {feature["properties"]["class"] for feature in written["features"]} == {"abcd"[index] for _, index in shapes}
    assert np.array_equal(features.rasterize(shapes, labels.shape, 255, transform=TRANSFORM), labels)


def test_polygons_of_a_system_without_a_number(tmp_path: Path, refuses: Any) -> None:
    here = "+proj=tmerc +lat_0=12.3 +lon_0=4.56 +k=0.9 +x_0=7 +y_0=8 +datum=WGS84 +units=m"
    write(tmp_path / "a.tif", blocks(64, 64)[..., :1], crs=here, transform=TRANSFORM)
    with refuses("a.tif has no EPSG code", "gdalwarp"):
        write_polygons(tmp_path / "a.tif", tmp_path / "a.geojson", ["a"] * 256)
    assert [path.name for path in tmp_path.iterdir()] == ["a.tif"]
    write(tmp_path / "a.tif", blocks(64, 64)[..., :1])
    assert write_polygons(tmp_path / "a.tif", tmp_path / "a.geojson", ["a"] * 256)
    written = json.loads((tmp_path / "a.geojson").read_text())
    assert "crs" not in written and [0.0, 0.0] in written["features"][0]["geometry"]["coordinates"][0]


@pytest.fixture
def predict(folder: Path, source: Path, tmp_path: Path) -> Callable[..., int]:
    """Run `crispseg predict` on the map, in tiles, into the folder `out`."""
    argv = ["predict", str(folder), str(source), f"--out={tmp_path / 'out'}", "--tiles=128", "--device=cpu"]
    return lambda *flags: main([*argv, *flags])


def test_predict_resumes_a_map_and_writes_its_polygons(
    undisturbed: bytes, predict: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert predict("--resume") == 0
    assert np.array_equal(ids(tmp_path / "out/map.tif"), ids(tmp_path / "undisturbed.tif"))
    capsys.readouterr()
    made = (tmp_path / "out/map.tif").stat().st_mtime_ns
    assert predict("--shard=1/1", "--polygons") == 0
    assert "1 of 1 image of shard 1/1 segmented" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out/map.geojson").read_text())["features"]) > 10
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["map.geojson", "map.tif"]
    assert (tmp_path / "out/map.tif").stat().st_mtime_ns == made
    os.utime(tmp_path / "out/map.geojson", ns=(0, made - 1))  # of an earlier map
    assert predict("--shard=1/1", "--polygons") == 0
    assert (tmp_path / "out/map.tif").stat().st_mtime_ns == made < (tmp_path / "out/map.geojson").stat().st_mtime_ns


TIE = (0.0, 0, 0, 400_000, 5_000_000, 0)
PLACES: dict[str, dict[int, tuple[float, ...]]] = {
    "no scale": {33922: TIE},
    "a scale of 0": {33922: TIE, 33550: (0, 0, 0)},
    "a width of 0": {33922: TIE, 33550: (0, 0.5, 0)},
    "not a number": {33922: TIE, 33550: (np.nan, 0.5, 0)},
    "infinite": {33922: (0, 0, 0, np.inf, 0, 0), 33550: (0.5, 0.5, 0)},
    "too wide": {33922: TIE, 33550: (1e308, 0.5, 0)},
    "singular": {34264: (0,) * 16},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_position_that_is_none(place: str, folder: Path, tmp_path: Path) -> None:
    tags = [(code, 12, len(values), values, True) for code, values in PLACES[place].items()]
    tifffile.imwrite(tmp_path / "a.tif", blocks(200, 150), extratags=tags)
    argv = ["predict", str(folder), str(tmp_path / "a.tif"), f"--out={tmp_path / 'out'}", "--tiles=128", "--polygons"]
    assert main(argv) == 0
    text = (tmp_path / "out/a.geojson").read_text()
    assert "NaN" not in text and "Infinity" not in text and len(json.loads(text)["features"]) > 1


def test_a_map_whose_mask_is_broken_is_left_out(source: Path, predict: Callable[..., int], tmp_path: Path) -> None:
    other = write(tmp_path / "a.tif", blocks(200, 150))
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(other, "r+") as file:
        file.write_mask(np.full((200, 150), 255, np.uint8))
    mask = tmp_path / "a.tif.msk"
    mask.write_bytes(mask.read_bytes()[:-20])
    assert predict(str(other)) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["map.tif"]
