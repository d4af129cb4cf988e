"""What values, colours and bits of masks mean; training refuses what the doctor calls an error, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from dataset_trees import save
from PIL import Image

from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.data import check_split
from crispseg.data.folder import settle
from crispseg.doctor import Severity, diagnose, subject_of
from crispseg.errors import CrispsegError

from .own_folders import BLACK, WHITE, folder, ids, make_pair

WIDE = ids(0, 1).astype(np.uint16)
RED = np.array([BLACK, (128, 0, 0), (9, 8, 7)], np.uint8)
SOFT = np.asarray(
    Image.fromarray(np.kron(ids(0, 255, 255), np.ones((40, 40), np.uint8))).rotate(7, Image.Resampling.BILINEAR)
)
OF_SOFT = [int((SOFT < 128).sum() * 2), int((SOFT >= 128).sum() * 2)]
GREYS = np.resize(np.arange(256, dtype=np.uint8), (20, 40))
SOME = np.arange(48).reshape(6, 8)
EVEN = np.arange(64, dtype=np.uint16).reshape(8, 8)
FEW = [np.repeat([range(last + 1)] * 6, 3, axis=1).astype(np.uint8) for last in (1, 2, 3, 4)]
"""Masks that number one to four objects."""
OPAQUE = (255, 255, 255)
WHITES, IN_COLOR = [ids(0, 255)] * 2, [RED[ids(0, 1, 2)]] * 2


def spotted(value: int) -> np.ndarray:
    """Black and white, but for one pixel."""
    mask = ids(0, 255)
    mask[2, 3] = value
    return mask


def compressed() -> np.ndarray:
    """Black and white as JPEG returns it: 0 to 7 and 248 to 255, of which an exact file has the noise."""
    strokes = cv2.line(np.zeros((96, 128), np.uint8), (5, 9), (120, 80), 255, 9)
    return cv2.imdecode(cv2.imencode(".jpg", strokes)[1], cv2.IMREAD_GRAYSCALE)


def drawn(*values: int) -> np.ndarray:
    """Areas of 20 x 20 pixels."""
    return np.kron(ids(*values), np.ones((20, 20), np.uint8))


def turned(*values: int) -> np.ndarray:
    return np.asarray(Image.fromarray(drawn(*values)).rotate(7, Image.Resampling.BILINEAR))


class Case(NamedTuple):
    masks: list[np.ndarray]
    found: list[int] | str
    """Pixels of each class; or the kind of the error."""
    options: Mapping[str, Any] = MappingProxyType({})
    also: str = ""
    """A kind that the doctor reports, and training prints."""


def dotted(mask: np.ndarray, *values: int) -> np.ndarray:
    """The mask with a pixel of each value, 3 and 4 by default."""
    mask = mask.copy()
    mask[0, : len(values or (3, 4))] = values or (3, 4)
    return mask


def veiled(values: np.ndarray, *alpha: int) -> np.ndarray:
    """RGBA."""
    return np.dstack([values, values, values, ids(*alpha)])


OF_NOISE = [int((compressed() < 128).sum() * 2), int((compressed() >= 128).sum() * 2)]
CASES = {
    "ids": Case([ids(0, 1, 2, 255)] * 2, [24, 24, 24]),
    "ids of 16 bits": Case([WIDE] * 2, [48, 48]),
    "an ignored value": Case([ids(0, 1, 11)] * 2, [32, 32], {"ignore": (11,)}),
    "gaps": Case([ids(0, 2, 4)] * 2, [32, 0, 32, 0, 32]),
    "black and white": Case(WHITES, [48, 48], also="black-and-white-masks"),
    "black and white of 16 bits": Case([WIDE * 65535] * 2, [48, 48], also="black-and-white-masks"),
    "black and white palette": Case(WHITES, [48, 48], {"palette": [BLACK, WHITE]}),
    "black and white, 255 ignored": Case(WHITES, "too-few-classes", {"ignore": (255,)}),
    "black and white, three classes": Case(WHITES, "too-few-classes", {"num_classes": 3}),
    "soft edges": Case([SOFT] * 2, OF_SOFT, also="black-and-white-masks"),
    "soft edges, three classes": Case([SOFT] * 2, "value-out-of-range", {"num_classes": 3}),
    "soft edges, 255 ignored": Case([SOFT] * 2, "grey-pictures", {"ignore": (255,)}),
    "soft edges without white": Case([np.minimum(SOFT, 251)] * 2, OF_SOFT, also="black-and-white-masks"),
    "soft edges of 16 bits": Case([SOFT.astype(np.uint16) * 257] * 2, "value-out-of-range"),
    "soft edges of grey": Case([SOFT // 2] * 2, "grey-pictures"),
    "noise of JPEG": Case([compressed()] * 2, OF_NOISE, also="black-and-white-masks"),
    "ids and codes around 255": Case([drawn(0, 1, 2, 252, 253, 254)] * 2, "sparse-ids"),
    "few of 1, some of 255": Case([ids(*[0] * 12, *[255] * 8, 1)] * 2, "black-and-white-masks"),
    "grey pictures": Case([GREYS] * 2, "grey-pictures"),
    "a stray of 3 and 4": Case([spotted(3), spotted(4), *WHITES], [98, 94], also="black-and-white-masks"),
    "strays beside white, declared": Case([spotted(3), *WHITES], [73, 71], {"num_classes": 2}, "black-and-white-masks"),
    "strays that may be ids": Case([spotted(1), *WHITES * 5], "black-and-white-masks"),
    "one stray of 1 in 100": Case([spotted(1), *WHITES * 50], [2425, 2423], also="black-and-white-masks"),
    "strays without white too": Case([dotted(WHITES[0]), *[dotted(ids(0, 0))] * 4] * 3, "black-and-white-masks"),
    "few pixels of ids": Case([spotted(1)] * 2, "black-and-white-masks"),
    "more pixels of 255 than of ids": Case([ids(0, 1, 255, 255)] * 2, [24, 24], also="black-and-white-masks"),
    "three greys, turned": Case([turned(0, 127, 255)] * 2, "grey-pictures"),
    "three greys, half of the masks": Case([turned(0, 127, 255), turned(0, 255, 255)] * 2, "grey-pictures"),
    "grey in some masks": Case([drawn(0, 255)] * 5 + [drawn(0, 128, 255)], "odd-masks"),
    "white among three ids": Case([ids(0, 1, 2), ids(0, 255)] * 2, "odd-masks"),
    "white among declared ids": Case([ids(0, 1, 2), ids(0, 255)] * 2, "odd-masks", {"num_classes": 3}),
    "white among ids, 255 ignored": Case([ids(0, 1, 2)] * 3 + [ids(0, 255)], [72, 48, 48], {"ignore": (255,)}),
    "background and ignored pixels": Case([ids(0, 1, 2, 255)] * 3 + [ids(0, 255)], [60, 36, 36]),
    "one of colours in 100": Case([*WHITES * 50, RED[ids(0, 1, 2)]], [2400, 2400], also="rgb-masks"),
    "one stray value in 100": Case([ids(0, 1)] * 100 + [ids(0, 77)], [2400, 2400], also="value-out-of-range"),
    "white among ids": Case([ids(0, 1), ids(0, 255), ids(0)], "black-and-white-masks"),
    "white beside ones, once": Case([*[ids(0, 1), ids(0, 255)] * 3, ids(0, 1, 255)], "black-and-white-masks"),
    "white beside ones": Case([ids(0, 1), ids(0, 255), ids(0, 1, 255)], [64, 40]),
    "a mask that nobody labelled": Case([ids(0, 1), ids(255), ids(0, 1)], [48, 48]),
    "from 1": Case([ids(1, 2, 3)] * 2, [0, 32, 32, 32], also="one-based-ids"),
    "from 1, but for one pixel": Case(
        [*[ids(1, 2, 3)] * 5, ids(1, 2, 3) * (SOME > 0)], [1, 95, 96, 96], also="one-based-ids"
    ),
    "from 1, without 0": Case([ids(1, 2, 3)] * 2, [32, 32, 32], {"drop": ["class 0"]}),
    "from 1, declared": Case([ids(1, 2, 3)] * 2, "one-based-ids", {"num_classes": 3}),
    "one from 1, declared": Case([ids(0, 1, 2)] * 2 + [ids(1, 2, 3)], "value-out-of-range", {"num_classes": 3}),
    "some from 1": Case([*[ids(0, 1, 2)] * 4, *[ids(1, 2, 3)] * 3], "one-based-ids"),
    "some from 1, declared": Case([*[ids(0, 1, 2)] * 4, *[ids(1, 2, 3)] * 3], "one-based-ids", {"num_classes": 3}),
    "some from 1, all right": Case([*[ids(0, 1, 2)] * 3, *[ids(1, 2, 3)] * 3], [48, 96, 96, 48], {"num_classes": 4}),
    "one without 0": Case([*[ids(0, 1, 2)] * 4, ids(1, 2, 3)], [64, 80, 80, 16]),
    "some without 0": Case([*[ids(0, 1, 2)] * 4, *[ids(1, 2, 3)] * 3, ids(0, 3)], []),
    "unlabelled pixels and a dropped class": Case(
        [ids(0, 1, 2)] * 2, [32, 32], {"classes": ["void", "a", "b"], "drop": ["a"]}, "class-names"
    ),
    "a background that is not 0": Case([ids(0, 1)] * 2, [48, 48], {"classes": ["car", "background"]}, "class-names"),
    "one value": Case([ids(0)] * 2, "too-few-classes"),
    "nothing": Case([ids(255)] * 2, "too-few-classes"),
    "a stray value": Case([ids(0, 1)] * 5 + [ids(0, 1, 77)], "value-out-of-range"),
    "a stray value, declared": Case([ids(0, 1)] * 5 + [ids(0, 1, 7)], "value-out-of-range", {"num_classes": 3}),
    "over 254": Case(
        [np.arange(400, dtype=np.uint16).reshape(20, 20) % (300 + i) + 9 for i in (0, 1)], "object-numbers"
    ),
    "objects": Case([EVEN % 40, EVEN % 38, EVEN % 37], "object-numbers"),
    "few objects": Case([*FEW, ids(0)], "object-numbers"),
    "objects after a class in many areas": Case([np.hstack([mask, ids(0, 1)]) for mask in FEW], "object-numbers"),
    "few objects, declared": Case(FEW, [], {"num_classes": 5}),
    "classes in two areas": Case([np.tile(mask, 2) for mask in FEW], []),
    "one or two": Case(FEW[:2] * 3, []),
    "objects, declared": Case([EVEN % 40, EVEN % 38], "value-out-of-range", {"num_classes": 2}),
    "depths": Case([np.arange(0, 60000, 100, np.uint16).reshape(20, 30) + i for i in (0, 1)], "value-out-of-range"),
    "one colour": Case([np.dstack([ids(0), ids(1), ids(2)])] * 2, "rgb-masks"),
    "a coloured mask among ids": Case([ids(0, 1)] * 2 + IN_COLOR[:1], "rgb-masks", {"num_classes": 2}),
    "a palette": Case(IN_COLOR, [32, 32, 32], {"palette": [*map(tuple, RED.tolist())]}),
    "a palette and an ignored colour": Case(
        IN_COLOR, [32, 32], {"palette": [BLACK, (128, 0, 0)], "ignore": ((9, 8, 7),)}
    ),
    "a palette that lacks one": Case(IN_COLOR, "unknown-color", {"palette": [BLACK, (128, 0, 0)]}),
    "a palette for ids": Case([ids(0, 1)] * 2, "unknown-color", {"palette": [BLACK, WHITE]}),
    "alpha without transparent pixels": Case([veiled(ids(0, 255), 255, 128)] * 2, [48, 48]),
    "faint masks": Case([veiled(ids(0, 255), 60, 90)] * 2, [48, 48]),
    "soft alpha": Case([veiled(ids(255), 0, 120, 130, 255)] * 2, [48, 48], also="transparent-pixels"),
    "a black class on transparent pixels": Case(
        [np.dstack([RED[ids(0, 0, 1)], ids(0, 255, 255)])] * 2, "transparent-pixels", {"palette": [BLACK, (128, 0, 0)]}
    ),
    "white on transparent white": Case([veiled(ids(255), 0, 255)] * 2, [48, 48], also="transparent-pixels"),
    "white on transparent black": Case([veiled(ids(0, 255), 0, 255)] * 2, [48, 48], also="transparent-pixels"),
    "ids, some transparent": Case([veiled(ids(0, 1, 2, 2), *OPAQUE, 0)] * 2, [48, 24, 24], also="transparent-pixels"),
    "ids and alpha, declared": Case(
        [np.dstack([ids(0, 1, 2, 2), ids(*OPAQUE, 0)])] * 2, [48, 24, 24, 0], {"num_classes": 4}, "transparent-pixels"
    ),
    "one transparent mask": Case(
        [veiled(ids(0, 255), alpha) for alpha in (255, 255, 0)], [96, 48], also="transparent-pixels"
    ),
    "transparent masks": Case([veiled(ids(0, 255), 0)] * 2, "too-few-classes"),
    "a palette and transparent pixels of it": Case(
        [np.dstack([IN_COLOR[0], ids(0, 255, 255)])] * 2,
        [32, 32, 32],
        {"palette": [*map(tuple, RED.tolist())]},
        "transparent-pixels",
    ),
    "grey levels as a palette": Case([WIDE * 7] * 2, [48, 48], {"palette": [BLACK, (7, 7, 7)]}),
}


@pytest.mark.parametrize(("values", "offered"), [((0, 254, 255), True), ((0, 3, 7), False)])
def test_a_threshold_is_offered_for_values_around_black_and_white(
    values: tuple[int, ...], offered: bool, tmp_path: Path
) -> None:
    for each in "ab":
        make_pair(tmp_path, each, ids(*values))
    with pytest.raises(CrispsegError) as error:
        folder(tmp_path).label_set()
    assert (error.value.settings[0].get("data.palette_tolerance") == 255) == offered
    assert ("if they are black and white" in str(error.value)) == offered


@pytest.mark.parametrize("name", CASES)
def test_training_and_doctor_read_alike(name: str, tmp_path: Path) -> None:
    masks, expected, options, also = CASES[name]
    for index, mask in enumerate(masks):
        make_pair(tmp_path, str(index), mask)
    kinds = {one.code: one for one in diagnose(subject_of(folder(tmp_path, **options))).findings}
    errors = {code for code, one in kinds.items() if one.severity is Severity.ERROR}
    if isinstance(expected, str):
        assert expected in errors
        with pytest.raises(CrispsegError) as refused:
            source = settle(folder(tmp_path, **options))[0]
            check_split(source.dataset("train"), "train"), check_split(source.dataset("val"), "val")
        assert "\n" not in str(refused.value)
        return
    assert not errors and (not also or also in kinds)
    source, lines = settle(folder(tmp_path, **options))
    assert not also or kinds[also].message in " ".join(lines)
    assert settle(source)[0] == source  # what was found is declared
    for each in (folder(tmp_path, **options), source):
        report = check_split(each.dataset("all"), "all")
        assert report.labels == each.label_set()
        assert not expected or report.counts.tolist() == expected


@pytest.mark.parametrize(
    ("values", "ignore", "classes"),
    [
        ((0, 7, 100, 200, 255), (7,), 4),
        ((0, 38, 75), (), 3),
        ((0, 38, 75, 255), (), 3),
        ((0, 128, 255), (), 3),
    ],
)
def test_what_is_proposed_works(
    values: tuple[int, ...], ignore: tuple[int, ...], classes: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """255 is a class if the other values range as far, and the doctor prints the command."""
    make_pair(tmp_path, "a", ids(*values).astype(np.uint16))
    make_pair(tmp_path, "b", ids(0, *values[-3:-1]).astype(np.uint16))
    with pytest.raises(CrispsegError) as refused:
        folder(tmp_path, ignore=ignore).label_set()
    assert ("255" in str(refused.value)) == (255 in values)
    places = [f"--data.images={tmp_path}/images", f"--data.masks={tmp_path}/masks", f"--data.ignore={[*ignore]}"]
    assert main(["doctor", *places]) == 3
    command = capsys.readouterr().out.partition("crispseg train ")[2].splitlines()[0]
    data = Train.parsed(shlex.split(command)).config().data
    report = check_split(data.dataset("all"), "all")
    assert (report.counts > 0).all() and len(report.counts) == classes
    assert (report.ignored > 0) == (classes < len(values))


@pytest.mark.parametrize(("mode", "quality"), [("L", 30), ("L", 95), ("RGB", 30)])
def test_black_and_white_jpegs_are_read_by_threshold(mode: str, quality: int, tmp_path: Path) -> None:
    drawn = np.kron(ids(0, 0, 255, 255, 255), np.ones((21, 21), np.uint8))
    for name in "abc":
        make_pair(tmp_path, name, drawn)
        (tmp_path / f"masks/{name}.png").unlink()
        save(tmp_path / f"masks/{name}.jpg", Image.fromarray(drawn).convert(mode), quality=quality)
    diagnosis = diagnose(subject_of(folder(tmp_path)))
    assert {one.code for one in diagnosis.findings} == {"black-and-white-masks", "mask-in-two-splits"}
    source, lines = settle(folder(tmp_path))
    assert any("128" in line for line in lines) and source.label_set().names[0] == "background"
    for split in source.splits():
        for index in range(len(source.dataset(split))):
            wrong = source.dataset(split)[index].labels != (drawn > 0)
            assert wrong.mean() < 0.01
    inverse = settle(folder(tmp_path, palette=[WHITE, BLACK]))[0].dataset("all")
    assert all((sample.labels != (drawn == 0)).mean() < 0.01 for sample in inverse)


def test_odd_masks_are_left_out_by_name(tmp_path: Path) -> None:
    for index, mask in enumerate([*WHITES * 50, ids(0, 90)]):
        make_pair(tmp_path, f"{index:03}", mask)
    source, lines = settle(folder(tmp_path))
    assert any("100.png" in line for line in lines) and source.exclude == ["100"]
    assert len(folder(tmp_path).dataset("all")) == len(source.dataset("all")) == 100
    before = [pair.name for pair in folder(tmp_path).pairs("val") if pair.name != "100"]
    assert [pair.name for pair in source.dataset("val").pairs] == before


def test_0_among_values_far_apart_may_be_unlabelled(tmp_path: Path) -> None:
    for index in range(4):
        make_pair(tmp_path, f"{index}", ids(0, 10, 20, 30))
    with pytest.raises(CrispsegError, match=r"unlabelled values as data\.ignore") as refused:
        folder(tmp_path).label_set()
    read = [folder(tmp_path, **{key[5:]: value for key, value in one.items()}) for one in refused.value.settings]
    labels = [source.dataset("all")[0].labels for source in read]
    np.testing.assert_array_equal(labels, [ids(0, 1, 2, 3), ids(255, 0, 1, 2)])


def test_ids_among_black_and_white_masks_have_a_palette(tmp_path: Path, refuses: Any) -> None:
    for index in range(6):
        make_pair(tmp_path, f"{index}", ids(0, 0, 255 if index < 4 else 1))
    palette = [[(0, 0, 0)], [(1, 1, 1), (255, 255, 255)]]
    with refuses("2 masks contain the values 0, 1", str(palette).replace(" ", "").replace("(", "[").replace(")", "]")):
        folder(tmp_path).dataset("all")
    assert all((sample.labels == ids(0, 0, 1)).all() for sample in folder(tmp_path, palette=palette).dataset("all"))


@pytest.mark.parametrize(
    ("suffix", "mask", "options"),
    [
        ("webp", ids(0, 1), {"quality": 90}),
        ("tif", ids(0, 1), {"compression": "jpeg"}),
        ("jpg", ids(0, 1), {}),
        ("jpg", drawn(0, 127, 255), {}),
    ],
)
def test_lossy_masks_are_refused(
    suffix: str, mask: np.ndarray, options: dict[str, Any], tmp_path: Path, refuses: Any
) -> None:
    for name in "ab":
        make_pair(tmp_path, name, mask)
    (tmp_path / "masks/a.png").unlink()
    save(tmp_path / f"masks/a.{suffix}", mask, **options)
    with refuses(f"a.{suffix}", "lossy" if mask.max() == 1 else "JPEG"):
        folder(tmp_path).label_set()
    assert "unusable-file" in {one.code for one in diagnose(subject_of(folder(tmp_path))).findings}
