"""Values of masks that mean other things than they seem to: training and the doctor report the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.errors import CrispsegError
from crispseg.labels import voc_palette

from .trees import SIZE, Tree, ids, named, only

Capture = pytest.CaptureFixture[str]


def blob(seed: int, top: int = 10) -> np.ndarray:
    """A rectangle of ones, inside the frame if `top` is not 0."""
    mask = np.zeros(SIZE, np.uint8)
    mask[top : top + 20 + seed % 9, 10 + seed % 7 : 60] = 1
    return mask


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (1, 0)])
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
    for options in ({"drop": ["class 0"]}, {"ignore": (0,)}):
        assert "nodata-class" not in named(tree.examine(**options))
    assert tree.source(drop=["class 0"]).reading.lookup.find(np.arange(4)[None]).tolist() == [[255, 0, 1, 2]]
    assert only(tree.examine(classes=[*"abcd"]), "nodata-class").severity == 0


@pytest.mark.parametrize("nodata", ["255", "-9999", "nan", "none", "7"])
def test_other_values_without_data_are_not_reported(nodata: str, tmp_path: Path) -> None:
    assert "nodata-class" not in named(geotiffs(tmp_path, ids, nodata).examine())


def test_two_classes_of_which_one_has_no_data_remain(tmp_path: Path) -> None:
    assert "nodata-class" not in named(geotiffs(tmp_path, blob, "0").examine())


def test_values_far_apart_are_proposed_without_the_one_that_has_no_data(tmp_path: Path) -> None:
    tree = geotiffs(tmp_path, lambda seed: ids(seed) * np.uint8(30), "0")
    found = only(tree.examine(), "sparse-ids")
    first, second = ({key[5:]: value for key, value in one.items()} for one in found.details["settings"])
    lookup = tree.source(**first).reading.lookup
    assert lookup.find(np.array([[0, 30, 60, 90]])).tolist() == [[255, 0, 1, 2]]
    assert any("GDAL_NODATA" in line for line in tree.source(**second).notes())
    assert not any("GDAL_NODATA" in line for line in tree.source(**first).notes())


@pytest.mark.parametrize("factor", [256, 257])
@pytest.mark.parametrize("declared", [{}, {"num_classes": 4}])
def test_multiplied_ids_are_refused_and_a_copy_divides_them(
    factor: int, declared: dict[str, Any], tmp_path: Path, capsys: Capture
) -> None:
    def mask(seed: int) -> np.ndarray:
        found = np.where(np.arange(SIZE[0])[:, None] < 3, 255, ids(seed)).astype(np.uint8)
        return found.astype(np.uint16) * np.uint16(factor) if seed >= 3100 else found

    tree = Tree(tmp_path / "data", mask)
    flags = [f"--data.{key}={value}" for key, value in declared.items()]
    with pytest.raises(CrispsegError, match=rf"4 masks contain {factor}, .*divide them by {factor}.*crispseg doctor"):
        Folder(root=tree.root, **declared).label_set()
    assert main(["doctor", str(tree.root), *flags]) == 3
    printed = capsys.readouterr().out
    assert "multiplied-ids" in printed
    (copy,) = re.findall(r"write a corrected copy: crispseg (.+)", printed)
    main(shlex.split(copy))
    (train,) = re.findall(r"train on them: crispseg train (.+)", capsys.readouterr().out)
    data = Folder(root=train)
    assert len(data.label_set()) == 4
    for pair in data.pairs("all"):
        raw = np.asarray(Image.open(tree.root / f"masks/{Path(pair.name).name}.png"))
        np.testing.assert_array_equal(np.asarray(Image.open(pair.mask)), raw // factor if raw.max() > 255 else raw)


@pytest.mark.parametrize("colored", [True, False])
@pytest.mark.parametrize("order", [[0, 15, 7], [7, 0, 15]])
def test_ids_of_voc_are_read_by_the_names(order: list[int], colored: bool, tmp_path: Path, capsys: Capture) -> None:
    names = {0: "background", 7: "car", 15: "person"}

    def mask(seed: int) -> Image.Image:
        found = Image.fromarray(np.array([0, 7, 15, 255], np.uint8)[ids(seed)])
        if colored:
            found.putpalette(np.array(voc_palette(256)).ravel().tolist())
        return found

    tree = Tree(tmp_path / "data", mask)
    (tree.root / "classes.txt").write_text("\n".join(names[value] for value in order))
    assert main(["doctor", str(tree.root)]) == 3
    (command,) = re.findall(r"or train with: crispseg (.+)", capsys.readouterr().out)
    if colored and order[0] == 0:
        assert "--data.palette=[[0, 0, 0], [192, 128, 128], [128, 128, 128]]" in command
    assert main(["doctor", *shlex.split(command)[1:]]) < 3, capsys.readouterr().out
    with pytest.raises(CrispsegError, match=r"PASCAL VOC, in which .*person is 15.*data.palette") as caught:
        Folder(root=tree.root).label_set()
    data = Folder(root=tree.root, **{key[5:]: value for key, value in caught.value.settings[0].items()})
    pair = data.pairs("all")[0]
    raw, read = np.asarray(Image.open(pair.mask)), data.reading.lookup(data.reading.lookup.read(pair.mask, False))
    for value, index in zip([*order, 255], [0, 1, 2, 255], strict=True):
        np.testing.assert_array_equal(read == index, raw == value)


def test_masks_with_the_ids_of_other_classes_do_not_seem_to_be_voc_s(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array([0, 7, 15, 30], np.uint8)[ids(seed)])
    for classes in (["background", "person", "car"], ["ground", "road"]):
        assert "voc-ids" not in named(tree.examine(classes=classes))
    assert "voc-ids" not in named(Tree(tmp_path / "other").examine(classes=["car", "person", "cow", "dog"]))


def test_the_alpha_channel_is_the_mask(tmp_path: Path, refuses: Any) -> None:
    def cutout(seed: int) -> Image.Image:
        image = np.random.default_rng(seed).integers(0, 256, (*SIZE, 4), np.uint8)
        image[..., 3] = 255 * blob(seed)
        return Image.fromarray(image)

    tree = Tree(tmp_path, cutout)
    with refuses("alpha channel may be the mask", "PIL.Image.open(file).getchannel('A').save(mask)"):
        tree.source().label_set()
    for file in (tree.root / "masks").iterdir():
        Image.open(file).getchannel("A").save(file)
    assert tree.source().label_set().names == ("background", "class 1")
    for name in ("images", "cats"):
        cutouts = tmp_path / name / "data" / name
        cutouts.mkdir(parents=True)
        for seed in range(3):
            cutout(seed).save(cutouts / f"{seed}.png")
        with refuses("transparent pixels, and their alpha channel may be the mask", ".getchannel('A').save(mask)"):
            Folder(root=cutouts.parent).label_set()
        cutout(0).convert("RGB").save(cutouts / "0.png")
        with refuses("give data.images and data.masks"):
            Folder(root=cutouts.parent).label_set()
    opaque = Tree(tmp_path / "opaque", lambda seed: cutout(seed).convert("RGB"))
    with refuses("if these are photographs"):
        opaque.source().label_set()


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
    assert "255 for NaN" in only(tree.examine(), "unusable-mask").message


@pytest.mark.parametrize("swapped", [False, True])
def test_exchanged_shares_are_named(swapped: bool, tmp_path: Path) -> None:
    def mask(seed: int) -> np.ndarray:
        table = np.array([0, 1, 1, 2], np.uint8) if seed < 3100 or not swapped else np.array([0, 2, 2, 1], np.uint8)
        found = table[ids(seed)]
        found[:50] = np.where(found[:50] == table[3], 0, found[:50])  # a third as frequent
        return found

    tree = Tree(tmp_path, mask)
    diagnosis = tree.examine(classes=["soil", "crop", "weed"])
    assert ("class-shares" in named(diagnosis)) == swapped
    if swapped:
        assert "crop and weed" in only(diagnosis, "class-shares").message


def test_background_of_labelme_is_proposed_first(tmp_path: Path) -> None:
    tree = Tree(tmp_path, lambda seed: np.array([0, 1, 2, 255], np.uint8)[ids(seed)])
    diagnosis = tree.examine(classes=["__ignore__", "_background_", "valve"])
    remedies = [one.remedy for one in diagnosis.findings if one.code == "class-names"]
    assert any("data.classes '[_background_,valve]'" in remedy for remedy in remedies)
