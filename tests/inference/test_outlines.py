"""`crispseg predict --format ... --tolerance`: files of polygons that other programs read."""

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from commands import Capture
from pycocotools.coco import COCO

from crispseg.cli.main import main
from crispseg.data import Nuclei
from crispseg.errors import CrispsegError
from crispseg.io.images import read_mask
from crispseg.io.polygons import coverage
from crispseg.prediction import outlines
from crispseg.prediction.job import PredictionJob

from .test_tiled import TRANSFORM, blocks, write

geopandas = pytest.importorskip("geopandas")
pyogrio = pytest.importorskip("pyogrio")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")


@pytest.mark.parametrize(("system", "form"), [("EPSG:32632", "gpkg"), ("EPSG:4326", "geojson"), ("EPSG:4326", "gpkg")])
def test_polygons_of_a_map(
    system: str, form: str, folder: Path, tmp_path: Path, capsys: Capture, monkeypatch: Any
) -> None:
    made: list[Any] = []
    monkeypatch.setattr(outlines, "coverage", lambda *maps: made.append(coverage(*maps)) or made[-1])
    source = write(tmp_path / "map.tif", blocks(300, 200), crs=system, transform=TRANSFORM)
    argv = ["predict", str(folder), str(source), f"--out={tmp_path / 'out'}", "--tiles=128", "--tolerance=1.5"]
    assert main([*argv, f"--format={form}", "--polygons", f"--json={tmp_path / 'results.json'}"]) == 0
    assert len(made) == 1
    line = capsys.readouterr().out.splitlines()[-1]
    numbers = re.search(r"outlines: (\S+) points became (\S+), at most (\S+) px away; lost: IoU", line)
    assert numbers is not None and float(numbers[3]) <= 1.5
    assert int(numbers[2].replace(",", "")) <= int(numbers[1].replace(",", ""))
    changes = json.loads((tmp_path / "results.json").read_text())["outlines"]
    assert [changes["points_before"], changes["points_after"]] == made[0].points.tolist()
    assert 0 <= changes["iou_lost"] < 100
    path = tmp_path / f"out/{form}/map.{form}"
    assert pyogrio.read_info(path)["features"] > 1
    table = geopandas.read_file(path)
    assert table.crs == system and {"class", "id"} <= {*table.columns}
    labels = read_mask(tmp_path / "out/map.tif")
    assert {*table["id"]} == {*np.unique(labels).tolist()}
    assert shapely.coverage_is_valid(table.geometry.to_numpy(), gap_width=0)
    corners = [TRANSFORM * corner for corner in ((0, 0), (200, 0), (0, 300), (200, 300))]
    expected = shapely.MultiPoint(corners).bounds
    assert table.total_bounds.tolist() == pytest.approx(expected)  # longitude first in degrees
    other = geopandas.read_file(tmp_path / "out/map.geojson")  # of --polygons
    assert other.geometry.equals(table.geometry) and other["id"].tolist() == table["id"].tolist()


def test_outlines_of_a_map_in_pixels_are_named(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    for name, place in (("map", {"crs": "EPSG:4326", "transform": TRANSFORM}), ("plain", {})):
        source = write(tmp_path / f"{name}.tif", blocks(60, 40), **place)
        assert main(["predict", str(folder), str(source), f"--out={tmp_path / name}", "--format=geojson"]) == 0
        assert ("gpkg" in capsys.readouterr().err) == bool(place)


def test_only_a_geopackage_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crispseg.errors.find_spec", lambda name: None if name == "pyogrio" else name)
    for form in ("coco", "svg"):
        assert PredictionJob(run="run", format=form, tolerance=1.5).tolerance == 1.5
    with pytest.raises(CrispsegError, match="needs pyogrio"):
        PredictionJob(run="run", format="gpkg")


@pytest.mark.slow
def test_polygons_of_objects(tmp_path: Path) -> None:
    photo = Nuclei().dataset("val").pairs[0].image
    argv = ["predict", "nuclei", str(photo), "--objects=nucleus", "--objects_border=border"]
    for form in ("gpkg", "coco", "svg"):
        assert main([*argv, f"--out={tmp_path / form}", f"--format={form}", "--tolerance=1", "--square"]) == 0
    name = photo.stem
    ids = read_mask(tmp_path / f"gpkg/{name}_objects.png")
    table = geopandas.read_file(tmp_path / f"gpkg/gpkg/{name}.gpkg")
    assert sorted(table["id"]) == [*range(1, ids.max() + 1)] and {*table["class"]} == {"nucleus"}
    coco = COCO(str(tmp_path / "coco/coco/annotations/instances_default.json"))
    drawn = sum(coco.annToMask(annotation) for annotation in coco.anns.values())
    assert len(coco.anns) == ids.max() and ((drawn > 0) & (ids > 0)).sum() > 0.9 * ((drawn > 0) | (ids > 0)).sum()
    paths = ElementTree.parse(tmp_path / f"svg/svg/{name}.svg").findall(".//{*}path")
    assert len(paths) == ids.max()
