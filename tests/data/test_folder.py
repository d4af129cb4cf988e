"""Own data in two folders: pairs, classes, splits."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispseg.data import Folder
from crispseg.errors import CrispsegError
from crispseg.folders.names import read_names
from crispseg.folders.pairs import pair_up

from .own_folders import BLACK, WHITE, folder, ids, make_pair


@pytest.fixture
def ten(tmp_path: Path) -> Path:
    for index in range(10):
        make_pair(tmp_path, f"{index:02d}", ids(0, 1, 2, 255))
    return tmp_path


def test_folder_reads_pairs(tmp_path: Path) -> None:
    make_pair(tmp_path, "a", ids(0, 1, 11), suffix=".jpg")
    make_pair(tmp_path, "deep/b.c", ids(1, 2, 255), mask_name="deep/b.c_mask")
    source = folder(tmp_path, classes=["x", "y", "z"], ignore=(11,), val_ratio=0.5)
    train, val = source.dataset("train"), source.dataset("val")
    assert source.splits() == ("train", "val") and source.label_set().names == ("x", "y", "z")
    samples = {sample.name: sample for sample in (train[0], val[0])}
    assert set(samples) == {"a", "deep/b.c"}
    np.testing.assert_array_equal(samples["a"].labels, ids(0, 1, 255))
    np.testing.assert_array_equal(samples["deep/b.c"].labels, ids(1, 2, 255))
    assert samples["a"].image.shape == (6, 8, 3)
    assert len(pickle.loads(pickle.dumps(train))) == 1


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        *(("a", mask) for mask in ("a_mask", "a-Labels", "a_GT", "mask_a", "a_segmentation", "a.jpg")),
        *(("A", "a"), ("image_1", "label_1"), ("deep/img_1", "deep/1_seg"), ("1_sat", "1_mask"), ("0001", "0001m")),
        *(("x.y_image", "x.y_groundtruth"), ("img_a_9_10", "lbl_a_9_10"), ("Image_01", "Mask of Image_01")),
        ("Frame 1  (3)", "Frame 1  (3).jpg___fuse"),
        *(("1_post", "1_post_target"), ("1_target", "1_target_mask"), ("T32_1_10m", "T32_1_10m_gt")),
    ],
)
def test_names_of_masks_that_are_usual(image: str, mask: str) -> None:
    images, masks = ({Path(f"{name}.png"): name for name in (stem, "other")} for stem in (image, mask))
    pairs = pair_up(images, masks, "images", "masks").pairs
    stems = {pair.image.stem: pair.mask.stem for pair in pairs.values()}
    assert stems == {Path(image).name: Path(mask).name, "other": "other"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"classes": ["a", "b"], "num_classes": 3}, "data.classes 2, data.num_classes 3"),
        ({"classes": []}, "number of class names is 0"),
        ({"palette": [BLACK, (1, 2)]}, "data.palette is"),
        ({"palette": [BLACK, WHITE], "ignore": (300,)}, "is not a colour"),
        ({"num_classes": 3, "ignore": ((1, 2, 3),)}, "needs data.palette"),
        ({"num_classes": 3, "ignore": (-1,)}, "data.ignore is -1"),
        ({"val_ratio": 1.5}, "data.val_ratio is 1.5"),
        ({"val_ratio": 1}, "'train' is empty: "),
        ({"folds": 1}, "data.folds is 1"),
        ({"folds": 3, "fold": 4}, "data.fold is 4; give 1 to 3"),
        ({"fold": 2}, "data.fold is 2; give 1 to 1"),
        ({"num_classes": 3, "train_list": "nowhere.txt"}, "nowhere.txt is missing"),
    ],
)
def test_wrong_declarations_are_named(ten: Path, options: dict[str, object], reason: str, refuses: Any) -> None:
    with refuses(reason):
        folder(ten, **options).dataset("train")


def names(source: Folder, split: str) -> list[str]:
    return [pair.name for pair in source.dataset(split).pairs]


def test_split_by_share(ten: Path) -> None:
    splits = {seed: tuple(names(folder(ten, seed=seed), "val")) for seed in range(8)}
    assert all(len(val) == 2 for val in splits.values()) and len(set(splits.values())) > 1
    assert splits[3] == tuple(names(folder(ten, seed=3), "val"))
    every = names(folder(ten), "train") + names(folder(ten), "val")
    assert sorted(every) == [f"{index:02d}" for index in range(10)]
    for ratio, count in ((0.001, 1), (0.999, 9), (0.5, 5), (1, 10)):
        assert len(names(folder(ten, val_ratio=ratio), "val")) == count
    with pytest.raises(CrispsegError, match=r"no split 'test'.*train, val"):
        folder(ten).dataset("test")
    make_pair(ten / "one", "a", ids(0, 1))
    with pytest.raises(CrispsegError, match=r"'val' is empty: .* has 1 image with a mask; .* data.val_ratio"):
        folder(ten / "one").dataset("val")
    with pytest.raises(CrispsegError, match=r"data\.exclude"):
        folder(ten / "one", exclude=["a"]).dataset("train")


def test_split_by_lists(ten: Path) -> None:
    for name in ("sub/11", "scan 4"):
        make_pair(ten, name, ids(0, 1))
    train, val = ten / "train.txt", ten / "val.txt"
    train.write_text("00.png\n01\n11\n")
    val.write_text("03\nsub/11.jpg\n")
    assert names(folder(ten, train_list=train), "train") == ["00", "01", "sub/11"]
    assert len(names(folder(ten, train_list=train), "val")) == 9
    assert names(folder(ten, val_list=val), "val") == ["03", "sub/11"]
    val.write_text("04 1 2 1\nsub/11 -1\nscan 4\n")
    assert names(folder(ten, val_list=val), "val") == ["04", "scan 4", "sub/11"]
    val.write_text("03\nsub/11.jpg\n")
    with pytest.raises(CrispsegError, match=r"val.txt share 1 image: sub/11"):
        folder(ten, train_list=train, val_list=val).dataset("train")
    val.write_text("03\n")
    both = folder(ten, train_list=train, val_list=val)
    assert (len(names(both, "train")), names(both, "val")) == (3, ["03"])
    val.write_text("03\n99.png\n")
    with pytest.raises(CrispsegError, match=r"val.txt has 1 line with no or several matching images: 99"):
        folder(ten, val_list=val).dataset("val")
    val.write_text("\n".join([*(f"{index:02d}" for index in range(10)), "sub/11", "scan 4"]))
    assert len(names(folder(ten, val_list=val), "val")) == 12
    with pytest.raises(CrispsegError, match=r"'train' is empty: .* lists"):
        folder(ten, val_list=val).dataset("train")


def test_folds_divide_what_the_lists_name(ten: Path) -> None:
    (ten / "train.txt").write_text("00\n01\n")
    (ten / "val.txt").write_text("02\n")
    lists = {"train_list": ten / "train.txt", "val_list": ten / "val.txt"}
    source = folder(ten, folds=3, fold=3, **lists)
    assert sorted(names(source, "train") + names(source, "val")) == ["00", "01", "02"]
    with pytest.raises(CrispsegError, match=r"data\.folds is 4, but there are 3 images; give fewer"):
        folder(ten, folds=4, **lists).dataset("train")


@pytest.mark.parametrize(
    "text",
    [
        "0 background\n2 car\n1 road\n",
        "id;name\n0;background\n1;road\n2;car\n",
        "car,2\nbackground,0\nroad,1\n",
        "2: car\n1: road\n0: background\n255: void\n",
        "car=2\nroad=1\nbackground=0\n",
    ],
)
def test_numbers_in_a_class_list_are_ids(text: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(text.encode("utf-16"))
    assert read_names(tmp_path / "classes.txt") == ("background", "road", "car")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe\x00\xd8", "cannot be read"),
        (b"1 road\n3 car\n2 roof", "has the ids 1 to 3, but no name for 0; add a line"),
        (
            b"id\tname\tcount\n0\twall\t700\n1\tfloor\t800\n",
            "the class name 'id\\tname\\tcount' is empty or has control characters",
        ),
    ],
)
def test_class_lists_that_are_refused(content: bytes, reason: str, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "classes.txt").write_bytes(content)
    with refuses(str(tmp_path / "classes.txt"), reason):
        read_names(tmp_path / "classes.txt")
