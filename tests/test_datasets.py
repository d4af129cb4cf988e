"""Data sets with official layouts, as tiny trees of real files."""

from __future__ import annotations

import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import (
    ALL_COLORS,
    MAKERS,
    cityscapes_pair,
    grid,
    make_ade20k,
    make_camvid,
    make_cityscapes,
    make_coco_stuff,
    make_mapillary,
    make_pascal_context,
    picture,
    save,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crispseg.cli.main import main
from crispseg.data import (
    ADE20K,
    DATA_SOURCES,
    CamVid,
    Cityscapes,
    CocoStuff,
    DataSource,
    Mapillary,
    PascalContext,
    camvid,
    check_split,
    cityscapes,
    coco_stuff,
    pascal_context,
)
from crispseg.data.decoders import TableDecoder

# ------------------------------------------------------------------------------------------- classes and colours


@pytest.mark.parametrize(
    ("name", "classes"), [("cityscapes", 19), ("ade20k", 150), ("pascal_context", 60), ("coco_stuff", 171)]
)
def test_numbers_of_classes(name: str, classes: int) -> None:
    assert len(DATA_SOURCES[name]("nowhere").label_set()) == classes  # type: ignore[call-arg]


def test_classes_of_cityscapes() -> None:
    labels = Cityscapes("nowhere").label_set()
    assert len(set(labels.palette)) == 19
    known = {"road": (7, (128, 64, 128)), "pole": (17, (153, 153, 153)), "train": (31, (0, 80, 100))}
    assert {name: cityscapes.CLASSES[name] for name in known} == known
    assert [labels.names.index(name) for name in ("road", "sky", "car", "bicycle")] == [0, 10, 13, 18]  # train ids
    ids = [value for value, _ in cityscapes.CLASSES.values()]
    assert ids == sorted(set(ids))
    ignored = {9: "parking", 10: "rail track", 14: "guard rail", 15: "bridge", 16: "tunnel", 18: "polegroup"}
    assert set(range(7, 34)) - set(ids) == ignored.keys() | {29, 30}  # caravan, trailer


def test_classes_of_ade20k() -> None:
    labels = ADE20K("nowhere").label_set()
    assert len(set(labels.palette)) == 149  # road and skyscraper share one
    known = {
        0: "wall",
        6: "road",
        12: "person",
        20: "car",
        89: "television receiver",
        136: "traffic light",
        149: "flag",
    }
    assert {index: labels.names[index] for index in known} == known
    assert (labels.palette[0], labels.palette[2], labels.palette[149]) == ((120, 120, 120), (6, 230, 230), (92, 0, 255))


def test_classes_of_pascal_context() -> None:
    names = pascal_context.NAMES
    assert len(set(names)) == 60 and names[0] == "background"
    # As the 459 labels that the common PNGs are made from, which are in the order of the alphabet.
    assert list(names[1:]) == sorted(names[1:])
    assert (names[55], names[58]) == ("tvmonitor", "window")  # of VOC's 2008_000002, a picture of a television
    voc = {"aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dog", "horse"}
    assert voc | {"motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"} <= set(names)
    few, many = PascalContext("nowhere", classes=59).label_set(), PascalContext("nowhere").label_set()
    assert few.names == many.names[1:] and few.palette == many.palette[1:]


def test_classes_of_coco_stuff() -> None:
    ids = coco_stuff.IDS
    assert len(coco_stuff.THINGS) == 80 and len(coco_stuff.STUFF) == 91 and len(set(ids.values())) == 171
    things = [value for value in ids if value <= 91]
    assert len(things) == 80 and max(things) == 90 and min(ids) == 1 and max(ids) == 182
    assert set(range(1, 183)) - set(ids) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    known = {1: "person", 11: "fire hydrant", 13: "stop sign", 27: "backpack", 46: "wine glass", 67: "dining table"}
    known |= {70: "toilet", 84: "book", 90: "toothbrush", 92: "banner", 128: "house", 148: "river", 149: "road"}
    known |= {157: "sky-other", 169: "tree", 182: "wood"}
    assert {value: ids[value] for value in known} == known
    labels = CocoStuff("nowhere").label_set()
    assert len(set(labels.palette)) == 171 and (0, 0, 0) not in labels.palette
    assert labels.names.index("toothbrush") == 79 and labels.names.index("banner") == 80


def test_groups_of_camvid() -> None:
    assert len(set(ALL_COLORS)) == len(camvid.GROUPS) == 32
    groups = [group for _, group in camvid.GROUPS.values()]
    assert set(groups) == {*camvid.CLASSES, None} and groups.count(None) == 1
    for name, color in camvid.CLASSES.items():
        # SegNet's colours are those of the class that gives the group its name; its pavement alone is its own.
        assert name == "pavement" or camvid.GROUPS[[*camvid.GROUPS][ALL_COLORS.index(color)]][1] == name
    assert camvid.GROUPS["Truck_Bus"][1] == "car" and camvid.GROUPS["MotorcycleScooter"][1] == "bicyclist"


# ----------------------------------------------------------------------------------------------------- reading


@pytest.mark.parametrize("name", MAKERS)
def test_splits_load_and_pass_the_check(name: str, tmp_path: Path) -> None:
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


def test_cityscapes_masks_of_label_ids(tmp_path: Path) -> None:
    train = make_cityscapes(tmp_path).dataset("train")
    _, labels, name = train[0]
    assert name == "aachen/aachen_000000_000019"
    expected = [255] * 35
    for index, value in enumerate([7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]):
        expected[value] = index
    np.testing.assert_array_equal(labels, grid(expected))


def test_cityscapes_masks_of_train_ids(tmp_path: Path) -> None:
    for split in ("train", "val"):
        cityscapes_pair(tmp_path, split, "ulm/ulm_0", [*range(19), 255], "labelTrainIds")
    np.testing.assert_array_equal(Cityscapes(tmp_path).dataset("train")[0].labels, grid([*range(19), 255]))
    cityscapes_pair(tmp_path, "train", "ulm/ulm_0", [7], "labelIds")  # these win
    np.testing.assert_array_equal(Cityscapes(tmp_path).dataset("train")[0].labels, grid([0]))


def test_cityscapes_test_cannot_be_scored(tmp_path: Path, refuses: Any) -> None:
    source = make_cityscapes(tmp_path)
    assert source.splits() == ("train", "val")
    with refuses("'test'", "server", "cannot be scored", "leftImg8bit/test", "crispseg predict"):
        source.dataset("test")


def test_ade20k_ignores_other(tmp_path: Path) -> None:
    labels = make_ade20k(tmp_path).dataset("train")[0].labels
    np.testing.assert_array_equal(labels, grid([255, *range(150)], 10, 20))


@pytest.mark.parametrize(("classes", "table"), [(59, [255, *range(59)]), (60, [*range(60)])])
def test_pascal_context_background(classes: int, table: list[int], tmp_path: Path) -> None:
    sample = make_pascal_context(tmp_path, classes=classes).dataset("val")[0]
    assert sample.name == "2008_000002"
    np.testing.assert_array_equal(sample.labels, grid(table, 8, 10))


@pytest.mark.parametrize("masks", ["annotations", "stuffthingmaps"])
def test_coco_stuff_masks_hold_the_id_less_one(masks: str, tmp_path: Path) -> None:
    source = make_coco_stuff(tmp_path, masks)
    np.testing.assert_array_equal(source.dataset("train")[0].labels, grid([*range(171), 255], 12, 15))
    np.testing.assert_array_equal(source.dataset("val")[0].labels, grid([170, 255], 12, 15))


def test_coco_stuff_test_cannot_be_scored(refuses: Any) -> None:
    with refuses("'test'", "cannot be scored", "crispseg predict"):
        CocoStuff("nowhere").dataset("test")


@pytest.mark.parametrize(("masks", "config"), [("labels", "config.json"), ("v1.2/labels", "config_v1.2.json")])
def test_mapillary_evaluates_what_its_config_says(masks: str, config: str, tmp_path: Path) -> None:
    source = make_mapillary(tmp_path, masks, config)
    assert source.label_set().names == ("Bird", "Sky")
    assert source.label_set().palette == ((165, 42, 42), (70, 130, 180))
    np.testing.assert_array_equal(source.dataset("train")[0].labels, grid([0, 255, 1, 255]))


def test_mapillary_prefers_the_config_of_its_version(tmp_path: Path) -> None:
    make_mapillary(tmp_path, config="config_v1.2.json")
    (tmp_path / "config.json").write_text("{}")
    assert len(Mapillary(tmp_path).label_set()) == 2


def test_camvid_in_32_colours(tmp_path: Path) -> None:
    names = [*camvid.CLASSES]
    expected = [255 if group is None else names.index(group) for _, group in camvid.GROUPS.values()]
    source = make_camvid(tmp_path)
    assert source.splits() == ("train", "val", "test")
    np.testing.assert_array_equal(source.dataset("train")[0].labels, grid(expected))
    assert [pair.name for pair in source.dataset("train").pairs] == ["0001TP_006690", "0001TP_006720"]


def test_camvid_in_folders(tmp_path: Path) -> None:
    for split, name in (("train", "a"), ("train", "b"), ("val", "c")):
        picture(tmp_path / split / f"{name}.png")
        save(tmp_path / f"{split}_labels" / f"{name}_L.png", grid([(64, 128, 192), (0, 0, 0)]))  # SUVPickupTruck, Void
    source = CamVid(tmp_path, masks="colors")
    assert source.splits() == ("train", "val") and len(source.dataset("train")) == 2
    np.testing.assert_array_equal(source.dataset("val")[0].labels, grid([8, 255]))


@pytest.mark.parametrize(
    ("mask", "phrases"),
    [
        (grid([3, 4]), ["class ids, not of colours", "data.masks"]),
        (grid([(128, 0, 0), (64, 0, 0)]), ["[64, 0, 0]", "24 pixels", "32"]),
        (grid([(128, 0, 0), (128, 0, 1)]), ["[128, 0, 1]", "24 pixels"]),
    ],
)
def test_camvid_colours_that_mean_nothing(mask: np.ndarray, phrases: list[str], tmp_path: Path, refuses: Any) -> None:
    source = make_camvid(tmp_path)
    save(tmp_path / "LabeledApproved_full" / "0001TP_006690_L.png", mask)
    with refuses("0001TP_006690_L.png", *phrases):
        source.dataset("train")[0]


@pytest.mark.parametrize(("name", "make"), [("cityscapes", make_cityscapes), ("mapillary", make_mapillary)])
def test_training_on_train_and_val(name: str, make: Callable[[Path], DataSource], tmp_path: Path) -> None:
    make(tmp_path)
    source = DATA_SOURCES[name](tmp_path, train_on="trainval")  # type: ignore[call-arg]
    train, val = source.dataset("train"), source.dataset("val")
    assert (len(train), len(val)) == (3, 1)
    samples = [train[index].name for index in range(3)]
    assert len(set(samples)) == 3 and val[0].name in samples


@given(table=st.lists(st.sampled_from([0, 1, 2, 255]), min_size=1, max_size=20), data=st.data())
def test_tables_agree_with_a_loop(table: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 300), min_size=1, max_size=12))
    decode, mask = TableDecoder(tuple(table), "values of this"), np.array([values], np.uint16)
    if all(value < len(table) or value == 255 for value in values):
        expected = [255 if value == 255 else table[value] for value in values]
        assert decode(mask).tolist() == [expected] and decode(mask).dtype == np.uint8
    else:
        with pytest.raises(ValueError, match=f"none of the values of this, 0 to {len(table) - 1}"):
            decode(mask)


# ------------------------------------------------------------------------------------------------------ mistakes


def remove(*paths: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in paths:
            file = root / path
            for inner in sorted(file.rglob("*"), reverse=True):
                inner.rmdir() if inner.is_dir() else inner.unlink()
            file.rmdir() if file.is_dir() else file.unlink()

    return change


def empty(path: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        remove(path)(root)
        (root / path).mkdir()

    return change


def write(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text) and None


CONTEXT_LIST = "ImageSets/SegmentationContext/train.txt"
BROKEN = [
    ("cityscapes", remove("gtFine"), ["gtFine is missing", "gtFine_trainvaltest", "cityscapes-dataset.com"]),
    ("cityscapes", empty("leftImg8bit/train"), ["train holds no files *_leftImg8bit.png", "get leftImg8bit"]),
    (
        "cityscapes",
        remove("gtFine/train/ulm"),
        ["1 of 2 images in", "leftImg8bit/train have no mask in", "ulm/ulm_000001_000019"],
    ),
    ("cityscapes", remove("leftImg8bit/train/ulm"), ["1 of 2 masks in", "have no image in", "ulm/ulm_000001_000019"]),
    ("ade20k", remove("annotations/training"), ["annotations/training is missing", "sceneparsing.csail.mit.edu"]),
    ("ade20k", empty("images/training"), ["images/training holds no files *.jpg"]),
    ("ade20k", remove("annotations/training/ADE_train_00000002.png"), ["1 of 2 images", "ADE_train_00000002"]),
    ("pascal_context", remove(CONTEXT_LIST), [f"{CONTEXT_LIST} is missing", "MMSegmentation"]),
    ("pascal_context", write(CONTEXT_LIST, "\n"), ["train.txt is empty"]),
    (
        "pascal_context",
        remove("SegmentationClassContext/2008_000007.png"),
        ["1 of the 4 files", "first", "SegmentationClassContext/2008_000007.png", "MMSegmentation"],
    ),
    ("coco_stuff", remove("annotations/train2017"), ["train2017 is missing", "crispseg data download coco_stuff"]),
    (
        "coco_stuff",
        remove("annotations/train2017/000000000025.png"),
        ["1 of 2 images", "have no mask", "000000000025", "stuffthingmaps_trainval2017.zip"],
    ),
    ("mapillary", remove("config.json"), ["holds no config_v1.2.json or config.json", "mapillary.com"]),
    ("mapillary", write("config.json", "{"), ["config.json is no list of Mapillary's labels", "restore"]),
    ("mapillary", write("config.json", '{"labels": [{"readable": "Bird"}]}'), ["no list of Mapillary's", "'color'"]),
    (
        "mapillary",
        write("config.json", '{"labels": []}'),
        ["config.json is no list of Mapillary's labels", "fewer than"],
    ),
    ("mapillary", remove("training"), ["training is missing", "config.json"]),
    ("mapillary", remove("training/images/aB3.jpg"), ["1 of 2 masks", "aB3"]),
    (
        "camvid",
        remove("LabeledApproved_full", "701_StillsRaw_full"),
        ["4 of the 4 files", "SegNet's form", "trainannot", "--data.masks ids"],
    ),
    ("camvid", remove("LabeledApproved_full"), ["2 of the 4 files", "LabeledApproved_full/0001TP_006690_L.png"]),
    ("camvid", remove("train.txt", "val.txt", "test.txt"), ["no train.txt", "701_StillsRaw_full", "mi.eng.cam.ac.uk"]),
]


@pytest.mark.parametrize(("name", "change", "phrases"), BROKEN)
def test_what_is_missing_gets_one_line(
    name: str, change: Callable[[Path], None], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    MAKERS[name](tmp_path)
    change(tmp_path)
    options = {"masks": "colors"} if name == "camvid" else {}
    with refuses(str(tmp_path), *phrases):
        DATA_SOURCES[name](tmp_path, **options).dataset("train")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("name", "path", "value", "phrases"),
    [
        ("cityscapes", "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png", 34, ["label ids of", "0 to 33"]),
        ("ade20k", "annotations/validation/ADE_val_00000001.png", 151, ["values of ADE20K", "0 to 150"]),
        ("pascal_context", "SegmentationClassContext/2008_000002.png", 60, ["values of PASCAL-Context", "0 to 59"]),
        ("coco_stuff", "annotations/val2017/000000000139.png", 182, ["values of COCO-Stuff", "0 to 181"]),
        ("coco_stuff", "annotations/val2017/000000000139.png", 11, ["values of COCO-Stuff"]),  # street sign
        ("mapillary", "validation/labels/cD-4.png", 4, ["values in Mapillary's config.json", "0 to 3"]),
    ],
)
def test_stray_values_are_named(
    name: str, path: str, value: int, phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    source = MAKERS[name](tmp_path)
    size = Image.open(tmp_path / path).size
    save(tmp_path / path, grid([1, value], size[1], size[0]))
    with refuses(path, f"value {value}", *phrases, "1 of 1 pairs in 'val'"):
        check_split(source.dataset("val"), "val")


@pytest.mark.parametrize(
    ("name", "path", "remedy"),
    [
        (
            "cityscapes",
            "gtFine/val/lindau/lindau_000000_000019_gtFine_labelIds.png",
            "give the original mask, of label ids of Cityscapes",
        ),
        ("ade20k", "annotations/validation/ADE_val_00000001.png", "give the original mask, of values of ADE20K"),
        ("mapillary", "validation/labels/cD-4.png", "give the original mask, of values in Mapillary's config.json"),
    ],
)
def test_masks_of_colours_where_ids_belong(name: str, path: str, remedy: str, tmp_path: Path, refuses: Any) -> None:
    source = MAKERS[name](tmp_path)
    width, height = Image.open(tmp_path / path).size
    save(tmp_path / path, grid([(128, 64, 128), (70, 70, 70)], height, width))
    with refuses(path, "an RGB mask, with the colours [70, 70, 70], [128, 64, 128]; " + remedy):
        source.dataset("val")[0]


@pytest.mark.parametrize("name", MAKERS)
def test_a_wrong_root_is_named(name: str, tmp_path: Path, refuses: Any) -> None:
    with refuses(str(tmp_path / "nowhere"), "http"):
        DATA_SOURCES[name](tmp_path / "nowhere", **({"masks": "colors"} if name == "camvid" else {})).dataset("train")  # type: ignore[call-arg]


@pytest.mark.parametrize("name", MAKERS)
def test_an_archive_in_the_way_is_named(name: str, tmp_path: Path, refuses: Any) -> None:
    """Not unpacked, or half there; the root may be the archive itself."""
    options = {"masks": "colors"} if name == "camvid" else {}
    source = DATA_SOURCES[name](tmp_path, **options)  # type: ignore[call-arg]
    whole, half = tmp_path / "data.zip", tmp_path / "data.tar"
    with zipfile.ZipFile(whole, "w") as archive:
        archive.writestr("x.txt", "x")
    with refuses(f"{whole} is an archive: if it holds the data, unpack it first"):
        source.dataset("train")
    if name not in ("mapillary", "camvid"):
        with refuses("data.zip is an archive"):
            DATA_SOURCES[name](whole, **options).dataset("train")  # type: ignore[call-arg]
    whole.write_bytes(whole.read_bytes()[:60])
    with refuses(f"{whole} is only half there, or damaged: download it again"):
        source.dataset("train")
    whole.unlink()
    with tarfile.open(half, "w") as tar:
        tar.add(__file__, "x")
    half.write_bytes(half.read_bytes()[:1024])
    with refuses(f"{half} is only half there"):
        source.dataset("train")
    half.rename(tmp_path / "data.tar.part")
    with refuses("data.tar.part is half a download", "crispseg data download"):
        source.dataset("train")


@pytest.mark.parametrize("name", MAKERS)
def test_an_unknown_split_is_named(name: str, tmp_path: Path, refuses: Any) -> None:
    with refuses("'vall'", "val"):
        MAKERS[name](tmp_path).dataset("vall")


@pytest.mark.parametrize(
    ("make", "phrases"),
    [
        (lambda: Cityscapes("x", train_on="all"), ["data.train_on is 'all'", "train, trainval"]),  # type: ignore[arg-type]
        (lambda: Mapillary("x", train_on="val"), ["data.train_on is 'val'", "train, trainval"]),  # type: ignore[arg-type]
        (lambda: PascalContext("x", classes=33), ["data.classes is 33", "59, 60"]),  # type: ignore[arg-type]
        (lambda: PascalContext("x", classes=60.0), ["data.classes is 60.0", "59, 60"]),  # type: ignore[arg-type]
        (lambda: CamVid("x", masks="rgb"), ["data.masks is 'rgb'", "ids, colors"]),  # type: ignore[arg-type]
    ],
)
def test_choices_are_checked(make: Callable[[], DataSource], phrases: list[str], refuses: Any) -> None:
    with refuses(*phrases):
        make()


# -------------------------------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("cityscapes", ["--data.root", "--data.train_on"]),
        ("mapillary", ["--data.train_on"]),
        ("pascal_context", ["--data.classes {59,60}"]),
        ("camvid", ["--data.masks {ids,colors}"]),
        ("ade20k", ["--data.root"]),
    ],
)
def test_help_explains_the_keys(name: str, keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(key in shown for key in keys)


def test_training_and_scoring_on_cityscapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = tmp_path / "cityscapes", tmp_path / "run"
    for name in ("aachen/a_0", "aachen/a_1", "ulm/u_0"):
        cityscapes_pair(root, "train", name, [7, 26, 0], height=64, width=96)
    cityscapes_pair(root, "val", "lindau/l_0", [7, 26, 4], height=64, width=96)
    tiny = ["--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,64]"]
    quick = ["--batch_size=2", "--workers=0", "--loggers=[]", "--iterations=2"]
    assert main(["train", *tiny, *quick, "--data=cityscapes", f"--data.root={root}", f"--out={run}"]) == 0
    assert "never in train: sidewalk, building" in capsys.readouterr().err

    assert main(["evaluate", str(run), "--workers=0", f"--json={tmp_path / 'scores.json'}"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert list(scores["iou"]) == list(cityscapes.CLASSES) and np.sum(scores["confusion"]) == 64 * 96 * 2 // 3

    assert main(["evaluate", str(run), "--split=test", "--workers=0"]) == 2
    assert "cannot be scored" in capsys.readouterr().err
