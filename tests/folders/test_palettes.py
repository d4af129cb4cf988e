"""Palettes: files that name colours, several colours for a class, and colours that are off by a little."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from dataset_trees import indexed, save

from crispseg.cli.main import main
from crispseg.data import Folder, check_split
from crispseg.errors import CrispsegError
from crispseg.folders.palettes import numbered_colors, read_palette
from tests.data.own_folders import BLACK, folder, ids, make_pair

ROAD, TREE, SKY = (128, 64, 128), (0, 128, 0), (70, 130, 180)
COLORS = np.array([BLACK, ROAD, TREE, SKY], np.uint8)
FILES = {
    "labels.txt": "0 0 0 void\n128, 64, 128, road\n0 128 0 tree\n70 130 180 tree\n",
    "class_dict.csv": "name,r,g,b\nvoid,0,0,0\nroad,128,64,128\ntree,0,128,0\ntree,70,130,180\n",
    "labelmap.txt": "# label:color_rgb:parts:actions\nvoid:0,0,0::\nroad:128,64,128::\n"
    "tree:0,128,0::\ntree:70,130,180::\n",
    "a.json": '{"void": [0, 0, 0], "road": [128, 64, 128], "tree": [[0, 128, 0], [70, 130, 180]]}',
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_name_colours(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    classes = {BLACK: 0, ROAD: 1, TREE: 2, SKY: 2}
    assert numbered_colors(tmp_path / name) == (classes, ("void", "road", "tree"))


@pytest.mark.parametrize(
    ("name", "content", "phrases"),
    [
        ("x.csv", "name,r,g,b,weight\na,1,2,3,4\n", ["x.csv", "'a,1,2,3,4' is not 'r g b name'"]),
        ("x.csv", "id,name,r,g,b\n0,a,1,2,3\n", ["x.csv", "remove ids"]),
        ("x.json", '{"a": [0, 0, 0], "b": [255.9, 0, 0]}', ["x.json", "give a mapping of text to a list of 3"]),
        ("x.yaml", "{road: []}", ["x.yaml", "has no valid colours"]),
        ("x.yaml", "{0: [1, 2, 3], road: [3, 4, 5]}", ["x.yaml", "mapping of text"]),
        ("LUT.txt", "0 Unknown 0 0 0 0\n1 Left-Cortex 205 62 78 0\n", ["LUT.txt", "remove ids and alpha"]),
        ("x.csv", "building,255,0,0,255\n", ["x.csv", "alpha"]),
        ("x.txt", "0 0 0\nroad 1 2\n", ["x.txt", "'road 1 2' is not 'r g b name'"]),
        ("x.yaml", "{road: 3", ["x.yaml has no valid colours"]),
        ("x.json", '[{"color": [1, 2, 3], "name": "road"}]', ["x.json", "give a mapping"]),
    ],
)
def test_files_that_name_no_colours(name: str, content: str, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    (tmp_path / name).write_text(content)
    with refuses(*phrases):
        read_palette(tmp_path / name)


def test_several_colours_for_a_class(tmp_path: Path, refuses: Any) -> None:
    for name in "ab":
        make_pair(tmp_path, name, COLORS[ids(0, 1, 2, 3)])
    source = folder(tmp_path, palette=[BLACK, [ROAD, TREE], SKY], classes=["a", "b", "c"])
    np.testing.assert_array_equal(source.dataset("train")[0].labels, ids(0, 1, 1, 2))
    assert source.settled().settled() == source.settled()
    with refuses("to two classes"):
        folder(tmp_path, palette=[BLACK, [ROAD, BLACK]]).label_set()


def blobs(seed: int, scale: int = 1) -> np.ndarray:
    """Class ids in areas of some size."""
    fields = np.random.default_rng(seed).random((5, 6, 4), np.float32)
    return cv2.resize(fields, (160 * scale, 128 * scale), interpolation=cv2.INTER_LINEAR).argmax(2).astype(np.uint8)


def off_by(change: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Road has another colour in the masks of odd numbers."""

    def draw(labels: np.ndarray, seed: int) -> np.ndarray:
        colors = COLORS.copy()
        colors[1, 0] += change * (seed % 2)
        return colors[labels]

    return draw


def shrunk(labels: np.ndarray, seed: int) -> np.ndarray:
    return cv2.resize(COLORS[blobs(seed, 4)], (160, 128), interpolation=cv2.INTER_AREA)


MASKS: dict[str, tuple[Callable[[np.ndarray, int], np.ndarray], dict[str, Any], float]] = {
    "off by 5": (off_by(5), {}, 0),
    "soft edges": (shrunk, {}, 0.1),
    "JPEG": (lambda labels, seed: COLORS[labels], {"quality": 90}, 0.05),
}


@pytest.mark.parametrize("name", MASKS)
def test_colours_near_those_of_the_palette_need_a_tolerance(name: str, tmp_path: Path) -> None:
    draw, options, wrong = MASKS[name]
    for seed in range(4):
        mask = draw(blobs(seed), seed)
        image = np.random.default_rng(seed).integers(0, 256, (*mask.shape[:2], 3), np.uint8)
        save(tmp_path / f"images/{seed}.png", image)
        save(tmp_path / f"masks/{seed}.{'jpg' if options else 'png'}", mask, **options)
    palette: list[Any] = [BLACK, ROAD, TREE, SKY]
    with pytest.raises(CrispsegError) as refused:
        check_split(folder(tmp_path, palette=palette).dataset("all"), "all")
    (settings,) = refused.value.settings or [{"data.palette_tolerance": 442}]  # lossy files are refused as such
    tolerance = settings["data.palette_tolerance"]
    source = folder(tmp_path, palette=palette, palette_tolerance=tolerance).settled()
    assert source.settled() == source
    check_split(source.dataset("all"), "all")
    for sample in source.dataset("all"):
        assert (sample.labels != blobs(int(sample.name))).mean() <= wrong
    flags = [f"--data.images={tmp_path}/images", f"--data.masks={tmp_path}/masks"]
    flags += [f"--data.palette={[*map(list, palette)]}", f"--data.palette_tolerance={tolerance}"]
    assert main(["doctor", *flags, "--fix", str(tmp_path / "out")]) <= 1
    assert len(Folder(root=tmp_path / "out").dataset("all")) == 4


@pytest.mark.parametrize("declared", [{}, {"classes": ["black", "green", "red"]}])
def test_indices_of_differing_palettes_are_read_by_colour(declared: dict[str, object], tmp_path: Path) -> None:
    palette = [BLACK, (0, 255, 0), (255, 0, 0)]
    for index in range(6):
        make_pair(tmp_path, f"{index}", ids(0, 1, 2))
        order = np.roll(range(3), index)
        mask = indexed(np.argsort(order).astype(np.uint8)[ids(0, 1, 2)], [palette[at] for at in order])
        save(tmp_path / "masks" / f"{index}.png", mask)
    with pytest.raises(CrispsegError, match="palettes differ") as caught:
        folder(tmp_path, **declared).label_set()
    (settings,) = caught.value.settings
    data = folder(tmp_path, palette=[*settings["data.palette"]], **declared)
    for sample in data.dataset("all"):
        np.testing.assert_array_equal(sample.labels, ids(0, 1, 2))


def test_masks_without_labels_have_no_palette_that_differs(tmp_path: Path) -> None:
    palette = [BLACK, (0, 255, 0), (255, 0, 0), *[BLACK] * 253]  # 255, without a colour, is as black as class 0
    for index in range(4):
        make_pair(tmp_path, f"{index}", ids(0, 1, 2))
        labels = ids(0, 1, 2) if index else np.full_like(ids(0, 1, 2), 255)
        save(tmp_path / "masks" / f"{index}.png", indexed(labels, palette))
    assert len(folder(tmp_path, ignore=(255,)).label_set().names) == 3
