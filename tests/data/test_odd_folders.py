"""Folders of exports and of laboratories that are read only in part, or refused by what they hold."""

import json
from pathlib import Path
from typing import Any

import pytest
from dataset_trees import picture, save

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.named import settings_of
from crispseg.errors import CrispsegError

from .own_folders import ids, make_pairs, photo


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
        assert "default.txt" in "\n".join(data.notes())


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


def test_annotations_without_masks_are_to_be_imported(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps({"categories": []}))
    with pytest.raises(CrispsegError, match="crispseg data import"):
        Folder(root=tmp_path).splits()


def test_several_images_of_one_name_are_refused(tmp_path: Path, refuses: Any) -> None:
    for suffix in ("tif", "png"):
        make_pairs(tmp_path, f"images/train/{{}}.{suffix}", "masks/train/{}.png")
    with refuses("several images or masks have one name", "as a pattern, such as"):
        Folder(tmp_path / "images/train", tmp_path / "masks/train").pairs("all")
    chosen = Folder(tmp_path / "images/train/*.png", tmp_path / "masks/train")
    assert [pair.image.name for pair in chosen.pairs("all")] == [f"{index}.png" for index in range(6)]
