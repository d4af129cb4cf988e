"""Every count that `crispseg evaluate` makes on fixed masks, for saved models and a run of the first format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import crispseg
from contract.formula import FROZEN, assert_same, frozen, picture, run, write_png

EVERYTHING = ("--boundary", "--objects", "thing", "--objects_border", "edge", "--thin", "thing", "edge")
WAYS: dict[str, tuple[str, tuple[str, ...]]] = {
    "everything": ("sfnet", (*EVERYTHING, "--bootstrap=100")),
    "plain": ("sfnet", ("--bootstrap=0",)),
    "distances": ("sfnet", ("--bootstrap=0", "--boundary", "1", "3")),
    "train": ("sfnet", ("--bootstrap=0", "--split=train")),
    "crisp": ("crisp", ("--bootstrap=0", "--boundary")),
}
SEEDS = (7, 2, 13, 15, 17, 21)
"""Of pictures of 64×96 pixels in which no pixel's best classes are nearly equal."""


def data(root: Path) -> Path:
    """Masks like what a model finds, but moved, with lines and void pixels; one has no thing, another no more lines."""
    segmenter = crispseg.Segmenter(FROZEN / "sfnet", "cpu")
    for index, seed in enumerate(SEEDS):
        image = picture((64, 96), seed)
        y, x = np.mgrid[:64, :96]
        random = np.random.RandomState(seed)
        mask = np.roll(segmenter(image).labels, (seed % 3, 2), (0, 1)).astype(np.uint8)
        if index == 4:
            mask[mask == 1] = 0
        if index != 3:
            mask[random.randint(64)] = 1
            mask[:, random.randint(96)] = 2
            mask[(x + 2 * y) // 3 == random.randint(40)] = 2
        mask[image[..., 0] < 60] = 255
        write_png(root / f"images/{index}.png", image)
        write_png(root / f"masks/{index}.png", mask)
    return root


def scores(way: str, folder: Path) -> Any:
    """The JSON of a command."""
    model, flags = WAYS[way]
    words = (
        "--data.classes=[background, thing, edge]",
        "--data.val_ratio=0.5",
        "--workers=0",
        "--device=cpu",
        f"--json={folder / 'scores.json'}",
    )
    split = () if any(flag.startswith("--split") for flag in flags) else ("--split=val",)
    status, _ = run("evaluate", FROZEN / model, data(folder / "data"), *words, *flags, *split)
    assert status == 0
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.parametrize("way", WAYS)
def test_counts(way: str, tmp_path: Path) -> None:
    found, expected = scores(way, tmp_path), frozen("evaluate.json")[way]
    bounds = expected.pop("intervals", {})  # by draws, which may be others
    assert_same(found, expected, 1e-6)
    assert_same(found.get("intervals", {}).get("miou"), bounds.get("miou"), 0.05)
