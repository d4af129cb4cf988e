"""Files as labelling tools write them."""

from __future__ import annotations

import base64
import io
import itertools
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import picture
from numpy.typing import NDArray
from PIL import Image

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask

from .own_folders import imported

HEIGHT, WIDTH = 12, 16
SQUARE = np.zeros((HEIGHT, WIDTH), np.uint8)
SQUARE[1:5, 2:8] = 1
CORNERS = [(2, 1), (8, 1), (8, 5), (2, 5)]


def mask_of(folder: Path, name: str = "a") -> NDArray[np.uint8]:
    return read_mask(folder / f"masks/{name}.png")


# CVAT: the layouts are those of https://docs.cvat.ai/docs/dataset_management/formats

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>4</id><name>task</name><mode>annotation</mode><labels>
    <label><name>wheel</name><color>#ff0000</color><type>any</type><attributes></attributes></label>
    <label><name>car</name><type>any</type></label>
    <label><name>1</name><type>points</type><parent>s1</parent></label>
  </labels></task></meta>
  <image id="0" name="a.png" subset="Train" task_id="4" width="16" height="12">{shapes}</image>
</annotations>
"""
POLYGON = '<polygon label="car" source="manual" occluded="0" points="2.00,1.00;8.00,1.00;8.00,5.00;2.00,5.00" {}/>'


def cvat(root: Path, shapes: str, text: str = CVAT) -> Path:
    picture(root / "images/a.png", HEIGHT, WIDTH)
    (root / "annotations.xml").write_text(text.format(shapes=shapes))
    return root


def test_cvat_for_images(tmp_path: Path) -> None:
    box = '<box label="wheel" source="manual" occluded="0" xtl="4.00" ytl="2.00" xbr="6.00" ybr="9.00" z_order="{}"/>'
    mask = '<mask label="wheel" rle="1, 2, 1" left="14" top="9" width="2" height="2" z_order="0"></mask>'
    tag = '<tag label="good_frame" source="manual"></tag>'
    polygon = POLYGON.format('z_order="1"') + "<!-- -->"
    done = imported([cvat(tmp_path / "in", polygon + box.format(0) + mask + tag)], tmp_path / "out")
    assert done.names == ["background", "wheel", "car"]
    expected = np.zeros_like(SQUARE)
    expected[2:9, 4:6], expected[SQUARE > 0] = 1, 2  # the polygon is larger, but in front
    expected[9, 15], expected[10, 14] = 1, 1
    np.testing.assert_array_equal(mask_of(done.out), expected)
    box = imported([cvat(tmp_path / "in", polygon + box.format(2))], tmp_path / "two").out
    assert (mask_of(box)[2:9, 4:6] == 1).all()


@pytest.mark.parametrize(
    ("shapes", "text", "phrases"),
    [
        ('<ellipse label="car" cx="5" cy="5" rx="2" ry="1"/>', CVAT, ["image a.png: ellipse 'car'", "draw it as one"]),
        ('<box label="car" rotation="9" xtl="1" ytl="1" xbr="2" ybr="2"/>', CVAT, ["box 'car'", "upright"]),
        ('<polygon points="1,1;2,2;3,1"/>', CVAT, ["annotations.xml is not CVAT's format (it lacks 'label')"]),
        ('<polygon label="car" points="1,1;2;3,1"/>', CVAT, ["polygon 'car' of a.png", "correct or remove it"]),
        ('<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>', CVAT, ["covers 3 pixels", "4"]),
        ('<mask label="car" rle="0, 4" left="15" top="0" width="2" height="2"/>', CVAT, ["not within the image"]),
        ('<polygon label="car"', CVAT, ["is not XML (not well-formed", "export it again"]),
        ("", '<annotations><track id="0" label="car"/></annotations>', ["tracks of a video", "CVAT for images 1.1"]),
        ("", "<annotation><object/></annotation>", ["boxes of PASCAL VOC", "CVAT for images 1.1"]),
        ("", "<View/>", ["contains no annotations of COCO, YOLO, CVAT"]),
    ],
)
def test_cvat_that_cannot_be_painted(shapes: str, text: str, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    with refuses(*phrases):
        import_annotations([cvat(tmp_path / "in", shapes, text)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# labelme


def test_masks_of_labelme(tmp_path: Path, refuses: Any) -> None:
    picture(tmp_path / "a.jpg", HEIGHT, WIDTH)
    png = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], bool)).save(png, "PNG")
    shape = {"label": "cell", "points": [[14, 9], [15, 10]], "shape_type": "mask"}
    shape["mask"] = base64.b64encode(png.getvalue()).decode()
    tree = {"imagePath": "a.jpg", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": [shape]}
    (tmp_path / "a.json").write_text(json.dumps(tree))
    mask = mask_of(imported([tmp_path], tmp_path / "out").out)
    assert mask[9:11, 14:].tolist() == [[1, 0], [1, 1]] and mask.sum() == 3
    shape["points"] = [[15, 9], [16, 10]]
    (tmp_path / "a.json").write_text(json.dumps(tree))
    with refuses("a.json: shape 0 ('cell') of a.jpg", "not within the image"):
        import_annotations([tmp_path / "a.json"], tmp_path / "two")


# Label Studio


def brush(mask: NDArray[Any]) -> list[int]:
    """Run lengths as in label_studio_converter: RGBA, sizes of 3, 4, 8 and 16 bits; a single value is no run."""
    values, bits = np.repeat(mask.ravel() * 255, 4), ""
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    for start, end in itertools.pairwise(edges):
        size = next(size for size in (3, 4, 8, 16) if end - start <= 1 << size)
        bits += f"1{(3, 4, 8, 16).index(size):02b}{end - start - 1:0{size}b}{values[start]:08b}"
    bits = f"{len(values) + 4:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16)) + bits
    bits += f"0{0:02b}{3:03b}" + f"{255:08b}" * 4  # a fourth kind: values one by one
    bits += "0" * (-len(bits) % 8)
    return [int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)]


def region(kind: str, value: dict[str, Any], label: str = "car", **more: Any) -> dict[str, Any]:
    head = {"id": "x", "type": kind, "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {**head, "from_name": "label", "to_name": "image", "value": {**value, kind: [label]}, **more}


def task(image: str, *results: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "data": {"title": "x", "image": image},
        "annotations": [{"result": one} for one in results],
        **more,
    }


PERCENT = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in CORNERS]
DRAWN = [region("polygonlabels", {"points": PERCENT, "closed": True})]


def label_studio(root: Path, *tasks: dict[str, Any]) -> Path:
    for name in "abc":
        picture(root / f"photos/{name}.jpg", HEIGHT, WIDTH)
    path = root / "project-1-at-2026-01-02.json"
    path.write_text(json.dumps(tasks))
    return path


def test_label_studio(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[6:9, 3:12] = mask[7, 14] = mask[11, 15] = 1
    flat = mask.ravel()[:-1]
    first = region("brushlabels", {"format": "rle", "rle": brush(flat)}, "wheel")
    box = {"x": 0, "y": 0, "width": 100 / WIDTH * 2, "height": 100 / HEIGHT, "rotation": 0}
    choice = {"type": "choices", "value": {"choices": ["good"]}, "from_name": "quality", "to_name": "image"}
    cancelled = {"result": [region("brushlabels", {"rle": []})], "was_cancelled": True}
    tasks = [
        task("/data/upload/1/0123abcd-a.jpg", [], [first, region("rectanglelabels", box), choice]),
        task("/data/local-files/?d=photos%2Fb.jpg", DRAWN, predictions=[{"result": [first]}]),
        task("s3://bucket/photos/c.jpg", predictions=[{"result": DRAWN}]),
    ]
    tasks[1]["annotations"].append(cancelled)
    tasks[0]["annotations"].append({"result": DRAWN})
    tasks[0]["annotations"][1]["ground_truth"] = True  # before the last
    tasks.append(task("/data/upload/1/0123abcd-d.jpg", DRAWN))  # as Label Studio stores it
    picture(tmp_path / "photos/0123abcd-d.jpg", HEIGHT, WIDTH)
    source = label_studio(tmp_path, *tasks)
    done = imported([source], tmp_path / "out", images=tmp_path)
    assert done.names == ["background", "car", "wheel"]
    expected = mask * 2
    expected[0, :2] = 1
    np.testing.assert_array_equal(mask_of(done.out, "a"), expected)
    for name in ("b", "0123abcd-d"):
        np.testing.assert_array_equal(mask_of(done.out, name), SQUARE)
    assert f"1 tasks of {source} have no annotation; they were left out" in done.lines
    assert any(line.startswith(f"1 tasks of {source} have more than one annotation; ") for line in done.lines)
    assert not (done.out / "images/c.jpg").exists()


@pytest.mark.parametrize(
    ("tasks", "phrases"),
    [
        ([task("a.jpg", [region("keypointlabels", {"x": 1})])], ["task 0: region 0 (keypointlabels)", "brush mask"]),
        ([task("a.jpg", [region("polygonlabels", {"points": PERCENT}, image_rotation=90)])], ["region 0", "upright"]),
        ([task("a.jpg", [region("brushlabels", {"rle": brush(SQUARE[1:].ravel()[:-1])})])], ["cover 176 pixels"]),
        ([task("a.jpg", [region("brushlabels", {"rle": [1, 2]})])], ["of a.jpg", "correct or remove it"]),
        ([task("a.jpg", [region("brushlabels", {"rle": [999]})])], ["is not Label Studio"]),
        ([task("text", DRAWN)], ["task 0 has no image in its data"]),
        ([{"image": "a.jpg", "label": []}], ["is not Label Studio's format (it lacks 'data')"]),
        ([{"image": "a.jpg", "annotation_id": 1}], ["is Label Studio's JSON-MIN; export it as JSON"]),
    ],
)
def test_label_studio_that_cannot_be_painted(
    tasks: list[dict[str, Any]], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    source = label_studio(tmp_path, *tasks)
    with refuses(str(source), *phrases):
        import_annotations([source], tmp_path / "out", images=tmp_path / "photos")


# GeoJSON of QuPath


def feature(kind: str, coordinates: Any, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties}


RING = [[*CORNERS, CORNERS[0]]]
TUMOR = {"objectType": "annotation", "classification": {"name": "Tumor", "color": [200, 0, 0]}, "isLocked": False}


def test_geojson_of_qupath(tmp_path: Path) -> None:
    """A list of features, of which the second has two parts and a hole."""
    picture(tmp_path / "slide.v2.tif", HEIGHT, WIDTH)
    parts = [[[[0, 6], [4, 6], [4, 10], [0, 10], [0, 6]], [[1, 7], [3, 7], [3, 9], [1, 9], [1, 7]]]]
    parts.append([[[x + 8, y + 6] for x, y in RING[0]]])
    stroma = TUMOR | {"classification": {"names": ["Stroma"], "name": "Stroma"}}
    content = [feature("Polygon", RING, **TUMOR), feature("MultiPolygon", parts, **stroma)]
    (tmp_path / "slide.v2.geojson").write_text(json.dumps(content))
    done = imported([tmp_path], tmp_path / "out")
    assert done.names == ["background", "Stroma", "Tumor"]
    expected = SQUARE * 2
    expected[6:10, 0:4], expected[7:9, 1:3], expected[7:11, 10:] = 1, 0, 1
    np.testing.assert_array_equal(mask_of(done.out, "slide.v2"), expected)


# YOLO's polygons

ROBOFLOW = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['crack', 'hole']\n"
SPLIT_OF = {"train": "train", "valid": "val", "test": "test"}


def relative(points: Sequence[tuple[float, float]], number: int = 0) -> str:
    return " ".join([str(number), *(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in points)]) + "\n"


POLYGON_LINE = relative(CORNERS)
BOTH = POLYGON_LINE + relative([(9, 9), (12, 9), (12, 11)], 1)


def yolo(root: Path, place: str, names: Sequence[str], text: str = BOTH) -> Path:
    """Images and labels; in the name of a place, `{kind}` is one of the two."""
    for name in names:
        picture(root / place.format(kind="images") / f"{name}.JPG", HEIGHT, WIDTH)
        label = root / place.format(kind="labels") / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(text)
    return root


@pytest.mark.parametrize("place", ["{split}/{{kind}}", "{{kind}}/{split}"])
def test_yolo_becomes_a_folder(place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At the second try: the first names the command."""
    root = tmp_path / "my cracks"
    for split in SPLIT_OF:
        yolo(root, place.format(split=split), [f"{split}_jpg.rf.0{index}" for index in (1, 2)])
    yolo(root, place.format(split="train"), ["a", "none", "unlabelled"], "")  # one's name is in val too
    (root / place.format(split="train").format(kind="labels") / "unlabelled.txt").unlink()
    yolo(root, place.format(split="valid"), ["a"])
    (root / "data.yaml").write_text(ROBOFLOW)
    (root / "README.roboflow.txt").write_text("Exported\n")
    assert main(["train", str(root), f"--out={tmp_path / 'run'}"]) == 2
    command = capsys.readouterr().err.partition("'crispseg ")[2].rpartition("' makes")[0]
    assert main(shlex.split(command)) == 0
    assert "3 images without annotations (all background)" in capsys.readouterr().out
    out = Path(shlex.split(command)[-1])
    data = Folder(root=out)
    found = {split: [pair.name for pair in data.dataset(split).pairs] for split in SPLIT_OF.values()}
    assert {split: len(names) for split, names in found.items()} == {"train": 5, "val": 3, "test": 2}
    assert data.label_set().names == ("background", "crack", "hole")
    val = {pair.name: read_mask(pair.mask) for pair in data.dataset("val").pairs}
    for mask in val.values():
        np.testing.assert_array_equal(mask[:8], SQUARE[:8])
        assert mask[9, 11] == 2
    assert not any(mask.any() for mask in (read_mask(pair.mask) for pair in data.dataset("train").pairs[:1]))


def test_data_yaml_tells_names_and_splits(tmp_path: Path, refuses: Any) -> None:
    for place in ("one", "two"):
        yolo(tmp_path / "in/set", f"{{kind}}/{place}", [place])
    text = "path: set\ntrain: images/one\nval: [images/two]\nnames:\n  1: hole\n  0: 7\n"
    (tmp_path / "in/data.yaml").write_text(text)
    done = imported([tmp_path / "in"], tmp_path / "out")
    assert done.names == ["background", "7", "hole"]
    assert done.splits == {"train": ["set/one/one"], "val": ["set/two/two"]}
    assert len(imported([tmp_path / "in/set"], tmp_path / "below").splits) == 2
    yolo(tmp_path / "near/flat", "{kind}", ["a"])
    (tmp_path / "near/flat/data.yaml").write_text("names: [crack, hole]\ntrain: images\nval: images\n")
    assert imported([tmp_path / "near"], tmp_path / "all").splits == {}
    (tmp_path / "near/flat/labels/b.txt").write_text(BOTH)
    with refuses("labels/b.txt has no image"):
        import_annotations([tmp_path / "near/flat"], tmp_path / "again")


@pytest.mark.parametrize("name", ["data.yml", "classes.txt", "labels/classes.txt", "data.yaml"])
def test_class_names_of_yolo_in_other_files(name: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "in", "{kind}", ["a"])
    (root / "notes.json").write_text('{"categories": [{"id": 0, "name": "crack"}], "info": {}}')
    (root / "labels/classes.txt").write_text("x\ny\n")
    (root / name).write_text("crack\nhole\n" if name.endswith("txt") else "names: [crack, hole]")
    first = ["x", "y"] if name == "classes.txt" else ["crack", "hole"]
    assert imported([root], tmp_path / "out").names == ["background", *first]


@pytest.mark.parametrize(
    ("text", "yaml", "phrases"),
    [
        (POLYGON_LINE + "0 0.5 0.5 0.1 0.1\n", "names: [a]", ["a.txt: line 2 is a box", "polygons"]),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("0 0.5 0.5 nan 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("crack 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("3 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "class 3", "names"]),
        (POLYGON_LINE, "", ["no data.yaml", "names: [a, b]"]),
        (POLYGON_LINE, "nc: 1", ["data.yaml", "names: [a, b]"]),
        (POLYGON_LINE, f"path: {'9' * 300}\ntrain: images\nnames: [a]", ["is not the name of a file"]),
        ("\x00\xff", "names: [a]", ["a.txt"]),
    ],
)
def test_yolo_that_cannot_be_painted(text: str, yaml: str, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    yolo(tmp_path / "in", "{kind}", ["a"], text)
    if yaml:
        (tmp_path / "in/data.yaml").write_text(yaml)
    with refuses(*phrases):
        import_annotations([tmp_path / "in"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Any of these
