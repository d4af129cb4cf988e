"""COCO's and labelme's annotations as folders of masks."""

from __future__ import annotations

import json
import tracemalloc
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import mask_of as painted
from dataset_trees import picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from PIL import Image
from pycocotools.mask import decode, encode, frPyObjects, merge

from crispseg.data.annotations import MAX_OUTLINE, draw_mask, draw_outlines, read_coco
from crispseg.data.formats import read_annotations
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask

from .own_folders import Imported, imported

HEIGHT, WIDTH = 12, 16

# ---------------------------------------------------------------------------------------------------------- shapes


def drawn(file: Path, *size: int) -> np.ndarray:
    """The pixels of a file's first shape as a mask."""
    return painted(read_annotations(file)[1].images[0].shapes[0].draw(*size), *size)


def test_boxes_and_disks(tmp_path: Path) -> None:
    """Boxes, and disks that the border cuts."""

    def of(points: list[tuple[float, float]], kind: str) -> np.ndarray:
        return drawn(labelme(tmp_path / "a.json", [shape("x", points, kind)]), HEIGHT, WIDTH)

    box = of([(9, 7), (2, 3)], "rectangle")
    assert box[3:7, 2:9].all() and box.sum() == 28
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    np.testing.assert_array_equal(of([(5, 6), (8, 6)], "circle"), (x - 5) ** 2 + (y - 6) ** 2 < 9)
    cut = of([(-0.6, 0.5), (2.7, 0.5)], "circle")
    np.testing.assert_array_equal(cut, (x + 0.6) ** 2 + (y - 0.5) ** 2 < 3.3**2)


def compressed(columns: np.ndarray) -> str:
    """A mask of some columns as COCO's text."""
    text: bytes = encode(np.asfortranarray(np.tile(columns, (HEIGHT, 1)).astype(np.uint8)))["counts"]
    return text.decode()


# ------------------------------------------------------------------------------------------------------------ COCO


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    return [left, top, right, top, right, bottom, left, bottom]


def coco(path: Path, annotations: list[dict[str, Any]], images: Sequence[str] = ("a.jpg",), **more: Any) -> Path:
    """A JSON file beside its images; the ids of annotations and of the image that they belong to are filled in."""
    entries = [
        {"id": 10 + index, "file_name": name, "height": HEIGHT, "width": WIDTH} for index, name in enumerate(images)
    ]
    for name in images:
        if not (path.parent / name).exists():
            picture(path.parent / name, HEIGHT, WIDTH)
    tree = {
        "images": entries,
        "annotations": [{"id": 100 + index, "image_id": 10, **entry} for index, entry in enumerate(annotations)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree))
    return path


def mask_of(done: Imported, name: str = "a") -> np.ndarray:
    return read_mask(done.out / "masks" / f"{name}.png")


def test_coco_becomes_a_folder(tmp_path: Path) -> None:
    counts = [0, HEIGHT * 2, HEIGHT * (WIDTH - 2)]  # the first two columns
    source = coco(
        tmp_path / "in" / "instances.json",
        [
            {"category_id": 3, "segmentation": [box(4, 1, 8, 5), box(10, 1, 12, 3)]},
            {"category_id": 7, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}},
            {
                "category_id": 7,
                "segmentation": {"size": [HEIGHT, WIDTH], "counts": compressed(np.arange(WIDTH) < 2)},
                "image_id": 11,
            },
        ],
        ["a.jpg", "deep/b.jpg", "none.jpg"],
    )
    picture(tmp_path / "in" / "other.png")
    done = imported([source], tmp_path / "out")
    assert done.names == ["background", "dog", "cat"]  # by their ids
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:5, 4:8] = expected[1:3, 10:12] = 1
    expected[:, :2] = 2
    np.testing.assert_array_equal(mask_of(done), expected)
    expected[:, 2:] = 0
    np.testing.assert_array_equal(mask_of(done, "deep/b"), expected)
    assert not mask_of(done, "none").any()
    assert (done.out / "images" / "a.jpg").read_bytes() == (tmp_path / "in" / "a.jpg").read_bytes()
    assert done.splits == {} and done.lines == [
        f"wrote {done.out}: 3 images, 3 classes",
        "1 images without annotations (all background): none.jpg",
    ]


OVERLAP = [
    {"category_id": 7, "segmentation": [box(6, 2, 8, 4)]},  # small, first in the file
    {"category_id": 3, "segmentation": [box(2, 1, 10, 6)]},  # large
]


def test_who_is_on_top(tmp_path: Path) -> None:
    """The smaller one, and of equal ones the later; a crowd is below, though it is the smaller shape here."""
    mask = mask_of(imported([coco(tmp_path / "a.json", OVERLAP)], tmp_path / "out"))
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:6, 2:10] = 1
    expected[2:4, 6:8] = 2
    np.testing.assert_array_equal(mask, expected)
    twice = [{"category_id": category, "segmentation": [box(2, 1, 6, 5)]} for category in (7, 3)]
    assert mask_of(imported([coco(tmp_path / "a.json", twice)], tmp_path / "two"))[1, 2] == 1
    crowd = {"category_id": 3, "segmentation": [box(5, 1, 10, 3)], "iscrowd": 1}
    source = coco(tmp_path / "a.json", [crowd, {"category_id": 7, "segmentation": [box(0, 0, 8, 8)]}])
    mask = mask_of(imported([source], tmp_path / "three"))
    assert mask[1, 9] == 1 and mask[1, 5] == 2 and mask[9, 9] == 0
    sliver = {"category_id": 3, "segmentation": [box(2, 3.9, 6, 3.9)]}
    done = imported([coco(tmp_path / "a.json", [*OVERLAP, sliver])], tmp_path / "four")
    assert any(line.startswith("1 shapes") and "annotation 10" in line for line in done.lines)


@pytest.mark.parametrize(
    "names", [("instances_train2017.json", "instances_val2017.json"), ("train/_x.json", "valid/_x.json")]
)
def test_names_of_files_tell_the_splits(names: tuple[str, str], tmp_path: Path) -> None:
    sources = [coco(tmp_path / name, OVERLAP, [f"{image}.jpg"]) for name, image in zip(names, "ab", strict=True)]
    assert imported(sources, tmp_path / "out").splits == {"train": ["a"], "val": ["b"]}


def test_without_a_background(tmp_path: Path, refuses: Any) -> None:
    source = coco(tmp_path / "a.json", OVERLAP, ["a.jpg", "none.jpg"])
    done = imported([source], tmp_path / "out", background=None)
    assert done.names == ["dog", "cat"] and set(np.unique(mask_of(done))) == {0, 1, 255}
    assert not (done.out / "images" / "none.jpg").exists()
    assert "1 images without annotations (left out): none.jpg" in done.lines
    numbered = coco(tmp_path / "b.json", OVERLAP, categories=[{"id": 7, "name": "1 cat"}, {"id": 3, "name": "0 dog"}])
    with refuses("'0 dog' would be another name in classes.txt"):
        import_annotations([numbered], tmp_path / "numbered", background=None)


def test_chosen_and_ignored_classes(tmp_path: Path, refuses: Any) -> None:
    source = coco(tmp_path / "a.json", OVERLAP)
    with refuses("annotation 101 has the unknown class 'dog'", "add it to classes, or ignore it"):
        import_annotations([source], tmp_path / "out", classes=["cat"])
    done = imported([source], tmp_path / "out", classes=["cat"], ignore=["dog"])
    assert done.names == ["background", "cat"] and set(np.unique(mask_of(done))) == {0, 1, 255}
    (tmp_path / "ids.txt").write_text("1 dog\n0 cat\n2 background\n")
    assert imported([source], tmp_path / "ids", classes=tmp_path / "ids.txt").names == ["cat", "dog", "background"]
    with refuses("ignore contains 'dgo'", "did you mean 'dog'"):
        import_annotations([source], tmp_path / "again", ignore=["dgo"])


@given(stn.arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(3, 12), st.just(2)), elements=st.floats(-1, 13)))
def test_outlines_as_pycocotools_paints_them(outlines: np.ndarray) -> None:
    for points in (outlines, outlines.round(1)):
        flat = points.reshape(len(points), -1).tolist()
        expected = decode(merge(frPyObjects(flat, HEIGHT, HEIGHT)))
        spans = draw_outlines("polygon", points.tolist(), HEIGHT, HEIGHT)
        np.testing.assert_array_equal(painted(spans, HEIGHT, HEIGHT), expected)


@given(stn.arrays(bool, stn.array_shapes(min_dims=2, max_dims=2, max_side=40)))
def test_run_lengths_as_pycocotools_writes_them(mask: np.ndarray) -> None:
    runs = encode(np.asfortranarray(mask.astype(np.uint8)))
    annotation = {"image_id": 1, "category_id": 1, "segmentation": {**runs, "counts": runs["counts"].decode()}}
    images, categories = [{"id": 1, "file_name": "a.jpg"}], [{"id": 1, "name": "x"}]
    tree = {"images": images, "annotations": [annotation], "categories": categories}
    spans = read_coco(Path("a.json"), tree).images[0].shapes[0].draw(*mask.shape)
    np.testing.assert_array_equal(painted(spans, *mask.shape), mask)


SMALL = {
    "polygon": partial(draw_outlines, "polygon", [[(9, 9), (12, 9), (12, 13)]] * 9),
    "rectangle": partial(draw_outlines, "rectangle", [[(9, 9), (12, 13)]]),
    "circle": partial(draw_outlines, "circle", [[(9, 9), (12, 13)]]),
    "mask": partial(draw_mask, np.ones((3, 4), bool), 9, 9),
}
SIDE = 6000


@pytest.mark.parametrize("kind", SMALL)
def test_small_shapes_of_large_images(kind: str) -> None:
    """They take memory for their own pixels only."""
    arguments = [SIDE] if kind == "mask" else [SIDE, SIDE]
    tracemalloc.start()
    spans = SMALL[kind](*arguments)
    memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < np.diff(spans).sum() < 100 and memory < 100_000


def test_outlines_that_are_too_long(tmp_path: Path, refuses: Any) -> None:
    zigzag = [[x, y] for y in np.linspace(0, SIDE, MAX_OUTLINE // SIDE).tolist() for x in (0, SIDE)]
    assert len(draw_outlines("polygon", [zigzag[: len(zigzag) // 3]], SIDE, SIDE)) > SIDE
    source = coco(tmp_path / "a.json", [{"category_id": 7, "segmentation": [np.ravel(zigzag).tolist()]}])
    Image.new("1", (SIDE, SIDE)).save(tmp_path / "a.jpg")
    source.write_text(source.read_text().replace(f'"height": {HEIGHT}, "width": {WIDTH}', '"height": null'))
    with refuses("annotation 100 of a.jpg", "pixels long, more than 4,000,000", "correct or remove it"):
        import_annotations([source], tmp_path / "out")


# --------------------------------------------------------------------------------------------------------- labelme


def shape(label: str, points: list[Any], kind: str | None = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "group_id": None, "flags": {}, **more}


def labelme(path: Path, found: list[dict[str, Any]], **more: Any) -> Path:
    image = path.with_suffix(".jpg")
    picture(image, HEIGHT, WIDTH)
    tree = {"version": "5.5.0", "flags": {}, "shapes": found, "imagePath": image.name, "imageData": None}
    path.write_text(json.dumps({**tree, "imageHeight": HEIGHT, "imageWidth": WIDTH, **more}))
    return path


def test_labelme_becomes_a_folder(tmp_path: Path) -> None:
    labelme(
        tmp_path / "a.json",
        [
            shape("tree", [[0, 0], [4, 0], [4, 4], [0, 4]], None),  # files of old versions have no kind
            shape("pole ", [[8, 2], [6, 1]], "rectangle"),
            shape("sign", [[12, 6], [14, 6]], "circle"),
            shape("__ignore__", [[5, 10], [7, 12]], "rectangle"),
            shape("_background_", [[0, 0], [2, 2]], "rectangle"),
        ],
    )
    labelme(tmp_path / "b.json", [], imagePath="..\\elsewhere\\b.jpg")  # of Windows, and moved since
    labelme(tmp_path / "c.json", [shape("Tree", [[0, 0], [2, 2]], "rectangle")], imagePath="gone.jpg")  # renamed
    done = imported([tmp_path], tmp_path / "out")
    assert done.names == ["background", "pole", "sign", "tree", "Tree"]
    assert mask_of(done, "c").sum() == 16
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[:4, :4] = 3
    expected[:2, :2] = 0
    expected[1:2, 6:8] = 1
    expected[(x - 12) ** 2 + (y - 6) ** 2 < 4] = 2
    expected[10:12, 5:7] = 255
    np.testing.assert_array_equal(mask_of(done), expected)
    assert "b.jpg" in done.lines[1] and not mask_of(done, "b").any()


TREE = shape("tree", [[1, 1], [2, 2], [3, 1]])


@pytest.mark.parametrize(
    ("found", "more", "phrases"),
    [
        ([shape("pole", [[1, 1], [2, 2]], "line")], {}, ["shape 0 ('pole')", "'line'", "polygon, rectangle, circle"]),
        ([{"label": "tree"}], {}, ["a.json is not labelme's format", "'points'"]),
        ([TREE | {"mask": "AAAA"}], {}, ["shape 0 ('tree') of a.jpg: it has an unknown structure"]),
        ([shape("tree", [[1, 1, 0], [2, 2, 0], [3, 1, 0]])], {}, ["shape 0 ('tree')", "pairs of x and y"]),
        ([TREE | {"label": None}], {}, ["shape 0 has null as class name"]),
        *(
            ([TREE | {"label": name}], {}, [repr(name), "a.json: "])
            for name in ("a\nb", "a\u2028b", "#1 plastic", "", "a\tb", "\udcff")
        ),
        ([TREE], {"imageHeight": 11}, ["as (11, 16)", "is (12, 16)", "annotate"]),
    ],
)
def test_labelme_that_cannot_be_painted(
    found: list[Any], more: dict[str, Any], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    source = labelme(tmp_path / "a.json", found, **more)
    with refuses(*phrases):
        import_annotations([source], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


# -------------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("entry", "phrases"),
    [
        ({"category_id": 8}, ["annotation 100 refers to image 10 and category 8", "not list both"]),
        ({"category_id": 7, "image_id": 5, "segmentation": [box(0, 0, 2, 2)]}, ["refers to image 5 and category 7"]),
        ({"category_id": 7, "segmentation": []}, ["annotation 100 has a box but no segmentation"]),
        ({"category_id": 7, "segmentation": [[[1, 1, 2], [5, 1, 2]]]}, ["annotation 100", "pairs of x and y"]),
        *(
            ({"category_id": 7, "segmentation": [box(0, 0, 2, 2)], "iscrowd": crowd}, [f"iscrowd {crowd!r}; write 0"])
            for crowd in ("0", "false", 2, [])
        ),
        ({"category_id": 7, "segmentation": [[1, 2, 3, 4]]}, ["has 2 points, but needs 3"]),
        (
            {"category_id": 7, "segmentation": [[1, 2, 3, 4, 5, 6, 7]]},
            ["annotation 100 of a.jpg: its points are not pairs"],
        ),
        ({"category_id": 7, "segmentation": [box(0, 0, 20, 2)]}, ["annotation 100", "points outside", "12x16"]),
        *(
            ({"category_id": 7, "segmentation": {"size": size, "counts": counts}}, [reason])
            for size, counts, reason in (
                ([WIDTH, HEIGHT], [0], "its size is [16, 12], but the image is [12, 16] (height, width)"),
                ([HEIGHT, WIDTH], [0, 5], "its counts cover 5 pixels, but the image has 192"),
                ([HEIGHT, WIDTH], "05", "its counts cover 5 pixels, but the image has 192"),
                (
                    [HEIGHT, WIDTH],
                    [0, 193],
                    "annotation 100 of a.jpg: its counts cover 193 pixels",
                ),
            )
        ),
    ],
)
def test_annotations_that_cannot_be_painted(
    entry: dict[str, Any], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    source = coco(tmp_path / "a.json", [entry])
    with refuses(str(source), *phrases):
        import_annotations([source], tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ('{"images": [}', ["is not JSON (Expecting value: line 1 column 13", "export it again"]),
        ('{"images": [], "annotations": [1], "annotations": []}', ["is not JSON", "'annotations' twice"]),
        ('{"images": [], "categories": [{"id": 1, "name": null}]}', ["category 1 has null as class name"]),
        ('{"images": [{"id": 1}], "annotations": [], "categories": []}', ["is not COCO's format", "'file_name'"]),
        ('{"images": [null], "annotations": [], "categories": []}', ["is not COCO's format", "unknown structure"]),
        ('{"type": "Topology", "objects": {}}', ["has no known format"]),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "x"}]}', ["contain no annotated images"]),
    ],
)
def test_files_that_are_no_annotations(text: str, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    source = tmp_path / "a.json"
    source.write_text(text)
    with refuses(str(source), *phrases):
        import_annotations([source], tmp_path / "out")


def test_paths_that_do_not_fit(tmp_path: Path, refuses: Any) -> None:
    source = coco(tmp_path / "a.json", OVERLAP)
    (tmp_path / "empty").mkdir()
    for name in ("nowhere.json", "empty"):
        with refuses(f"{name} contains no annotations of COCO, YOLO, CVAT"):
            import_annotations([tmp_path / name], tmp_path / "out")
    with zipfile.ZipFile(tmp_path / "project.zip", "w") as file:
        file.write(source, "a.json")
    with refuses("project.zip is a ZIP file; unpack it"):
        import_annotations([tmp_path / "project.zip"], tmp_path / "out")
    with refuses(f"a.jpg, which {source} names, is not in {tmp_path / 'empty'}", "give its folder as images"):
        import_annotations([source], tmp_path / "out", images=tmp_path / "empty")
    with refuses(f"{tmp_path} is not empty; give a new folder"):
        import_annotations([source], tmp_path)
    other = coco(tmp_path / "deep" / "a.json", OVERLAP)
    with refuses("have the same name, a;"):
        import_annotations([source, other], tmp_path / "out")
