"""Folders of images and masks for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dataset_trees import save
from PIL import Image

from crispseg.data import Folder
from crispseg.data.dataset import DataSource
from crispseg.data.examination import examine
from crispseg.folders.checks import check
from crispseg.folders.finding import Finding

SIZE = (64, 96)
COLORS = np.array([(0, 0, 0), (60, 0, 90), (128, 0, 0), (200, 10, 30)], np.uint8)


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth picture of its own for each seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC))


def ids(seed: int, size: tuple[int, int] = SIZE, classes: int = 4) -> np.ndarray:
    """A mosaic of all class ids, of its own for each seed."""
    random = np.random.default_rng(seed + 1000)
    coarse = np.concatenate([random.permutation(classes) for _ in range(-(-48 // classes))])[:48]
    return np.asarray(
        Image.fromarray(coarse.reshape(6, 8).astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    )


class Tree:
    """`images` and `masks`, with lists of train and val."""

    def __init__(self, root: Path, mask: Callable[[int], Any] = ids, train: int = 8, val: int = 4) -> None:
        self.root = root
        self.split: dict[str, list[str]] = {"train": [], "val": []}
        self.seed = 0
        for split, count in (("train", train), ("val", val)):
            for index in range(count):
                self.add(f"{split}{index}", split, mask=mask(index + 3000 + 100 * (split == "val")))

    def add(
        self,
        name: str,
        split: str = "train",
        image: Any = None,
        mask: Any = None,
        suffixes: tuple[str, str] = ("png", "png"),
        **saving: Any,
    ) -> tuple[Path, Path]:
        """A sound pair, but for what is given; options for saving are those of the file that is given."""
        self.seed += 1
        self.split[split].append(name)
        first, second = self.root / f"images/{name}.{suffixes[0]}", self.root / f"masks/{name}.{suffixes[1]}"
        save(first, photo(2000 + self.seed)) if image is None else save(first, image, **saving)
        save(second, ids(2000 + self.seed)) if mask is None else save(second, mask, **saving)
        return first, second

    def source(self, **options: Any) -> Folder:
        for split, names in self.split.items():
            (self.root / f"{split}.txt").write_text("\n".join(names) + "\n")
        lists = {f"{split}_list": self.root / f"{split}.txt" for split in self.split}
        return Folder(self.root / "images", self.root / "masks", **lists, **options)

    def findings(self, **options: Any) -> dict[str, Finding]:
        return findings_of(self.source(**options))


def findings_of(source: DataSource) -> dict[str, Finding]:
    """Code → finding."""
    return {finding.code: finding for finding in check(examine(source))}


def names_of(findings: dict[str, Finding]) -> dict[str, set[str]]:
    """Code → names of its files."""
    return {code: {Path(file).stem for file in finding.files} for code, finding in findings.items()}
