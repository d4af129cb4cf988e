"""Classes of which one is always on the left and the other on the right, which a mirrored image would exchange."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save
from numpy.typing import NDArray
from rich.console import Console
from training_runs import tiny

from crispseg.data import Augment, Folder
from crispseg.doctor import diagnose, subject_of
from crispseg.training import train

from .trees import named, photo

SIZE = (40, 48)


def walls(swapped: bool = False, width: int = 12) -> NDArray[np.uint8]:
    """A wall at each side of a floor, or the other way round; the right one has this width."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:, :14], mask[4:, -width:] = 1, 2
    return mask[:, ::-1] if swapped else mask


def put(folder: Path, masks: list[NDArray[np.uint8]]) -> Folder:
    for index, mask in enumerate(masks):
        save(folder / f"images/{index}.png", photo(index, SIZE))
        save(folder / f"masks/{index}.png", mask)
    return Folder(root=folder, classes=["floor", "left wall", "right wall"])


@pytest.mark.parametrize("flip", [0.5, 0])
def test_classes_that_are_mirrored_are_named(flip: float, tmp_path: Path) -> None:
    output, augment = io.StringIO(), Augment(crop=32, flip=flip, turn=False, photometric=False)
    config = tiny(tmp_path / "run", data=put(tmp_path, [walls()] * 14), augment=augment, iterations=1)
    train(config, console=Console(file=output, width=300))
    lines = [line for line in output.getvalue().splitlines() if "augment.flip" in line]
    said = "left wall is on the left and right wall on the right"
    assert len(lines) == (flip > 0) and all(line.startswith(said) and "augment.flip 0" in line for line in lines)


@pytest.mark.parametrize(
    "masks",
    [[walls(swapped=index % 4 == 0) for index in range(14)], [walls(width=5)] * 14, [walls()] * 8],
    ids=["both sides", "another area, as background beside an object", "few images"],
)
def test_other_classes_are_not(masks: list[NDArray[np.uint8]], tmp_path: Path) -> None:
    assert "mirrored-classes" not in named(diagnose(subject_of(put(tmp_path, masks))))
