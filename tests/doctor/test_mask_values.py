"""Values of masks that mean other things than they seem to: training and the doctor report the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from dataset_trees import save
from matplotlib import colormaps
from matplotlib.image import imsave
from PIL import Image

from crispseg.data import Folder
from crispseg.data.mask_lookup import read_statistics
from crispseg.data.palettes import compact
from crispseg.doctor import Severity, diagnose, subject_of

from .trees import SIZE, Tree, ids, named, only

Capture = pytest.CaptureFixture[str]


def blob(seed: int, top: int = 10) -> np.ndarray:
    """A rectangle of ones, inside the frame if `top` is not 0."""
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 20 + seed % 9, 10 + seed % 7 : 60] = 1
    return mask


@pytest.mark.parametrize("values", [(0, 255), (1, 0)])
def test_a_part_of_the_masks_is_inverted(values: tuple[int, int], tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array(values, np.uint8)[blob(seed) ^ (seed % 4 == 0)])
    found = only(tree.examine(), "swapped-masks")
    few = {"train0", "train4", "val0"}  # of 12
    assert {Path(file).stem for file in found.files} == few and all(f"{name}.png" in found.message for name in few)
    assert found.line in tree.source().notes()
    assert "mostly leaf" in " ".join(tree.source(classes=["ground", "leaf"]).notes())
    assert "swapped-masks" not in named(tree.examine(ignore=(values[1],)))


@pytest.mark.parametrize(
    "mask",
    [
        lambda seed: np.maximum(blob(seed), seed % 100 == 5),  # one full mask
        lambda seed: blob(seed) ^ (seed % 100 == 5),  # one of 12
        lambda seed: np.eye(*SIZE, k=8 * (seed % 100 - 3), dtype=np.uint8).cumsum(1).astype(np.uint8),  # halves
        lambda seed: np.where(seed % 2, 1, 1 - blob(seed)).astype(np.uint8),  # full, or around
    ],
)
def test_other_masks_do_not_seem_inverted(mask: Callable[[int], np.ndarray], tmp_path: Path) -> None:
    assert "swapped-masks" not in named(Tree(tmp_path, mask).examine())


def test_white_around_black_objects_is_named(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: 255 - 255 * blob(seed))
    found = only(tree.examine(), "black-and-white-masks")
    palette = [(255, 255, 255), (0, 0, 0)]
    assert (
        found.severity is Severity.WARNING
        and not found.details["copy"]
        and f"data.palette '{compact(palette)}'" in found.remedy
    )
    assert "black-and-white-masks" not in named(tree.examine(palette=palette))
    objects = Tree(tmp_path / "objects", lambda seed: 255 * blob(seed))
    assert only(objects.examine(), "black-and-white-masks").severity is Severity.INFORMATION


def geotiffs(root: Path, mask: Callable[[int], np.ndarray], nodata: str) -> Tree:
    """All masks as TIFFs; the metadata of the first 8 mark a value as no data."""
    tree = Tree(root, mask)
    for path in sorted((tree.root / "masks").iterdir()):
        tag = [(42113, "s", 0, nodata, True)] if path.stem.startswith("train") else []
        tifffile.imwrite(path.with_suffix(".tif"), np.asarray(Image.open(path)), extratags=tag)
        path.unlink()
    return tree


def test_a_value_without_data_is_a_class(tmp_path: Path) -> None:
    tree = geotiffs(tmp_path, ids, "0")
    found = only(tree.examine(), "nodata-class")
    assert found.count == 8 and "train0.tif" in found.message and "the value 0" in found.message
    for options in ({}, {"num_classes": 4}):
        assert found.line in tree.source(**options).notes()
    for options in ({"drop": ["class 0"]}, {"ignore": (0,)}, {"classes": [*"abcd"]}):
        assert "nodata-class" not in named(tree.examine(**options))
    assert tree.source(drop=["class 0"]).reading.lookup.find(np.arange(4)[None]).tolist() == [[255, 0, 1, 2]]


@pytest.mark.parametrize(("nodata", "mask"), [*((each, ids) for each in ("255", "nan", "none", "7")), ("0", blob)])
def test_other_values_without_data_are_not_reported(
    nodata: str, mask: Callable[[int], np.ndarray], tmp_path: Path
) -> None:
    """Nor one of two classes."""
    assert "nodata-class" not in named(geotiffs(tmp_path, mask, nodata).examine())


@pytest.mark.parametrize("ignore", [(0,), ((0, 0, 0),)])
def test_an_ignored_colour_of_the_palette_is_refused(ignore: Any, tmp_path: Path, refuses: Any) -> None:
    tree = Tree(tmp_path)
    palette = [(0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)]
    with refuses("data.palette and data.ignore both have the colour [0, 0, 0]", "data.drop"):
        tree.source(palette=palette, ignore=ignore).label_set()
    with refuses("both have"):
        tree.examine(palette=palette, ignore=ignore)


def test_nan_is_named(tmp_path: Path, refuses: Any) -> None:
    def mask(seed: int) -> Image.Image:
        values = ids(seed).astype(np.float32)
        values[:16] = np.nan
        return Image.fromarray(values)

    tree = Tree(tmp_path)
    tree.add("holes", mask=mask(1), suffixes=("png", "tif"))
    with refuses("holes.tif contains NaN in 25 % of its values", "255 for NaN"):
        tree.source().label_set()
    assert "255 for NaN" in only(tree.examine(), "unusable-file").details["reasons"].popitem()[1]


def test_background_of_labelme_is_proposed_first(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array([0, 1, 2, 255], np.uint8)[ids(seed)])
    diagnosis = tree.examine(classes=["__ignore__", "_background_", "valve"])
    remedies = [one.remedy for one in diagnosis.findings if one.code == "class-names"]
    assert any("data.classes '[_background_,valve]'" in remedy for remedy in remedies)


@pytest.mark.parametrize(
    ("values", "order"),
    [
        ([0, 40, 80, 120, 160], [0, 40, 80, 120, 160]),
        ([0, 60, 120, 180, 240, 44], [0, 60, 120, 180, 240, 44]),  # 5 * 60 modulo 256
        ([9, 0, 200, 31], [0, 9, 31, 200]),
        ([0, 85, 170, 255], [0, 85, 170, 255]),
    ],
)
def test_as_many_values_as_names_get_a_palette(tmp_path: Path, values: list[int], order: list[int]) -> None:
    tree = Tree(tmp_path, mask=lambda seed: np.array(values, np.uint8)[ids(seed, classes=len(values))])
    names = [f"kind {index}" for index in range(len(values))]
    (settings,) = only(tree.examine(classes=names), "sparse-ids").details["settings"]
    assert settings == {"data.palette": tuple((value,) * 3 for value in order), "data.ignore": []}
    options = {key.removeprefix("data."): value for key, value in settings.items()}
    assert tree.source(classes=names, **options).label_set().names == tuple(names)


def test_an_id_after_a_gap_may_be_unlabelled(tmp_path: Path) -> None:
    tree = Tree(tmp_path, mask=lambda seed: np.array([0, 1, 2, 5], np.uint8)[ids(seed, classes=4)])
    assert "if class 5 means unlabelled, give data.ignore '[5]'" in only(tree.examine(), "class-absent").message


def test_values_of_two_kinds_of_masks_are_not_classes_of_their_own(tmp_path: Path) -> None:
    kinds = np.array([[0, 1, 2], [0, 128, 255]], np.uint8)
    two = Tree(tmp_path / "two", mask=lambda seed: kinds[seed % 2][ids(seed, classes=3)])
    found = only(two.examine(), "sparse-ids")
    assert "2 kinds (1, 2; 128, 255)" in found.message and not found.details.get("settings")
    scenes = np.array([[0, 20, 40], [0, 80, 200]], np.uint8)  # indoors and outdoors
    sound = Tree(tmp_path / "sound", mask=lambda seed: scenes[seed % 2][ids(seed, classes=3)])
    assert only(sound.examine(), "sparse-ids").details["settings"]


def test_masks_that_are_stretched_to_their_own_maximum_get_no_palette(tmp_path: Path) -> None:
    tree = Tree(tmp_path, mask=lambda seed: (ids(seed, classes=2 + seed % 3) * (255 / (1 + seed % 3))).astype(np.uint8))
    found = only(tree.examine(), "stretched-masks")
    assert "0, 85, 127, 170, 255" in found.message and not found.details.get("settings")


def test_masks_of_matplotlib_that_fit_one_scale_may_still_be_stretched(tmp_path: Path) -> None:
    tree = Tree(tmp_path, mask=lambda seed: (ids(seed, classes=2 + seed % 2) * (255 / (1 + seed % 2))).astype(np.uint8))
    only(tree.examine(), "sparse-ids")  # 0, 127 and 255, or only 0 and 255, may be three classes
    for file in (tmp_path / "masks").iterdir():
        imsave(file, np.asarray(Image.open(file)), cmap="gray", vmin=0, vmax=255)
    assert "may be stretched" in only(tree.examine(), "stretched-masks").message


@pytest.mark.parametrize("name", ["viridis", "jet", "gray"])
def test_color_maps_of_matplotlib_are_recognised(name: str, tmp_path: Path) -> None:
    def saved(seed: int, top: int | None) -> np.ndarray:
        mask = ids(seed, classes=2 + seed % 3)
        return np.asarray(colormaps[name](mask / (top or mask.max()), bytes=True)[..., :3])

    tree = Tree(tmp_path / "own", mask=lambda seed: saved(seed, None))
    found = only(tree.examine(), "stretched-masks")
    assert not found.details.get("settings") and not found.details["copy"]
    if name != "gray":
        found = only(Tree(tmp_path / "fixed", mask=lambda seed: saved(seed, 3)).examine(), "rgb-masks")
        table = colormaps[name](np.arange(4) / 3, bytes=True)[:, :3].tolist()
        assert found.details["settings"] == [{"data.palette": tuple(map(tuple, table))}]


def outlined(seed: int, classes: int = 3, width: int = 4) -> np.ndarray:
    """Some classes from 0, and a last one as a band between them, like the void of PASCAL VOC."""
    mask = ids(seed, classes=classes)
    step = np.zeros(mask.shape, np.uint8)
    step[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    step[1:] |= mask[1:] != mask[:-1]
    return np.where(cv2.dilate(step, np.ones((width, width), np.uint8)) > 0, classes, mask)


def test_colors_of_bands_are_proposed_to_be_ignored(tmp_path: Path) -> None:
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)], np.uint8)
    found = only(Tree(tmp_path, mask=lambda seed: colors[outlined(seed)]).examine(), "rgb-masks")
    palette = ((0, 0, 0), (0, 128, 0), (128, 0, 0))
    assert found.details["settings"] == [{"data.palette": palette, "data.ignore": [(224, 224, 192)]}]


@pytest.mark.parametrize(("mask", "count"), [(outlined, 12), (ids, 0)])
def test_bands_between_classes_are_named(mask: Callable[[int], np.ndarray], count: int, tmp_path: Path) -> None:
    tree = Tree(tmp_path, mask)
    found = [one for one in tree.examine().findings if one.code == "thin-band"]
    assert [one.count for one in found] == [count] * (count > 0)
    assert sum("thin band" in note for note in tree.source().notes()) == len(found)
    assert "thin-band" not in named(tree.examine(ignore=(3,)))
    assert not any("thin band" in note for note in tree.source(classes=[*"abcd"]).notes())


def test_exact_colors_are_no_blends(tmp_path: Path) -> None:
    """Such as bits of outlines in red, and several bits of classes in blue (DIVA-HisDB)."""
    wide, narrow = [(0, 0, 1), (0, 0, 4), (0, 0, 8)], (128, 0, 8)

    def mask(seed: int) -> np.ndarray:
        drawn = np.array(wide, np.uint8)[ids(seed, classes=3)]
        drawn[np.diff(drawn[..., 2], axis=1, append=drawn[:, -1:, 2]) != 0] = narrow
        return drawn

    tree = Tree(tmp_path, mask)
    assert only(tree.examine(), "rgb-masks").details["settings"] == [{"data.palette": (*wide, narrow)}]
    found = only(tree.examine(palette=wide), "unknown-color")
    assert found.severity is Severity.ERROR and found.details["values"].keys() == {str(narrow)}


def test_a_band_of_one_colour_is_no_interpolation(tmp_path: Path) -> None:
    """As in DIVA-HisDB, where steps over the boundary between two classes lead to it and on."""
    palette = np.array([(0, 0, 1), (0, 0, 8), (128, 0, 1)], np.uint8)
    tree = Tree(tmp_path, lambda seed: palette[outlined(seed, 2, 1)])
    assert any(mask.interpolated for mask in map(read_statistics, sorted((tmp_path / "masks").rglob("*.png"))))
    found = tree.examine(palette=palette[:2].tolist(), ignore=[palette[2].tolist()])
    assert "interpolated-edges" not in named(found)


def cut_out(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(60, 256, (*SIZE, 3), np.uint8)
    noise[:6, :6] = 255
    return np.where(ids(seed, classes=2)[..., None] > 0, noise, 0).astype(np.uint8)


def colored_objects(seed: int) -> np.ndarray:
    colors = np.random.default_rng(seed).integers(0, 256, (8, 3), np.uint8)
    colors[:, 0] = np.arange(8) % 4
    return colors[ids(seed, classes=8)]


@pytest.mark.parametrize(
    "mask", [cut_out, colored_objects, lambda seed: np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)]
)
def test_photographs_and_colours_of_objects_get_no_palette(mask: Callable[[int], np.ndarray], tmp_path: Path) -> None:
    found = only(Tree(tmp_path, mask=mask).examine(), "rgb-masks")
    assert "if these are photographs" in found.remedy and "often one of the channels" in found.remedy
    assert not found.details.get("settings")


def test_a_small_class_is_not_where_images_without_black_are_black(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for index in range(6):
        mask = random.integers(1, 4, (80, 80), np.uint8)
        mask[index, 3] = 0
        save(tmp_path / f"masks/{index}.png", mask)
        save(tmp_path / f"images/{index}.png", random.integers(60, 256, (80, 80, 3), np.uint8))
    assert "black-class" not in {one.code for one in diagnose(subject_of(Folder(root=tmp_path))).findings}
