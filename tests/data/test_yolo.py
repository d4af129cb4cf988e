"""YOLO's polygons as folders of masks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import picture

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask

from .own_folders import imported

HEIGHT, WIDTH = 12, 16
ROBOFLOW = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 2\nnames: ['crack', 'hole']\n"
SPLIT = {"train": "train", "valid": "val", "test": "test"}


def relative(points: Sequence[tuple[float, float]], number: int = 0) -> str:
    return " ".join([str(number), *(f"{x / WIDTH:.9f} {y / HEIGHT:.9f}" for x, y in points)]) + "\n"


SQUARE = relative([(2, 1), (8, 1), (8, 5), (2, 5)])
BOTH = SQUARE + relative([(9, 9), (12, 9), (12, 11)], 1)


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
    for split in SPLIT:
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
    found = {split: [pair.name for pair in data.dataset(split).pairs] for split in SPLIT.values()}
    assert {split: len(names) for split, names in found.items()} == {"train": 5, "val": 3, "test": 2}
    assert data.label_set().names == ("background", "crack", "hole")
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[1:5, 2:8] = 1
    val = {pair.name: read_mask(pair.mask) for pair in data.dataset("val").pairs}
    for mask in val.values():
        np.testing.assert_array_equal(mask[:8], expected[:8])
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


@pytest.mark.parametrize(
    ("text", "yaml", "phrases"),
    [
        (SQUARE + "0 0.5 0.5 0.1 0.1\n", "names: [a]", ["a.txt: line 2 is a box", "polygons"]),
        ("0 0.5 0.5 0.1 0.1 0.2 0.2 0.3\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("0 0.5 0.5 nan 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("crack 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "x1 y1"]),
        ("3 0.5 0.5 0.1 0.1 0.2 0.2\n", "names: [a]", ["a.txt: line 1", "class 3", "names"]),
        (SQUARE, "", ["no data.yaml", "names: [a, b]"]),
        (SQUARE, "nc: 1", ["data.yaml", "names: [a, b]"]),
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
