"""Masks whose outlines do not follow the edges of their images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_trees import save

from crispseg.data import Folder
from crispseg.doctor import diagnose, subject_of
from crispseg.doctor.duplicates import leaks

from .trees import ids, photo

COUNT = 16
SIZE = (96, 96)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture of four rectangles, and their ids."""
    random, mask = np.random.default_rng(seed), np.zeros(SIZE, np.uint8)
    for top, left, height, width in random.integers(12, 50, (4, 4)):
        mask[top : top + height, left : left + width] ^= 1
    noise = random.normal(0, 4, (*SIZE, 3))
    return np.clip(90 + 70 * mask[..., None] + noise, 0, 255).astype(np.uint8), mask


@pytest.mark.parametrize(
    ("change", "count", "how"),
    [
        (lambda masks: masks, 0, ""),
        (lambda masks: [cv2.dilate(mask, np.ones((9, 1), np.uint8)) for mask in masks], 0, ""),  # wide labels
        (lambda masks: [mask.T for mask in masks], COUNT, "only if they are transposed"),
        (lambda masks: [mask[::-1, ::-1] for mask in masks], COUNT, "only if they are turned by 180 degrees"),
        (lambda masks: [mask[:, ::-1] for mask in masks[:5]] + masks[5:], 5, "only if they are mirrored left to right"),
        (lambda masks: [np.roll(mask, (5, -7), (0, 1)) for mask in masks], COUNT, "5 pixels up and 7 pixels to the ri"),
        (lambda masks: masks[-1:] + masks[:-1], COUNT - 1, "each to the image before its own"),
        (lambda masks: [masks[at - 1] for at in sorted(range(1, COUNT + 1), key=str)], COUNT - 1, "was 1, 10, 11, …"),
    ],
)
def test_masks_that_fit_only_in_another_arrangement(tmp_path: Path, change: object, count: int, how: str) -> None:
    images, masks = zip(*map(scene, range(COUNT)), strict=True)
    for number, (image, mask) in enumerate(zip(images, change([*masks]), strict=True), 1):  # type: ignore[operator]
        save(tmp_path / f"images/{number}.png", image)
        save(tmp_path / f"masks/{number}.png", mask)
    subject = subject_of(Folder(root=tmp_path))
    found = [one for one in diagnose(subject).findings if one.code == "unfitting-masks"]
    assert [one.count for one in found] == [count] * (count > 0)
    assert all(how in one.message and f"{count} of {COUNT} sampled" in one.message for one in found)
    assert any(how in line for line in leaks(subject)) == (count > 0)


def test_masks_of_the_next_frame_of_a_fixed_camera(tmp_path: Path) -> None:
    y, x = np.mgrid[:120, :160]
    for number in range(COUNT):
        turns = 0.35 * number, 0.35 * number + 0.35
        masks = [np.hypot(y - 60 - 35 * np.sin(1.3 * turn), x - 80 - 55 * np.cos(turn)) < 14 for turn in turns]
        noise = np.random.default_rng(number).normal(90, 8, (120, 160, 3))
        save(tmp_path / f"images/{number:03}.png", (noise + 70 * masks[0][..., None]).astype(np.uint8))
        save(tmp_path / f"masks/{number:03}.png", masks[1].astype(np.uint8))
    (found,) = (one for one in diagnose(subject_of(Folder(root=tmp_path))).findings if one.code == "unfitting-masks")
    assert "each to the image after its own" in found.message


@pytest.mark.parametrize(("empty", "found"), [(range(14, 20), True), (range(16, 20), False), (range(3, 12), False)])
def test_empty_masks_at_the_end_of_a_series(tmp_path: Path, empty: range, found: bool) -> None:
    for number in range(20):
        save(tmp_path / f"images/shot{number}.png", photo(number))
        save(tmp_path / f"masks/shot{number}.png", ids(number) * (number not in empty))
    subject = subject_of(Folder(root=tmp_path))
    line = "6 of 20 masks, shot14.png to shot19.png, contain only 0, unlike the earlier ones: not labelled yet?"
    assert any(one.message == line for one in diagnose(subject).findings) == found
    assert any(line in one for one in leaks(subject)) == found
