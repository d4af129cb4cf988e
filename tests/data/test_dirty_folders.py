"""Folders as people have them train right at the first `crispseg train FOLDER`, or at the second, as the first says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from dataset_trees import save
from numpy.typing import NDArray
from PIL import Image

from crispseg.cli.main import main
from crispseg.cli.train import Train

from .own_folders import TINY

SIDE = 64
COMMAND = re.compile(r"crispseg train .+?(?=; or: |'? makes |$)", re.MULTILINE)
"""A command in the message of another one."""
Labels = NDArray[np.uint8]


class Truth(NamedTuple):
    """What is right."""

    labels: Mapping[str, Labels]
    """Image, by its path in data.root without suffix → label map of class ids."""
    classes: Sequence[str]
    count: int
    """How many images are in train and val."""
    masks: str = ""
    """In the command to choose, if masks in several folders can be meant."""


def numbered(count: int) -> list[str]:
    """The names of classes that have none."""
    return [f"class {index}" for index in range(count)]


def scenes(count: int, classes: int = 2) -> Iterator[tuple[NDArray[np.uint8], Labels]]:
    """Noisy images in which discs of the classes are bright, and their labels; all classes occur."""
    random = np.random.default_rng(classes)
    y, x = np.mgrid[:SIDE, :SIDE]
    for index in range(count):
        labels = np.zeros((SIDE, SIDE), np.uint8)
        for number in range(3):
            row, column = random.integers(12, SIDE - 12, 2)
            labels[np.hypot(y - row, x - column) < 9] = 1 + (3 * index + number) % (classes - 1)
        noise = random.integers(0, 90, (SIDE, SIDE, 3), np.uint8)
        yield noise + (labels * (150 // (classes - 1)))[..., None].astype(np.uint8), labels


def magnetic_tiles(root: Path) -> Truth:
    """A folder for each kind of defect, masks of its colour beside the images; some colours are off by 5."""
    truth, kinds = {}, ("Blowhole", "Break", "Crack")
    colors = np.array([(0, 0, 0), (0, 0, 255), (0, 255, 0), (255, 0, 0)], np.uint8)
    for index, (image, labels) in enumerate(scenes(24)):
        kind = index % 3
        labels = labels * np.uint8(kind + 1)
        mask = colors[labels]
        if index % 8 == 7:
            mask = np.where(mask > 0, mask - 5, mask).astype(np.uint8)
        name = f"MT_{kinds[kind]}/Imgs/exp{index % 5}_num_{index * 37}"
        save(root / f"{name}.jpg", image)
        save(root / f"{name}.png", mask)
        truth[name] = labels
    return Truth(truth, numbered(4), 24)


def clothes(root: Path) -> Truth:
    """Ids of 25 classes, images and masks as PNG and again as JPEG; other names for images than for masks."""
    truth = {}
    for index, (image, labels) in enumerate(scenes(24, 25)):
        mask = Image.fromarray(labels)
        mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
        save(root / f"png_images/IMAGES/img_{index:04}.png", image)
        save(root / f"jpeg_images/IMAGES/img_{index:04}.jpeg", image)
        save(root / f"png_masks/MASKS/seg_{index:04}.png", mask)
        save(root / f"jpeg_masks/MASKS/seg_{index:04}.jpeg", labels)
        truth |= dict.fromkeys((f"{kind}_images/IMAGES/img_{index:04}" for kind in ("png", "jpeg")), labels)
    return Truth(truth, numbered(25), 24, masks="png_masks")


def outcome(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[bool, str]:
    """Whether a command succeeds, and what it prints."""
    capsys.readouterr()
    status = main([*words])
    captured = capsys.readouterr()
    assert status in (0, 1, 2, 3), captured.err
    return status == 0, captured.out + captured.err


@pytest.mark.slow
@pytest.mark.parametrize("make", [magnetic_tiles, clothes])
def test_trains_right_at_the_second_try_at_the_latest(
    make: Callable[[Path], Truth], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = tmp_path / "raw folder", tmp_path / "run"
    truth = make(root)
    flags = [*TINY, "--iterations=2", "--seed=0", f"--out={run}"]
    done, printed = outcome(capsys, "train", str(root), *flags)
    if not done:
        commands = [text for text in COMMAND.findall(printed) if truth.masks in text]
        assert commands, printed
        words = shlex.split(commands[0])[1:]
        done, printed = outcome(capsys, *words, *(flags if str(run) not in words[-1] else []))
        assert done, printed
    data = Train.parsed([str(run / "config.yaml")]).config().data
    assert data.label_set().names == tuple(truth.classes)
    seen = {}
    for split in ("train", "val"):
        for pair, sample in zip(data.dataset(split).pairs, data.dataset(split), strict=True):
            seen[str(pair.image.relative_to(data.root).with_suffix(""))] = sample.labels
    for name, labels in seen.items():
        np.testing.assert_array_equal(labels, truth.labels[name], name)
    assert len(seen) == truth.count
