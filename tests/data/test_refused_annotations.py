"""Annotations of labelling tools that are refused: each is named in one line, and nothing is written."""

import json
from pathlib import Path
from typing import Any

import pytest

from crispseg.data.importing import import_annotations

from .annotation_files import (
    CAR,
    HEIGHT,
    PERCENT,
    TUMOR,
    WIDTH,
    YOLO,
    box,
    coco,
    cvat,
    feature,
    labelme,
    region,
    shape,
    task,
    written,
)
from .test_labelling_tools import SQUARE, brush

IMAGES = ["a.jpg", "b.jpg", "images/y.png", "images/c.png", "images/c.jpg"]
SQUARES, SIZE = {"category_id": 7, "segmentation": [box(0, 0, 2, 2)]}, [HEIGHT, WIDTH]
ENTRIES: list[tuple[dict[str, Any], list[str]]] = [
    ({"category_id": 8}, ["annotation 100 refers to image 10 and category 8", "not list both"]),
    (SQUARES | {"image_id": 5}, ["refers to image 5 and category 7"]),
    (SQUARES | {"segmentation": []}, ["annotation 100 has a box but no segmentation"]),
    (SQUARES | {"segmentation": [[[1, 1, 2], [5, 1, 2]]]}, ["annotation 100", "pairs of x and y"]),
    *((SQUARES | {"iscrowd": crowd}, [f"iscrowd {crowd!r}; write 0"]) for crowd in ("0", "false", 2, [])),
    (SQUARES | {"segmentation": [[1, 2, 3, 4]]}, ["has 2 points, but needs 3"]),
    (SQUARES | {"segmentation": [[1, 2, 3, 4, 5, 6, 7]]}, ["annotation 100 of a.jpg: it has an unknown structure"]),
    (SQUARES | {"segmentation": [box(0, 0, 20, 2)]}, ["annotation 100", "points outside", "12x16"]),
]
RUNS: list[tuple[list[int], Any, str]] = [
    ([WIDTH, HEIGHT], [0], "its size is [16, 12], but the image is [12, 16] (height, width)"),
    (SIZE, [0, 5], "its counts cover 5 pixels, but the image has 192"),
    (SIZE, "05", "its counts cover 5 pixels, but the image has 192"),
    (SIZE, [0, 193], "annotation 100 of a.jpg: its counts cover 193 pixels"),
]
ENTRIES += [(SQUARES | {"segmentation": {"size": size, "counts": counts}}, [why]) for size, counts, why in RUNS]
TEXTS = [
    ('{"images": [}', ["is not JSON (Expecting value: line 1 column 13", "export it again"]),
    ('{"images": [], "annotations": [1], "annotations": []}', ["is not JSON", "'annotations' twice"]),
    ('{"images": [], "categories": [{"id": 1, "name": null}]}', ["category 1 has null as class name"]),
    ('{"images": [{"id": 1}], "annotations": [], "categories": []}', ["is not COCO's format", "'file_name'"]),
    ('{"images": [null], "annotations": [], "categories": []}', ["is not COCO's format", "unknown structure"]),
    ('{"type": "Topology", "objects": {}}', ["has no known format"]),
    ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', ["contain no annotated images"]),
    (coco(images=[(1, "")]), ["an empty name, which"]),
]
SHAPES: list[tuple[list[Any], dict[str, Any], list[str]]] = [
    ([shape("pole", [[1, 1]], "point")], {}, ["shape 0 ('pole')", "'point'", "polygon, rectangle, circle"]),
    ([CAR, shape("pole", [[1, 1]], "line")], {}, ["shape 1 ('pole')", "1 points, but needs 2"]),
    ([{"label": "tree"}], {}, ["a.json is not labelme's format", "'points'"]),
    ([CAR | {"mask": "AAAA"}], {}, ["shape 0 ('car') of a.jpg: it has an unknown structure"]),
    ([shape("tree", [[1, 1, 0], [2, 2, 0], [3, 1, 0]])], {}, ["shape 0 ('tree')", "pairs of x and y"]),
    ([CAR | {"label": None}], {}, ["shape 0 has null as class name"]),
    ([CAR], {"imageHeight": 11}, ["as (11, 16)", "is (12, 16)", "annotate"]),
]
NAMES = ("a\nb", "a\u2028b", "#1 plastic", "", "a\tb", "\udcff")
SHAPES += [([CAR | {"label": name}], {}, [repr(name), "a.json: "]) for name in NAMES]
CVAT = [
    (cvat('<ellipse label="car" cx="5" cy="5" rx="2" ry="1"/>'), ["image a.jpg: ellipse 'car'", "draw it as one"]),
    (cvat('<box label="car" rotation="9" xtl="1" ytl="1" xbr="2" ybr="2"/>'), ["box 'car'", "upright"]),
    (cvat('<polygon points="1,1;2,2;3,1"/>'), ["c.xml is not CVAT's format (it lacks 'label')"]),
    (cvat('<polygon label="car" points="1,1;2;3,1"/>'), ["polygon 'car' of a.jpg", "correct or remove it"]),
    (
        cvat('<mask label="car" rle="1, 2" left="0" top="0" width="2" height="2"/>'),
        ["mask 'car' of a.jpg", "unknown structure"],
    ),
    (cvat('<mask label="car" rle="0, 4" left="15" top="0" width="2" height="2"/>'), ["not within the image"]),
    (cvat('<polygon label="car"'), ["is not XML (not well-formed", "export it again"]),
    ('<annotations><track id="0" label="car"/></annotations>', ["tracks of a video", "CVAT for images 1.1"]),
    ("<annotation><object/></annotation>", ["boxes of PASCAL VOC", "CVAT for images 1.1"]),
    ("<View/>", ["contains no annotations of COCO, YOLO, CVAT"]),
    (cvat(images=["a.jpg", "a.jpg"]), ["image 0 (task 0) and", "image 1 (task 1)"]),
]
SHORT = {"rle": brush(SQUARE[1:].ravel()[:-1]), "brushlabels": ["car"]}
PAIR = {"before": "/d/a.jpg", "after": "/d/b.jpg"}
OUTLINE = region("polygon", {"points": PERCENT})
STUDIO: list[tuple[list[Any], list[str]]] = [
    ([task("a.jpg", [region("keypointlabels", {"x": 1, "keypointlabels": ["car"]})])], ["(keypointlabels)", "brush"]),
    ([task("a.jpg", [region(image_rotation=90)])], ["region 0", "upright"]),
    ([task("a.jpg", [region("brushlabels", SHORT)])], ["cover 176 pixels"]),
    ([task("a.jpg", [region("brushlabels", SHORT | {"rle": [1, 2]})])], ["of a.jpg", "correct or remove it"]),
    ([task("a.jpg", [region("brushlabels", SHORT | {"rle": [999]})])], ["is not Label Studio"]),
    ([task("text", [region()])], ["task 0 has no image in its data"]),
    ([{"image": "a.jpg", "label": []}], ["has no known format"]),
    ([{"data": "a.jpg", "annotations": [1]}], ["is not Label Studio's format"]),
    ([{"image": "a.jpg", "annotation_id": 1}], ["is Label Studio's JSON-MIN; export it as JSON"]),
    ([task("/d/1/a.jpg", [region()])] * 2, ["task 0 (image) and", "task 1 (image)"]),
    ([task(PAIR, [region(to_name="image")])], ["task 0: region", "'image', but the task has after, before"]),
    ([task("a.jpg", [region(value={"points": PERCENT, "polygonlabels": ["car", "bus"]})])], ["the labels car and bus"]),
    ([task("a.jpg", [OUTLINE, region("labels", {"labels": ["car"]}, id="b")])], ["task 0: region", "with a label"]),
    ([task("a.jpg", [OUTLINE, region("labels", {"labels": ["car", "bus"]})])], ["the labels car and bus"]),
]
COLLECTION = feature(kind="GeometryCollection") | {"geometry": {"type": "GeometryCollection", "geometries": []}}
FEATURES = [
    ([feature(None)], "feature 0 has no class of QuPath"),
    ([feature({"class": "x"})], "on a map"),
    ([feature(coordinates=[[[1, 1, 0], [2, 2, 0], [3, 1, 0]]])], "pairs of x and y"),
    ([feature(kind="Point")], "feature 0 is a Point, not a polygon"),
    ([COLLECTION], "a GeometryCollection"),
    ({"type": "Feature", "geometry": None, "properties": None}, "is not GeoJSON's format"),
    ([{"geometry": None}], "is not GeoJSON's format (it lacks 'properties')"),
]
LINES = [
    (f"{YOLO}0 0.5 0.5 0.1 0.1\n", "names: [a]", ["y.txt: line 2 is a box", "polygons"]),
    ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3\n", "names: [a]", ["y.txt: line 1", "x1 y1"]),
    ("crack 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["y.txt: line 1", "x1 y1"]),
    ("3 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["y.txt: line 1", "class 3", "names"]),
    (YOLO, "nc: 1", ["data.yaml", "names: [a, b]"]),
    (YOLO, f"path: {'9' * 300}\ntrain: images\nnames: [a]", ["data.yaml: '999", "is not the name of a file"]),
    ("\x00\xff", "names: [a]", ["y.txt"]),
    (YOLO, "names: [car, car]", ["'car' is both 0 and 1"]),
    (YOLO, "names: {0: car, 0: bus}", ["'0' is given twice"]),
    (YOLO, "names: [car, true]", ["class 1 has true", "quotes"]),
]
TWICE = labelme([CAR])
REFUSED: list[tuple[dict[str, str], list[str]]] = [
    *(({"a.json": coco([entry])}, ["a.json", *phrases]) for entry, phrases in ENTRIES),
    *(({"a.json": text}, ["a.json", *phrases]) for text, phrases in TEXTS),
    *(({"a.json": labelme(shapes, **more)}, phrases) for shapes, more, phrases in SHAPES),
    *(({"c.xml": text}, phrases) for text, phrases in CVAT),
    *(({"t.json": json.dumps(tasks)}, ["t.json", *phrases]) for tasks, phrases in STUDIO),
    *(({"a.geojson": json.dumps(content)}, [phrase]) for content, phrase in FEATURES),
    *(({"data.yaml": yaml, "labels/y.txt": text}, phrases) for text, yaml, phrases in LINES),
    ({"labels/y.txt": YOLO}, ["no data.yaml", "names: [a, b]"]),
    ({"data.yaml": "names: [car]", "labels/c.txt": YOLO}, ["c.jpg and", "c.png", "same name"]),
    # Entries that collide are both named
    ({"c.json": coco(images=[(1, "a.jpg"), (51, "a.jpg")])}, ["a.jpg", "image 1 and", "image 51"]),
    ({"c.json": coco(images=[(1, "a.jpg"), (1, "b.jpg")])}, ["image 1 is both a.jpg and b.jpg"]),
    ({"c.json": coco(images=[(1, "a.jpg")], categories=[(1, "car"), (1, "bus")])}, ["category 1", "car and bus"]),
    ({"c.json": coco(images=[(1, "a.jpg"), (2, "b.jpg")], categories=[(1, "car"), (2, "car")])}, ["is both 1 and 2"]),
    ({"c.json": coco(images=[(1, "x/a.jpg"), (2, "y/a.jpg")])}, ["image 1 and", "image 2"]),
    ({"a.json": TWICE, "a - Copy.json": TWICE}, ["a.json and", "a - Copy.json"]),
    (dict.fromkeys(["x/a.geojson", "y/a.geojson"], json.dumps([feature(TUMOR)])), ["x/a.geojson and", "y/a.geojson"]),
]


@pytest.mark.parametrize(("files", "phrases"), REFUSED)
def test_what_cannot_be_painted(files: dict[str, str], phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    root = written(tmp_path / "in", files, IMAGES)
    sources = [root / name for name in files] if all(name.endswith("json") for name in files) else [root]
    with refuses(*phrases):
        import_annotations(sources, tmp_path / "out", images=root)
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))
