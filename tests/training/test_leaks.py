"""What train and val or test share is said by training and by evaluation, once."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import error_of
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.data.examination import shared_images
from crispseg.data.folder import Folder
from crispseg.folders.wording import lines_of
from tests.data.own_folders import TINY
from tests.folders.trees import ids, photo

pytestmark = pytest.mark.usefixtures("without_pictures")

PLANTED = {  # split, name, suffix, seeds of image and mask, how the image is turned → what is said of it
    "in more than one split": ("test", "same", ".bmp", 0, 0, lambda image: image),
    "found by name": ("val", "t1_aug_3", ".png", 51, 51, lambda image: image),
    "mirrored or rotated": ("val", "mirrored", ".png", 2, 2, np.fliplr),
    "or lists": ("test", "turned", ".png", 4, 54, np.rot90),
}


def make(root: Path, split: str, name: str, suffix: str, image: int, mask: int, turn: Any) -> None:
    save(root / "images" / split / (name + suffix), np.ascontiguousarray(turn(photo(image))))
    save(root / "masks" / split / f"{name}.png", np.ascontiguousarray(turn(ids(mask))))


def sound(root: Path) -> Path:
    for split, first in (("train", 0), ("val", 20), ("test", 40)):
        for index in range(6 if split == "train" else 3):
            make(root, split, f"{split[0]}{first + index}", ".png", first + index, first + index, lambda image: image)
    return root


def leaks(source: Folder) -> list[str]:
    return [text for finding in shared_images(source) for text in lines_of(finding)]


def test_train_and_evaluate_say_so_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = sound(tmp_path / "data"), tmp_path / "run"
    assert leaks(Folder(root=root)) == []
    for planted in PLANTED.values():
        make(root, *planted)
    exif = Image.Exif()
    exif[0x0112] = 3
    save(root / "images/train/over.jpg", photo(60), exif=exif)
    save(root / "masks/train/over.png", ids(60))
    assert main(["train", str(root), *TINY, f"--out={run}"]) == 0
    shown = capsys.readouterr().err
    assert all(said in shown for said in PLANTED) and "EXIF rotates or mirrors, unlike the masks" in shown
    assert main(["train", f"--resume={run}", "--epochs=2"]) == 0
    assert "more than one split" not in capsys.readouterr().err
    for flags, there in (([], "found by name"), (["--split=test"], "more than one split"), (["--split=train"], None)):
        assert main(["evaluate", str(run), *flags, "--workers=0", "--bootstrap=0"]) == 0
        shown = capsys.readouterr().err
        assert (there in shown) if there else ("in train" not in shown)
    elsewhere = tmp_path / "other"
    make(elsewhere, "", "x", ".png", 1, 1, np.flipud)
    assert main(["evaluate", str(run), str(elsewhere), "--workers=0", "--bootstrap=0"]) == 0
    assert "1 of 1 in all" in capsys.readouterr().err


def test_images_that_were_added_change_no_split_in_silence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = tmp_path / "data", tmp_path / "run"
    for index in range(10):
        make(root, "", f"p{index}", ".png", index, index, np.array)
    assert main(["train", str(root), *TINY, f"--out={run}"]) == 0
    trained = (run / "train.txt").read_text().splitlines()
    assert len(trained) == 8
    for index in range(10, 20):
        make(root, "", f"p{index}", ".png", index, index, np.array)
    resumed = error_of(capsys, "train", "--resume", run, "--epochs=2")
    assert f"{run}/train.txt" in resumed and "p1" in resumed and "init_from" in resumed
    again = {pair.name for pair in Folder(root=root).pairs("val")} & {*trained}
    command = ["evaluate", str(run), "--workers=0", "--bootstrap=0"]
    assert main(command) == 0
    shown = capsys.readouterr().err
    assert f"{len(again)} of 4 images in val were used in training" in shown and again
    assert main(["evaluate", str(run / "model"), *command[2:]]) == 0
    assert "images in val were used in training" in capsys.readouterr().err
    assert main(["compare", str(run), str(run / "model"), *command[2:]]) == 0
    assert f"images in val were used in training {run}/model" in capsys.readouterr().err
    flag = shown.partition("data.train_list ")[2].split()[0]
    assert main([*command, "--data.train_list", flag]) == 0
    assert "trained on" not in capsys.readouterr().err
