"""Annotations of other systems: whose shapes they are, and paths as other systems write them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crispseg
from crispseg.data.importing import import_annotations
from crispseg.data.label_studio import read_label_studio
from crispseg.io.images import read_mask

from .annotation_files import CAR, PERCENT, YOLO, coco, cvat, feature, labelme, region, task, written
from .own_folders import imported


def test_unused_class_of_the_same_name(tmp_path: Path) -> None:
    """Roboflow lists the project as a class before the classes."""
    text = coco(images=[(1, "a.png")], categories=[(1, "car"), (0, "car")])
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
        "coco": ("c.json", coco(images=[(1, path)], categories=[(1, "car")])),
        "cvat": ("c.xml", cvat(images=[path])),
        "studio": ("t.json", json.dumps([task(f"/data/local-files/?d={path}", [region()])])),
        "labelme": ("x.json", labelme([CAR], path)),
    }
    root = written(tmp_path / "in", dict([files[kind]]), ["images/day1/a.png", "images/day2/a.png"])
    done = imported([root], tmp_path / "out", images=root / "images")
    assert np.count_nonzero(read_mask(done.out / "masks/day1/a.png")) == 24 and not (done.out / "masks/day2").exists()


@pytest.mark.parametrize("name", ["a" * 5000, "a/" * 2500 + "a", "a\0b", "\ud800"], ids=range(4))
@pytest.mark.parametrize("kind", ["coco", "cvat", "studio", "labelme", "split", "yolo"])
def test_names_that_no_file_has(kind: str, name: str, tmp_path: Path, refuses: Any) -> None:
    image = f"{name}.png"
    files = {
        "coco": ("c.json", coco(images=[(1, image)])),
        "cvat": ("c.xml", cvat(images=["a" * 5000])),
        "studio": ("t.json", json.dumps([task(f"/data/local-files/?d={image}", [region()])])),
        "labelme": ("x.json", labelme([CAR], image)),
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
ONE = {"image": "/data/upload/1/a.png"}


RECTANGLE = {"x": 0, "y": 0, "width": 37.5, "height": 100 / 3}
LABEL = region("labels", {"labels": ["car"]})


@pytest.mark.parametrize(
    ("data", "result", "names"),
    [
        (PAIR, [region(to_name="after")], ["b"]),
        (PAIR, [region(to_name="before"), region(to_name="after")], ["a", "b"]),
        (NAMED, [region()], ["a"]),
        (ONE, [region("polygon", {"points": PERCENT, "x": 1}), LABEL], ["a"]),
        (ONE, [LABEL, region("polygon", {"points": PERCENT, "x": 1})], ["a"]),
        (ONE, [region("rectangle", RECTANGLE), LABEL], ["a"]),
        *((ONE, [region(), region(kind, {kind: ["x"]})], ["a"]) for kind in ("choices", "textarea", "taxonomy")),
    ],
)
def test_regions_of_label_studio(data: dict[str, Any], result: list[Any], names: list[str], tmp_path: Path) -> None:
    """A region is on its own image, with its only label."""
    root = written(tmp_path / "in", {"t.json": json.dumps([task(data, result)])}, ["a.png", "b.png"])
    done = imported([root], tmp_path / "out")
    assert done.names == ["background", "car"]
    masks = {file.stem: read_mask(file) for file in (done.out / "masks").iterdir()}
    assert sorted(masks) == names and all(np.count_nonzero(mask) == 24 for mask in masks.values())


@pytest.mark.parametrize(("data", "images", "notes"), [(ONE, 1, 0), (NAMED, 1, 0), (PAIR, 0, 1)])
def test_tasks_without_regions(data: dict[str, Any], images: int, notes: int, tmp_path: Path) -> None:
    """A single image is all background, also with its file name; of several, it is unclear which are annotated."""
    path = tmp_path / "t.json"
    annotations = read_label_studio(path, [task(data, [])])
    assert (len(annotations.images), len(annotations.notes)) == (images, notes)


DERIVED = {"classification": {"names": ["Tumor", "Positive"]}}
NAMED_TWICE = {"classification": {"name": "Tumor", "names": ["Tumor"]}}


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.geojson", json.dumps([feature(DERIVED)]), ["background", "Tumor: Positive"]),
        ("a.geojson", json.dumps([feature(NAMED_TWICE)]), ["background", "Tumor"]),
        ("a.json", labelme([CAR], "a.json"), ["background", "car"]),
    ],
)
def test_odd_exports(name: str, text: str, names: list[str], tmp_path: Path) -> None:
    """Derived classes of QuPath, three coordinates, and labelme's tutorial, which names the JSON itself."""
    root = written(tmp_path / "in", {name: text}, ["a.png"])
    assert imported([root], tmp_path / "out").names == names
