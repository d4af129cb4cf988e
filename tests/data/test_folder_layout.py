"""Own data whose folders say which image is in which split, and data to score on in other folders."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import unicodedata
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset_trees import save

from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.data import Folder
from crispseg.errors import CrispsegError
from crispseg.training import train

from .own_folders import TINY, scored

Capture = pytest.CaptureFixture[str]
NAMES = {"train": "Training", "val": "valid", "test": "test"}
COUNTS = {"train": 4, "val": 3, "test": 2}


def put(root: Path, layout: str, names: dict[str, str] = NAMES, counts: dict[str, int] = COUNTS) -> Path:
    """Images and masks of three classes in the folders of splits."""
    random = np.random.default_rng(len(layout))
    for split, name in names.items():
        for index in range(counts[split]):
            image, mask = random.integers(0, 256, (64, 64, 3), np.uint8), random.integers(0, 3, (64, 64), np.uint8)
            save(root / layout.format(split=name, kind="images") / f"{split}{index}.png", image)
            save(root / layout.format(split=name, kind="masks") / f"{split}{index}.png", mask)
    return root


def test_masks_beside_their_images(tmp_path: Path) -> None:
    for index in range(10):
        folder = tmp_path / f"case{index % 2}"
        save(folder / f"{index}.png", np.zeros((64, 64, 3), np.uint8))
        save(folder / f"{index}_mask.png", np.eye(64, dtype=np.uint8))
    source = Folder(root=tmp_path)
    assert len(source.pairs("train")) == 8 and len(source.pairs("val")) == 2
    assert {(pair.image.name, pair.mask.name) for pair in source.pairs("all")} == {
        (f"{index}.png", f"{index}_mask.png") for index in range(10)
    }
    assert source.open().notes() == []
    (tmp_path / "case0").rename(tmp_path / "train")
    (tmp_path / "case1").rename(tmp_path / "val")
    for path in (tmp_path / "val").glob("*_mask.png"):  # published without its masks
        path.unlink()
    source = Folder(root=tmp_path)
    assert len(source.pairs("train")) == 4 and len(source.pairs("val")) == 1


@pytest.mark.parametrize(("image", "mask"), [("", "day/"), ("day/", "")])
def test_one_of_both_in_sub_folders(image: str, mask: str, tmp_path: Path) -> None:
    """With names that some systems write in letters and accents apart."""
    for name in ("caf\u00e9", "b"):
        save(tmp_path / "images" / image / f"{name}.png", np.zeros((64, 64, 3), np.uint8))
        save(tmp_path / "masks" / mask / f"{unicodedata.normalize('NFD', name)}.png", np.eye(64, dtype=np.uint8))
    (tmp_path / "train.txt").write_text("cafe\u0301\n")
    source = Folder(root=tmp_path)
    assert [pair.name for pair in source.pairs("train")] == ["caf\u00e9"] and source.open().notes()[1:] == []


def test_lists_that_name_folders_and_masks(tmp_path: Path) -> None:
    """Of images below another folder, and the two columns of SegNet's lists."""
    put(tmp_path, "{kind}", {"train": ""})
    (tmp_path / "train.txt").write_text("images/train0.png\n/data/CamVid/train/train1.png /data/annot/train1.png\n")
    (tmp_path / "val.txt").write_text("images\\train2.png,masks\\train2.png\n")
    source = Folder(root=tmp_path)
    assert [pair.name for pair in source.pairs("train")] == ["train0", "train1"]
    assert [pair.name for pair in source.pairs("val")] == ["train2"]
    put(tmp_path / "deep", "{kind}/day", {"train": ""})
    for entry, found in (("photos/day/train3.png", 1), ("night/train3.png", 0), ("train3 2.png", 0)):
        (tmp_path / "deep/val.txt").write_text(f"{entry}\n")
        with nullcontext() if found else pytest.raises(CrispsegError, match="no or several matching"):
            assert len(Folder(root=tmp_path / "deep").pairs("val")) == found


def test_folders_are_the_splits(tmp_path: Path) -> None:
    source = Folder(root=put(tmp_path, "{split}/{kind}"))
    assert source.splits() == ("train", "val", "test") and source.open().divided
    for split, count in COUNTS.items():
        assert [pair.name for pair in source.pairs(split)] == [f"{split}{index}" for index in range(count)]
    every = [pair.name for pair in source.pairs("all")]
    assert len(set(every)) == 9 and every[0] == "train/train0"
    folds = [dataclasses.replace(source, folds=3, fold=fold) for fold in (1, 2, 3)]
    parts = [{pair.name for pair in each.pairs("val")} for each in folds]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 7 and len(folds[0].pairs("test")) == 2


@pytest.mark.parametrize("other", ["train_val", "pool"])
def test_a_test_folder_is_kept_apart_from_all_others(other: str, tmp_path: Path) -> None:
    source = Folder(root=put(tmp_path, "{split}/{kind}", {"train": other, "test": "TEST"}))
    assert source.splits() == ("train", "val", "test")
    assert [pair.image.name for pair in source.pairs("test")] == ["test0.png", "test1.png"]
    assert len(source.pairs("train")) + len(source.pairs("val")) == COUNTS["train"]


def test_lists_go_before_folders_and_folders_before_lists_that_are_found(tmp_path: Path) -> None:
    put(tmp_path, "{kind}/{split}")
    (tmp_path / "train.txt").write_text("Training/train0\nvalid/val1\n")
    (tmp_path / "val.txt").write_text("valid/val0.png\n")
    assert len(Folder(root=tmp_path).pairs("train")) == 4
    listed = Folder(root=tmp_path, train_list=tmp_path / "train.txt")
    assert [pair.name for pair in listed.pairs("train")] == ["Training/train0", "valid/val1"]
    assert [pair.name for pair in listed.pairs("val")] == ["valid/val0"]


def test_lists_of_test_images(tmp_path: Path) -> None:
    put(tmp_path, "{kind}", {"train": "", "val": "", "test": ""})
    (tmp_path / "test.txt").write_text("test0\ntest1\n")
    source = Folder(root=tmp_path)
    assert source.splits() == ("train", "val", "test") and len(source.pairs("test")) == 2
    assert len(source.pairs("train")) + len(source.pairs("val")) == 7
    assert source.open().notes() == ["the splits follow test.txt"]


@pytest.mark.parametrize("options", [{}, {"images": "a"}, {"instances": "a"}])
def test_folders_that_do_not_tell_where_data_are(options: dict[str, str]) -> None:
    with pytest.raises(CrispsegError, match=r"give either data\.root, or data\.images and data\.masks"):
        Folder(**options)


def test_one_folder_cannot_be_read(tmp_path: Path) -> None:
    """Which is no reason to keep quiet about it, nor to refuse the others."""
    put(tmp_path, "{kind}/{split}")
    shutil.rmtree(tmp_path / "masks/valid")
    source = Folder(root=tmp_path)
    assert len(source.pairs("train")) == 4
    for split in ("val", "all"):
        with pytest.raises(CrispsegError, match=r"3 of 3 images in .* have no mask"):
            source.pairs(split)


def test_all_masks_may_lie_in_one_folder(tmp_path: Path) -> None:
    put(tmp_path, "{kind}/{split}")
    for folder in sorted(tmp_path.glob("masks/*")):
        for path in sorted(folder.iterdir()):
            path.rename(tmp_path / "masks" / f"{path.stem}_mask.png")
        folder.rmdir()
    source = Folder(root=tmp_path)
    assert source.splits() == ("train", "val", "test") and source.open().divided
    for split, count in COUNTS.items():
        assert [pair.name for pair in source.pairs(split)] == [f"{split}{index}" for index in range(count)]
    places = ", ".join(f"images/{name}" for name in NAMES.values())
    assert source.open().notes() == [f"the splits follow {places}"]

    for path in tmp_path.glob("masks/test*"):
        path.unlink()
    with pytest.raises(CrispsegError, match=r"'test' is empty: .*images/test leave no image with a mask"):
        Folder(root=tmp_path).pairs("test")
    assert Folder(root=tmp_path).open().notes()[0] == f"the splits follow {', '.join(places.split(', ')[:2])}"
    shutil.move(tmp_path / "images/valid", tmp_path / "valid")
    source = Folder(root=tmp_path, val_ratio=0.5)
    assert len(source.pairs("train")) == len(source.pairs("val")) == 2
    save(tmp_path / "images/test/train1.png", np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(CrispsegError, match=r"have one name: .*Training/train1.png, .*test/train1.png"):
        Folder(root=tmp_path).pairs("train")


def photo(path: Path) -> None:
    """A noisy image."""
    save(path, np.random.default_rng(len(str(path))).integers(0, 256, (64, 64, 3), np.uint8))


def label(path: Path, *values: int) -> None:
    save(path, np.resize(np.array(values or (0, 1), np.uint8), (64, 64)))


def below(root: Path, image: str, mask: str, groups: tuple[str, ...] = ("dataset1", "dataset2")) -> Path:
    """Four images a group."""
    for group in groups:
        for index in range(4):
            photo(root / image.format(group, index))
            label(root / mask.format(group, index))
    return root


def test_numbers_pair_if_they_are_the_same(tmp_path: Path) -> None:
    for index in range(12):
        photo(tmp_path / f"raw/{index:02}.png")
        label(tmp_path / f"labels/labels{index:08}.png")
    source = Folder(root=tmp_path)
    assert all(pair.mask.stem == f"labels{int(pair.name):08}" for pair in source.pairs("all"))
    assert len(source.pairs("all")) == 12 and "00.png and labels00000000.png" in source.open().notes()[0]
    (tmp_path / "labels/labels00000000.png").rename(tmp_path / "labels/labels00000012.png")
    with pytest.raises(CrispsegError, match="12 of 12 images"):
        Folder(root=tmp_path).pairs("all")


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    below(tmp_path / "far", "images/{}/{}.png", "masks/{}/{}.png", ("a",))
    for kind in ("images", "masks"):
        (tmp_path / "near" / kind).mkdir(parents=True)
        (tmp_path / "near" / kind / "day").symlink_to(tmp_path / "far" / kind / "a")
        (tmp_path / "near" / kind / "up").symlink_to(tmp_path / "near" / kind)
    assert [pair.name for pair in Folder(root=tmp_path / "near").pairs("all")] == [f"day/{index}" for index in range(4)]


# From the command line ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return put(tmp_path_factory.mktemp("data"), "{split}/{kind}")


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    folder = data / "run"
    assert main(["train", str(data), *TINY, f"--out={folder}"]) == 0
    return folder


def head(capsys: Capture, run: Path, *flags: str) -> list[str]:
    return [line.partition(", in percent")[0] for line in scored(capsys, run, *flags)[0]]


FPN = "fpn on test_efficientnet, folder"


def test_a_folder_to_train_on(data: Path, run: Path, capsys: Capture) -> None:
    """Its splits hold in training, in what is recorded, when the run goes on, for scores and for doctor."""
    recorded = yaml.safe_load((run / "config.yaml").read_text())["data"]
    assert (recorded["root"], recorded["num_classes"]) == (str(data), 3)
    capsys.readouterr()
    assert main(["train", "--resume", str(run), "--epochs=2"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert all(any(line.startswith(split) for line in lines) for split in ("train: 4 images", "val: 3 images"))
    assert head(capsys, run)[-1] == f"{FPN} val, 3 images"
    assert head(capsys, run, "--split=test")[-1] == f"{FPN} test, 2 images"
    assert head(capsys, run, "--split=all")[-1] == f"{FPN} all, 9 images"
    assert main(["doctor", str(run)]) in (0, 1)
    assert "folder: train 4, val 3, test 2 pairs" in capsys.readouterr().out


def test_resuming_from_python_needs_no_classes(data: Path, run: Path) -> None:
    config = Train.parsed([str(data), *TINY, "--epochs=2", f"--out={run}"]).config()
    assert config.data == Folder(root=str(data))
    assert train(config, resume=True).folder == run
    with pytest.raises(CrispsegError, match="change data"):
        train(dataclasses.replace(config, data=Folder(root=data, seed=1)), resume=True)


def test_other_folders_are_scored_whole(run: Path, tmp_path: Path, capsys: Capture) -> None:
    put(tmp_path, "{kind}", {"train": ""})
    other = [f"--data.images={tmp_path / 'images'}", f"--data.masks={tmp_path / 'masks'}"]
    for flags in (["--data=folder", *other], other, [f"--data.root={tmp_path}"], [str(tmp_path)]):
        assert head(capsys, run, *flags) == [f"{FPN} all, 4 images"]
    assert head(capsys, run, *other, "--data.val_ratio=1")[-1] == f"{FPN} val, 4 images"
    assert head(capsys, run, *other, "--split=val")[-1] == f"{FPN} val, 1 images"
    (tmp_path / "full.txt").write_text("".join(f"train{index}\n" for index in range(4)))
    assert head(capsys, run, *other, f"--data.val_list={tmp_path / 'full.txt'}")[-1] == f"{FPN} val, 4 images"
    save(tmp_path / "images/lonely.png", np.zeros((64, 64, 3), np.uint8))
    no_mask = f"1 of 5 images in {tmp_path / 'images'} have no mask in {tmp_path / 'masks'} (lonely)"
    assert head(capsys, run, *other)[0] == f"{no_mask}; these are left out"


def test_other_folders_with_splits_are_scored_on_test(run: Path, tmp_path: Path, capsys: Capture) -> None:
    put(tmp_path / "a", "{kind}/{split}")
    assert head(capsys, run, f"--data.root={tmp_path / 'a'}")[-1] == f"{FPN} test, 2 images"
    put(tmp_path / "b", "{split}/{kind}", {"train": "train", "val": "val"})
    assert head(capsys, run, f"--data.root={tmp_path / 'b'}")[-1] == f"{FPN} val, 3 images"


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}"])
def test_doctor_ends_with_the_command_to_train(layout: str, tmp_path: Path, capsys: Capture) -> None:
    root = put(tmp_path / "own data", layout, NAMES if "split" in layout else {"train": ""}, dict.fromkeys(COUNTS, 5))
    capsys.readouterr()
    assert main(["doctor", str(root)]) in (0, 1)
    last = capsys.readouterr().out.splitlines()[-1]
    config = Train.parsed(shlex.split(last.partition("train on them: crispseg train ")[2])).config()
    assert Path(config.data.root) == root
    assert len(config.data.pairs("train")) == (5 if "split" in layout else 4)
    next(root.rglob("masks/**/*1.png")).write_bytes(b"")
    assert main(["doctor", str(root)]) == 3
    assert "crispseg train" not in capsys.readouterr().out


def test_classes_of_one_split_are_told_before_training(tmp_path: Path, capsys: Capture) -> None:
    root = put(tmp_path, "{kind}/{split}", {"train": "train", "val": "val"}, {"train": 3, "val": 1})
    for path in (root / "masks/train").iterdir():
        save(path, np.resize(np.array([0, 1], np.uint8), (64, 64)))
    save(root / "masks/val/val0.png", np.resize(np.array([0, 2], np.uint8), (64, 64)))
    assert main(["train", str(root), *TINY, f"--out={root / 'run'}"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert "the splits follow images/train, images/val" in lines
    (line,) = (line for line in lines if line.startswith("never in train: class 2; never in val: class 1; "))
    assert "class missing in train is not learned" in line
