"""Files that may define the classes: they are named, also if they differ between masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save

from crispseg.data import Folder

from .own_folders import ids, make_pairs, photo


@pytest.mark.parametrize("place", ["annotations", "meta"])
def test_a_file_of_colours_next_to_masks_is_named(place: str, tmp_path: Path, refuses: Any) -> None:
    colors = np.array([(0, 0, 0), (9, 99, 0), (80, 0, 7)], np.uint8)
    for index in range(6):
        photo(tmp_path / f"frames/{index}.png", index)
        save(tmp_path / f"annotations/{index}.png", colors[ids(0, 1, 2)])
    legend = tmp_path / place / "colormap.txt"
    legend.parent.mkdir(exist_ok=True)
    legend.write_text("0 void 0 0 0\n1 grass 9 99 0\n2 dirt 80 0 7\n")
    source = Folder(tmp_path / "frames", tmp_path / "annotations", root=tmp_path)
    with refuses("if each colour is a class", f"{legend} may define the classes"):
        source.label_set()
    assert replace(source, palette=legend).label_set().names == ("void", "grass", "dirt")


def test_labels_of_nnunet_are_named(tmp_path: Path) -> None:
    make_pairs(tmp_path, "imagesTr/case_{}_0000.png", "labelsTr/case_{}.png", 0, 1, 2)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cell": 1, "ignore": 2}}))
    assert any("dataset.json may define the classes" in line for line in Folder(root=tmp_path).open().notes())


def test_annotations_of_images_are_no_legends(tmp_path: Path) -> None:
    make_pairs(tmp_path, "{}.jpg", "{}_mask.png")
    for index in range(6):
        (tmp_path / f"{index}_label.json").write_text(json.dumps({"shapes": [], "imagePath": f"{index}.jpg"}))
    assert not Folder(root=tmp_path).open().content.class_files
