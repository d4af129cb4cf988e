"""Annotations of other systems: whose shapes they are, and paths as other systems write them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import picture

import crispseg
from crispseg.data.importing import import_annotations
from crispseg.data.label_studio import read_label_studio
from crispseg.io.images import read_mask

from .own_folders import imported

SIDE = 10
CORNERS = [(0, 0), (5, 0), (5, 5), (0, 5)]
FLAT = [coordinate for corner in CORNERS for coordinate in corner]
NAMES = {1: "car", 2: "bus"}


def coco(images: Sequence[tuple[int, str]], categories: Sequence[tuple[int, str]] = tuple(NAMES.items())) -> str:
    """COCO's file with a shape of each listed image, of the categories in turn."""
    pairs = list(zip(images, [*categories, *categories], strict=False))
    return json.dumps(
        {
            "images": [{"id": number, "file_name": name} for number, name in images],
            "categories": [{"id": number, "name": name} for number, name in categories],
            "annotations": [
                {"id": index, "image_id": image[0], "category_id": category[0], "segmentation": [FLAT]}
                for index, (image, category) in enumerate(pairs)
            ],
        }
    )


def cvat(*images: str) -> str:
    points = ";".join(f"{x},{y}" for x, y in CORNERS)
    elements = [
        f'<image id="{index}" task_id="{index}" name="{name}" width="{SIDE}" height="{SIDE}">'
        f'<polygon label="car" points="{points}"/></image>'
        for index, name in enumerate(images)
    ]
    return f"<annotations>{''.join(elements)}</annotations>"


def region(kind: str = "polygonlabels", number: str = "a", to: str = "image", **value: Any) -> dict[str, Any]:
    """A result of Label Studio, by default of a polygon that is a car."""
    points = [[10 * x, 10 * y] for x, y in CORNERS]
    head = {"id": number, "type": kind, "to_name": to, "original_width": SIDE, "original_height": SIDE}
    return {**head, "value": {"points": points, **(value or {"polygonlabels": ["car"]})}}


def studio(*tasks: tuple[dict[str, Any], list[dict[str, Any]]]) -> str:
    return json.dumps([{"data": data, "annotations": [{"result": result}]} for data, result in tasks])


def labelme(image: str) -> str:
    return json.dumps({"imagePath": image, "shapes": [{"label": "car", "points": CORNERS}]})


def geojson(properties: Any, kind: str = "Polygon") -> str:
    geometry = {"type": kind, "coordinates": [[*CORNERS, CORNERS[0]]]}
    return json.dumps([{"type": "Feature", "geometry": geometry, "properties": properties}])


def written(root: Path, files: dict[str, str], images: Sequence[str]) -> Path:
    for image in images:
        picture(root / image, SIDE, SIDE)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


TUMOR = {"classification": {"name": "Tumor"}}
TASK = ({"image": "/data/upload/1/a.png"}, [region()])
YOLO = "0 0 0 0.5 0 0.5 0.5\n"


@pytest.mark.parametrize(
    ("files", "phrases"),
    [
        ({"c.json": coco([(1, "a.png"), (51, "a.png")])}, ["a.png", "image 1 and", "image 51"]),
        ({"c.json": coco([(1, "a.png"), (1, "b.png")])}, ["image 1 is both a.png and b.png"]),
        ({"c.json": coco([(1, "a.png"), (2, "b.png")], [(1, "car"), (1, "bus")])}, ["category 1", "car and bus"]),
        ({"c.json": coco([(1, "a.png"), (2, "b.png")], [(1, "car"), (2, "car")])}, ["'car' is both 1 and 2"]),
        ({"c.json": coco([(1, "x/a.png"), (2, "y/a.png")])}, ["image 1 and", "image 2"]),
        ({"c.xml": cvat("a.png", "a.png")}, ["image 0 (task 0) and", "image 1 (task 1)"]),
        ({"t.json": studio(TASK, TASK)}, ["task 0 (image 0) and", "task 1 (image 0)"]),
        ({"a.json": labelme("a.png"), "a - Copy.json": labelme("a.png")}, ["a - Copy.json and", "a.json"]),
        ({"x/a.geojson": geojson(TUMOR), "y/a.geojson": geojson(TUMOR)}, ["x/a.geojson and", "y/a.geojson"]),
        ({"data.yaml": "names: [car, car]", "labels/c.txt": YOLO}, ["'car' is both 0 and 1"]),
        ({"data.yaml": "names: {0: car, 0: bus}", "labels/c.txt": YOLO}, ["'0' is given twice"]),
        ({"data.yaml": "names: [car, true]", "labels/c.txt": YOLO}, ["class 1 has true", "quotes"]),
        ({"data.yaml": "names: [car]", "labels/c.txt": YOLO}, ["c.jpg and", "c.png", "same name"]),
    ],
)
def test_entries_that_collide_are_both_named(
    files: dict[str, str], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    root = written(tmp_path / "in", files, ["a.png", "b.png", "images/c.png", "images/c.jpg"])
    with refuses(*phrases):
        import_annotations([root], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_unused_class_of_the_same_name(tmp_path: Path) -> None:
    """Roboflow lists the project as a class before the classes."""
    text = coco([(1, "a.png")], [(1, "car"), (0, "car")])
    done = imported([written(tmp_path / "in", {"c.json": text}, ["a.png"])], tmp_path / "out")
    assert done.names == ["background", "car"]


PATHS = [
    *("day1\\a.png", "images\\day1\\a.png", "images/day1/a.png", "C:\\data\\images\\day1\\a.png"),
    *("/home/x/images/day1/a.png", "day1%5Ca.png", "..\\day1\\a.png", "\\\\server\\share\\day1\\a.png"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", ["coco", "cvat", "studio", "labelme"])
def test_paths_of_other_systems(kind: str, path: str, tmp_path: Path) -> None:
    """The image is found by its folder and name, although another one has the same name."""
    files = {
        "coco": ("c.json", coco([(1, path)])),
        "cvat": ("c.xml", cvat(path)),
        "studio": ("t.json", studio(({"image": f"/data/local-files/?d={path}"}, [region()]))),
        "labelme": ("x.json", labelme(path)),
    }
    root = written(tmp_path / "in", dict([files[kind]]), ["images/day1/a.png", "images/day2/a.png"])
    done = imported([root], tmp_path / "out", images=root / "images")
    assert read_mask(done.out / "masks/day1/a.png").sum() == 25 and not (done.out / "masks/day2").exists()


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 2500 + "a", "a\0b", "\ud800"], ids=range(4))
@pytest.mark.parametrize("kind", ["coco", "cvat", "studio", "labelme", "split", "yolo"])
def test_names_that_no_file_has(kind: str, name: str, tmp_path: Path, refuses: Any) -> None:
    image = f"{name}.png"
    files = {
        "coco": ("c.json", coco([(1, image)])),
        "cvat": ("c.xml", cvat("a" * 5000)),
        "studio": ("t.json", studio(({"image": f"/data/local-files/?d={image}"}, [region()]))),
        "labelme": ("x.json", labelme(image)),
        "split": ("data.yaml", f"train: {json.dumps(name)}\nval: x\nnames: [car]"),
        "yolo": ("data.yaml", f"path: {json.dumps(name)}\ntrain: x\nval: x\nnames: [car]"),
    }
    root = written(tmp_path / "in", dict([files[kind]]), ["images/b.png"])
    (root / "labels").mkdir()
    (root / "labels/b.txt").write_text(YOLO if kind in ("split", "yolo") else "")
    try:
        import_annotations([root], tmp_path / "out", format={"studio": "labelstudio", "split": "yolo"}.get(kind, kind))
    except crispseg.CrispsegError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
    else:
        assert kind in ("split", "yolo")  # whose images have the names of its text files


@pytest.mark.parametrize(
    ("train", "val", "base"),
    [
        ("farm1/images", "farm2/images", ""),
        ("farm1\\images", "farm2\\images", ""),
        ("../farm1/images", "../farm2/images", ""),
        ("C:\\data\\in\\farm1\\images", "C:\\data\\in\\farm2\\images", ""),
        ("/home/x/in/farm1/images", "/home/x/in/farm2/images", ""),
        ("farm1\\images", "farm2\\images", "C:\\data\\in"),
        ("farm1/images", "farm2/images", "../in"),
    ],
)
def test_split_folders_of_other_systems(train: str, val: str, base: str, tmp_path: Path) -> None:
    text = f"path: '{base}'\ntrain: '{train}'\nval: '{val}'\nnames: [car]\n"
    labels = {f"farm{index}/labels/{index}.txt": YOLO for index in (1, 2)}
    images = [f"farm{index}/images/{index}.png" for index in (1, 2)]
    root = written(tmp_path / "in", {"data.yaml": text, **labels}, images)
    assert imported([root], tmp_path / "out").splits == {"train": ["farm1/1"], "val": ["farm2/2"]}


def test_splits_that_are_not_folders_are_named(tmp_path: Path) -> None:
    files = {"data.yaml": "train: train.txt\nval: val.txt\nnames: [car]\n", "labels/c.txt": YOLO}
    done = imported([written(tmp_path / "in", files, ["images/c.png"])], tmp_path / "out")
    assert done.splits == {} and "val.txt of val is not a folder" in done.lines[1]


PAIR = {"before": "/data/upload/1/a.png", "after": "/data/upload/1/b.png"}
NAMED = {"img": "/data/upload/1/0123abcd-a.png", "filename": "a.png"}
ONE, LIST = {"image": "/data/upload/1/a.png"}, {"pages": ["/data/upload/1/a.png", "/data/upload/1/b.png"]}


@pytest.mark.parametrize(
    ("data", "result", "expected"),
    [
        (PAIR, [region(to="after")], ["b"]),
        (PAIR, [region(to="before"), region(to="after")], ["a", "b"]),
        (PAIR, [region(to="image")], "'image', but the task has after, before"),
        (NAMED, [region(to="image")], ["a"]),
        (LIST, [region() | {"item_index": 1}], ["b"]),
        (LIST, [region() | {"item_index": 5}], "'pages'"),
        (ONE, [region(polygonlabels=["car", "bus"])], "the labels car and bus"),
        (ONE, [region("polygon", x=1), region("labels", labels=["car"])], ["a"]),
        (ONE, [region("labels", labels=["car"]), region("polygon", x=1)], ["a"]),
        (ONE, [region("polygon", x=1), region("labels", "b", labels=["car"])], "with a label"),
        (ONE, [region("polygon", x=1), region("labels", labels=["car", "bus"])], "the labels car and bus"),
        (ONE, [region("rectangle", x=0, y=0, width=50, height=50), region("labels", labels=["car"])], ["a"]),
        *((ONE, [region(), region(kind, **{kind: ["x"]})], ["a"]) for kind in ("choices", "textarea", "taxonomy")),
    ],
)
def test_regions_of_label_studio(
    data: dict[str, Any], result: list[Any], expected: list[str] | str, tmp_path: Path, refuses: Any
) -> None:
    """A region is on its own image, with its only label."""
    root = written(tmp_path / "in", {"t.json": studio((data, result))}, ["a.png", "b.png"])
    if isinstance(expected, str):
        with refuses("task 0: region", expected):
            import_annotations([root], tmp_path / "out")
        return
    done = imported([root], tmp_path / "out")
    assert done.names == ["background", "car"]
    masks = {file.stem: read_mask(file) for file in (done.out / "masks").iterdir()}
    assert sorted(masks) == expected and all(np.count_nonzero(mask) == 25 for mask in masks.values())


@pytest.mark.parametrize(("data", "images", "notes"), [(ONE, 1, 0), (NAMED, 1, 0), (PAIR, 0, 1)])
def test_tasks_without_regions(data: dict[str, Any], images: int, notes: int, tmp_path: Path) -> None:
    """A single image is all background, also with its file name; of several, it is unclear which are annotated."""
    path = tmp_path / "t.json"
    annotations = read_label_studio(path, json.loads(studio((data, []))))
    assert (len(annotations.images), len(annotations.notes)) == (images, notes)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.geojson", geojson({"classification": {"names": ["Tumor", "Positive"]}}), ["background", "Tumor: Positive"]),
        ("a.geojson", geojson({"classification": {"name": "Tumor", "names": ["Tumor"]}}), ["background", "Tumor"]),
        ("a.geojson", geojson(TUMOR).replace("]", ", 7.5]", 1), ["background", "Tumor"]),
        ("a.geojson", geojson(None), "feature 0 has no class of QuPath"),
        ("a.geojson", geojson({"class": "x"}), "on a map"),
        ("a.geojson", geojson({"classification": {"name": "x"}}, "Point"), "feature 0 is a Point, not a polygon"),
        (
            "a.geojson",
            geojson(TUMOR, "GeometryCollection").replace("coordinates", "geometries"),
            "a GeometryCollection",
        ),
        ("a.geojson", '{"type": "Feature", "geometry": null, "properties": null}', "feature 0 has no class of QuPath"),
        ("a.json", coco([(1, "")]), "an empty name, which"),
        ("a.geojson", '[{"type": "Feature"}]', "is not GeoJSON's format (it lacks 'geometry')"),
        ("a.json", labelme("a.json"), ["background", "car"]),
    ],
)
def test_odd_exports(name: str, text: str, expected: list[str] | str, tmp_path: Path, refuses: Any) -> None:
    """Derived classes of QuPath, features without properties, and labelme's tutorial, which names the JSON itself."""
    root = written(tmp_path / "in", {name: text}, ["a.png"])
    if isinstance(expected, str):
        with refuses(expected):
            import_annotations([root], tmp_path / "out")
    else:
        assert imported([root], tmp_path / "out").names == expected
