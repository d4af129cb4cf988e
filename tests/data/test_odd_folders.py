"""Folders of exports and of laboratories that are read only in part, or refused by what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import picture, save

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.named import settings_of
from crispseg.data.open_folder import OpenFolder
from crispseg.errors import CrispsegError

from .own_folders import ids, make_pairs, photo


def open_root(root: Path) -> OpenFolder:
    return Folder(root=root).open()


def test_of_a_cvat_export_the_listed_images_are_read(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / f"JPEGImages/{index}.png")
        save(tmp_path / f"SegmentationClass/{index}.png", ids(0, 1) * (index < 4))
        save(tmp_path / f"SegmentationObject/{index}.png", ids(0, 1))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n")
    assert settings_of(tmp_path) == {"name": "folder", "root": str(tmp_path)}
    for data in (Folder(root=tmp_path), Folder(tmp_path / "JPEGImages", tmp_path / "SegmentationClass")):
        assert [pair.name for pair in data.pairs("all")] == ["0", "1", "2", "3"]
        assert "default.txt" in "\n".join(data.open().notes())


def test_other_json_is_no_annotation(tmp_path: Path) -> None:
    photo(tmp_path / "frames/0.png", 0)
    (tmp_path / "mappings.json").write_text('{"frame": 3, "objects": []}')
    with pytest.raises(CrispsegError) as error:
        Folder(root=tmp_path).pairs("all")
    assert "data import" not in str(error.value)


@pytest.mark.parametrize("name", ["images/{}.png masks/{}.png", "{}.jpg {}.png", "{}.jpg {}_mask.png"])
def test_a_mask_for_each_object_is_refused(
    name: str, tmp_path: Path, refuses: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = name.split()
    for index in range(4):
        photo(tmp_path / image.format(f"a{index}"), index)
        for kind in ("", "_1", " (2)"):
            save(tmp_path / mask.format(f"a{index}{kind}"), ids(0, 255))
    with refuses("one name", mask.format("a0"), mask.format("a0_1"), "if an image has several masks, merge them"):
        Folder(root=tmp_path).dataset("train")
    assert main(["doctor", str(tmp_path), "--fix", f"{tmp_path}_fixed"]) == 2
    assert "error  ambiguous-names" in capsys.readouterr().out


def test_annotations_in_other_forms_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps({"categories": []}))
    with pytest.raises(CrispsegError, match="crispseg data import"):
        open_root(tmp_path)
    with pytest.raises(CrispsegError, match="crispseg data import"):  # itself called as a split is
        open_root(tmp_path / "train")
    picture(tmp_path / "arrays/images/a.jpg")
    (tmp_path / "arrays/labels").mkdir()
    np.save(tmp_path / "arrays/labels/a.npy", ids(0, 1))
    with pytest.raises(CrispsegError, match="npy cannot be read as masks"):
        Folder(root=tmp_path / "arrays").dataset("train")
    for place in ("train", "val"):
        (tmp_path / "splits" / place / "labels").mkdir(parents=True)
        np.save(tmp_path / "splits" / place / "labels/a.npy", ids(0, 1))
    with pytest.raises(CrispsegError, match=r"train/labels: 1 npy, .*npy cannot be read as masks: save each"):
        open_root(tmp_path / "splits")


def test_several_images_of_one_name_are_refused(tmp_path: Path, refuses: Any) -> None:
    for suffix in ("tif", "png"):
        make_pairs(tmp_path, f"images/train/{{}}.{suffix}", "masks/train/{}.png")
    with refuses("several images or masks have one name", "as a pattern, such as"):
        Folder(tmp_path / "images/train", tmp_path / "masks/train").pairs("all")
    chosen = Folder(tmp_path / "images/train/*.png", tmp_path / "masks/train")
    assert [pair.image.name for pair in chosen.pairs("all")] == [f"{index}.png" for index in range(6)]


def test_lists_of_videos(tmp_path: Path) -> None:
    for index in range(8):
        photo(tmp_path / f"JPEGImages/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.jpg", index)
        save(tmp_path / f"Annotations/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.png", ids(0, 1))
    for line in ("goat", "goat/", "JPEGImages\\480p\\goat"):
        (tmp_path / "val.txt").write_text(f"{line}\n")
        data = Folder(f"{tmp_path}/JPEGImages/480p", f"{tmp_path}/Annotations/480p", val_list=tmp_path / "val.txt")
        videos = {split: {pair.image.parent.name for pair in data.pairs(split)} for split in ("train", "val")}
        assert videos == {"train": {"bear"}, "val": {"goat"}}
