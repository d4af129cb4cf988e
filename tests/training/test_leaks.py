"""What train and val or test share is said by training and by evaluation, once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save

from crispseg.cli.main import main
from crispseg.data.folder import Folder
from crispseg.doctor import subject_of
from crispseg.doctor.duplicates import leaks
from tests.data.own_folders import TINY
from tests.doctor.trees import ids, photo

PLANTED = {  # split, name, suffix, seeds of image and mask, how the image is turned → what is said of it
    "pictures in more than one split": ("test", "same", ".bmp", 0, 0, lambda image: image),
    "their names": ("val", "t1_aug_3", ".png", 51, 51, lambda image: image),
    "mirrored and turned": ("val", "mirrored", ".png", 2, 2, np.fliplr),
    "hardly differ": ("val", "again", ".jpg", 3, 53, lambda image: image),
    "or lists": ("test", "turned", ".jpg", 4, 54, np.rot90),
    "masks of different pictures": ("test", "masked", ".png", 55, 5, lambda image: image),
}


def make(root: Path, split: str, name: str, suffix: str, image: int, mask: int, turn: Any) -> None:
    save(root / "images" / split / (name + suffix), np.ascontiguousarray(turn(photo(image))))
    save(root / "masks" / split / f"{name}.png", np.ascontiguousarray(turn(ids(mask))))


def sound(root: Path) -> Path:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        for index in range(6 if split == "train" else 3):
            make(root, split, f"{split[0]}{first + index}", ".png", first + index, first + index, lambda image: image)
    return root


@pytest.mark.parametrize("said", PLANTED)
def test_each_planted_leak_is_said(said: str, tmp_path: Path) -> None:
    split, name, *_ = PLANTED[said]
    assert leaks(subject_of(Folder(root=sound(tmp_path)))) == []
    make(tmp_path, *PLANTED[said])
    line, example = leaks(subject_of(Folder(root=tmp_path)))
    assert said in line and f"1 of 4 in {split}" in line and "train" in example and name in example


def test_groups_that_lists_divide_are_said(tmp_path: Path) -> None:
    for split, number in (("train", 1), ("val", 2)):
        for index in range(3):
            seed = 10 * number + index
            make(tmp_path, split, f"p{index}_slice_{number}", ".png", seed, seed, np.array)
    for option in ({}, {"group": "*_slice*"}):
        line, *examples = leaks(subject_of(Folder(root=tmp_path, **option)))
        assert "*_slice" in line and "3 of 3 in val" in line and len(examples) == 2


def test_train_and_evaluate_say_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = sound(tmp_path / "data"), tmp_path / "run"
    for planted in PLANTED.values():
        make(root, *planted)
    assert main(["train", str(root), *TINY, f"--out={run}"]) == 0
    shown = capsys.readouterr().err
    assert all(said in shown for said in PLANTED)
    assert main(["train", f"--resume={run}", "--epochs=2"]) == 0
    assert "more than one split" not in capsys.readouterr().err
    for flags, there in (([], "their names"), (["--split=test"], "more than one split"), (["--split=train"], None)):
        assert main(["evaluate", str(run), *flags, "--workers=0", "--bootstrap=0"]) == 0
        shown = capsys.readouterr().err
        assert (there in shown) if there else ("in train" not in shown)
    elsewhere = tmp_path / "other"
    make(elsewhere, "", "x", ".png", 1, 1, np.flipud)
    assert main(["evaluate", str(run), str(elsewhere), "--workers=0", "--bootstrap=0"]) == 0
    assert "1 of 1 in all" in capsys.readouterr().err
