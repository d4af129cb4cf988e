"""Masks that number a few objects: each proposed command trains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save

from crispseg.cli.main import main
from crispseg.cli.train import Train

from .trees import ids, photo


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
