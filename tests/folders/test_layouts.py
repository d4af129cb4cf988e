"""Layouts of folders: which files are images, masks and splits, and what is asked."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from crispseg.errors import CrispsegError, Question
from crispseg.folders.content import Content, content_of
from crispseg.folders.layouts import located_at

SPLITS = ("train", "val")
SEQUENCES = "{f}/seq1/Images/{n}.png", "{f}/seq1/Labels/{n}.png"
TOWNS = "images/{f}/{n}.png", "masks/{f}/{n}.png"


def touch(root: Path, *names: str) -> Path:
    """Empty files of these names."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(image: str, mask: str, count: int = 4, *folders: str) -> list[str]:
    """Names of images and masks, with their number and folder as {n} and {f}."""
    files = []
    for folder in folders or ("",):
        for n in range(count):
            files += [image.format(n=n, f=folder), mask.format(n=n, f=folder)]
    return files


def content(root: Path) -> Content:
    return content_of(root, None, None, {})


def counts(listing: Content) -> dict[str, int]:
    if not listing.division.by_folders:
        return {"": len(listing.pairs)}
    return {split: len(names) for split, names in listing.division.splits.items()}


@pytest.mark.parametrize(
    ("image", "mask", "train", "val"),
    [
        ("img_dir/{f}/{n}.png", "ann_dir/{f}/{n}.png", "train", "val"),  # MMSegmentation
        ("{f}/{n}.png", "{f}annot/{n}.png", "train", "val"),  # SegNet's CamVid
        ("{f}/{n}.png", "{f}_masks/{n}_mask.png", "train", "val"),
        ("images{f}/{n}_0000.png", "labels{f}/{n}.png", "Tr", "Val"),  # nnU-Net
        ("images_{f}/{n}.png", "masks_{f}/{n}.png", "train", "val"),
        ("{f}/{n}_sat.png", "{f}/{n}_mask.png", "train", "valid"),
        ("images/{f}/{n}.png", "images/{f}/{n}_mask.png", "train", "val"),
        ("{f}/rgb/{n}.png", "{f}/label/{n}.png", "training", "validation"),
        ("{f}/images/{n}_post.png", "{f}/targets/{n}_post_target.png", "train", "valid"),
        ("data/{f}/photos/{n}.png", "data/{f}/gt/{n}.png", "train", "val"),
        ("{f}/{n}.jpg", "{f}/{n}.png", "train", "val"),
        ("1. images/{f}/{n}.jpg", "2. masks/{f}/{n}.png", "a. Training Set", "b. Validation Set"),
        ("images/{f}/{n}.jpg", "masks/{f}/{n}.png", "01_train", "02_dev"),
        ("uavid_{f}/seq1/Images/{n}.png", "uavid_{f}/seq1/Labels/{n}.png", "train", "val"),
    ],
)
def test_usual_layouts(image: str, mask: str, train: str, val: str, tmp_path: Path) -> None:
    listing = content(touch(tmp_path, *names(image, mask, 4, train), *names(image, mask, 2, val)))
    assert counts(listing) == {"train": 4, "val": 2}
    pair = listing.pairs[listing.division.splits["val"][0]]
    assert pair.mask == tmp_path / mask.format(f=val, n=0)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (names("case{n}/{n}.png", "case{n}/{n}_mask.png"), {"": 4}),
        (names("{f}/rgb/{n}.png", "{f}/label/{n}.png", 4, "dataset1", "dataset2"), {"": 8}),
        (names("images/day/{n}.png", "masks/{n}.png"), {"": 4}),
        (names("images/{n}.png", "masks/night/{n}.png"), {"": 4}),
        (names("{f}/images/{n}.png", "{f}/masks/{n}.png", 2, "train"), {"": 2}),
        (names("{f}/images/{f}{n}.png", "{f}/masks/{f}{n}.png", 2, "pool", "TEST"), {"": 4}),
        (names("images/pug_{n}.jpg", "annotations/trimaps/pug_{n}.png"), {"": 4}),
        ([*names("imagesTr/{n}.png", "labelsTr/{n}.png"), "imagesTs/7.png"], {"train": 4}),
        ([*names("JPEGImages/{n}.jpg", "SegmentationClassPNG/{n}.png"), "SegmentationClass/0.npy"], {"": 4}),
        ([*names("JPEGImages/{n}.jpg", "SegmentationClass/{n}.png"), "SegmentationObject/0.png"], {"": 4}),
        (names("raw/{n:02}.png", "labels/labels{n:08}.png"), {"": 4}),
        ([*names("a/{n}.JPG", "a/{n}_mask.png"), *names("b/{n}.jpg", "b/{n}_mask.png")], {"": 8}),
        (
            [*names("train/{n}.jpg", "train/{n}_mask.png"), *names("val/{n}.png", "val/{n}_mask.png")],
            dict.fromkeys(SPLITS, 4),
        ),
        (
            names("raw/{n}.png", "labels/{n}.png") + [f"{f}/{n}.png" for n in range(4) for f in ("depth", "viz")],
            {"": 4},
        ),
        (names(*SEQUENCES, 4, "uavid_train", "uavid_val", "uavid_other"), dict.fromkeys(SPLITS, 4)),
        (names(*SEQUENCES, 4, "uavid_train", "uavid_val", "uavid_test_v2"), dict.fromkeys((*SPLITS, "test"), 4)),
        (names(*TOWNS, 2, "berlin_train", "paris_train", "berlin_val", "paris_val"), dict.fromkeys(SPLITS, 4)),
        (names(*TOWNS, 2, "blood_test", "urine_test", "skin_test"), {"": 6}),
        (names(*TOWNS, 2, "steam_train", "bus", "car", "tram"), {"": 8}),
    ],
)
def test_pairs_of_other_folders(files: list[str], expected: dict[str, int], tmp_path: Path) -> None:
    """Images in folders of other names are in no split."""
    listing = content(touch(tmp_path, *files))
    assert counts(listing) == expected
    assert len(listing.division.outside) == sum("_other" in name for name in files) // 2


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            names("images/{f}/{f}{n}.png", "masks/{f}{n}.png", 3, "Training", "valid", "test"),
            {"train": "images/Training", "val": "images/valid", "test": "images/test"},
        ),
        (
            names("{f}/images/{f}{n}.png", "{f}/masks/{f}{n}.png", 2, "pool", "TEST"),
            {"test": "TEST/images"},
        ),
    ],
)
def test_splits_of_images_whose_masks_are_in_one_folder(
    files: list[str], expected: dict[str, str], tmp_path: Path
) -> None:
    listing = content(touch(tmp_path, *files))
    assert counts(listing) == {"": len(files) // 2}
    splits = listing.division.splits
    folders = {split: {listing.pairs[name].image.parent for name in inside} for split, inside in splits.items()}
    assert folders == {split: {tmp_path / folder} for split, folder in expected.items()}


@dataclass(frozen=True)
class Asked:
    """A folder, and what a question about it proposes."""

    files: list[str]
    choices: list[tuple[str, str]] = field(default_factory=list)
    phrase: str = "images and masks are not found"


SEVERAL = "several folders may be the images or the masks"
ASKED = {
    "no images": Asked(["notes.txt"]),
    "unknown names": Asked(names("S2/S2A_T{n}.tif", "ESA/WorldCover_T{n}.tif"), [("ESA", "S2"), ("S2", "ESA")]),
    "unknown folders": Asked(names("one/{n}.png", "two/{n}.png"), [("one", "two"), ("two", "one")]),
    "endings": Asked(names("t {n} [x=0].jpg", "t {n} [x=0]_color.png")),
    "folders of species": Asked(
        names("{f}/{f}/{n}.png", "{f}/{f} GT/{n}.png", 4, "bream", "sprat"),
        [("bream/bream", "bream/bream GT"), ("sprat/sprat", "sprat/sprat GT")],
    ),
    "folders of organs": Asked(
        names("CXR/{n}.png", "Manual/leftMask/{n}.png") + [f"Manual/rightMask/{n}.png" for n in range(4)],
        [("CXR", "Manual/leftMask"), ("CXR", "Manual/rightMask")],
    ),
    "two folders of masks": Asked(
        names("raw/{n}.png", "labels/{n}.png") + [f"mitochondria/{n}.png" for n in range(4)],
        [("raw", "labels"), ("raw", "mitochondria"), ("mitochondria", "labels")],
        SEVERAL,
    ),
    "fields of view and vessels": Asked(
        names("images/{n}_training.png", "mask/{n}_training_mask.png") + [f"1st_manual/{n}_man.png" for n in range(4)],
        [("images", "mask"), ("images", "1st_manual"), ("1st_manual", "mask")],
        SEVERAL,
    ),
    "two folders of images": Asked(
        names("images/{n}.png", "masks/{n}.png") + [f"imgs/{n}.jpg" for n in range(4)],
        [("images", "masks"), ("imgs", "masks")],
        SEVERAL,
    ),
    "two folders of images in each scene": Asked(
        names("{f}/images/{n}.png", "{f}/masks/{n}.png", 2, "day", "night")
        + [f"{f}/imgs/{n}.jpg" for n in range(2) for f in ("day", "night")],
        [("*/images", "*/masks"), ("*/imgs", "*/masks")],
        SEVERAL,
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_questions(name: str, tmp_path: Path) -> None:
    """A question lists the content, and at most three choices, each of which pairs all images."""
    asked = ASKED[name]
    with pytest.raises(Question, match=asked.phrase) as caught:
        content(touch(tmp_path, *asked.files))
    proposed = [(str(choice["data.images"]), str(choice["data.masks"])) for choice in caught.value.choices.values()]
    shown = [tuple(str(Path(place).relative_to(tmp_path)) for place in places) for places in proposed]
    assert shown == asked.choices
    for images, masks in proposed:
        assert counts(content_of(None, images, masks, {})) == {"": 4}


def test_names_of_a_pattern_are_the_text_of_its_wildcards(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name}_{kind}.png" for name in ("p1/a.b", "p2/c") for kind in ("t1", "t2", "roi")))
    content = content_of(None, tmp_path / "*/*_t1.png", tmp_path / "*/*_roi.png", {})
    assert sorted(content.located.image_of.values()) == ["p1/a.b", "p2/c"] and counts(content) == {"": 2}
    with pytest.raises(CrispsegError, match=r"\*.bmp contains no images"):
        located_at(tmp_path / "*.bmp", tmp_path / "*/*.png")


def test_lists_and_class_files(tmp_path: Path) -> None:
    touch(tmp_path, *names("images/{n}.png", "masks/{n}.png"), "classes.txt", "preview/a.png")
    for split in SPLITS:
        (tmp_path / f"splits/{split}.txt").parent.mkdir(exist_ok=True)
        (tmp_path / f"splits/{split}.txt").write_text("0\n1\n")
    listing = content(tmp_path)
    assert listing.lists == {split: tmp_path / f"splits/{split}.txt" for split in SPLITS}
    assert listing.classes == tmp_path / "classes.txt"
    assert "preview (1)" in listing.unused
