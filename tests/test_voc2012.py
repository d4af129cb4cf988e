"""PASCAL VOC 2012 as tiny trees of real files, with and without the augmented training set."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import grid, make_voc2012, save, voc_mask

from crispseg.cli.main import main
from crispseg.data import VOC2012, check_split
from crispseg.data.voc2012 import NAMES

LISTS = "ImageSets/Segmentation"


def names(source: VOC2012, split: str = "train") -> list[str]:
    return [pair.name for pair in source.dataset(split).pairs]


def test_classes() -> None:
    labels = VOC2012("nowhere").label_set()
    assert len(labels) == len(set(labels.palette)) == 21
    assert list(labels.names) == ["background", *sorted(labels.names[1:])]
    known = {  # the colour map of VOC's development kit
        "background": (0, 0, 0),
        "aeroplane": (128, 0, 0),
        "bottle": (128, 0, 128),
        "chair": (192, 0, 0),
        "person": (192, 128, 128),
        "tvmonitor": (0, 64, 128),
    }
    assert {name: labels.palette[labels.names.index(name)] for name in known} == known


def test_indices_of_the_palette_are_the_classes(tmp_path: Path) -> None:
    source = make_voc2012(tmp_path)
    sample = source.dataset("val")[0]
    assert sample.name == "2007_000033"
    np.testing.assert_array_equal(sample.labels, grid([*range(21), 255]))


def test_what_is_trained_on(tmp_path: Path) -> None:
    make_voc2012(tmp_path)
    train, trainval, aug = (VOC2012(tmp_path, train_on) for train_on in ("train", "trainval", "aug"))  # type: ignore[arg-type]
    assert names(train) == ["2007_000032", "2007_000039"]
    assert names(trainval) == ["2007_000032", "2007_000033", "2007_000039"]
    assert names(aug) == ["2007_000032", "2007_000039", "2008_000008"]
    assert all(names(source, "val") == ["2007_000033"] for source in (train, trainval, aug))
    np.testing.assert_array_equal(aug.dataset("train")[2].labels, grid([15, 255, 0]))
    for source in (trainval, aug):
        assert check_split(source.dataset("train"), "train").images == 3
    assert {pair.mask.parent.name for pair in aug.dataset("val").pairs} == {"SegmentationClass"}


@pytest.mark.parametrize("lines", ["{}\n", "/JPEGImages/{0}.jpg /SegmentationClassAug/{0}.png\n"])
def test_lists_of_the_augmented_set_go_by_two_names_and_forms(lines: str, tmp_path: Path) -> None:
    source = make_voc2012(tmp_path, train_on="aug")
    (tmp_path / LISTS / "train_aug.txt").unlink()
    (tmp_path / LISTS / "trainaug.txt").write_text(lines.format("2008_000008"))
    assert names(source) == ["2008_000008"]


def test_test_images_cannot_be_scored(tmp_path: Path, refuses: Any) -> None:
    source = make_voc2012(tmp_path)
    with refuses("'test'", "server", "cannot be scored", f"{LISTS}/test.txt", "crispseg predict"):
        source.dataset("test")


def drop(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).unlink()


def empty(path: str) -> Callable[[Path], object]:
    return lambda root: (root / path).write_text("\n")


@pytest.mark.parametrize(
    ("train_on", "change", "phrases"),
    [
        ("train", drop(f"{LISTS}/train.txt"), [f"{LISTS}/train.txt is missing", "VOCdevkit/VOC2012", "VOCtrainval"]),
        ("train", empty(f"{LISTS}/train.txt"), ["train.txt is empty"]),
        (
            "train",
            drop("SegmentationClass/2007_000039.png"),
            ["1 of the 4 files", "first", "SegmentationClass/2007_000039.png", "VOCtrainval_11-May-2012.tar"],
        ),
        ("train", drop("JPEGImages/2007_000032.jpg"), ["1 of the 4 files", "JPEGImages/2007_000032.jpg"]),
        ("trainval", drop(f"{LISTS}/trainval.txt"), [f"{LISTS}/trainval.txt is missing", "VOCdevkit/VOC2012"]),
        ("aug", drop(f"{LISTS}/train_aug.txt"), ["train_aug.txt is missing", "trainaug.txt", "SBD"]),
        (
            "aug",
            drop("SegmentationClassAug/2008_000008.png"),
            ["1 of the 6 files", "SegmentationClassAug/2008_000008.png", "10582", "SBD"],
        ),
    ],
)
def test_what_is_missing_gets_one_line(
    train_on: str, change: Callable[[Path], object], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    source = make_voc2012(tmp_path, train_on=train_on)
    change(tmp_path)
    with refuses(str(tmp_path), *phrases):
        source.dataset("train")


@pytest.mark.parametrize("folder", ["", "VOCdevkit/VOC2012/JPEGImages"])
def test_a_folder_above_or_below_the_root_is_named(folder: str, tmp_path: Path, refuses: Any) -> None:
    make_voc2012(tmp_path / "VOCdevkit" / "VOC2012")
    with refuses(f"{LISTS}/train.txt is missing", "the root of PASCAL VOC 2012 is the folder VOCdevkit/VOC2012"):
        VOC2012(tmp_path / folder).dataset("train")


def test_stray_values_and_colours_are_named(tmp_path: Path, refuses: Any) -> None:
    source = make_voc2012(tmp_path)
    mask = voc_mask(tmp_path / "SegmentationClass" / "2007_000033.png", [0, 21])
    with refuses(mask.name, "value 21", "values of PASCAL VOC, 0 to 20"):
        source.dataset("val")[0]
    save(mask, grid([(128, 0, 0), (0, 0, 0)]))
    with refuses(mask.name, "an RGB mask", "give the original mask, of values of PASCAL VOC"):
        source.dataset("val")[0]


def test_a_choice_that_is_none(refuses: Any) -> None:
    with refuses("data.train_on is 'train_aug'", "train, trainval, aug"):
        VOC2012("x", train_on="train_aug")  # type: ignore[arg-type]


def test_help_explains_the_keys(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", "voc2012", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--data.root" in shown and "--data.train_on {train,trainval,aug}" in shown


def test_training_scoring_and_predicting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the augmented set; the test images have no masks."""
    root, run = tmp_path / "VOC2012", tmp_path / "run"
    make_voc2012(root, height=64, width=96)
    flags = ["--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,64]"]
    flags += ["--batch_size=3", "--workers=0", "--loggers=[]", "--iterations=1", "--data.train_on=aug"]
    assert main(["train", *flags, "--data=voc2012", f"--data.root={root}", f"--out={run}"]) == 0

    assert main(["evaluate", str(run), "--workers=0", f"--json={tmp_path / 'scores.json'}"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["iou"]) == list(NAMES)
    assert np.sum(scores["confusion"], axis=1).tolist() == [280] * 6 + [279] * 15  # 255 is in the mask 279 times too
    assert main(["evaluate", str(run), "--split=test", "--workers=0"]) == 2
    assert "cannot be scored" in capsys.readouterr().err

    image = root / "JPEGImages" / "2008_000006.jpg"
    assert main(["predict", str(run), str(image), f"--out={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "2008_000006.png").is_file()
