"""Masks that all have one mistake, and their corrected copies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
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
