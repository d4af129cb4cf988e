"""Folders of images and masks for the tests of this folder."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from dataset_trees import save

from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.data.importing import import_annotations

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

TINY = [
    *("--preset=paper", "--model=fpn", "--model.backbone=test_efficientnet", "--model.width=16"),
    *("--augment.crop=[64,64]", "--batch_size=2", "--workers=0", "--loggers=[]", "--epochs=1"),
]
"""Flags of a training that takes a second."""


def ids(*values: int) -> np.ndarray:
    """A mask `(6, 8)` of these values in turn."""
    return np.resize(np.array(values, np.uint8), (6, 8))


def make_pair(root: Path, name: str, mask: np.ndarray, suffix: str = ".png", mask_name: str | None = None) -> None:
    """An image of its own and its mask in root/images and root/masks."""
    image = np.random.default_rng(zlib.crc32(name.encode())).integers(0, 256, (*mask.shape[:2], 3), np.uint8)
    save(root / "images" / f"{name}{suffix}", image)
    save(root / "masks" / f"{mask_name or name}.png", mask)


def folder(root: Path, **options: object) -> Folder:
    return Folder(root / "images", root / "masks", **options)


class Imported(NamedTuple):
    """A folder that `import_annotations` wrote, and the lines that it returned."""

    out: Path
    names: list[str]
    splits: dict[str, list[str]]
    lines: list[str]


def imported(sources: Sequence[Path], out: Path, **options: Any) -> Imported:
    lines = import_annotations(sources, out, **options)
    lists = {path.stem: path.read_text().splitlines() for path in out.glob("*.txt")}
    return Imported(out, lists.pop("classes"), lists, lines)


def scored(capsys: pytest.CaptureFixture[str], run: Path, *flags: str) -> tuple[list[str], dict]:
    """The lines that `crispseg evaluate` prints before its table and the notes, and what it writes as JSON."""
    file = run.parent / f"{run.name}.json"
    capsys.readouterr()
    assert main(["evaluate", str(run), *flags, "--workers=0", "--bootstrap=0", f"--json={file}"]) == 0
    captured = capsys.readouterr()
    return [*captured.err.splitlines(), captured.out.splitlines()[0]], json.loads(file.read_text())


def photo(path: Path, seed: int) -> None:
    """An image of its own."""
    save(path, np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8))


def make_pairs(root: Path, image: str, mask: str, *values: int, count: int = 6) -> None:
    """Images of their own, and masks of these values or 0 and 1; {} is the number in their names."""
    for index in range(count):
        photo(root / image.format(index), index)
        save(root / mask.format(index), ids(*(values or (0, 1))))
