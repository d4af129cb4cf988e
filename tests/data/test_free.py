"""The data sets nuclei and aerial: their classes, their splits and the part in the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import grid, indexed, picture, save, write_lists
from hypothesis import given
from hypothesis import strategies as st

from crispseg.data import Aerial, Nuclei
from crispseg.data.catalogue import catalogue
from crispseg.data.dataset import read_lines
from crispseg.data.folder_layout import recognise
from crispseg.data.mask_lookup import MOST, three_classes
from crispseg.data.sources import LISTS, PART
from crispseg.training.config import TrainConfig, config_to_dict


def listed(path: Path) -> set[str]:
    return set(read_lines(path))


# -------------------------------------------------------------------------------------------------------- classes


def nearby(ids: np.ndarray, radius: int) -> np.ndarray:
    """The three classes, pixel by pixel."""
    found = np.zeros(ids.shape, np.uint8)
    for (y, x), own in np.ndenumerate(ids):
        rows, columns = np.ogrid[: ids.shape[0], : ids.shape[1]]
        near = set(ids[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2].tolist()) - {0}
        found[y, x] = 2 if len(near) > 1 else own > 0
    return found


@given(
    boxes=st.lists(st.tuples(*[st.integers(0, 11)] * 2, *[st.integers(1, 6)] * 2, st.integers(1, MOST)), max_size=5),
    radius=st.integers(1, 3),
)
def test_borders_are_pixels_near_two_objects(boxes: list[tuple[int, ...]], radius: int) -> None:
    ids = np.zeros((12, 14), np.int32)
    for top, left, height, width, number in boxes:
        ids[top : top + height, left : left + width] = number
    assert np.array_equal(three_classes(ids, radius), nearby(ids, radius))


# --------------------------------------------------------------------------------------------------------- splits


def test_lists_of_the_whole_sets() -> None:
    nuclei, aerial = (
        {split: listed(LISTS / f"{name}_{split}.txt") for split in ("train", "val")} for name in ("nuclei", "aerial")
    )
    for name, splits in (("nuclei", nuclei), ("aerial", aerial)):
        assert not splits["train"] & splits["val"]
        assert {split: len(names) for split, names in splits.items()} == catalogue()[name].counts
    tiles = {split: {name.partition("_")[0] for name in names} for split, names in aerial.items()}
    assert tiles == {"train": {"tile1", "tile5", "tile7", "tile8"}, "val": {"tile2", "tile3"}}


def test_the_part_in_the_package() -> None:
    """Its train is of the train split of the whole, its val and test are of val; no file is there without a list."""
    source = Nuclei()
    names = {split: listed(PART / f"{split}.txt") for split in source.splits()}
    assert list(names) == ["train", "val", "test"]
    assert names["train"] <= listed(LISTS / "nuclei_train.txt")
    assert names["val"] | names["test"] <= listed(LISTS / "nuclei_val.txt") and not names["val"] & names["test"]
    every = {f"{name}.png" for each in names.values() for name in each}
    assert all({path.name for path in (PART / kind).iterdir()} == every for kind in ("images", "instances"))
    assert sum(path.stat().st_size for path in PART.rglob("*")) <= 6e6
    licence = (PART / "LICENSE.txt").read_text()
    assert "CC0" in licence and "BBBC038" in licence and "lopuhin" in licence

    looks = set()
    for split in source.splits():
        dataset = source.dataset(split)
        for index in range(len(dataset)):
            image = dataset[index].image
            looks.add((image.shape, bool(image.mean() > 127), bool((image[..., 0] != image[..., 2]).any())))
    assert len(looks) == 9


def test_a_run_records_no_path_of_the_part(tmp_path: Path) -> None:
    rest = {"name": "nuclei", "merge": {}, "drop": []}
    assert config_to_dict(TrainConfig(data=Nuclei()))["data"] == {**rest, "root": None}
    recorded = config_to_dict(TrainConfig(data=Nuclei(tmp_path)))["data"]
    assert recorded == {**rest, "root": str(tmp_path)}


def test_unlabelled_pixels_of_aerial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    """They are 15 in files of 4 bits a pixel and 255 in others; nothing else is ignored."""
    monkeypatch.setattr(
        "crispseg.data.sources.LISTS", write_lists(tmp_path / "lists", "aerial_", {"val": ["a", "b", "c"]})
    )
    for name, values, options in (("a", [0, 4, 15], {"bits": 4}), ("b", [0, 4, 255], {}), ("c", [0, 7], {})):
        picture(tmp_path / "images" / f"{name}.jpg")
        mask = indexed(grid(values), Aerial("x").label_set().palette)
        save(tmp_path / "masks" / f"{name}.png", mask, **options)
    dataset = Aerial(tmp_path).dataset("val")
    for index in (0, 1):
        assert np.array_equal(dataset[index].labels, grid([0, 4, 255]))
    with refuses("masks/c.png", "value 7 is not among the class ids of aerial, 0 to 15"):
        dataset[2]


def test_a_folder_of_each_is_recognised(shared: Path) -> None:
    for name in ("nuclei", "aerial"):
        root = shared / "data" / name
        assert recognise(root) == {"name": name, "root": str(root)}
