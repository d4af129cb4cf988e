"""Splits in names of folders and images, and tables and lists of images, which are followed or named."""

from __future__ import annotations

from pathlib import Path

from dataset_trees import save

from crispseg.data import Folder

from .own_folders import ids, photo


def test_splits_that_list_videos_or_numbers_are_named(tmp_path: Path) -> None:
    for index in range(8):
        photo(tmp_path / f"JPEGImages/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.jpg", index)
        save(tmp_path / f"Annotations/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.png", ids(0, 1))
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/train.txt").write_text("bear\ngoat\n")
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 1\n")
    notes = Folder(f"{tmp_path}/JPEGImages/480p", f"{tmp_path}/Annotations/480p").open().notes()
    assert not any("train.txt" in line for line in notes)  # above the given folders only
    notes = Folder(root=tmp_path).open().notes()
    assert any("2017/train.txt, train_test_split.txt; if they define the splits" in line for line in notes)
    for line in ("goat", "goat/", "JPEGImages\\480p\\goat"):
        (tmp_path / "val.txt").write_text(f"{line}\n")
        data = Folder(f"{tmp_path}/JPEGImages/480p", f"{tmp_path}/Annotations/480p", val_list=tmp_path / "val.txt")
        videos = {split: {pair.image.parent.name for pair in data.pairs(split)} for split in ("train", "val")}
        assert videos == {"train": {"bear"}, "val": {"goat"}}
