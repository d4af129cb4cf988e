"""What the values and colours of masks mean, as declared or as the masks tell by themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_data import BLACK, WHITE, folder, ids, make_pair

from crispseg.data import check_split
from crispseg.data.dataset import FileDataset
from crispseg.data.folder import settle
from crispseg.data.mask_lookup import ColorLookup, IdLookup
from crispseg.errors import CrispsegError
from crispseg.labels import LabelSet


@given(count=st.integers(2, 255), ignore=st.sets(st.integers(0, 300), max_size=4), data=st.data())
def test_ids_are_kept_or_ignored_or_refused(count: int, ignore: set[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=12))
    decode = IdLookup(count, tuple(ignore))
    void = ignore | {255}
    mask = np.array([values], np.uint16)
    if all(value < count or value in void for value in values):
        assert decode(mask).dtype == np.uint8
        assert decode(mask).tolist() == [[255 if value in void else value for value in values]]
    else:
        with pytest.raises(ValueError, match=f"out of range 0 to {count - 1}"):
            decode(mask)


def test_rgb_masks_need_equal_channels_to_be_ids() -> None:
    mask = np.repeat(ids(0, 1)[..., None], 3, axis=2)
    np.testing.assert_array_equal(IdLookup(2)(mask), ids(0, 1))
    mask[0, 0] = (9, 8, 7)
    with pytest.raises(ValueError, match=r"\[0, 0, 0\], \[1, 1, 1\], \[9, 8, 7\]; .*data.palette"):
        IdLookup(2)(mask)


@settings(deadline=None, max_examples=8)
@given(palette=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=9, unique=True), data=st.data())
def test_colours_become_ids(palette: list[tuple[int, int, int]], data: st.DataObject) -> None:
    void, colors = tuple(palette[:1]), tuple(palette[1:])
    labels = np.array(data.draw(st.lists(st.integers(-1, len(colors) - 1), min_size=1, max_size=20)))
    mask = np.array([*colors, *void], np.uint8)[labels][None]
    np.testing.assert_array_equal(ColorLookup(colors, void)(mask)[0], np.where(labels < 0, 255, labels))
    if (labels < 0).any():
        with pytest.raises(ValueError, match=f"of {(labels < 0).sum()} pixels is not in data.palette"):
            ColorLookup(colors)(mask)


def test_grey_values_count_as_colours() -> None:
    assert ColorLookup((BLACK, WHITE))(ids(0, 255)).max() == 1
    with pytest.raises(ValueError, match=r"\[7, 7, 7\] of 24 pixels .* leave data.palette out"):
        ColorLookup((BLACK, WHITE))(ids(0, 7))
    with pytest.raises(ValueError, match="16-bit"):
        ColorLookup((BLACK, WHITE))(ids(0, 7).astype(np.uint16) * 257)
    assert ColorLookup((BLACK, (7, 7, 7)))(ids(0, 7).astype(np.uint16)).max() == 1


@pytest.mark.parametrize("most", [40, 600])
def test_masks_that_number_objects(most: int, tmp_path: Path, refuses: Any) -> None:
    for index in range(6):
        count = most - 3 * index
        mask = np.resize(np.arange(count + 1, dtype=np.uint16), (25, 25))
        save(tmp_path / "images" / f"{index}.png", np.zeros((25, 25, 3), np.uint8))
        save(tmp_path / "masks" / f"{index}.png", mask)
    with refuses(
        f" values up to {most} that count up from 1",
        "they number objects, not classes",
        "give them by data.instances",
    ):
        folder(tmp_path).label_set()
    with refuses("6 of 6 pairs", "2, 3, 4, 5, 6", "does it number objects?"):
        check_split(folder(tmp_path, num_classes=2).dataset("all"), "all")


def test_masks_of_many_classes_are_no_objects(tmp_path: Path) -> None:
    """Each holds a few of them, as photographs do; as parts of masks of objects may, too, so a line asks."""
    random = np.random.default_rng(0)
    for index in range(40):
        make_pair(tmp_path, str(index), ids(0, *random.choice(np.arange(1, 31), 5, replace=False).tolist()))
    assert len(folder(tmp_path).label_set()) == 31
    (line,) = folder(tmp_path).notes()
    assert "30" in line and "31 classes" in line
    assert folder(tmp_path, num_classes=31).notes() == []


def test_black_and_white_masks(tmp_path: Path, refuses: Any) -> None:
    for name in "ab":
        make_pair(tmp_path, name, ids(0, 255))
    with refuses("only the value 0"):
        folder(tmp_path, ignore=(255,)).label_set()
    with refuses("data.palette '[[0,0,0],[255,255,255]]'"):
        check_split(folder(tmp_path, classes=["no", "yes", "maybe"]).dataset("train"), "train")
    for options, name in (({}, "class 1"), ({"num_classes": 2}, "class 1"), ({"classes": ["no", "yes"]}, "yes")):
        source = folder(tmp_path, **options)
        (line,) = source.notes()
        assert f"class 1, '{name}'" in line and "data.ignore '[255]'" in line
        settled = source.settled()
        assert settled.palette == [BLACK, WHITE] and settled.notes() == []
        assert settled.label_set() == source.label_set() == LabelSet.colored(source.label_set().names)
        assert source.label_set().names[1] == name
        for each in (source, settled):
            np.testing.assert_array_equal(check_split(each.dataset("train"), "train").counts, [24, 24])
    make_pair(tmp_path, "c", ids(0, 7))
    assert folder(tmp_path, num_classes=2).notes() == []
    save(tmp_path / "masks" / "c.png", np.zeros((6, 8, 3), np.uint8) + np.arange(3, dtype=np.uint8))
    with refuses("1 of 2 pairs in 'train' are bad", "an RGB mask"):  # not said before all others
        check_split(
            FileDataset(folder(tmp_path, num_classes=2).pairs("all")[1:], LabelSet.numbered(2), IdLookup(2)), "train"
        )


def test_white_among_ids(tmp_path: Path, refuses: Any) -> None:
    """Masks of 0 and 255 beside masks of 0 and 1 would lose their white; with 1 and 255 in one mask it means ignore."""
    for name, values in (("a", (0, 1)), ("b", (0, 255)), ("c", (0,))):
        make_pair(tmp_path, name, ids(*values))
    for options in ({}, {"num_classes": 2}):
        with refuses("1 mask", "(b.png)", "data.ignore '[255]'"):
            settle(folder(tmp_path, **options))
    for options, others in (({"ignore": (255,)}, ()), ({"num_classes": 3}, ()), ({}, (1, 255))):
        if others:
            make_pair(tmp_path, "d", ids(0, *others))
        counts = check_split(folder(tmp_path, **options).dataset("all"), "all").counts
        assert counts[1] == 24 + 16 * bool(others) and len(counts) == options.get("num_classes", 2)


def test_a_part_that_nobody_labelled_is_no_white_mask(tmp_path: Path) -> None:
    for name, values in (("a", (0, 1)), ("b", (255,)), ("c", (0, 1))):
        make_pair(tmp_path, name, ids(*values))
    assert settle(folder(tmp_path))[0].label_set() == LabelSet.numbered(2)


def test_black_and_white_of_16_bits(tmp_path: Path, refuses: Any) -> None:
    for name in "ab":
        make_pair(tmp_path, name, ids(0, 255).astype(np.uint16) * 257)
    assert "255 is read as class 1" in folder(tmp_path).notes()[0]
    for options in ({}, {"palette": [BLACK, WHITE]}, {"num_classes": 2}):
        np.testing.assert_array_equal(folder(tmp_path, **options).dataset("all")[0].labels, ids(0, 1))
    assert folder(tmp_path, ignore=(65535,), num_classes=2).dataset("all")[0].labels.max() == 255
    for palette, reason in (([BLACK, (1, 1, 1)], "16-bit values"), ([(1, 1, 1), WHITE], "the colour [0, 0, 0]")):
        make_pair(tmp_path, "a", ids(0, 1).astype(np.uint16) * (257 if reason[0] == "1" else 65535))
        with refuses(reason):
            folder(tmp_path, palette=palette).dataset("all").read_labels(0)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (ids(0), "only the value 0; say"),
        (ids(0, 128), r"2 values up to 128 \(0, 128\), .* class ids; .*data.palette '\[\[0,0,0\],\[128,128,128\]\]'"),
        (
            ids(0, 128, 255),
            r"soft edges, .*; if not, give data.palette .* for the .* data\.ignore '\[255\]', or",
        ),
        (ids(0, 64, 128, 255), "ids; if they are black and white with soft edges, make them again of 0 and 255 only"),
        (np.dstack([ids(0), ids(1), ids(2)]), r"1 colours, .* data.palette .*\[0,1,2\]"),
    ],
)
def test_masks_that_do_not_tell_the_classes(tmp_path: Path, mask: np.ndarray, reason: str) -> None:
    for name in "ab":
        make_pair(tmp_path, name, mask)
    with pytest.raises(CrispsegError, match=reason):
        folder(tmp_path).label_set()


def test_palettes_that_number_colours_anew(tmp_path: Path) -> None:
    """The same value shown in two colours, as programs write it that make the palette of each file by itself."""
    for index in range(5):
        make_pair(tmp_path, str(index), ids(0, 1))
        mask = Image.fromarray(ids(0, 1)).convert("P")
        first = [0, 0, 0, 255, 255, 255] if index < 3 else [255, 255, 255, 0, 0, 0]
        mask.putpalette([*first, *([7 * index] * 3)])  # the last one is no class, so it may differ
        mask.save(tmp_path / "masks" / f"{index}.png")
    (line,) = folder(tmp_path, num_classes=2).notes()
    assert line.startswith("2 masks") and "5 palette masks" in line
    assert folder(tmp_path, num_classes=2, palette=[BLACK, WHITE]).notes() == []
    for index in (3, 4):  # of which the white is nowhere
        mask = Image.fromarray(ids(1)).convert("P")
        mask.putpalette([9, 9, 9, 255, 255, 255])
        mask.save(tmp_path / "masks" / f"{index}.png")
    assert folder(tmp_path, num_classes=2).notes() == []


def test_whole_numbers_that_are_stored_as_float(tmp_path: Path, refuses: Any) -> None:
    for name in "ab":
        make_pair(tmp_path, name, ids(0, 1))
        (tmp_path / "masks" / f"{name}.png").unlink()
        Image.fromarray(ids(0, 1).astype(np.float32)).save(tmp_path / "masks" / f"{name}.tif")
    np.testing.assert_array_equal(check_split(folder(tmp_path).dataset("all"), "all").counts, [48, 48])
    Image.fromarray(ids(0, 1) + np.float32(0.5)).save(tmp_path / "masks" / "a.tif")
    with refuses("not whole numbers"):
        folder(tmp_path).label_set()


def test_the_palette_that_is_offered_works(tmp_path: Path) -> None:
    """Of masks of 16 bits, with a value that is ignored by now."""
    make_pair(tmp_path, "a", ids(0, 7, 100, 200, 255).astype(np.uint16))
    make_pair(tmp_path, "b", ids(0, 100).astype(np.uint16))
    with pytest.raises(CrispsegError, match=r"'\[\[0,0,0\],\[100,100,100\],.* data\.ignore '\[7, 255\]'"):
        folder(tmp_path, ignore=(7,)).label_set()
    grey = [(value, value, value) for value in (0, 100, 200)]
    source = folder(tmp_path, palette=grey, ignore=(7, 255))
    assert (check_split(source.dataset("all"), "all").counts > 0).tolist() == [True] * 3
