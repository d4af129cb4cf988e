"""COCO's and labelme's annotations as folders of masks."""

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
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask

from . import annotation_files
from .annotation_files import HEIGHT, WIDTH, box, shape, written
from .own_folders import Imported, imported


def coco(path: Path, annotations: list[dict[str, Any]], images: Sequence[str] = ("a.jpg",), **more: Any) -> Path:
    """A file beside its images."""
    numbered = [(10 + index, name) for index, name in enumerate(images)]
    written(path.parent, {path.name: annotation_files.coco(annotations, numbered, **more)}, images)
    return path


def labelme(path: Path, shapes: list[dict[str, Any]], image: str | None = None) -> Path:
    """A file beside its image, which has its name but for the suffix; it may name another one."""
    own = path.with_suffix(".jpg").name
    written(path.parent, {path.name: annotation_files.labelme(shapes, image or own)}, [own])
    return path


def compressed(columns: np.ndarray) -> str:
    """A mask of some columns as COCO's text."""
    text: bytes = encode(np.asfortranarray(np.tile(columns, (HEIGHT, 1)).astype(np.uint8)))["counts"]
    return text.decode()


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
        "images without annotations, all background: 1 (none.jpg)",
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
    notes = [line for line in done.lines if line.startswith("shapes without the centre of a pixel")]
    assert len(notes) == 1 and "annotation 10" in notes[0]


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
    assert "images without annotations, left out: 1 (none.jpg)" in done.lines
    numbered = coco(tmp_path / "b.json", OVERLAP, categories=[(7, "1 cat"), (3, "0 dog")])
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
    labelme(tmp_path / "b.json", [], "..\\elsewhere\\b.jpg")  # of Windows, and moved since
    labelme(tmp_path / "c.json", [shape("Tree", [[0, 0], [2, 2]], "rectangle")], "gone.jpg")  # renamed
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


def test_paths_that_do_not_fit(tmp_path: Path, refuses: Any) -> None:
    source = coco(tmp_path / "a.json", OVERLAP)
    (tmp_path / "empty").mkdir()
    for name, problem in {"nowhere.json": "is missing", "empty": "contains no annotations of COCO, YOLO, CVAT"}.items():
        with refuses(f"{name} {problem}"):
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
