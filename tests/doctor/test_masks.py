"""Masks that all have one mistake, that number objects or have a class too many: corrected copies and commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.data import Folder
from crispseg.data.folder_layout import recognise
from crispseg.data.folder_search import nearly_same
from crispseg.doctor import Severity, subject_of
from crispseg.doctor.diagnosis import EXIT_STATUS
from crispseg.doctor.duplicates import leaks
from crispseg.errors import CrispsegError

from .trees import COLORS, SIZE, Tree, ids, photo

WHOLE = {
    "black-and-white-masks": (lambda seed: (255 * (ids(seed) > 1)).astype(np.uint8), "data.ignore '[255]'"),
    "rgb-masks": (lambda seed: COLORS[ids(seed)], "'[[0,0,0],[60,0,90],[128,0,0],[200,10,30]]'"),
    "one-based-ids": (lambda seed: ids(seed) + 1, "from 0"),
    "sparse-ids": (lambda seed: np.array([0, 38, 75, 113], np.uint8)[ids(seed)], "'[[0,0,0],[38,38,38],"),
}
SEVERITIES = {"black-and-white-masks": Severity.INFORMATION, "one-based-ids": Severity.WARNING}
"""Of what can be trained on."""


@pytest.mark.parametrize("code", WHOLE)
def test_masks_that_all_have_one_mistake(code: str, tmp_path: Path) -> None:
    mask, remedy = WHOLE[code]
    tree = Tree(tmp_path / "data", mask)
    diagnosis = tree.examine()
    found = diagnosis.findings[0]
    severity = SEVERITIES.get(code, Severity.ERROR)
    assert found.code == code and found.severity is severity and found.count == 12 and remedy in found.remedy
    out = tmp_path / "out"
    declared = ["--data.num_classes=4"] * (code == "one-based-ids")
    status = EXIT_STATUS[Severity.ERROR if declared else severity]
    assert main(["doctor", str(tmp_path / "data"), "--fix", str(out), *declared]) == status
    assert main(["doctor", str(out)]) == 0
    for path in (tree.root / "masks").iterdir():
        split = "train" if path.stem.startswith("train") else "val"
        fixed = np.asarray(Image.open(out / "masks" / split / path.name))
        raw = np.asarray(Image.open(path)).reshape(*SIZE, -1)[..., 0]
        # in the order of the values, or of the red channel
        firsts = [int(fixed[raw == value][0]) for value in np.unique(raw)]
        assert firsts == sorted(set(firsts)) and np.unique(fixed).tolist() == firsts
        assert firsts[0] == 0 and firsts[-1] == (1 if code == "black-and-white-masks" else 3)


@pytest.mark.parametrize(("move", "found"), [(0, True), (2, True), (12, False)])
def test_fields_of_view_are_named_and_chosen_last(move: int, found: bool, tmp_path: Path) -> None:
    y, x = np.mgrid[:128, :128]
    for index in range(12):
        random = np.random.default_rng(index)
        row, column = 64 + random.uniform(-move, move, 2)
        view = (255 * (np.hypot(y - row, x - column) < 56)).astype(np.uint8)
        save(tmp_path / f"images/{index:02}.png", photo(index, (128, 128)))
        save(tmp_path / f"mask/{index:02}.png", view)
        save(tmp_path / f"vessels/{index:02}.png", view * (random.random((128, 128)) < 0.1))
    for masks in ("mask", "vessels"):
        lines = leaks(subject_of(Folder(tmp_path / "images", tmp_path / masks)))
        assert any("fields of view" in line for line in lines) == (found and masks == "mask")
    with pytest.raises(CrispsegError) as caught:
        recognise(tmp_path)
    first = caught.value.settings[0]["data.masks"]
    assert str(first).endswith("vessels") == found


def test_masks_of_one_class_or_of_few_images_are_no_fields_of_view(tmp_path: Path) -> None:
    for index in range(12):
        save(tmp_path / f"{index}.png", np.full((32, 32), 255 * (index == 7), np.uint8))
    assert not nearly_same(sorted(tmp_path.iterdir())) and not nearly_same([])


def test_few_objects_are_merged_or_declared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(12):
        mask = np.zeros((60, 80), np.uint8)
        for number in range(index % 4):
            mask[10 + index : 30 + index, 5 + 25 * number : 25 + 25 * number] = number + 1
        save(tmp_path / f"images/{index}.png", photo(index, mask.shape))
        save(tmp_path / f"masks/{index}.png", mask)
    assert main(["train", str(tmp_path)]) == 2
    assert "ids from 1 to a different number of at most 3" in capsys.readouterr().err
    assert main(["train", f"--data.images={tmp_path / 'images'}", f"--data.masks={tmp_path / 'masks'}"]) == 2
    *_, command = capsys.readouterr().err.split("; or: crispseg ")
    assert Train.parsed(shlex.split(command)[1:]).config().data.label_set().names == ("background", "object", "border")
    assert main(["doctor", str(tmp_path)]) == 3
    merged, declared = re.findall(r"or train with: crispseg (.+)", capsys.readouterr().out)
    assert main(["doctor", *shlex.split(merged)[1:]]) == 0
    printed = capsys.readouterr().out
    assert "object" in printed and "class 1" not in printed
    assert main(["doctor", *shlex.split(declared)[1:]]) == 0
    assert "class 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    "table", [[0, 7, 24001, 24002], [0, 1792, 6657, 6658], [*range(0, 250, 10)], [*range(0, 66000, 3000)]]
)
def test_numbers_of_classes_and_objects_are_refused_and_no_copy_is_written(
    table: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(8):
        save(tmp_path / f"data/images/{index}.png", photo(index))
        save(tmp_path / f"data/masks/{index}.png", np.array(table, np.uint16)[ids(index, classes=len(table))])
    root, copy = str(tmp_path / "data"), tmp_path / "copy"
    assert main(["train", root]) == 2
    assert "corrected copy" not in capsys.readouterr().err
    assert main(["doctor", root]) == 3
    printed = capsys.readouterr().out
    assert "--fix" not in printed and "sparse-ids" in printed
    assert main(["doctor", root, "--fix", str(copy)]) == 2
    assert "is not written" in capsys.readouterr().err and not copy.exists()


def test_an_id_more_than_classes_is_not_dropped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, out, declared = Tree(tmp_path / "data"), tmp_path / "out", ["--data.classes=[road,tree,car]"]
    assert main(["doctor", str(tree.root), *declared]) == 3
    printed = capsys.readouterr().out
    assert "the value 3 (" in printed and "with the background if it is 0" in printed and "--fix" not in printed
    assert main(["doctor", str(tree.root), *declared, "--fix", str(out)]) == 2 and not out.exists()
    assert main(["train", str(tree.root), *declared]) == 2
    assert "the value 3 (" in capsys.readouterr().err
