"""Classes of which one is always on the left and the other on the right, which a mirrored image would exchange."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from dataset_trees import save
from numpy.typing import NDArray
from rich.console import Console
from training_runs import MODEL, PAPER

from crispseg.data import Augment, Folder
from crispseg.training import TrainConfig, train

from .trees import photo

SIZE = (40, 48)
NAMES = ["floor", "left wall", "right wall"]


def walls(swapped: bool = False, width: int = 12) -> NDArray[np.uint8]:
    """A wall at each side of a floor, or the other way round; the right one has this width."""
    mask = np.zeros(SIZE, np.uint8)
    mask[4:, :14], mask[4:, -width:] = 1, 2
    return mask[:, ::-1] if swapped else mask


def lines(folder: Path, masks: list[NDArray[np.uint8]], flip: float = 0.5) -> list[str]:
    """What training prints of mirrored images, for a folder with these masks."""
    for index, mask in enumerate(masks):
        save(folder / f"images/{index}.png", photo(index, SIZE))
        save(folder / f"masks/{index}.png", mask)
    output = io.StringIO()
    settings = {**PAPER, "model": MODEL, "iterations": 1, "batch_size": 2, "workers": 0, "loggers": []}
    augment = Augment(crop=32, flip=flip, turn=False, photometric=False)
    data = Folder(root=folder, classes=NAMES)
    config = TrainConfig(**settings, data=data, augment=augment, out=folder / "run")  # type: ignore[arg-type]
    train(config, console=Console(file=output, width=300))
    return [line for line in output.getvalue().splitlines() if "augment.flip" in line]


def test_classes_that_are_mirrored_are_named(tmp_path: Path) -> None:
    (line,) = lines(tmp_path, [walls() for _ in range(14)])
    assert line.startswith("left wall is on the left and right wall on the right") and "augment.flip 0" in line


@pytest.mark.parametrize(
    ("masks", "flip"),
    [
        ([walls(swapped=index % 4 == 0) for index in range(14)], 0.5),  # on both sides
        ([walls(width=5) for _ in range(14)], 0.5),  # another area: background beside an object
        ([walls() for _ in range(8)], 0.5),  # few images
        ([walls() for _ in range(14)], 0),  # not mirrored
    ],
    ids=["both sides", "areas", "few", "no flip"],
)
def test_other_classes_are_not(masks: list[NDArray[np.uint8]], flip: float, tmp_path: Path) -> None:
    assert lines(tmp_path, masks, flip) == []
