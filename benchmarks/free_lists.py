"""The fixed splits of nuclei and aerial, and the part of nuclei that comes with the package.

    python benchmarks/free_lists.py --nuclei NUCLEI --aerial AERIAL

NUCLEI holds `images/` and `instances/`, AERIAL `images/` and `masks/`, as `crispseg data download` makes them. It
writes into `src/crispseg/data/free`, over what is there, by these rules:

- An image of nuclei is of the kind of its height, its width, whether it has colours and whether it is bright, its mean
  being above 127. Of the images of a kind in the order of their names, which are random digits, every fifth from the
  first on is in val.
- Of aerial, val is tile2 and tile3.
- Of each kind of nuclei the part takes as many images as `COUNTS` says, for its train from train, for its val and test
  from val. They are evenly spaced in the order of the number of nuclei. Of three or more from val, the first of each
  three is in val, the others in test. An image that is larger than 700 pixels is cut to its upper left quarter; other
  files are copied as they are.

What is there was made of 530 images of nuclei and of 54 aerial photographs, of six tiles. The archives hold more, which
is kept for tests, so they would give longer lists.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from crispseg.data.free import LISTS, PART

VAL_TILES = ("tile2", "tile3")
LARGE = 700


class Kind(NamedTuple):
    """What an image of nuclei looks like."""

    height: int
    width: int
    colour: bool
    bright: bool


COUNTS = {
    Kind(256, 256, False, False): (36, 12),
    Kind(256, 320, True, True): (15, 6),
    Kind(256, 320, False, False): (1, 1),
    Kind(260, 347, False, False): (1, 0),
    Kind(360, 360, False, False): (9, 3),
    Kind(512, 640, False, False): (2, 1),
    Kind(520, 696, False, False): (5, 3),
    Kind(603, 1272, False, False): (2, 1),
    Kind(1024, 1024, False, True): (3, 1),
}
"""Kind → images of the part from train, and from val."""


def kinds_of(nuclei: Path) -> dict[Kind, list[str]]:
    """The names of the images of each kind, both in order."""
    found = defaultdict(list)
    for path in sorted((nuclei / "images").glob("*.png")):
        pixels = np.asarray(Image.open(path))
        kind = Kind(*pixels.shape[:2], pixels.ndim == 3, bool(pixels.mean() > 127))
        found[kind].append(path.stem)
    return dict(sorted(found.items()))


def nuclei_splits(kinds: dict[Kind, list[str]]) -> dict[str, list[str]]:
    """Split → names, in order."""
    val = {name for names in kinds.values() for name in names[::5]}
    return {
        "train": sorted(name for names in kinds.values() for name in names if name not in val),
        "val": sorted(val),
    }


def aerial_splits(aerial: Path) -> dict[str, list[str]]:
    """Split → names, in order."""
    names = sorted(path.stem for path in (aerial / "images").glob("*.jpg"))
    val = [name for name in names if name.startswith(VAL_TILES)]
    return {"train": [name for name in names if name not in val], "val": val}


def part_splits(kinds: dict[Kind, list[str]], splits: dict[str, list[str]], nuclei: Path) -> dict[str, list[str]]:
    """The same for the part."""
    chosen: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for kind, counts in COUNTS.items():
        for split, count in zip(("train", "val"), counts, strict=True):
            names = sorted(set(kinds[kind]) & set(splits[split]), key=lambda name: (nuclei_in(nuclei, name), name))
            spread = [names[int((index + 0.5) * len(names) / count)] for index in range(count)]
            if split == "train":
                chosen["train"] += spread
            else:
                chosen["val"] += spread[::3] if count >= 3 else []
                chosen["test"] += [name for name in spread if name not in chosen["val"]]
    return {split: sorted(names) for split, names in chosen.items()}


def nuclei_in(nuclei: Path, name: str) -> int:
    """How many nuclei an image has."""
    return len(np.unique(np.asarray(Image.open(nuclei / "instances" / f"{name}.png")))) - 1


def copy_part(nuclei: Path, names: Sequence[str], folder: Path) -> None:
    """The files of the part, large ones cut."""
    for kind in ("images", "instances"):
        shutil.rmtree(folder / kind, ignore_errors=True)
        (folder / kind).mkdir(parents=True)
        for name in names:
            source, target = nuclei / kind / f"{name}.png", folder / kind / f"{name}.png"
            with Image.open(source) as picture:
                if max(picture.size) > LARGE:
                    picture.crop((0, 0, picture.width // 2, picture.height // 2)).save(target, optimize=True)
                else:
                    shutil.copyfile(source, target)


def write_lists(splits: dict[str, list[str]], stem: str) -> None:
    """`stem` is a path without the name of the split."""
    for split, names in splits.items():
        Path(f"{stem}{split}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> None:
    """Write the lists and the part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nuclei", type=Path, required=True)
    parser.add_argument("--aerial", type=Path, required=True)
    given = parser.parse_args(argv)
    kinds = kinds_of(given.nuclei)
    splits = nuclei_splits(kinds)
    part = part_splits(kinds, splits, given.nuclei)
    copy_part(given.nuclei, list(chain(*part.values())), PART)
    write_lists(splits, f"{LISTS}/nuclei_")
    write_lists(aerial_splits(given.aerial), f"{LISTS}/aerial_")
    write_lists(part, f"{PART}/")
    for kind, names in kinds.items():
        counts = [len(set(names) & set(one)) for one in (*splits.values(), *part.values())]
        print(*kind, *counts)
    print("bytes of the part:", sum(path.stat().st_size for path in PART.rglob("*.png")))


if __name__ == "__main__":
    main()
