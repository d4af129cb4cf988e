"""What values, colours and bits of masks mean: read, asked about or refused, by training and by the doctor alike."""

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
from crispseg.data import Folder, check_split
from crispseg.data.folder import settle
from crispseg.errors import CrispsegError, Question
from crispseg.folders.finding import Severity
from tests.data.own_folders import BLACK, WHITE, folder, ids, make_pair

from .trees import findings_of

WIDE = ids(0, 1).astype(np.uint16)
RED = np.array([BLACK, (128, 0, 0), (9, 8, 7)], np.uint8)
SOFT = np.asarray(
    Image.fromarray(np.kron(ids(0, 255, 255), np.ones((40, 40), np.uint8))).rotate(7, Image.Resampling.BILINEAR)
)
OF_SOFT = [int((SOFT < 128).sum() * 2), int((SOFT >= 128).sum() * 2)]
THRESHOLD = {"palette": [BLACK, WHITE], "palette_tolerance": 255}
OBJECTS = np.arange(64, dtype=np.uint16).reshape(8, 8)
OPAQUE = (255, 255, 255)
WHITES, IN_COLOR = [ids(0, 255)] * 2, [RED[ids(0, 1, 2)]] * 2
ASKED = "unclear-masks"


def spotted(value: int) -> np.ndarray:
    """Black and white, but for one pixel."""
    mask = ids(0, 255)
    mask[2, 3] = value
    return mask


def veiled(values: np.ndarray, *alpha: int) -> np.ndarray:
    """RGBA."""
    return np.dstack([values, values, values, ids(*alpha)])


class Case(NamedTuple):
    masks: list[np.ndarray]
    outcome: list[int] | str
    """Pixels of each class; or the code of the finding that stops training."""
    options: Mapping[str, Any] = MappingProxyType({})
    also: str = ""
    """Code of another finding."""


CASES = {
    "ids": Case([ids(0, 1, 2, 255)] * 2, [24, 24, 24]),
    "the largest number of ids": Case([ids(*range(20), 255)] * 2, [6] * 6 + [4] * 14),
    "gaps": Case([ids(0, 2, 4)] * 2, [32, 0, 32, 0, 32], also="class-absent"),
    "black and white": Case(WHITES, [48, 48]),
    "black and white palette": Case(WHITES, [48, 48], {"palette": [BLACK, WHITE]}),
    "black and white, 255 ignored": Case(WHITES, "too-few-classes", {"ignore": (255,)}),
    "soft edges, threshold": Case([SOFT] * 2, OF_SOFT, THRESHOLD),
    "soft edges, three classes": Case([SOFT] * 2, "value-out-of-range", {"num_classes": 3}),
    "a stray of 3 and 4": Case([spotted(3), spotted(4), *WHITES], ASKED),
    "few pixels of ids next to 255": Case([spotted(1)] * 2, [48, 2]),
    "white among three ids": Case([ids(0, 1, 2), ids(0, 255)] * 2, ASKED),
    "white among declared ids": Case([ids(0, 1, 2), ids(0, 255)] * 2, ASKED, {"num_classes": 3}),
    "white among ids, 255 ignored": Case([ids(0, 1, 2)] * 3 + [ids(0, 255)], [72, 48, 48], {"ignore": (255,)}),
    "white next to ones": Case([ids(0, 1), ids(0, 255), ids(0, 1, 255)], [64, 40]),
    "white and ones are one class": Case([ids(0, 1), ids(0, 255)], [48, 48], {"palette": [BLACK, [(1, 1, 1), WHITE]]}),
    "a mask that nobody labelled": Case([ids(0, 1), ids(255), ids(0, 1)], [48, 48], also="all-ignored"),
    "from 1": Case([ids(1, 2, 3)] * 2, [0, 32, 32, 32], also="class-absent"),
    "from 1, without 0": Case([ids(1, 2, 3)] * 2, [32, 32, 32], {"drop": ["class 0"]}),
    "a dropped class": Case([ids(0, 1, 2)] * 2, [32, 32], {"classes": ["void", "a", "b"], "drop": ["a"]}),
    "one value": Case([ids(0)] * 2, "too-few-classes"),
    "a stray value, declared": Case([ids(0, 1)] * 5 + [ids(0, 1, 7)], "value-out-of-range", {"num_classes": 3}),
    "objects": Case([OBJECTS % 40, OBJECTS % 38, OBJECTS % 37], ASKED),
    "a palette": Case(IN_COLOR, [32, 32, 32], {"palette": [*map(tuple, RED.tolist())]}),
    "a palette and an ignored colour": Case(
        IN_COLOR, [32, 32], {"palette": [BLACK, (128, 0, 0)], "ignore": ((9, 8, 7),)}
    ),
    "a palette for ids": Case([ids(0, 1)] * 2, "unknown-color", {"palette": [BLACK, WHITE]}),
    "alpha without transparent pixels": Case([veiled(ids(0, 255), 255, 128)] * 2, [48, 48]),
    "soft alpha": Case([veiled(ids(255), 0, 120, 130, 255)] * 2, [48, 48], also="transparent-pixels"),
    "ids, some transparent": Case([veiled(ids(0, 1, 2, 2), *OPAQUE, 0)] * 2, [48, 24, 24], also="transparent-pixels"),
    "transparent masks": Case([veiled(ids(0, 255), 0)] * 2, "too-few-classes"),
    "a palette and transparent pixels of it": Case(
        [np.dstack([IN_COLOR[0], ids(0, 255, 255)])] * 2,
        [32, 32, 32],
        {"palette": [*map(tuple, RED.tolist())]},
        "transparent-pixels",
    ),
    "grey levels as a palette": Case([WIDE * 7] * 2, [48, 48], {"palette": [BLACK, (7, 7, 7)]}),
}


@pytest.mark.parametrize("name", CASES)
def test_training_and_doctor_read_alike(name: str, tmp_path: Path) -> None:
    masks, outcome, options, also = CASES[name]
    for index, mask in enumerate(masks):
        make_pair(tmp_path, str(index), mask)
    findings = findings_of(folder(tmp_path, **options))
    errors = {code for code, finding in findings.items() if finding.severity is Severity.ERROR}
    if isinstance(outcome, str):
        assert outcome in errors
        with pytest.raises(Question if outcome == ASKED else CrispsegError) as refused:
            checked(settle(folder(tmp_path, **options))[0])
        assert "\n" not in str(refused.value)
        return
    assert not errors and (not also or also in findings)
    source, _ = settle(folder(tmp_path, **options))
    assert settle(source)[0] == source  # what was read is declared
    for each in (folder(tmp_path, **options), source):
        report = check_split(each.dataset("all"), "all")
        assert report.labels == each.label_set()
        assert report.counts.tolist() == outcome


def checked(source: Folder) -> None:
    for split in ("train", "val"):
        check_split(source.dataset(split), split)


ASKED_ABOUT: dict[str, tuple[list[np.ndarray], int]] = {
    "far apart": ([ids(0, 128, 255)], 3),
    "ids and white": ([ids(0, 1), ids(0, 255)], 2),
    "many ids": ([np.arange(48, dtype=np.uint8).reshape(6, 8)], 1),
    "colours": ([RED[ids(0, 1, 2)]], 1),
    "soft edges": ([SOFT], 1),
    "photographs": ([np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)], 0),
}


@pytest.mark.parametrize("name", ASKED_ABOUT)
def test_a_question_has_ten_lines_and_commands_that_work(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks, count = ASKED_ABOUT[name]
    for index in range(6):
        make_pair(tmp_path, str(index), masks[index % len(masks)])
    assert main(["train", str(tmp_path), "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    commands = [line.strip().removeprefix("crispseg ") for line in lines if line.startswith("  crispseg ")]
    assert len(lines) <= 10 and len(commands) == count
    for command in commands:
        data = Train.parsed(shlex.split(command)[1:]).config().data
        assert check_split(data.dataset("all"), "all").images == 6
    assert main(["doctor", str(tmp_path)]) == 3
    assert capsys.readouterr().out.count("or train with: crispseg train") == count


def test_a_single_different_mask_is_named(tmp_path: Path) -> None:
    for index in range(6):
        make_pair(tmp_path, str(index), ids(0, 1, 77) if index == 3 else ids(0, 255))
    with pytest.raises(Question) as asked:
        folder(tmp_path).label_set()
    assert "1 mask, such as 3.png, with 3 values" in str(asked.value) and "data.exclude" in str(asked.value)
    assert folder(tmp_path, exclude=["3"]).label_set().names == ("background", "class 1")


@pytest.mark.parametrize(("mode", "quality"), [("L", 30), ("L", 95), ("RGB", 30)])
def test_black_and_white_jpegs_are_read_by_threshold(mode: str, quality: int, tmp_path: Path) -> None:
    drawn = np.kron(ids(0, 0, 255, 255, 255), np.ones((21, 21), np.uint8))
    for name in "abc":
        make_pair(tmp_path, name, drawn)
        (tmp_path / f"masks/{name}.png").unlink()
        save(tmp_path / f"masks/{name}.jpg", Image.fromarray(drawn).convert(mode), quality=quality)
    assert not findings_of(folder(tmp_path))
    source = settle(folder(tmp_path))[0]
    assert source.label_set().names[0] == "background"
    inverse = settle(folder(tmp_path, palette=[WHITE, BLACK], palette_tolerance=255))[0]
    for data, truth in ((source, drawn > 0), (inverse, drawn == 0)):
        assert all((sample.labels != truth).mean() < 0.01 for sample in data.dataset("all"))


def test_ids_in_jpegs_are_asked_about(tmp_path: Path) -> None:
    drawn = np.kron(ids(0, 60, 120), np.ones((21, 21), np.uint8))
    for name in "abc":
        make_pair(tmp_path, name, drawn)
        (tmp_path / f"masks/{name}.png").unlink()
        cv2.imwrite(str(tmp_path / f"masks/{name}.jpg"), drawn)
    with pytest.raises(Question, match="changed by lossy compression"):
        folder(tmp_path).label_set()
