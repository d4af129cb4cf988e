"""CamVid in the form that SegNet's authors gave it: 11 classes, 480×360 pixels.

Brostow, Fauqueur and Cipolla: Semantic object classes in video: a high-definition ground truth database. PRL 2009.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

from crispseg.data.base import FileDataset, IdDecoder, LabelSet, Pair, read_lines
from crispseg.errors import CrispsegError

CLASSES = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
VOID = 11

_LAYOUT = "a CamVid folder holds train.txt, with lines 'train/x.png trainannot/x.png', and the files these name"


@dataclass(frozen=True)
class CamVid:
    """CamVid with 11 classes.

    Args:
        root: folder with train.txt, val.txt (or test.txt) and the images and masks that these lists name.
    """

    root: str | Path
    name: ClassVar[str] = "camvid"

    def label_set(self) -> LabelSet:
        return LabelSet(tuple(CLASSES), tuple(CLASSES.values()))

    def splits(self) -> tuple[str, ...]:
        """Those of train, val and test that have a list.

        Raises:
            CrispsegError: there is none.
        """
        splits = tuple(split for split in ("train", "val", "test") if (Path(self.root) / f"{split}.txt").is_file())
        if not splits:
            raise CrispsegError(f"{self.root} is not a CamVid folder: no train.txt, val.txt or test.txt; {_LAYOUT}")
        return splits

    def dataset(self, split: str) -> FileDataset:
        """One split.

        Raises:
            CrispsegError: no such split, a malformed line in its list, or a file that the list names is missing.
        """
        if split not in self.splits():
            raise CrispsegError(f"{self.root} has no split '{split}'; it has {', '.join(self.splits())}")
        pairs = [self._pair(line, split) for line in read_lines(Path(self.root) / f"{split}.txt")]
        return FileDataset(pairs, self.label_set(), IdDecoder(len(CLASSES), ignore=(VOID,)))

    def _pair(self, line: str, split: str) -> Pair:
        files = [PurePosixPath(word) for word in line.split()]
        if len(files) != 2 or any(len(file.parts) < 2 for file in files):
            raise CrispsegError(f"{Path(self.root) / split}.txt: malformed line '{line}'; {_LAYOUT}")
        # SegNet's own lists say /SegNet/CamVid/train/x.png, wherever the folder really is.
        image, mask = (Path(self.root, *file.parts[-2:]) for file in files)
        for file in (image, mask):
            if not file.is_file():
                raise CrispsegError(f"{file} is missing, though {split}.txt names it; {_LAYOUT}")
        return Pair(image.stem, image, mask)
