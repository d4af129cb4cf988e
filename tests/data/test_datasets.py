"""Data sets with official layouts, as tiny trees of real files; lists of nuclei and aerial, and the bundled part."""

import hashlib
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import ALL_COLORS, MAKERS, grid, indexed, make_pascal_context, picture, save, write_lists
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crispseg.data import DATA_SOURCES, VOC2012, Aerial, CamVid, Nuclei, check_split, official_classes
from crispseg.data.catalogue import catalogue
from crispseg.data.sources import LISTS, PART, read_table
from crispseg.folders.lookup import MAX_NUMBER, three_classes
from crispseg.folders.names import read_lines
from crispseg.training.config import TrainConfig, config_to_dict


def known(name: str) -> dict[str, tuple[int, tuple[int, int, int]]]:
    return {entry.name: (entry.value, entry.color) for entry in official_classes(name)}


TABLES = {  # classes, and MD5 of the table when it was compared with the official one
    "ade20k": (150, "1b86721044bfcffd1850faaa366b8f2e"),
    "camvid": (11, "a91df76e9661280cfdcffcdca0aeec3a"),
    "cityscapes": (19, "a8fcc38ba343120edeba77e1d1ed25ab"),
    "coco_stuff": (171, "af1b8648deb285c8a64c6fc4a08314fe"),
    "pascal_context": (60, "a8c03362ebf23b4b56618d3289957790"),
    "voc2012": (21, "bd294e6e59b3aa4410520afe4f76df2d"),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_as_they_were_checked(name: str) -> None:
    """A slip in them would train silently on a wrong name or value."""
    count, digest = TABLES[name]
    text = "\n".join(",".join(row) for row in read_table(name))
    assert hashlib.md5(text.encode()).hexdigest() == digest
    labels = DATA_SOURCES[name]("nowhere").label_set()  # type: ignore[call-arg]
    assert len(labels) == count and labels.names == tuple(known(name))


@pytest.mark.parametrize("name", MAKERS)
def test_splits_load_and_pass_the_check(name: str, tmp_path: Path, refuses: Any) -> None:
    source = MAKERS[name](tmp_path)
    assert source.name == name
    for split, count in (("train", 2), ("val", 1)):
        dataset = source.dataset(split)
        report = check_split(dataset, split)
        assert len(dataset) == report.images == count
        assert report.labels == source.label_set()
        sample = dataset[0]
        assert sample.image.shape == (*sample.labels.shape, 3)
    names = [sample.name for sample in (source.dataset("train")[index] for index in range(2))]
    assert len({*names, source.dataset("val")[0].name}) == 3
    with refuses("'vall'", "val"):
        source.dataset("vall")


@pytest.mark.parametrize(
    ("make", "first"),
    [
        (MAKERS["ade20k"], grid([255, *range(150)], 10, 20)),  # "other" is ignored
        (partial(make_pascal_context, classes=59), grid([255, *range(59)], 8, 10)),
        (make_pascal_context, grid([*range(60)], 8, 10)),
        (MAKERS["coco_stuff"], grid([*range(171), 255], 12, 15)),
    ],
)
def test_what_mask_values_become(make: Any, first: np.ndarray, tmp_path: Path) -> None:
    np.testing.assert_array_equal(make(tmp_path).dataset("train")[0].labels, first)


def test_mapillary_evaluates_what_its_config_says(tmp_path: Path) -> None:
    source = MAKERS["mapillary"](tmp_path)
    assert source.label_set().names == ("Bird", "Sky")
    assert source.label_set().palette == ((165, 42, 42), (70, 130, 180))
    np.testing.assert_array_equal(source.dataset("train")[0].labels, grid([0, 255, 1, 255]))


def test_camvid_in_32_colours(tmp_path: Path) -> None:
    names = [*known("camvid"), ""]
    expected = [names.index(row[-1]) if row[-1] else 255 for row in read_table("camvid_colors")]
    source = MAKERS["camvid"](tmp_path)
    assert source.splits() == ("train", "val", "test")
    np.testing.assert_array_equal(source.dataset("train")[0].labels, grid(expected))
    assert [pair.name for pair in source.dataset("train").pairs] == ["0001TP_006690", "0001TP_006720"]


def test_camvid_in_segnets_form(tmp_path: Path, refuses: Any) -> None:
    for split in ("train", "val"):
        picture(tmp_path / split / "x.png")
        save(tmp_path / f"{split}annot" / "x.png", grid(range(12)))
        (tmp_path / f"{split}.txt").write_text(f"/SegNet/CamVid/{split}/x.png /SegNet/CamVid/{split}annot/x.png\n")
    source = CamVid(tmp_path)
    assert source.splits() == ("train", "val")
    np.testing.assert_array_equal(source.dataset("val")[0].labels, grid([*range(11), 255]))
    with refuses("no split 'test'", "train, val"):
        source.dataset("test")
    save(tmp_path / "valannot" / "x.png", grid([(128, 64, 128), (0, 0, 0)]))
    with refuses("valannot/x.png: an RGB mask", "give data.masks colors"):
        source.dataset("val")[0]
    (tmp_path / "train.txt").write_text("train/y.png trainannot/y.png\n")
    with refuses("1 (train/y.png"):
        source.dataset("train")


def test_voc2012_and_what_is_trained_on(tmp_path: Path) -> None:
    MAKERS["voc2012"](tmp_path)
    sources = [VOC2012(tmp_path, train_on) for train_on in ("train", "trainval", "aug")]  # type: ignore[arg-type]
    names = [[pair.name[5:] for pair in source.dataset("train").pairs] for source in sources]
    assert names == [["000032", "000039"], ["000032", "000039", "000033"], ["000032", "000039", "000008"]]
    for source in sources:
        sample = source.dataset("val")[0]
        assert sample.name == "2007_000033"
        np.testing.assert_array_equal(sample.labels, grid([*range(21), 255]))  # indices of the palette
    np.testing.assert_array_equal(sources[2].dataset("train")[2].labels, grid([15, 255, 0]))
    lists = tmp_path / "ImageSets" / "Segmentation"
    (lists / "train_aug.txt").unlink()
    (lists / "trainaug.txt").write_text("/JPEGImages/2008_000008.jpg /SegmentationClassAug/2008_000008.png\n")
    assert [pair.name for pair in sources[2].dataset("train").pairs] == ["2008_000008"]


def remove(*paths: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in paths:
            shutil.rmtree(root / path) if (root / path).is_dir() else (root / path).unlink()

    return change


def write(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text) and None


CONTEXT, VOC = "ImageSets/SegmentationContext/train.txt", "ImageSets/Segmentation"
COLORS, AUG = {"masks": "colors"}, {"train_on": "aug"}
BROKEN: list[tuple[str, dict[str, str], Any, list[str]]] = [
    ("cityscapes", {}, remove("gtFine"), ["gtFine/train is missing", "cityscapes-dataset.com"]),
    ("cityscapes", {}, remove("leftImg8bit/train/ulm", "leftImg8bit/train/aachen"), ["train contains no files *_left"]),
    (
        "cityscapes",
        {},
        remove("gtFine/train/ulm"),
        ["images missing in", "or their masks in", "ulm/ulm_000001_000019"],
    ),
    ("cityscapes", {}, remove("leftImg8bit/train/ulm"), ["images missing in", "1 (ulm/ulm_000001"]),
    ("pascal_context", {}, write(CONTEXT, "\n"), ["train.txt is empty"]),
    ("mapillary", {}, remove("config.json"), ["config.json is not a list of Mapillary's labels", "mapillary.com"]),
    ("mapillary", {}, write("config.json", "{"), ["config.json is not a list of Mapillary's labels", "restore"]),
    ("camvid", COLORS, remove("train.txt", "val.txt", "test.txt"), ["no train.txt", "mi.eng.cam.ac.uk"]),
    ("voc2012", AUG, remove(f"{VOC}/train_aug.txt"), ["train_aug.txt is missing", "trainaug.txt", "SBD"]),
]


@pytest.mark.parametrize(("name", "options", "change", "phrases"), BROKEN)
def test_what_is_missing_gets_one_line(
    name: str, options: dict[str, str], change: Callable[[Path], None], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    MAKERS[name](tmp_path)
    change(tmp_path)
    with refuses(str(tmp_path), *phrases):
        DATA_SOURCES[name](tmp_path, **options).dataset("train")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "path", "value", "values"),
    [
        ("cityscapes", "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", 34, "label ids of Cityscapes|33"),
        ("coco_stuff", "annotations/val2017/000000000139.png", 11, "values of COCO-Stuff (official ids minus 1)|181"),
        ("mapillary", "validation/labels/cD-4.png", 4, "values in Mapillary's config.json|3"),
    ],
)
def test_stray_values_and_colours_are_named(
    name: str, path: str, value: int, values: str, tmp_path: Path, refuses: Any
) -> None:
    source = MAKERS[name](tmp_path)
    width, height = Image.open(tmp_path / path).size
    called, _, last = values.partition("|")
    save(tmp_path / path, grid([1, value], height, width))
    with refuses(path, f"no class: {value} ", f"is not among the {called}, 0 to {last}"):
        check_split(source.dataset("val"), "val")
    save(tmp_path / path, grid([(128, 64, 128), (70, 70, 70)], height, width))
    colors = "an RGB mask, with the colours [70, 70, 70], [128, 64, 128]"
    with refuses(path, f"{colors}; give the original mask, of {called}"):
        source.dataset("val")[0]


def listed(path: Path) -> set[str]:
    return set(read_lines(path))


def nearby(ids: np.ndarray, radius: int) -> np.ndarray:
    """The three classes, pixel by pixel."""
    classes = np.zeros(ids.shape, np.uint8)
    for (y, x), own in np.ndenumerate(ids):
        rows, columns = np.ogrid[: ids.shape[0], : ids.shape[1]]
        near = set(ids[(rows - y) ** 2 + (columns - x) ** 2 <= radius**2].tolist()) - {0}
        classes[y, x] = 2 if len(near) > 1 else own > 0
    return classes


@given(
    boxes=st.lists(
        st.tuples(*[st.integers(0, 11)] * 2, *[st.integers(1, 6)] * 2, st.integers(1, MAX_NUMBER)), max_size=5
    ),
    radius=st.integers(1, 3),
)
def test_borders_are_pixels_near_two_objects(boxes: list[tuple[int, ...]], radius: int) -> None:
    ids = np.zeros((12, 14), np.int32)
    for top, left, height, width, number in boxes:
        ids[top : top + height, left : left + width] = number
    assert np.array_equal(three_classes(ids, radius), nearby(ids, radius))


def test_the_part_in_the_package() -> None:
    """Its train is of the train split of the whole, its val and test are of val; no file is there without a list."""
    source = Nuclei()
    names = {split: listed(PART / f"{split}.txt") for split in source.splits()}
    assert list(names) == ["train", "val", "test"]
    assert names["train"] <= listed(LISTS / "nuclei_train.txt")
    assert names["val"] | names["test"] <= listed(LISTS / "nuclei_val.txt") and not names["val"] & names["test"]
    every = {f"{name}.png" for group in names.values() for name in group}
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


def test_groups_of_camvid() -> None:
    groups = {name: group for name, *_, group in read_table("camvid_colors")}
    assert len(set(ALL_COLORS)) == len(groups) == 32
    assert set(groups.values()) == {*known("camvid"), ""} and groups["Void"] == ""
    assert groups["Truck_Bus"] == "car" and groups["MotorcycleScooter"] == "bicyclist"


def test_lists_of_the_whole_sets() -> None:
    nuclei, aerial = (
        {split: listed(LISTS / f"{name}_{split}.txt") for split in ("train", "val")} for name in ("nuclei", "aerial")
    )
    for name, splits in (("nuclei", nuclei), ("aerial", aerial)):
        assert not splits["train"] & splits["val"]
        assert {split: len(names) for split, names in splits.items()} == catalogue()[name].counts
    tiles = {split: {name.partition("_")[0] for name in names} for split, names in aerial.items()}
    assert tiles == {"train": {"tile1", "tile5", "tile7", "tile8"}, "val": {"tile2", "tile3"}}
