"""Folders of exports and of laboratories that are read only in part, or refused by what they hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import indexed, picture, save

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.folder_layout import own_layout, recognise
from crispseg.errors import CrispsegError
from crispseg.io.images import write_image

from .own_folders import ids, make_pair, make_pairs, photo


def test_of_a_cvat_export_the_listed_images_are_read(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / f"JPEGImages/{index}.png")
        save(tmp_path / f"SegmentationClass/{index}.png", ids(0, 1) * (index < 4))
        save(tmp_path / f"SegmentationObject/{index}.png", ids(0, 1))
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/default.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nobject:1,1,1::\n")
    assert recognise(tmp_path) == {"name": "folder", "root": str(tmp_path)}
    for data in (Folder(root=tmp_path), Folder(tmp_path / "JPEGImages", tmp_path / "SegmentationClass")):
        assert [pair.name for pair in data.pairs("all")] == ["0", "1", "2", "3"]
        printed = "\n".join(data.notes())
        assert "default.txt" in printed and "labelmap.txt" in printed


def test_lists_of_a_cvat_export_are_its_splits(tmp_path: Path) -> None:
    """It looks like PASCAL VOC, whose class names it does not have."""
    make_pairs(tmp_path, "JPEGImages/{}.png", "SegmentationClass/{}.png")
    (tmp_path / "ImageSets/Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n5\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("3\n4\n")
    assert recognise(tmp_path)["name"] == "voc2012"
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\nbag:1,1,1::\n")
    assert recognise(tmp_path) == {"name": "folder", "root": str(tmp_path)}
    data = Folder(root=tmp_path)
    assert [pair.name for pair in data.pairs("train")] == ["0", "1", "2", "5"]
    assert [pair.name for pair in data.pairs("val")] == ["3", "4"]


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("tiles/HE_{n}.svs [x={n}].jpg", "tiles/HE_{n}.svs [x={n}]-labelled.png"),
        ("in/left/all/c{n}_left.png", "gtFine/all/c{n}_gtFine_labelIds.png"),
        ("S2/S2A_T{n}.tif", "ESA/WorldCover_T{n}.tif"),
        ("{n}_json/img.png", "{n}_json/label.png"),
        ("case_{n}/CT/IM{n:04}.png", "case_{n}/Segmentation/Segmentation_{n:04}.png"),
    ],
)
def test_names_that_differ_in_a_prefix_or_ending_are_listed(image: str, mask: str, tmp_path: Path) -> None:
    """A command is proposed only if it pairs them right."""
    truth = {(tmp_path / image.format(n=n), tmp_path / mask.format(n=n)) for n in range(6)}
    for n, (its_image, its_mask) in enumerate(sorted(truth)):
        photo(its_image, n)
        save(its_mask, ids(0, n % 2, 2))
    with pytest.raises(CrispsegError, match=r"it contains .*give data.images and data.masks") as caught:
        own_layout(tmp_path)
    for found in caught.value.settings:
        assert {pair[1:] for pair in Folder(found["data.images"], found["data.masks"]).pairs("all")} == truth


def test_a_table_of_run_lengths_is_named(tmp_path: Path) -> None:
    photo(tmp_path / "train_images/a.jpg", 0)
    (tmp_path / "train.csv").write_text("ImageId,ClassId,EncodedPixels\na.jpg,1,1 3 10 2\n")
    with pytest.raises(
        CrispsegError, match=r"train\.csv cannot be read as masks: save each mask as a PNG of class ids"
    ):
        own_layout(tmp_path)


def test_a_folder_for_each_class_is_refused(tmp_path: Path) -> None:
    for index in range(6):
        picture(tmp_path / f"photos/eye_{index:02}.png")
        save(tmp_path / f"truth/1. disc/eye_{index:02}_OD.png", ids(0, 255))
        if index % 2:
            save(tmp_path / f"truth/2. exudates/eye_{index:02}_EX.png", ids(0, 255))
    with pytest.raises(CrispsegError, match=r"1\. disc: 6 png, .*2\. exudates: 3 png.*merge them") as caught:
        own_layout(tmp_path)
    assert not caught.value.settings


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([("CXR_png", f"ManualMask/{side}Mask", "{}") for side in ("left", "right")], "several masks, merge them"),
        (
            [(f"{fish}/{fish}", f"{fish}/{fish} GT", "{}") for fish in ("bream", "sprat", "trout")],
            "each command takes a",
        ),
        ([("a", "a-GT", "g{}"), ("b", "b-GT", "v{}")], "each command takes a part of the images"),
    ],
    ids=["two organs", "folders of species", "numbers of two series"],
)
def test_masks_of_several_places_are_choices(places: list[tuple[str, ...]], message: str, tmp_path: Path) -> None:
    """Images and masks of other species and series are no choice, though names or numbers are equal."""
    for image, mask, name in places:
        make_pairs(tmp_path, f"{image}/{name}.png", f"{mask}/{name}.png")
    with pytest.raises(CrispsegError, match=message) as caught:
        recognise(tmp_path)
    expected = [{"data.images": str(tmp_path / image), "data.masks": str(tmp_path / mask)} for image, mask, _ in places]
    assert caught.value.settings == expected


def test_folders_of_classes_next_to_masks_of_the_same_names_are_named(tmp_path: Path) -> None:
    for index in range(8):
        part = tmp_path / ("val" if index > 5 else "train")
        photo(part / f"images/{index}.jpg", index)
        for name in ("masks", "boundaries", "labels/weeds", "labels/water"):
            save(part / f"{name}/{index}.png", ids(0, index % 2, 1))
    with pytest.raises(CrispsegError, match=r"train/labels, .*val/labels may contain a folder for each class.*merge"):
        recognise(tmp_path)


@pytest.mark.parametrize(
    ("image", "commands"), [("{}_endo.png", 2), ("{}.jpg", 2), ("{}.png", 0), ("v{}/frame_{}_endo.png", 2)]
)
def test_several_kinds_of_masks_next_to_images_are_choices(image: str, commands: int, tmp_path: Path) -> None:
    stem, suffix = image.split(".")
    for index in range(8):
        photo(tmp_path / f"{stem.format(index, index)}.{suffix}", index)
        for kind in ("mask", "color_mask"):
            mask = np.full((40, 40), (index + (kind == "mask")) % 2, np.uint8)
            save(tmp_path / f"{stem.format(index, index)}_{kind}.png", mask)
    with pytest.raises(CrispsegError, match="has several images or masks") as raised:
        recognise(tmp_path)
    assert len(raised.value.settings) == commands
    for keys in raised.value.settings:
        data = Folder(**{key.removeprefix("data."): value for key, value in keys.items()})
        assert len(data.dataset("train")) + len(data.dataset("val")) == 8


@pytest.mark.parametrize(("image", "mask"), [("train_image", "train_mask"), ("cam_img", "cam_gt")])
def test_numbers_of_four_digits_pair(image: str, mask: str, tmp_path: Path) -> None:
    make_pairs(tmp_path, f"images/{image}_{{:04}}.png", f"masks/{mask}_{{:04}}.png")
    assert len(Folder(root=tmp_path).pairs("all")) == 6


def test_other_json_is_no_annotation(tmp_path: Path) -> None:
    photo(tmp_path / "frames/0.png", 0)
    (tmp_path / "mappings.json").write_text('{"frame": 3, "objects": []}')
    with pytest.raises(CrispsegError) as error:
        Folder(root=tmp_path).pairs("all")
    assert "data import" not in str(error.value)


@pytest.mark.parametrize(("splits", "value"), [([""], 255), (["train", "val"], 1)])
def test_folders_of_one_class_each_are_not_merged_into_one(
    splits: list[str], value: int, tmp_path: Path, refuses: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each image has a mask in one of them only."""
    for index in range(8):
        split, kind = splits[index // 4 % len(splits)], ("HE", "MA")[index % 2]
        photo(tmp_path / "data" / split / f"images/{index}.png", index)
        photo(tmp_path / "same" / split / f"images/{kind}/{index}.png", index)
        for root in ("data", "same"):
            save(tmp_path / root / split / f"masks/{kind}/{index}.tif", ids(0, value))
    for declared in ({}, {"num_classes": 3}):
        with refuses("HE, MA", "merge the masks of each image into one PNG", "1 for HE"):
            Folder(root=tmp_path / "data", **declared).dataset("train")
    assert main(["doctor", str(tmp_path / "data"), "--fix", str(tmp_path / "fixed")]) == 2
    assert "error  class-folders" in capsys.readouterr().out
    assert len(Folder(root=tmp_path / "data", num_classes=2).dataset("all")) == 8  # as the message says
    assert len(Folder(root=tmp_path / "same").dataset("all")) == 8  # the images have these folders


@pytest.mark.parametrize("name", ["images/{}.png masks/{}.png", "{}.jpg {}.png", "{}.jpg {}_mask.png"])
def test_a_mask_for_each_object_is_refused(
    name: str, tmp_path: Path, refuses: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = name.split()
    for index in range(4):
        photo(tmp_path / image.format(f"a{index}"), index)
        for kind in ("", "_1", " (2)"):
            save(tmp_path / mask.format(f"a{index}{kind}"), ids(0, 255))
    with refuses("one name", mask.format("a0"), mask.format("a0_1"), "if an image has several masks, merge them"):
        Folder(root=tmp_path).dataset("train")
    assert main(["doctor", str(tmp_path), "--fix", f"{tmp_path}_fixed"]) == 2
    assert "error  ambiguous-names" in capsys.readouterr().out


def test_one_image_of_many_with_several_masks_is_named(tmp_path: Path) -> None:
    for index in range(100):
        make_pair(tmp_path, f"{index}a", ids(0, 1))
    save(tmp_path / "masks/7a_1.png", ids(0, 1))
    data = Folder(root=tmp_path)
    assert len(data.dataset("all")) == 100
    assert any("(7a_1); these are left out" in line for line in data.notes())


def test_names_of_a_pattern_are_what_its_wildcards_are(tmp_path: Path) -> None:
    for name in ("p1/a.b", "p2/c"):
        for kind in ("t1", "t2", "roi"):
            save(tmp_path / f"{name}_{kind}.png", ids(0, 1))
    data = Folder(tmp_path / "*/*_t1.png", tmp_path / "*/*_roi.png")
    found = [(pair.name, pair.mask.name) for pair in data.pairs("all")]
    assert found == [("p1/a.b", "a.b_roi.png"), ("p2/c", "c_roi.png")]
    with pytest.raises(CrispsegError, match=r"\*.bmp contains no images"):
        Folder(tmp_path / "*.bmp", tmp_path / "*/*.png").pairs("all")


def test_annotations_in_other_forms_are_named(tmp_path: Path) -> None:
    picture(tmp_path / "train/a.jpg")
    (tmp_path / "train/_annotations.coco.json").write_text(json.dumps({"categories": []}))
    with pytest.raises(CrispsegError, match="crispseg data import"):
        own_layout(tmp_path)
    with pytest.raises(CrispsegError, match="crispseg data import"):  # itself called as a split is
        own_layout(tmp_path / "train")
    picture(tmp_path / "arrays/images/a.jpg")
    (tmp_path / "arrays/labels").mkdir()
    np.save(tmp_path / "arrays/labels/a.npy", ids(0, 1))
    with pytest.raises(CrispsegError, match="npy cannot be read as masks"):
        Folder(root=tmp_path / "arrays").dataset("train")
    for place in ("train", "val"):
        (tmp_path / "splits" / place / "labels").mkdir(parents=True)
        np.save(tmp_path / "splits" / place / "labels/a.npy", ids(0, 1))
    with pytest.raises(CrispsegError, match=r"train/labels: 1 npy, .*npy cannot be read as masks: save each"):
        own_layout(tmp_path / "splits")


def test_several_images_of_one_name_are_refused(tmp_path: Path, refuses: Any) -> None:
    for suffix in ("tif", "png"):
        make_pairs(tmp_path, f"images/train/{{}}.{suffix}", "masks/train/{}.png")
    with refuses("several images or masks have one name", "as a pattern, such as"):
        Folder(tmp_path / "images/train", tmp_path / "masks/train").pairs("all")
    chosen = Folder(tmp_path / "images/train/*.png", tmp_path / "masks/train")
    assert [pair.image.name for pair in chosen.pairs("all")] == [f"{index}.png" for index in range(6)]


@pytest.mark.parametrize("lost", [("images", "img_000", "masks", "img_006"), ("masks", "img_000", "images", "img_006")])
def test_shifted_numbers_are_refused(
    lost: tuple[str, str, str, str], tmp_path: Path, refuses: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first, alone, second, last = lost
    for index in range(1, 6):
        for folder in ("images", "masks"):
            write_image(tmp_path / folder / f"img_{index:03}.png", np.full((40, 40), index % 2, np.uint8))
    for folder, name in ((first, alone), (second, last)):
        write_image(tmp_path / folder / f"{name}.png", np.zeros((40, 40), np.uint8))
    copy = tmp_path.with_name("copy")
    assert main(["doctor", str(tmp_path), "--fix", str(copy)]) == 2
    printed = capsys.readouterr()
    assert "shifted-numbers" in printed.out and "is not written" in printed.err and not copy.exists()
    with refuses("numbered from another number", alone, last, "move the files without a partner away"):
        Folder(root=tmp_path).settled().dataset("train")
    (tmp_path / second / f"{last}.png").unlink()
    assert Folder(root=tmp_path, num_classes=2).settled().dataset("train")


def test_255_in_most_pixels_is_not_ignored_in_silence(tmp_path: Path, refuses: Any) -> None:
    mask = np.full((40, 40), 255, np.uint8)
    mask[5:15, 5:15], mask[20:34, 20:34] = 0, 1
    for index in range(5):
        make_pair(tmp_path, f"{index}", np.roll(mask, index, 0))
    with refuses("255 is background", "data.ignore '[255]' if 255 means ignore"):
        Folder(root=tmp_path).settled().dataset("train")
    background = {"palette": [[255] * 3, [0] * 3, [1] * 3], "ignore": []}
    for given, shares in ((background, [1304, 100, 196]), ({"ignore": [255]}, [100, 196])):
        labels = Folder(root=tmp_path, **given).dataset("train")[0].labels
        assert np.bincount(labels[labels != 255]).tolist() == shares


def test_numbers_in_one_channel_may_be_objects(tmp_path: Path, refuses: Any) -> None:
    numbers = np.zeros((40, 40, 3), np.uint8)
    for index in range(4):
        numbers[10 * index : 10 * index + 8, 5:30, 0] = index + 1
    for index in range(4):
        make_pair(tmp_path, str(index), np.roll(numbers, index, 1))
        save(tmp_path / f"objects/{index}.png", np.roll(numbers[..., 0], index, 1))
    with refuses("numbers 0 to 4 in one channel", "save this channel alone and give data.instances"):
        Folder(images=tmp_path / "images", masks=tmp_path / "masks").settled().dataset("train")
    assert Folder(images=tmp_path / "images", instances=tmp_path / "objects").settled().dataset("train")[0].labels.any()


def test_masks_of_labelme_are_found_next_to_arrays(tmp_path: Path) -> None:
    for index in range(4):
        write_image(tmp_path / f"JPEGImages/{index}.jpg", np.full((40, 40, 3), 20 * index, np.uint8))
        write_image(tmp_path / f"SegmentationClassPNG/{index}.png", np.full((40, 40), index % 2, np.uint8))
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        np.save(tmp_path / f"SegmentationClass/{index}.npy", np.zeros((40, 40)))
    source = Folder(**{key: value for key, value in recognise(tmp_path).items() if key != "name"})
    assert [pair.mask.parent.name for pair in source.pairs("all")] == ["SegmentationClassPNG"] * 4


@pytest.mark.parametrize("colored", [False, True])
def test_palettes_that_differ_are_read_by_their_colours(colored: bool, tmp_path: Path, refuses: Any) -> None:
    """As of tools that shrink PNGs; a grey palette whose greys are the ids is no exception."""
    expected = {}
    for index in range(6):
        mask = np.kron(np.random.default_rng(index).integers(0, 4, (4, 4)), np.ones((10, 10), int))
        order = np.random.default_rng(index + 9).permutation(4)
        palette = [[value] * 3 for value in order.tolist()] + [[9, 8, 7]] * colored
        save(tmp_path / f"masks/{index}.png", indexed(np.argsort(order)[mask].astype(np.uint8), palette))
        write_image(tmp_path / f"images/{index}.png", np.full((40, 40, 3), 20 * index, np.uint8))
        expected[str(index)] = mask
    source = Folder(root=tmp_path, palette=[(value,) * 3 for value in range(4)])
    if colored:  # their colours are no greys, so that indices would be read
        with refuses("palettes that differ", "save them as RGB"):
            source.settled()
        return
    dataset = source.settled().dataset("all")
    for index in range(6):
        np.testing.assert_array_equal(dataset.read_labels(index), expected[dataset.name_of(index)])
