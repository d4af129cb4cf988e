"""Copies of one image and images of one group stay in one split, when splits are drawn."""

from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crispseg.data import Folder
from crispseg.folders.groups import group_of, likely_group, original
from crispseg.folders.splits import folded, shared_out

from .own_folders import folder, ids, make_pair


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=30), st.floats(0.01, 0.99), st.integers(2, 6), st.integers(0, 99)
)
def test_no_group_is_divided(sizes: list[int], ratio: float, folds: int, seed: int) -> None:
    """Every image is in one split; no share is further from what is asked for than half of the largest group."""
    groups = {f"{group:02}_{index}": f"{group:02}" for group, size in enumerate(sizes) for index in range(size)}
    names = sorted(groups)
    drawn = [shared_out(names, ratio, seed, groups)]
    if len(sizes) >= folds:
        drawn += [folded(names, folds, fold, seed, groups) for fold in range(1, folds + 1)]
        assert sorted(name for split in drawn[1:] for name in split["val"]) == names
        assert max(len(split["val"]) - len(names) / folds for split in drawn[1:]) <= max(sizes)
    for split in drawn:
        assert sorted(split["train"] + split["val"]) == names and split["train"] and split["val"]
        assert {groups[name] for name in split["train"]}.isdisjoint(groups[name] for name in split["val"])
    off, some = abs(len(drawn[0]["val"]) - ratio * len(names)), [*Counter(groups.values()).values()]
    assert off <= max(some) / 2 + 1 or len(drawn[0]["val"]) == min(some) or len(drawn[0]["train"]) <= max(some)


@given(st.integers(0, 50), st.floats(0, 1), st.integers(2, 6), st.integers(0, 99))
def test_images_without_groups_are_drawn_by_a_permutation(count: int, ratio: float, folds: int, seed: int) -> None:
    names = [f"{index:02}" for index in range(count)]
    order = [names[index] for index in np.random.default_rng(seed).permutation(count)]
    number = round(ratio * count)
    if 0 < ratio < 1:
        number = max(min(max(number, 1), count - 1), 0)
    alone = dict(zip(names, names, strict=True))
    assert shared_out(names, ratio, seed, alone)["val"] == sorted(order[:number])
    if count >= folds:
        assert folded(names, folds, 2, seed, alone)["val"] == sorted(order[1::folds])


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        *(("a_aug_3", "a"), ("a-Augmented12", "a"), ("s/a_hflip", "s/a"), ("a_flip_lr", "a"), ("a_flipped_rot90", "a")),
        *(("a_jpg.rf.3f2a91c0", "a"), ("aug_2_a", "a"), ("a_rotated_-", "a_rotated_-"), ("a_rot_180_flip", "a")),
        ("a_26937fd9-8186-4086-a583-ba8f1b873de7", "a_26937fd9-8186-4086-a583-ba8f1b873de7"),
        *(("black_rot_12", "black_rot_12"), ("flip", "flip"), ("parrot90", "parrot90"), ("a_1", "a_1")),
        *((name, name) for name in ("site_aug2021", "site_aug_2021", "apple_rot07", "apple_rot12", "CT_contrast")),
    ],
)
def test_names_of_copies(name: str, copied: str) -> None:
    assert str(original(PurePosixPath(name))) == copied


@pytest.mark.parametrize(
    ("pattern", "place", "group"),
    [
        ("*_slice*", "scans/p1_slice_3", "p1"),
        ("*_*_*", "road_a_12_34", "road_a"),
        ("patient*_*", "patient7_3", "7"),
        ("patient*_*", "p7_3", None),
        ("a/*/x*", "a/b/x3", "b"),
        ("slice*_P{*}", "slice003_P01", "01"),
        ("*_P{*}_*", "a_b_P01_left_3", "01"),
        ("p/{*}/s*_P*", "p/b/s3_P01", "b"),
        ("*[LR]", "Image_01L", "Image_01"),
        ("Image_{*}[LR]", "Image_01R", "01"),
        ("Image_{*}[LR]", "Image_01", None),
        ("folder", "a/b/x3", "a/b"),
        ("folder", "x3", None),
    ],
)
def test_patterns_of_groups(pattern: str, place: str, group: str | None) -> None:
    assert group_of(pattern, PurePosixPath(place)) == group


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        *(("patient{}_{:03}", "{*}_*"), ("patient{}-slice{}", "{*}-*"), ("patient{}/{:03}", "{*}/*")),
        *(("img_{}_{}", None), ("img{}{}", None), ("{0}{1}", None)),
    ],
)
def test_three_patterns_of_groups_are_tried(names: str, pattern: str | None) -> None:
    """Groups have two images on average; otherwise the numbers are those of the images."""
    assert likely_group(PurePosixPath(names.format(*divmod(index, 4))) for index in range(24)) == pattern
    assert likely_group(PurePosixPath(names.format(index, 0)) for index in range(24)) is None


def sides(source: Folder) -> list[dict[str, str]]:
    """The split of each image, by seed."""
    drawn = [replace(source, seed=seed) for seed in range(6)]
    return [{pair.name: split for split in ("train", "val") for pair in variant.pairs(split)} for variant in drawn]


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Ten images, of which 0 has a turned copy of another name, and 1 one by its name."""
    for index in range(10):
        make_pair(tmp_path, f"{index:02}", np.resize(ids(0, 1, 2), (16, 24)))
    first = np.asarray(Image.open(tmp_path / "images/00.png"))
    save(tmp_path / "images/other.png", np.ascontiguousarray(np.rot90(first)[:, ::-1]))
    save(tmp_path / "masks/other.png", np.zeros((24, 16), np.uint8))
    make_pair(tmp_path, "01_aug_4", np.resize(ids(0, 1, 2), (16, 24)))
    return tmp_path


def test_copies_stay_together_by_name_and_by_pixels(copied: Path) -> None:
    for side in [*sides(folder(copied)), *sides(folder(copied, folds=4, fold=2))]:
        assert side["00"] == side["other"] and side["01"] == side["01_aug_4"]
    assert any(side["00"] != side["other"] for side in sides(folder(copied, copies="names")))
    assert any(side["01"] != side["01_aug_4"] for side in sides(folder(copied, copies="none")))
    source = folder(copied)
    result, notes = source.settled(), source.notes()
    assert result.copies == "pixels" and "12 images form 10 groups" in notes[-1]
    assert sides(result) == sides(folder(copied))


def test_all_copies_of_one_image_are_divided(tmp_path: Path) -> None:
    for index in range(5):
        make_pair(tmp_path, f"a_aug_{index}", ids(0, 1))
    assert {*sides(folder(tmp_path))[0].values()} == {"train", "val"}


def test_groups_by_pattern_and_by_folder(tmp_path: Path, refuses: Any) -> None:
    for index in range(12):
        make_pair(tmp_path, f"p{index // 3}/s_{index}", ids(0, 1, 2))
    for options in ({"group": "folder"}, {"group": "p*/*"}, {"group": "folder", "folds": 3, "fold": 1}):
        for side in sides(folder(tmp_path, **options)):
            assert len({(name[:2], split) for name, split in side.items()}) == 4
    assert "4 groups" in folder(tmp_path, group="folder").notes()[-1]
    assert "fits 3 of 12" in folder(tmp_path, group="p0/*_*").notes()[-2]
    assert "12 images form 12 groups" in folder(tmp_path, group="s_*").notes()[-1]
    for index, split in enumerate(("train", "val")):
        (tmp_path / f"{split}.txt").write_text(f"p{index}/s_{3 * index}\n")
    lists = {f"{split}_list": tmp_path / f"{split}.txt" for split in ("train", "val")}
    assert not any("data.group" in note for note in folder(tmp_path, group="p*/*", **lists).notes())
    for options, phrases in {
        ("*_z*", None): ("data.group", "'*_z*'", "matches no image", "p0/s_0"),
        ("*_*", None): ("data.group", "'*_*'", "one group of all 12"),
        ("p0", None): ("data.group has no *",),
        ("folder", 5): ("data.folds is 5", "4 groups"),
    }.items():
        with refuses(*phrases):
            folder(tmp_path, group=options[0], folds=options[1]).dataset("train")
