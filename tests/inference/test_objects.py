"""Single objects: which pixels they have, their table, outlines and files, and `crispseg predict --objects`."""

import csv
import dataclasses
import json
import re
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import torch
from commands import Capture
from conftest import Refuses
from dataset_trees import mask_of, photos
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from pycocotools import mask as coco_masks
from skimage.measure import points_in_poly, regionprops
from training_runs import of_many_opinions

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.data import Nuclei
from crispseg.data.formats import read_annotations
from crispseg.evaluation.object_scores import ObjectScores
from crispseg.inference import Segmentation
from crispseg.inference.objects import Object, ObjectRule, measured, object_rules
from crispseg.io.images import read_image, read_mask, write_image
from crispseg.io.outlines import segmentations
from crispseg.labels import LabelSet
from crispseg.visualization.pictures import numbered
from tests.visualization.parsed import Page

LABELS = LabelSet.colored(["background", "nucleus", "border"])
SIDES = ((-1, 0), (0, -1), (0, 1), (1, 0))


label_maps = stn.arrays(np.uint8, stn.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2))
id_maps = stn.arrays(np.int32, stn.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 3))


def flooded(free: set[tuple[int, int]], start: tuple[int, int]) -> set[tuple[int, int]]:
    """The places that sides join to the first one."""
    region, waiting = {start}, deque([start])
    while waiting:
        y, x = waiting.popleft()
        beside = {(y + down, x + right) for down, right in SIDES} & free - region
        region |= beside
        waiting.extend(beside)
    return region


# Pixels


@settings(max_examples=80)
@given(labels=label_maps, reach=st.integers(0, 6))
def test_objects_are_connected_parts_and_the_border_pixels_nearest_to_them(
    labels: NDArray[np.uint8], reach: int
) -> None:
    """A border pixel is of one of the nearest objects within the reach, if sides join it to it."""
    parts, grown = ObjectRule(1).find(labels), ObjectRule(1, 2, reach, 0).find(labels)
    left = [(int(y), int(x)) for y, x in np.argwhere(labels == 1)]
    for place in left:
        own = {pixel for pixel in left if parts[pixel] == parts[place]}
        assert own == flooded(set(left), place)
        assert grown[place] == parts[place]
    for y, x in np.argwhere(labels == 2).tolist():
        far = {place: (place[0] - y) ** 2 + (place[1] - x) ** 2 for place in left}
        nearest = {parts[place] for place in left if far[place] == min(far.values()) <= reach**2}
        assert grown[y, x] in {0, *nearest}
        beside = (np.pad(grown, 1)[y + 1 + down, x + 1 + right] for down, right in SIDES)
        assert grown[y, x] in nearest or len(nearest) != 1 or not nearest & {*beside}
    assert not grown[labels == 0].any()
    for number in range(1, grown.max() + 1):
        whole = {(int(y), int(x)) for y, x in np.argwhere(grown == number)}
        assert flooded(whole, min(whole)) == whole


def test_fragments_between_objects_with_a_border_are_left_out() -> None:
    """Objects of 20 and 30 pixels remain, one of a pixel does not; without a border class, all do."""
    labels = np.zeros((8, 12), np.uint8)
    labels[1:6, 1:5], labels[1:6, 6:12], labels[7, 4] = 1, 1, 1  # their median is 20
    assert np.bincount(ObjectRule(1, border=2).find(labels).ravel())[1:].tolist() == [20, 30]
    for rule in (ObjectRule(1), ObjectRule(1, border=2, min_size=0), ObjectRule(1, border=2, min_size=1)):
        assert np.bincount(rule.find(labels).ravel())[1:].tolist() == [20, 30, 1]


@pytest.mark.parametrize(
    ("rule", "phrases"),
    [
        (("nuclei",), ["there is no class 'nuclei'", "did you mean 'nucleus'?"]),
        (("nucleus", "boarder"), ["there is no class 'boarder'", "did you mean 'border'?"]),
        (("nucleus", "nucleus"), ["objects_border is nucleus", "one other class"]),
        (([1],), ["there is no class 1; known: "]),
    ],
)
def test_rules_that_make_no_sense(rule: Any, phrases: list[str], refuses: Any) -> None:
    with refuses(*phrases):
        object_rules(LABELS, *rule)


# Table


@settings(max_examples=40)
@given(labels=label_maps)
def test_the_table_is_that_of_each_object_alone(labels: NDArray[np.uint8]) -> None:
    ids, own = ObjectRule(1, 2).find(labels), labels == 1
    probability = np.random.default_rng(0).random(labels.shape, np.float32)
    for number, row in enumerate(measured(ids, own, probability), 1):
        ys, xs = np.nonzero(ids == number)
        assert row[:6] == (number, len(xs), xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1)
        assert row[6:8] == pytest.approx((xs.mean() + 0.5, ys.mean() + 0.5), abs=0.006)
        assert row.probability == pytest.approx(probability[(ids == number) & own].mean(), abs=1e-4)
    rows = measured(ids, own)
    assert len(rows) == ids.max() and all(row.probability is None for row in rows)


# Outlines


@settings(max_examples=60)
@given(ids=id_maps)
def test_segmentations_enclose_just_the_pixels(ids: NDArray[np.int32]) -> None:
    ids = np.unique(np.append(ids, 0), return_inverse=True)[1][:-1].reshape(ids.shape).astype(np.int32)  # no gaps
    shapes = segmentations(ids)
    assert len(shapes) == ids.max()
    for number, shape in enumerate(shapes, 1):
        mask, drawn = ids == number, np.zeros(ids.shape, bool)
        if isinstance(shape, dict):
            np.testing.assert_array_equal(coco_masks.decode(coco_masks.frPyObjects(shape, *mask.shape)), mask)
            continue
        area = 0.0
        for ring in (np.array(outline).reshape(-1, 2) for outline in shape):
            centres = np.stack(np.indices(mask.shape)[::-1], -1).reshape(-1, 2) + 0.5  # x, y
            drawn |= points_in_poly(centres, ring).reshape(mask.shape)
            (x, y), (u, v) = ring.T, np.roll(ring, -1, axis=0).T
            area += abs((x * v - u * y).sum()) / 2
        np.testing.assert_array_equal(drawn, mask)
        assert area == mask.sum()


# Files


def segmentation(labels: NDArray[np.uint8], name: str = "a") -> Segmentation:
    image = np.repeat(80 * labels[..., None], 3, axis=2)
    return Segmentation(name, image, labels, LABELS, None, None)


def squares() -> NDArray[np.uint8]:
    """Two squares with a border between them, and a ring."""
    labels = np.zeros((20, 30), np.uint8)
    labels[2:10, 1:9], labels[2:10, 9:11], labels[2:10, 11:20] = 1, 2, 1
    labels[12:18, 22:28] = 1
    labels[14:16, 24:26] = 0
    return labels


def test_files_of_an_image(tmp_path: Path) -> None:
    objects = segmentation(squares(), "sub/a").objects("nucleus", border="border")
    numbers, table = objects.save(tmp_path)
    assert (numbers, table) == (tmp_path / "sub/a_objects.png", tmp_path / "sub/a_objects.csv")
    written = read_mask(numbers)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(written, objects.ids)
    first, *rows = table.read_text().splitlines()
    assert tuple(first.split(",")) == Object._fields
    assert rows[0] == "1,72,1,2,9,8,5.5,6.0,9.0,8.0,,nucleus" and len(rows) == len(objects) == 3
    assert [row.area for row in objects] == [72, 80, 32]


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one that is not trained, and sees many objects."""
    model = of_many_opinions(3)
    model.info = dataclasses.replace(model.info, class_names=LABELS.names, palette=LABELS.palette)
    folder = tmp_path_factory.mktemp("objects") / "model"
    model.save_pretrained(folder)
    return folder


def test_predict_writes_objects(model: Path, tmp_path: Path, capsys: Capture) -> None:
    folder, out = photos(tmp_path / "photos", "a.png", "sub/b.jpg"), tmp_path / "out"
    argv = ["predict", str(model), str(folder), "--out", str(out), "--device=cpu"]
    assert main([*argv, "--objects", "nucleus", "--objects_border", "border"]) == 0
    lines = capsys.readouterr().out.splitlines()
    results = Segmenter(model, "cpu")([folder / "a.png", folder / "sub/b.jpg"])
    results[1].name = "sub/b"
    expected = [result.objects("nucleus", border="border") for result in results]
    count = sum(map(len, expected))
    assert count > 10 and len(expected[0]) and len(expected[1])
    assert lines == [
        f"2 of 2 images segmented into {out}",
        f"{count} objects of class nucleus: open {out}/report.html in a browser; tables are next to it",
    ]
    coco = json.loads((out / "objects.json").read_text())
    assert [entry["score"] for entry in coco["annotations"]] == [row.probability for table in expected for row in table]
    assert {type(entry["segmentation"]) for entry in coco["annotations"]} == {dict, list}  # with holes, and without
    read = read_annotations(out / "objects.json")[1]  # by what draws the annotations of other tools
    assert read.names == ("nucleus",)
    for objects, image in zip(expected, read.images, strict=True):
        np.testing.assert_array_equal(read_mask(out / f"{objects.name}_objects.png"), objects.ids)
        assert image.image.startswith(objects.name)
        for row, shape in zip(objects, image.shapes, strict=True):
            drawn = mask_of(shape.draw(*objects.ids.shape), *objects.ids.shape)
            np.testing.assert_array_equal(drawn, objects.ids == row.id)


def test_tables_have_sizes_in_units_and_no_small_objects(model: Path, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos", "a.png", "sub/b.jpg"), tmp_path / "out"
    argv = ["predict", str(model), str(folder), "--out", str(out), "--objects=nucleus", "--objects_min_size=10"]
    assert main([*argv, "--shares", "--pixel_size=0.5um"]) == 0
    result = Segmenter(model)(folder / "a.png")
    every, large = result.objects("nucleus"), result.objects("nucleus", min_size=10)
    assert 0 < len(large) < len(every) and [row.id for row in large] == list(range(1, len(large) + 1))
    assert [row.area for row in large] == [row.area for row in every if row.area >= 10]
    np.testing.assert_array_equal(large.ids > 0, np.isin(every.ids, [row.id for row in every if row.area >= 10]))
    with (out / "a_objects.csv").open(newline="") as file:
        assert [float(row["area_um2"]) for row in csv.DictReader(file)] == [row.area / 4 for row in large]
    with (out / "shares.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["image"], second["image"], first["pixels"]) == ("a.png", "sub/b.jpg", str(result.labels.size))
    for name, share in result.shares().items():
        assert float(first[name]) == pytest.approx(share, abs=1e-6)
        assert float(first[f"{name}_um2"]) == pytest.approx(share * result.labels.size / 4)


def test_tables_of_all_images_measure_as_scikit_image_does(model: Path, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos", "a.png", "sub/b.jpg"), tmp_path / "out"
    deep = np.random.default_rng(0).integers(0, 4096, (90, 120)).astype(np.uint16)
    write_image(folder / "deep.png", deep)
    argv = ["predict", str(model), str(folder), "--out", str(out), "--objects=nucleus", "--objects_border=border"]
    assert main([*argv, "--pixel_size=0.5um"]) == 0
    rows, images = (list(csv.DictReader((out / f"{name}.csv").open(newline=""))) for name in ("objects", "summary"))
    assert [row["image"] for row in images] == ["a.png", "deep.png", "sub/b.jpg"]
    for summary in images:
        own = [row for row in rows if row["image"] == summary["image"]]
        path = out / summary["image"]
        ids = read_mask(path.with_name(f"{path.stem}_objects.png"))
        values = read_image(folder / summary["image"]).mean(2) if path.stem != "deep" else deep
        assert len(own) == ids.max() == int(summary["objects"]) > 0
        for row, region in zip(own, regionprops(ids, values), strict=True):
            circularity = min(1, 4 * np.pi * region.area / max(region.perimeter, 1e-9) ** 2)
            top, left, bottom, right = region.bbox
            expected = {
                "id": region.label,
                "area": region.area,
                "equivalent_diameter": region.equivalent_diameter_area,
                "perimeter": region.perimeter,
                "major_axis": region.axis_major_length,
                "minor_axis": region.axis_minor_length,
                "circularity": circularity,
                "eccentricity": region.eccentricity,
                "mean_intensity": region.intensity_mean,
                "integrated_intensity": values[ids == region.label].sum(),
                "touches_edge": int(0 in (top, left) or bottom == ids.shape[0] or right == ids.shape[1]),
                "area_um2": region.area / 4,
                "perimeter_um": region.perimeter / 2,
            }
            assert {key: float(row[key]) for key in expected} == pytest.approx(expected, abs=1e-3)
            sides = [float(row[f"rectangle_{side}"]) for side in ("length", "width")]
            pixels = shapely.box(*region.coords[:, ::-1].T, *region.coords[:, ::-1].T + 1)
            around = shapely.oriented_envelope(shapely.union_all(pixels))
            assert sides[0] >= sides[1] and np.prod(sides) == pytest.approx(around.area, abs=0.01 * sum(sides))
            assert [float(row[f"rectangle_{side}_um"]) * 2 for side in ("length", "width")] == sides
        areas = [int(row["area"]) for row in own]
        numbers = {"total_area": sum(areas), "median_area": np.median(areas), "share": sum(areas) / ids.size}
        numbers |= {"per_megapixel": 1e6 * len(own) / ids.size, "objects_per_um2": 4 * len(own) / ids.size}
        assert {key: float(summary[key]) for key in numbers} == pytest.approx(numbers, rel=1e-4)
    (out / "summary.csv").write_text("my own table")
    assert main([*argv, "--resume"]) == 2


def test_the_page_of_objects_has_each_image_with_its_count(model: Path, tmp_path: Path) -> None:
    folder, out = photos(tmp_path / "photos", "a&b.png", "sub/b.jpg"), tmp_path / "out"
    assert main(["predict", str(model), str(folder), "--out", str(out), "--objects=nucleus", "--device=cpu"]) == 0
    page = Page((out / "report.html").read_text("utf-8"))
    objects = Segmenter(model, "cpu")(folder / "a&b.png").objects("nucleus")
    shown = [attributes for tag, attributes in page.tags if tag == "a"]
    assert [attributes["href"] for attributes in shown] == ["a%26b_overlay.png", "sub/b_overlay.png"]
    values = [attributes["data-value"] for tag, attributes in page.tags if "data-value" in attributes]
    assert values[:2] == ["a&b.png", f"{len(objects)}.0"]
    with (out / "objects.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    medians = [np.median([float(row[name]) for row in rows]) for name in ("area", "equivalent_diameter")]
    assert re.findall(r"median <b>(.*?)</b>", (out / "report.html").read_text("utf-8"))[1:] == [
        f"{median:.4g}" for median in medians
    ]
    assert [image.get("loading") for image in page.images] == [None, None, None, "lazy", "lazy"]
    np.testing.assert_array_equal(read_image(out / "a&b_overlay.png"), numbered(objects.image, objects.ids))


def disc(y: int, x: int, radius: float, shape: tuple[int, int] = (60, 90)) -> NDArray[np.bool_]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= radius**2)


def test_touching_objects_are_separated_at_their_necks() -> None:
    labels = (disc(30, 25, 14) | disc(30, 50, 13) | disc(8, 75, 6)).astype(np.uint8)
    labels[58, 88] = 1  # a single pixel stays
    assert ObjectRule(1).find(labels).max() == 3
    ids = ObjectRule(1, split=True).find(labels)
    assert ids.max() == 4 and ((ids > 0) == (labels == 1)).all()
    assert len({ids[30, 25], ids[30, 50], ids[8, 75], ids[58, 88]}) == 4
    assert 0.9 < (ids == ids[30, 25]).sum() / disc(30, 25, 14).sum() < 1.1


@pytest.mark.parametrize("faulty", [{"border": "border", "split": True}, {"border": "nucleus"}])
def test_objects_with_a_border_are_not_split(faulty: dict[str, Any], refuses: Refuses) -> None:
    with refuses("objects"):
        object_rules(LABELS, "nucleus", **faulty)


@pytest.mark.slow
def test_nuclei_in_masks_of_two_classes(shared: Path) -> None:
    """Parts at necks match at least four points more of the true objects than connected parts."""
    folder = shared / "data/nuclei"
    pairs = Nuclei(folder).pairs("val")
    scores = []
    for rule in (ObjectRule(1), ObjectRule(1, split=True)):
        metric = ObjectScores(2, rule)
        for index, pair in enumerate(pairs):
            truth = read_mask(folder / f"instances/{pair.name}.png").astype(np.int32)
            labels = torch.from_numpy((truth > 0).astype(np.uint8))[None]
            metric.update(labels, labels, [index], torch.from_numpy(truth)[None])
        scores.append(metric.scores())
    connected, separated = (score.measures()["object_f1"] for score in scores)
    assert separated >= connected + 4


def test_objects_of_several_classes(model: Path, tmp_path: Path, capsys: Capture) -> None:
    folder, out = photos(tmp_path / "photos", "a.png", "sub/b.jpg"), tmp_path / "out"
    argv = ["predict", str(model), str(folder), "--out", str(out), "--device=cpu", "--objects=[nucleus, border]"]
    assert main(argv) == 0
    assert "objects of class nucleus, border: open" in capsys.readouterr().out
    result = Segmenter(model, "cpu")(folder / "a.png")
    both, nuclei, borders = (result.objects(name) for name in (["nucleus", "border"], "nucleus", "border"))
    assert [row.id for row in both] == [*range(1, len(nuclei) + len(borders) + 1)]
    np.testing.assert_array_equal(both.ids, nuclei.ids + (borders.ids + len(nuclei)) * (borders.ids > 0))
    assert [row.category for row in both] == ["nucleus"] * len(nuclei) + ["border"] * len(borders)
    with (out / "a_objects.csv").open(newline="") as file:
        assert [row["category"] for row in csv.DictReader(file)] == [row.category for row in both]
    coco = json.loads((out / "objects.json").read_text())
    assert coco["categories"] == [{"id": 1, "name": "nucleus"}, {"id": 2, "name": "border"}]
    assert {entry["category_id"] for entry in coco["annotations"]} == {1, 2}
    assert main([*argv, "--objects_border=background"]) == 2


def test_images_in_tiles_have_objects_without_probabilities(model: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 150, 3), np.uint8)
    objects = Segmenter(model, "cpu", tile=128)(image).objects("nucleus", border="border")
    assert len(objects) and all(row.probability is None for row in objects)
    assert "score" not in objects.annotations()[0]
