"""`crispseg data`: what is known about data sets, what data hold, imports and the augmented VOC."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, error_of, output_of
from dataset_trees import MAKERS, grid, make_ade20k, make_voc2012, picture, save, voc_mask

from crispseg.data import DATA_SOURCES, Folder
from crispseg.data.catalogue import catalogue, class_meanings
from crispseg.labels import IGNORE

# -------------------------------------------------------------------------------------------------------- mapping


def values_of(text: str) -> list[Any]:
    """The numbers, or colours, that a cell of the mapping names."""
    if text.startswith("["):
        return [json.loads(f"[{part.partition(']')[0]}]") for part in text.split("[")[1:]]
    parts = [part.split("–") for part in text.split(", ")]
    return [value for part in parts for value in range(int(part[0]), int(part[-1]) + 1)]


@pytest.mark.parametrize("name", [*MAKERS, "pascal_context 59", "camvid ids", "folder"])
def test_the_mapping_that_is_shown_is_the_one_that_is_used(name: str, tmp_path: Path) -> None:
    """Every value and colour that it names is decoded to the class that it names, and none is left out."""
    if name == "folder":
        found = Folder("x", "y", palette=[(0, 0, 0), (255, 0, 7)], ignore=((9, 9, 9), 12), palette_tolerance=0).reading
        labels, decode = found.labels, found.lookup
    else:
        kind, _, option = name.partition(" ")
        options: Any = {"59": {"classes": 59}, "ids": {"masks": "ids"}}.get(option)
        source: Any = DATA_SOURCES[kind]("x", **options) if options else MAKERS[kind](tmp_path)
        labels, decode = source.label_set(), source.lookup()
    rows = class_meanings(decode, labels)
    assert [row.label for row in rows] == [*range(len(labels)), IGNORE]
    assert [row.name for row in rows[:-1]] == list(labels.names)
    every = []
    for row in rows:
        for value in values_of(row.values):
            every.append(tuple(value) if isinstance(value, list) else value)
            decoded = decode(np.full((1, 1, *np.shape(value)), value, np.uint8))
            assert decoded.tolist() == [[row.label]], (row, value)
    assert sorted(every) == sorted(decode.meaning)


# ----------------------------------------------------------------------------------------------------------- list


def test_list_names_all_that_have_files(capsys: Capture) -> None:
    assert set(catalogue()) == set(DATA_SOURCES) - {"folder"}
    shown = output_of(capsys, "data", "list")
    assert all(name in shown for name in catalogue())
    for number in ("20210", "2975", "118287", "1464", "59 or 60", "yes, 20 GB"):
        assert number in shown
    for name, entry in catalogue().items():
        if name != "mapillary":  # whose own file has the classes
            assert str(len(DATA_SOURCES[name]("x").label_set())) in entry.classes  # type: ignore[call-arg]
        assert set(entry.counts) >= {"train", "val"}


# ----------------------------------------------------------------------------------------------------------- show


def test_show_without_files(capsys: Capture) -> None:
    lines = output_of(capsys, "data", "show", "cityscapes").splitlines()
    assert "train 2975, val 500" in lines[0] and "registration" in lines[1]
    assert ["26", "13", "car", "██", "0", "0", "142"] in [line.split() for line in lines]
    assert any(line.startswith("0–6, 9–10, 14–16, 18, 29–30, 255") and "ignored" in line for line in lines)
    rows = [
        line.split() for line in output_of(capsys, "data", "show", "pascal_context", "--data.classes=59").splitlines()
    ]
    assert ["1", "0", "aeroplane", "██", "128", "0", "0"] in rows
    assert "65 classes" in output_of(capsys, "data", "show", "mapillary")


@pytest.mark.parametrize("name", ["camvid", "mapillary", "voc2012"])
def test_show_with_files(name: str, tmp_path: Path, capsys: Capture) -> None:
    source = MAKERS[name](tmp_path / "data")
    options = ["--data.masks=colors"] if name == "camvid" else []
    shown = output_of(capsys, "data", "show", name, f"--data.root={tmp_path / 'data'}", *options)
    height, width = source.dataset("train")[0].labels.shape
    assert f"train: 2 images, {height}x{width} pixels" in shown and "val: 1 images, " in shown
    assert source.label_set().names[0] in shown and "ignored" in shown


def own_data(root: Path) -> Path:
    for index in range(10):
        picture(root / "images" / f"{index}.png", 8, 10)
        save(root / "masks" / f"{index}.png", grid([0, 0, 0, 2, 1] if index == 9 else [0, 0, 0, 2], 8, 10))
    return root


def test_show_own_data_and_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    data = ["--data", "folder", f"--data.images={own_data(tmp_path) / 'images'}", f"--data.masks={tmp_path / 'masks'}"]
    (tmp_path / "val.txt").write_text("0\n1\n")
    named = ["--data.classes=[road, sign, sky]", "--data.val_list", tmp_path / "val.txt"]
    rows = [line.split() for line in output_of(capsys, "data", "show", *data, *named).splitlines()]
    assert ["0", "0", "road", "██", "85", "187", "238", "73.12%", "75.00%"] in rows  # 7 of 3/4 and one of 3/5
    assert ["1", "1", "sign", "██", "238", "153", "0", "2.50%", "never"] in rows
    monkeypatch.setattr("crispseg.cli.data.SAMPLE", 3)
    some = "train: 8 images (3 of them, evenly spaced, were read), 8x10 pixels"
    assert some in output_of(capsys, "data", "show", *data)


def test_show_folders_of_splits(tmp_path: Path, capsys: Capture) -> None:
    """As doctor knows them; `--data folder` alone would take train only."""
    own_data(tmp_path / "train")
    for index in range(3):
        picture(tmp_path / "valid" / "images" / f"{index}.png", 8, 10)
        save(tmp_path / "valid" / "masks" / f"{index}.png", grid([0, 1], 8, 10))
    shown = output_of(capsys, "data", "show", tmp_path)
    assert "train: 10 images, 8x10" in shown and "val: 3 images, 8x10" in shown
    row = ["2", "2", "class", "2", "██", "187", "0", "255", "24.50%", "never"]
    assert row in [line.split() for line in shown.splitlines()]
    (tmp_path / "valid" / "masks" / "0.png").unlink()
    assert "1 of 3 images in" in output_of(capsys, "data", "show", tmp_path)


def test_show_a_recognised_folder(tmp_path: Path, capsys: Capture) -> None:
    make_ade20k(tmp_path)
    shown = output_of(capsys, "data", "show", tmp_path)
    assert "ade20k: ADE20K" in shown and "train: 2 images, 10x20 pixels" in shown


def test_show_says_what_is_wrong(tmp_path: Path, capsys: Capture) -> None:
    for argv, phrase in (
        ([], "--data is missing"),
        (["cityscape"], "did you mean 'cityscapes'"),
        (["voc2012", f"--data.root={tmp_path}"], "train.txt is missing"),
    ):
        assert phrase in error_of(capsys, "data", "show", *argv)
    root = tmp_path / "voc"
    make_voc2012(root)
    (root / "ImageSets" / "Segmentation" / "val.txt").unlink()
    voc_mask(root / "SegmentationClass" / "2007_000032.png", [21])
    shown = output_of(capsys, "data", "show", "voc2012", f"--data.root={root}")
    assert "val.txt is missing" in shown and "train: 1 of 2 could not be read, first: " in shown


# ---------------------------------------------------------------------------------------------------------- import


def test_import_and_use(tmp_path: Path, capsys: Capture) -> None:
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (40, 50, 3), np.uint8)
        save(tmp_path / "in" / f"{index}.png", noise)
        found = {"label": "tree", "points": [[1, 1], [30, 1], [30, 20 + index]], "shape_type": "polygon"}
        tree = {"shapes": [found], "imagePath": f"{index}.png", "imageHeight": 40, "imageWidth": 50}
        (tmp_path / "in" / f"{index}.json").write_text(json.dumps(tree))
    out = tmp_path / "out"
    shown = output_of(capsys, "data", "import", tmp_path / "in", f"--out={out}")
    assert "3 images, 2 classes" in shown
    assert "tree" in output_of(capsys, "data", "show", shown.split("crispseg train ")[1].strip())
    assert "tree" in output_of(capsys, "doctor", out)  # which knows the layout and finds no fault
    for argv, phrase in (
        (["--classes=[bush]"], "unknown class 'tree'"),
        (["--backgound=x"], "did you mean 'background'"),
    ):
        assert phrase in error_of(capsys, "data", "import", tmp_path / "in", f"--out={tmp_path / 'again'}", *argv)
    (tmp_path / "names.txt").write_text("bush\ntree\n")
    named = [f"--out={out}2", f"--classes={tmp_path / 'names.txt'}", "--background=null"]
    output_of(capsys, "data", "import", tmp_path / "in", *named)
    assert (tmp_path / "out2" / "classes.txt").read_text() == "bush\ntree\n"


# -------------------------------------------------------------------------------------------------------- the rest


def test_help_and_unknown_commands(capsys: Capture) -> None:
    for argv in ([], ["--help"]):
        assert "import" in output_of(capsys, "data", *argv)
    assert "unknown command 'data downlaod'; did you mean 'download'?" in error_of(capsys, "data", "downlaod")
    for name, phrase in (("list", "licences"), ("show", "--data.root"), ("import", "--background")):
        assert phrase in output_of(capsys, "data", name, "--help")
    assert "--data.train_on" in output_of(capsys, "data", "show", "--data=voc2012", "--help")
