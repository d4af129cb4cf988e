"""Files as CVAT, labelme, Label Studio, QuPath and YOLO's tools write them become folders of masks."""

import base64
import io
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

from .annotation_files import (
    HEIGHT,
    POLYGON,
    RING,
    SQUARE,
    TUMOR,
    WIDTH,
    YOLO,
    brush,
    cvat,
    feature,
    labelme,
    region,
    relative,
    shape,
    task,
    written,
)
from .own_folders import Imported, imported


def mask_of(folder: Path, name: str = "a") -> NDArray[np.uint8]:
    return read_mask(folder / f"masks/{name}.png")


def test_cvat_for_images(tmp_path: Path) -> None:
    box = '<box label="wheel" source="manual" occluded="0" xtl="4.00" ytl="2.00" xbr="6.00" ybr="9.00" z_order="{}"/>'
    mask = '<mask label="wheel" rle="1, 2, 1" left="14" top="9" width="2" height="2" z_order="0"></mask>'
    tag = '<tag label="good_frame" source="manual"></tag>'
    polygon = POLYGON.format('z_order="1"') + "<!-- -->"

    def done_of(shapes: str, name: str) -> Imported:
        root = written(tmp_path / name, {"annotations.xml": cvat(shapes)}, ["images/a.jpg"])
        return imported([root], tmp_path / f"{name}_out")

    done = done_of(polygon + box.format(0) + mask + tag, "one")
    assert done.names == ["background", "wheel", "car"]
    expected = np.zeros_like(SQUARE)
    expected[2:9, 4:6], expected[SQUARE > 0] = 1, 2  # the polygon is larger, but in front
    expected[9, 15], expected[10, 14] = 1, 1
    np.testing.assert_array_equal(mask_of(done.out), expected)
    assert (mask_of(done_of(polygon + box.format(2), "two").out)[2:9, 4:6] == 1).all()


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


DRAWN = [region()]


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
    first = region("brushlabels", {"format": "rle", "rle": brush(flat), "brushlabels": ["wheel"]})
    box = {"x": 0, "y": 0, "width": 100 / WIDTH * 2, "height": 100 / HEIGHT, "rotation": 0, "rectanglelabels": ["car"]}
    choice = {"type": "choices", "value": {"choices": ["good"]}, "from_name": "quality", "to_name": "image"}
    cancelled = {"result": [region("brushlabels", {"rle": [], "brushlabels": ["car"]})], "was_cancelled": True}
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


def test_geojson_of_qupath(tmp_path: Path) -> None:
    """A list of features, of which the second has two parts and a hole."""
    picture(tmp_path / "slide.v2.tif", HEIGHT, WIDTH)
    parts = [[[[0, 6], [4, 6], [4, 10], [0, 10], [0, 6]], [[1, 7], [3, 7], [3, 9], [1, 9], [1, 7]]]]
    parts.append([[[x + 8, y + 6] for x, y in RING[0]]])
    stroma = TUMOR | {"classification": {"names": ["Stroma"], "name": "Stroma"}}
    content = [feature(), feature(stroma, "MultiPolygon", parts)]
    (tmp_path / "slide.v2.geojson").write_text(json.dumps(content))
    done = imported([tmp_path], tmp_path / "out")
    assert done.names == ["background", "Stroma", "Tumor"]
    expected = SQUARE * 2
    expected[6:10, 0:4], expected[7:9, 1:3], expected[7:11, 10:] = 1, 0, 1
    np.testing.assert_array_equal(mask_of(done.out, "slide.v2"), expected)


STROKES = {"Stroma": [(2, 2), (9, 2), (9, 8)], "Tumor": [(4.5, 10.5), (13.5, 10.5)]}


def qupath_lines(stroke: dict[str, Any]) -> str:
    features = []
    for name, points in STROKES.items():
        drawn = feature({"classification": {"name": name}, **stroke}, "LineString", points)
        features.append(drawn)
    return json.dumps(features)


@pytest.mark.parametrize(
    ("file", "text", "width"),
    [
        ("a.json", labelme([shape(name, points, "linestrip") for name, points in STROKES.items()], "a.tif"), 3),
        ("a.geojson", qupath_lines({}), 3),
        ("a.geojson", qupath_lines({"stroke-width": 1}), 1),
    ],
)
def test_lines_are_strokes_on_unlabelled_pixels(file: str, text: str, width: int, tmp_path: Path) -> None:
    for name in "ab":
        picture(tmp_path / f"in/{name}.tif", HEIGHT, WIDTH)
    (tmp_path / "in" / file).write_text(text)
    done = imported([tmp_path / "in"], tmp_path / "out")
    assert done.names == ["Stroma", "Tumor"] and any("255, unlabelled" in line for line in done.lines)
    mask = mask_of(done.out)
    assert mask[2, 4] == mask[5, 9] == 0 and mask[10, 7] == 1
    assert [int((mask[:, 5] == label).sum()) for label in (0, 1)] == [width, width]
    assert (mask == 255).mean() > 0.5


LINE = shape("cell", [(1, 9), (6, 9)], "line")
AREA = shape("cell", [(1, 1), (9, 1), (9, 4)])


def imported_lines(root: Path, **images: list[dict[str, Any]]) -> tuple[Imported, dict[str, NDArray[np.uint8]]]:
    for name, shapes in images.items():
        picture(root / f"in/{name}.tif", HEIGHT, WIDTH)
        (root / f"in/{name}.json").write_text(labelme(shapes, f"{name}.tif"))
    done = imported([root / "in"], root / "out")
    return done, {path.stem: mask_of(done.out, path.stem) for path in (done.out / "masks").iterdir()}


def test_each_image_decides_about_pixels_without_a_shape(tmp_path: Path) -> None:
    """They are background next to areas; an image without any shape is left out."""
    done, masks = imported_lines(tmp_path, a=[LINE], b=[AREA], both=[LINE, AREA], c=[])
    assert done.names == ["background", "cell"] and masks["both"][9, 3] == 1
    assert {name: mask[11, 15] for name, mask in masks.items()} == {"a": 255, "b": 0, "both": 0}
    assert "images without annotations, left out: 1 (c.tif)" in done.lines


def test_lines_of_the_background_make_it_class_0(tmp_path: Path) -> None:
    line = shape("_background_", [(1, 1), (9, 1)], "linestrip")
    done, masks = imported_lines(tmp_path, a=[LINE, line])
    assert done.names == ["background", "cell"] and masks["a"][9, 3] == 1
    assert masks["a"][5, 12] == 255 and (masks["a"][:3, 4] == 0).all()


ROBOFLOW = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['crack', 'hole']\n"
SPLIT_OF = {"train": "train", "valid": "val", "test": "test"}
BOTH = YOLO + relative([(9, 9), (12, 9), (12, 11)], 1)


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
    assert "images without annotations, all background: 3" in capsys.readouterr().out
    out = Path(shlex.split(command)[-1])
    data = Folder(root=out)
    splits = {split: [pair.name for pair in data.dataset(split).pairs] for split in SPLIT_OF.values()}
    assert {split: len(names) for split, names in splits.items()} == {"train": 5, "val": 3, "test": 2}
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


def test_images_of_yolo_in_another_folder(tmp_path: Path) -> None:
    """The given folder is that of the images, or the one above it."""
    root = yolo(tmp_path / "in", "{kind}/train", ["a"])
    (root / "data.yaml").write_text("names: [crack, hole]")
    (tmp_path / "photos").mkdir()
    (root / "images").rename(tmp_path / "photos/images")
    for number, place in enumerate(("photos", "photos/images")):
        done = imported([root], tmp_path / f"out{number}", images=tmp_path / place)
        assert (read_mask(next((done.out / "masks").rglob("a.png")))[:8] == SQUARE[:8]).all()


@pytest.mark.parametrize("name", ["data.yml", "classes.txt", "labels/classes.txt", "data.yaml"])
def test_class_names_of_yolo_in_other_files(name: str, tmp_path: Path) -> None:
    root = yolo(tmp_path / "in", "{kind}", ["a"])
    (root / "notes.json").write_text('{"categories": [{"id": 0, "name": "crack"}], "info": {}}')
    (root / "labels/classes.txt").write_text("x\ny\n")
    (root / name).write_text("crack\nhole\n" if name.endswith("txt") else "names: [crack, hole]")
    first = ["x", "y"] if name == "classes.txt" else ["crack", "hole"]
    assert imported([root], tmp_path / "out").names == ["background", *first]


@pytest.mark.parametrize(
    ("line", "phrase"),
    [("0 0.5 0.5 nan 0.1 0.2 0.2\n", "points outside"), ("0 0.5 0.5\n", "has 1 points, but needs 3")],
)
def test_lines_of_yolo_without_a_polygon(line: str, phrase: str, tmp_path: Path, refuses: Any) -> None:
    root = yolo(tmp_path / "in", "{kind}", ["a"], line)
    (root / "data.yaml").write_text("names: [crack]")
    with refuses("a.txt: line 1", phrase):
        import_annotations([root], tmp_path / "out")
