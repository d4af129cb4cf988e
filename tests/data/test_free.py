"""The data sets nuclei and aerial: their classes, their splits, the part in the package, and the public archives."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import HASHES, grid, picture, public_aerial, public_nuclei, save, write_lists
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crispseg.cli.main import main
from crispseg.data import Aerial, InstanceDataset, Nuclei
from crispseg.data.catalogue import catalogue
from crispseg.data.conversion import convert
from crispseg.data.dataset import read_lines
from crispseg.data.mask_lookup import MOST, InstanceLookup, three_classes
from crispseg.data.sources import LISTS, PART
from crispseg.io.images import read_mask
from crispseg.training.config import TrainConfig, config_to_dict

Capture = pytest.CaptureFixture[str]


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


def test_objects_that_touch_and_that_do_not() -> None:
    ids = np.zeros((9, 20), np.uint16)
    ids[2:7, 2:8], ids[2:7, 8:14], ids[2:7, 19:] = 255, 65535, 1  # 255 is a number like any other
    row = three_classes(ids)[4].tolist()
    assert row == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert InstanceLookup()(ids.astype(np.uint8) * 0 + 7).tolist() == np.ones((9, 20)).tolist()


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
            image = dataset.read_pixels(index)
            looks.add((image.shape, bool(image.mean() > 127), bool((image[..., 0] != image[..., 2]).any())))
    assert len(looks) == 9


def test_object_numbers_are_kept() -> None:
    dataset = Nuclei().dataset("test").with_channels(3)
    assert isinstance(dataset, InstanceDataset)  # as a model gets it too
    for index, pair in enumerate(dataset.pairs):
        numbers = dataset.instances(pair.name)
        assert numbers.dtype == np.int32 and np.array_equal(numbers, np.asarray(Image.open(pair.mask)))
        assert np.array_equal(dataset[index].labels, three_classes(numbers.astype(np.uint16)))
    with pytest.raises(KeyError):
        dataset.instances("other")


def test_a_run_records_no_path_of_the_part(tmp_path: Path) -> None:
    assert config_to_dict(TrainConfig(data=Nuclei()))["data"] == {"name": "nuclei", "root": None}
    recorded = config_to_dict(TrainConfig(data=Nuclei(tmp_path)))["data"]
    assert recorded == {"name": "nuclei", "root": str(tmp_path)}


@pytest.mark.parametrize(
    ("source", "phrases"),
    [
        (
            Nuclei,
            ["846 of the 846 files", "nuclei_train.txt names are missing, first", "by 'crispseg data download nuclei'"],
        ),
        (
            Aerial,
            ["72 of the 72 files", "aerial_train.txt names", "images/tile1_001.jpg", "crispseg data download aerial"],
        ),
    ],
)
def test_what_is_missing_gets_one_line(source: Any, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    with refuses(str(tmp_path), *phrases):
        source(tmp_path).dataset("train")
    with refuses(f"{source.name} has no split 'vall'", "did you mean 'val'"):
        source(tmp_path).dataset("vall")


def test_numbers_cannot_be_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    monkeypatch.setattr("crispseg.data.sources.LISTS", write_lists(tmp_path / "lists", "nuclei_", {"val": ["x"]}))
    picture(tmp_path / "images/x.png")
    save(tmp_path / "instances/x.png", grid([(1, 2, 3), (4, 5, 6)]))
    dataset = Nuclei(tmp_path).dataset("val")
    for read in (lambda: dataset[0], lambda: dataset.instances("x")):
        with refuses(str(tmp_path / "instances/x.png"), "[1, 2, 3]", "give an instance mask"):
            read()


def test_unlabelled_pixels_of_aerial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    """They are 15 in files of 4 bits a pixel and 255 in others; nothing else is ignored."""
    monkeypatch.setattr(
        "crispseg.data.sources.LISTS", write_lists(tmp_path / "lists", "aerial_", {"val": ["a", "b", "c"]})
    )
    for name, values, options in (("a", [0, 4, 15], {"bits": 4}), ("b", [0, 4, 255], {}), ("c", [0, 7], {})):
        picture(tmp_path / "images" / f"{name}.jpg")
        mask = Image.fromarray(grid(values)).convert("P")
        mask.putpalette([level for color in Aerial("x").label_set().palette for level in color])
        save(tmp_path / "masks" / f"{name}.png", mask, **options)
    dataset = Aerial(tmp_path).dataset("val")
    for index in (0, 1):
        assert np.array_equal(dataset[index].labels, grid([0, 4, 255]))
    with refuses("masks/c.png", "value 7 is out of range 0 to 4 (ignored: 15, 255)"):
        dataset[2]


# ------------------------------------------------------------------------------------------------ public archives


def test_nuclei_of_the_public_archive(tmp_path: Path) -> None:
    public_nuclei(tmp_path)
    assert convert("nuclei", tmp_path, tmp_path / "nuclei") == 3
    for index, name in enumerate(HASHES):
        image = Image.open(tmp_path / "nuclei/images" / f"{name[:12]}.png")
        assert image.mode == ("RGB" if index else "L") and image.size == (50, 40)
        numbers = np.asarray(Image.open(tmp_path / "nuclei/instances" / f"{name[:12]}.png"))
        assert numbers.dtype == np.uint16 and set(np.unique(numbers)) == {0, 1, 2, 3}
        assert (numbers[5:17, 5:15] == 1).all() and (numbers[5:17, 15:24] == 2).all()  # the first of those that overlap
        assert (numbers[25:37, 30:40] == 3).all() and np.count_nonzero(numbers) == 120 + 108 + 120


def test_aerial_of_the_public_archive(tmp_path: Path, refuses: Any) -> None:
    public_aerial(tmp_path)
    assert convert("aerial", tmp_path, tmp_path / "aerial") == 2
    public = tmp_path / "Semantic segmentation dataset/Tile 2"
    for part in ("001", "002"):
        photo = (tmp_path / f"aerial/images/tile2_{part}.jpg").read_bytes()
        assert photo == (public / f"images/image_part_{part}.jpg").read_bytes()
        mask = read_mask(tmp_path / f"aerial/masks/tile2_{part}.png")
        assert np.array_equal(mask, grid([0, 1, 2, 3, 4, 255]))
    save(public / "masks/image_part_002.png", grid([(60, 16, 152), (1, 2, 3)]))
    with refuses("masks/image_part_002.png", "the colour [1, 2, 3] of 24 pixels", "no class of aerial"):
        convert("aerial", tmp_path, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_archives_are_looked_for_at_two_depths(tmp_path: Path) -> None:
    for name, unpack in (("nuclei", public_nuclei), ("aerial", public_aerial)):
        unpack(tmp_path / f"{name}/deep")
        assert convert(name, tmp_path / name, tmp_path / "out") == 0
        for depth, source in enumerate((tmp_path / f"{name}/deep", next((tmp_path / f"{name}/deep").iterdir()))):
            assert convert(name, source, tmp_path / f"{name}{depth}") > 1


def test_archives_that_are_not_as_they_should_be(tmp_path: Path, refuses: Any) -> None:
    assert convert("nuclei", tmp_path, tmp_path / "nuclei") == convert("voc2012", tmp_path, tmp_path / "x") == 0
    public_nuclei(tmp_path)
    cell = tmp_path / "kaggle-dsbowl-2018-dataset-fixes-master/stage1_train" / HASHES[0]
    save(cell / "masks/d.png", np.zeros((8, 8), np.uint8))
    with refuses(str(cell / "masks/d.png"), "is not of the size of its image"):
        convert("nuclei", tmp_path, tmp_path / "nuclei")
    picture(cell / "images/other.png")
    with refuses(f"{cell / 'images'} holds 2 images, not one"):
        convert("nuclei", tmp_path, tmp_path / "nuclei")
    shutil.copytree(cell, tmp_path / "stage1_train" / HASHES[0])
    with refuses(HASHES[0], f"would both be {HASHES[0][:12]}; keep one of them"):
        convert("nuclei", tmp_path, tmp_path / "nuclei")
    assert not (tmp_path / "nuclei").exists()


def test_the_command_arranges_what_was_unpacked_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert main(["data", "download", "aerial", f"--out={tmp_path / 'empty'}"]) == 2
    message = capsys.readouterr().err
    assert all(phrase in message for phrase in ("aerial", "CC0", "humansintheloop"))

    lists = write_lists(tmp_path / "lists", "aerial_", {"train": ["tile2_001"], "val": ["tile2_002"]})
    monkeypatch.setattr("crispseg.data.sources.LISTS", lists)
    monkeypatch.setitem(catalogue(), "aerial", replace(catalogue()["aerial"], counts={"train": 1, "val": 1}))
    public_aerial(tmp_path / "data")
    assert main(["data", "download", "aerial", f"--out={tmp_path / 'data'}"]) == 0
    root = tmp_path / "data/aerial"
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == [
        f"wrote {root}: 2 images; what was unpacked beside it is not needed any more",
        f"train: 1 images with masks in {root}, 1 as published",
        f"val: 1 images with masks in {root}, 1 as published",
    ]


# --------------------------------------------------------------------------------------------------- command line


def test_data_show(capsys: Capture) -> None:
    assert main(["data", "show", "nuclei"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("nuclei: nuclei of the Data Science Bowl 2018") and "train 423, val 107" in lines[0]
    rows = {line.split()[2]: line.split() for line in lines if "██" in line}
    assert rows["background"][:2] == ["0", "0"] and rows["nucleus"][:2] == ["1–65535", "1"]
    assert rows["border"][:2] == ["–", "2"]
    assert "train: 74 images, 256x256 to 520x696 pixels" in "\n".join(lines)


def test_a_folder_of_each_is_recognised(shared: Path, capsys: Capture) -> None:
    for name, counts in (("nuclei", "val: 107 images"), ("aerial", "val: 18 images")):
        assert main(["data", "show", str(shared / "data" / name), "--sample=1"]) == 0
        assert counts in capsys.readouterr().out
