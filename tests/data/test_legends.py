"""Files that may define the classes: they are named, also if they differ between masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save

from crispseg.cli.main import main
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
    with refuses("data.palette '[[", f"{legend} may define the classes"):
        source.label_set()
    palette = replace(source, palette=legend)
    assert palette.label_set().names == ("void", "grass", "dirt") and any(
        "named void" in line for line in palette.notes()
    )


def test_labels_of_nnunet_are_named(tmp_path: Path) -> None:
    make_pairs(tmp_path, "imagesTr/case_{}_0000.png", "labelsTr/case_{}.png", 0, 1, 2)
    (tmp_path / "README").write_text("2 is ignored")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "cell": 1, "ignore": 2}}))
    (line,) = (line for line in Folder(root=tmp_path).notes() if "dataset.json may define the classes" in line)
    assert line.endswith(f"{tmp_path / 'README'} may describe the data")


def test_annotations_of_images_are_no_legends(tmp_path: Path) -> None:
    make_pairs(tmp_path, "{}.jpg", "{}_mask.png")
    for index in range(6):
        (tmp_path / f"{index}_label.json").write_text(json.dumps({"shapes": [], "imagePath": f"{index}.jpg"}))
    assert not [line for line in Folder(root=tmp_path).notes() if " differ: " in line]


@pytest.mark.parametrize("differ", [False, True])
def test_legends_of_frames_that_differ_are_named(differ: bool, tmp_path: Path) -> None:
    """NVIDIA Replicator numbers the colours of each frame."""
    make_pairs(tmp_path, "rgb_{}.jpg", "seg_{}.png")
    for index in range(6):
        (tmp_path / f"seg_labels_{index}.json").write_text(json.dumps({"1": f"class {index * differ}"}))
    notes = Folder(images=f"{tmp_path}/rgb_*.jpg", masks=f"{tmp_path}/seg_*.png").notes()
    assert sum("seg_labels_0.json and" in line and " differ: " in line for line in notes) == differ


@pytest.mark.parametrize("names", ["rust dent", "dent rust"])
def test_legends_that_differ_are_named(names: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of two exports, in which one value or colour may mean two classes; files of other names list other things."""
    for part, order in (("task_1", "rust dent"), ("task_2", names)):
        for index in range(2):
            save(tmp_path / part / f"{index}.jpg", np.full((40, 40, 3), 9 * index, np.uint8))
            save(tmp_path / part / f"{index}_mask.png", (np.arange(1600).reshape(40, 40) % 3).astype(np.uint8))
        (tmp_path / part / "label_names.txt").write_text(order.replace(" ", "\n"))
        (tmp_path / part / "labels.csv").write_text("".join(f"{part}/{index}\n" for index in range(999)))
    source = Folder(images=f"{tmp_path}/*/*.jpg", masks=f"{tmp_path}/*/*_mask.png")
    lines = [line for line in source.notes() if " differ: " in line]
    assert len(lines) == (names == "dent rust")
    assert all("task_1/label_names.txt and" in line and "one value means different classes" in line for line in lines)
    flags = [f"--data.images={source.images}", f"--data.masks={source.masks}", f"--json={tmp_path / 'found.json'}"]
    main(["doctor", *flags])
    assert sum(" differ: " in line for line in capsys.readouterr().out.splitlines()) == len(lines)
    codes = {one["code"]: one["severity"] for one in json.loads((tmp_path / "found.json").read_text())["findings"]}
    assert codes.get("legends-differ") == ("warning" if lines else None)
    main(["doctor", *flags, "--fix", str(tmp_path / "copy")])
    assert (tmp_path / "copy").exists() == (not lines)


def test_files_next_to_data_that_were_unpacked_are_named(tmp_path: Path) -> None:
    data = tmp_path / "Warwick (2016)"
    make_pairs(data, "images/a{}.png", "masks/a{}.png", count=8)
    (tmp_path / "__MACOSX").mkdir()
    (data / "grades.csv").write_text("name, patient\n" + "".join(f"a{index}, 1\n" for index in range(8)))
    (data / "ReleaseNotes.txt").write_text("0 is the background.\n")
    notes = "\n".join(Folder(root=tmp_path).notes())
    assert f"{data / 'grades.csv'} lists images" in notes and f"{data / 'ReleaseNotes.txt'} may describe" in notes
