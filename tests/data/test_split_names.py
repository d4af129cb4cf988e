"""Splits in names of folders and images, and tables and lists of images, which are followed or named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save

from crispseg.data import Folder

from .own_folders import ids, make_pair, make_pairs, photo


@pytest.mark.parametrize(
    ("folders", "counts"),
    [
        (("berlin_train", "paris_train", "berlin_val", "paris_val"), {"train": 4, "val": 4}),
        (("istanbul_tr", "ankara_tr", "izmir_ts", "oslo_val"), None),
        (("blood_test", "urine_test", "skin_test"), None),
        (("steam_train", "bus", "car", "tram"), None),
        (("crash_test/train", "crash_test/val", "lab_train/train", "lab_train/val"), {"train": 4, "val": 4}),
    ],
)
def test_last_words_of_folders_are_splits_if_train_is_among_them(
    folders: tuple[str, ...], counts: dict[str, int] | None, tmp_path: Path
) -> None:
    for index, place in enumerate(np.repeat(folders, 2)):
        photo(tmp_path / f"images/{place}/{index % 2}.png", index)
        save(tmp_path / f"masks/{place}/{index % 2}.png", ids(0, 1))
    above = "*/*" if "/" in folders[0] else ""
    data = Folder(f"{tmp_path}/images/{above}", f"{tmp_path}/masks/{above}") if above else Folder(root=tmp_path)
    assert len(data.pairs("all")) == 2 * len(folders)
    assert counts in (None, {split: len(data.pairs(split)) for split in data.splits()})
    assert {*data.splits()} == {"train", "val"}


@pytest.mark.parametrize(
    ("file", "content", "named"),
    [
        (
            "metadata.csv",
            "image,patient_id,split\n" + "".join(f"images/scan_{n}.png,p{n // 2},train\n" for n in range(8)),
            True,
        ),
        ("info.csv", "Image;Slide\n" + "".join(f"scan_{n};{n // 4}\n" for n in range(8)), True),
        ("splits.json", json.dumps({"train": ["scan_0", "scan_1"], "test": ["scan_2", "scan_3"]}), True),
        ("test.csv", "image,mask\nimages/scan_0.png,masks/scan_0.png\nimages/scan_1.png,masks/scan_1.png\n", True),
        ("lists/trainval.txt", "".join(f"scan_{n} 1 2 {n}\n" for n in range(4)), True),
        ("lists/test.txt", "scan_6 1 1 1\nscan_7 2 1 1\n", True),
        ("train_test_split.yaml", "train:\n- 0\n- 1\ntest:\n- 2\n", True),
        ("ImageSets/trn.txt", "scan_0\nscan_1\n", True),
        ("splits/by_hand/site_train_data.csv", "".join(f"scan_{n}_S1.tif,scan_{n}.tif\n" for n in range(6)), True),
        ("pairs.csv", "".join(f"scan_{n}_S1.tif,scan_{n}_mask.tif\n" for n in range(8)), True),
        ("points/train_scores.csv", "".join(f"{n},0.{n},{n}.5\n" for n in range(8)), False),
        ("config.yaml", "train: 0\ntest: 1\n", False),
        ("lists/scan_1.txt", "scan_2\nscan_3\n", False),
        ("lists/remarks.txt", "scan_6\nscan_7\n", False),
        ("notes.json", '{"train": ["x.png"], "val": 3}', False),
        ("other.csv", "image,split\nx.png,train\ny.png,test\n", False),
    ],
)
def test_tables_of_splits_and_patients_are_named(file: str, content: str, named: bool, tmp_path: Path) -> None:
    make_pairs(tmp_path, "images/scan_{}.png", "masks/scan_{}.png", count=8)
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(content)
    lines = [line for line in Folder(root=tmp_path).notes() if file in line]
    remedy = "data.test_list" if file.endswith(".txt") else "train.txt"
    assert len(lines) == named and all("is not used" in line and remedy in line for line in lines)
    (tmp_path / "val.txt").write_text("scan_1\n")
    assert not any(file in line for line in Folder(root=tmp_path).notes())


def test_splits_that_list_videos_or_numbers_are_named(tmp_path: Path) -> None:
    for index in range(8):
        photo(tmp_path / f"JPEGImages/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.jpg", index)
        save(tmp_path / f"Annotations/480p/{'bear' if index < 4 else 'goat'}/{index % 4:05}.png", ids(0, 1))
    (tmp_path / "ImageSets/2017").mkdir(parents=True)
    (tmp_path / "ImageSets/2017/train.txt").write_text("bear\ngoat\n")
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 1\n")
    notes = Folder(f"{tmp_path}/JPEGImages/480p", f"{tmp_path}/Annotations/480p").notes()
    assert not any("train.txt" in line for line in notes)  # above the given folders only
    notes = Folder(root=tmp_path).notes()
    assert any("2017/train.txt lists images" in line for line in notes)
    assert any("train_test_split.txt may divide the images" in line for line in notes)
    for line in ("goat", "goat/", "JPEGImages\\480p\\goat"):
        (tmp_path / "val.txt").write_text(f"{line}\n")
        data = Folder(f"{tmp_path}/JPEGImages/480p", f"{tmp_path}/Annotations/480p", val_list=tmp_path / "val.txt")
        videos = {split: {pair.image.parent.name for pair in data.pairs(split)} for split in ("train", "val")}
        assert videos == {"train": {"bear"}, "val": {"goat"}}


@pytest.mark.parametrize("rest", ["uavid_other", "uavid_test_v2"])
def test_splits_at_the_end_of_folders_names_are_followed(rest: str, tmp_path: Path) -> None:
    """Images in folders of other names are in no split, which is said."""
    for place in ("uavid_train", "uavid_val", rest):
        for index in range(4):
            photo(tmp_path / place / f"seq{index % 2}/Images/{index}.png", index)
            save(tmp_path / place / f"seq{index % 2}/Labels/{index}.png", ids(0, 1))
    data = Folder(f"{tmp_path}/*/*/Images", f"{tmp_path}/*/*/Labels")
    counts = {split: len(data.pairs(split)) for split in data.splits()}
    assert counts == {"train": 4, "val": 4, **({"test": 4} if rest == "uavid_test_v2" else {})}
    assert sum("images in no split: " in line for line in data.notes()) == (rest == "uavid_other")


def test_a_table_above_the_folders_of_a_pattern_is_named(tmp_path: Path) -> None:
    for index in range(6):
        photo(tmp_path / f"part_{index % 2}/ISIC_{index}.png", index)
        save(tmp_path / f"masks/ISIC_{index}_segmentation.png", ids(0, 1))
    (tmp_path / "metadata.csv").write_text("".join(f"ISIC_{index},HAM_{index // 2}\n" for index in range(6)))
    source = Folder(f"{tmp_path}/part_*/*.png", f"{tmp_path}/masks/*_segmentation.png")
    assert any("metadata.csv lists images" in line for line in source.notes())


def test_tables_of_the_files_of_a_pattern_are_named(tmp_path: Path) -> None:
    make_pairs(tmp_path, "images/scan_{}_S2.png", "masks/scan_{}_S2.png", count=8)
    (tmp_path / "split.csv").write_text("".join(f"scan_{n}_S1.tif,scan_{n}_S2.tif\n" for n in range(8)))
    data = Folder(root=tmp_path, images=tmp_path / "images/*_S2.png", masks=tmp_path / "masks/*_S2.png")
    assert any("split.csv lists images" in line for line in data.notes())


@pytest.mark.parametrize(
    ("names", "named"),
    [
        (("train_1", "train_2", "val_1", "test_1"), True),
        (("train_1", "train_2", "testA_1", "testB_1"), True),
        (("a_train_1", "b_train_2", "c_test_3", "d_test_4"), True),
        (("train_1", "train_2", "train_3", "train_4"), False),
        (("train_1", "val_2", "test_3", "street_4"), False),
        (("trainer_1", "validity_2", "tests_3", "value_4"), False),
    ],
)
def test_splits_in_names_of_images_are_named(names: tuple[str, ...], named: bool, tmp_path: Path) -> None:
    for index, name in enumerate(names):
        make_pair(tmp_path, name, np.full((40, 40), index % 2, np.uint8))
    assert any("names of images contain" in line for line in Folder(root=tmp_path).notes()) == named
    (tmp_path / "val.txt").write_text(f"{names[0]}\n")
    assert not any("names of images contain" in line for line in Folder(root=tmp_path).notes())


def test_lists_of_splits_in_a_folder_are_used(tmp_path: Path) -> None:
    make_pairs(tmp_path, "images/{}.png", "masks/{}.png", count=8)
    (tmp_path / "splits").mkdir()
    for split, names in {"train": "2345", "val": "01", "test": "67"}.items():
        lines = [f"/images/{name}.jpeg  /masks/{name}.png\n" for name in names]
        (tmp_path / f"splits/{split}.txt").write_text("".join(lines))
    source = Folder(root=tmp_path)
    found = {split: "".join(pair.name for pair in source.pairs(split)) for split in source.splits()}
    assert found == {"train": "2345", "val": "01", "test": "67"}
    assert "splits/train.txt" in " ".join(source.notes())


def test_tables_of_single_images_and_of_numbers_are_no_lists(tmp_path: Path) -> None:
    make_pairs(tmp_path, "images/{}.png", "masks/{}.png", count=30)
    for index in range(30):
        for place in ("points", "few") if index < 3 else ("points",):
            (tmp_path / place).mkdir(exist_ok=True)
            (tmp_path / f"{place}/test_{index}.csv").write_text(f"{index}.png\n{index + 1}.png\n0.5\n")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/train.csv").write_text("".join(f"{step},0.{step}\n" for step in range(30)))
    assert not any("csv" in line for line in Folder(root=tmp_path).notes())
