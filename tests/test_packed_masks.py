"""Masks of 2 or 4 bits a pixel, in which 255 became the largest value that these can hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crispseg.data import Folder
from crispseg.data.folder import settle

LINE = "it is read as 255, which is ignored"


def folder(root: Path, values: list[list[int]], bits: int = 4, mode: str = "P", **keys: Any) -> Folder:
    """Pairs of 8×8 pixels, the values of a mask in equal parts."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    for number, each in enumerate(values):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(root / "images" / f"{number}.png")
        mask = Image.fromarray(np.resize(np.array(each, np.uint8), (8, 8)), mode="L")
        if mode == "P":
            mask = mask.convert("P")
            mask.putdata(np.resize(np.array(each, np.uint8), 64).tolist())
            mask.putpalette([channel for value in range(16) for channel in (value * 16,) * 3])
            mask.save(root / "masks" / f"{number}.png", bits=bits)
        else:
            mask.save(root / "masks" / f"{number}.png")
    return Folder(root / "images", root / "masks", **keys)


def labels(data: Folder) -> set[int]:
    split = data.dataset("all")
    return set().union(*(np.unique(split[index].labels).tolist() for index in range(len(split))))


@pytest.mark.parametrize("keys", [{"num_classes": 3}, {"classes": ["a", "b", "c"]}, {}])
def test_what_was_255_is_ignored_and_said(keys: dict[str, Any], tmp_path: Path) -> None:
    data = folder(tmp_path, [[0, 1, 15], [1, 2], [2, 15]], **keys)
    assert labels(data) == {0, 1, 2, 255} and len(data.label_set()) == 3
    settled, lines = settle(data)
    assert isinstance(settled, Folder) and settled.ignore == (15,)
    assert LINE in " ".join(lines)
    assert LINE not in " ".join(settle(settled)[1]) and labels(settled) == {0, 1, 2, 255}


def test_declared_classes_and_ignored_values_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    sixteen = folder(tmp_path / "a", [[0, 15], [1, 2]], num_classes=16)
    assert labels(sixteen) == {0, 1, 2, 15}
    ignored = folder(tmp_path / "b", [[0, 15], [1, 2]], num_classes=3, ignore=(15,))
    assert labels(ignored) == {0, 1, 2, 255} and LINE not in " ".join(settle(ignored)[1])


def test_of_eight_bits_15_stays_a_mistake(tmp_path: Path, refuses: Any) -> None:
    data = folder(tmp_path, [[0, 15], [1, 2]], mode="L", num_classes=3)
    with refuses("value 15 is out of range 0 to 2"):
        labels(data)


def test_another_value_beside_it_stays_a_mistake(tmp_path: Path, refuses: Any) -> None:
    data = folder(tmp_path, [[0, 7, 15], [1, 2]], num_classes=3)
    with refuses("out of range 0 to 2"):
        labels(data)
