"""Own data whose folders say which image is in which split, and data to score on in other folders."""

import dataclasses
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import Capture
from dataset_trees import save

from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.data import Folder
from crispseg.errors import CrispsegError
from crispseg.training import train

from .own_folders import TINY, scored

pytestmark = pytest.mark.usefixtures("without_pictures")

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


def test_lists_that_name_folders_and_masks(tmp_path: Path) -> None:
    """Of images below another folder, and the two columns of SegNet's lists."""
    put(tmp_path, "{kind}", {"train": ""})
    (tmp_path / "train.txt").write_text("images/train0.png\n/data/CamVid/train/train1.png /data/annot/train1.png\n")
    (tmp_path / "val.txt").write_text("images\\train2.png,masks\\train2.png\n")
    source = Folder(root=tmp_path)
    assert [pair.name for pair in source.pairs("train")] == ["train0", "train1"]
    assert [pair.name for pair in source.pairs("val")] == ["train2"]
    put(tmp_path / "deep", "{kind}/day", {"train": ""})
    for entry, count in (("photos/day/train3.png", 1), ("night/train3.png", 0), ("train3 2.png", 0)):
        (tmp_path / "deep/val.txt").write_text(f"{entry}\n")
        with nullcontext() if count else pytest.raises(CrispsegError, match="no or several matching"):
            assert len(Folder(root=tmp_path / "deep").pairs("val")) == count


def test_folders_are_the_splits(tmp_path: Path) -> None:
    source = Folder(root=put(tmp_path, "{split}/{kind}"))
    assert source.splits() == ("train", "val", "test") and source.divided
    for split, count in COUNTS.items():
        assert [pair.name for pair in source.pairs(split)] == [f"{split}{index}" for index in range(count)]
    every = [pair.name for pair in source.pairs("all")]
    assert len(set(every)) == 9 and every[0] == "train/train0"
    folds = [dataclasses.replace(source, folds=3, fold=fold) for fold in (1, 2, 3)]
    parts = [{pair.name for pair in fold.pairs("val")} for fold in folds]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 7 and len(folds[0].pairs("test")) == 2


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
    assert source.notes() == ["the splits follow test.txt"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    put(tmp_path / "far", "{kind}/{split}", {"train": "a"})
    for kind in ("images", "masks"):
        (tmp_path / "near" / kind).mkdir(parents=True)
        (tmp_path / "near" / kind / "day").symlink_to(tmp_path / "far" / kind / "a")
        (tmp_path / "near" / kind / "up").symlink_to(tmp_path / "near" / kind)
    pairs = Folder(root=tmp_path / "near").pairs("all")
    assert [pair.name for pair in pairs] == [f"day/train{index}" for index in range(4)]


@pytest.mark.parametrize("options", [{}, {"images": "a"}, {"instances": "a"}])
def test_folders_that_do_not_tell_where_data_are(options: dict[str, str]) -> None:
    with pytest.raises(CrispsegError, match=r"give either data\.root, or data\.images and data\.masks"):
        Folder(**options)


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
    for flags in (other, [str(tmp_path)]):
        assert head(capsys, run, *flags) == [f"{FPN} all, 4 images"]
    assert head(capsys, run, *other, "--data.val_ratio=1")[-1] == f"{FPN} val, 4 images"
    assert head(capsys, run, *other, "--split=val")[-1] == f"{FPN} val, 1 image"
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
