"""The fixed splits of nuclei and aerial, and the part of nuclei that comes with the package.

    python benchmarks/free_lists.py --nuclei NUCLEI --aerial AERIAL

NUCLEI holds `images/` and `instances/`, AERIAL `images/` and `masks/`, as `crispseg data download` makes them. It
writes into `src/crispseg/data/free`, over what is there, by these rules:

- An image of nuclei is of the kind of its height, its width, whether it has colours and whether it is bright, its mean
  being above 127. Images whose edges go on in each other are one field; whole fields, a fifth of a kind, are in val.
- Of aerial, val is tile2 and tile3.
- Of each kind of nuclei the part takes as many images as `COUNTS` says, for its train from train, for its val and test
  from val. They are evenly spaced in the order of the number of nuclei. Of three or more from val, the first of each
  three is in val, the others in test. An image that is larger than 700 pixels is cut to its upper left quarter; other
  files are copied as they are.

    python benchmarks/free_lists.py --nuclei NUCLEI --pairs

writes nothing and prints the pairs of a val and a train image that may adjoin all the same, by the rule of
`doubtful_pairs`, for a look at them: docs/datasets.md says what it showed.

What is there was made of 530 images of nuclei and of 54 aerial photographs, of six tiles. The archives hold more, which
is kept for tests, so they would give longer lists.
"""

from __future__ import annotations

import argparse
import shutil
from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter1d
from scipy.sparse.csgraph import connected_components

from crispseg.data.free import LISTS, PART

VAL_TILES = ("tile2", "tile3")
LARGE = 700
JOINS = 0.95
"""Correlation of two edges above which they adjoin, if they also differ by less than 0.4 of their deviation, and have
one of more than 2 levels. Of 177,000 pairs of edges that can adjoin 308 do, of as many that cannot, such as two last
columns, 11."""
SMALL = 32
"""Side in pixels of the small pictures of whole images, which are the same above `JOINS` as well."""


class Kind(NamedTuple):
    """What an image of nuclei looks like."""

    height: int
    width: int
    colour: bool
    bright: bool


COUNTS = {
    Kind(256, 256, False, False): (36, 12),
    Kind(256, 320, True, True): (15, 6),
    Kind(256, 320, False, False): (1, 0),
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


def fields_of(nuclei: Path, names: Sequence[str]) -> list[list[str]]:
    """The names of the images of a kind by their fields, in order."""
    pictures = [Image.open(nuclei / "images" / f"{name}.png").convert("L") for name in names]
    images = np.stack([np.asarray(picture, np.float32) for picture in pictures])
    small = np.stack([np.asarray(picture.resize((SMALL, SMALL), Image.Resampling.BOX)) for picture in pictures])
    same = alike(*[small.reshape(len(small), -1).astype(np.float32)] * 2)
    beside, below = alike(images[:, :, -1], images[:, :, 0]), alike(images[:, -1], images[:, 0])
    _, numbers = connected_components(same | beside | below, directed=False)
    fields = defaultdict(list)
    for name, number in zip(names, numbers, strict=True):
        fields[number].append(name)
    return sorted(fields.values())


def alike(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.bool_]:
    """`(N, N)`: whether rows of one and of the other, `(N, L)`, are the same but for noise."""
    spread = np.minimum.outer(one.std(1), other.std(1))
    apart = np.stack([np.abs(row - other).mean(1) for row in one])
    return (correlation(one, other) > JOINS) & (spread > 2) & (apart < 0.4 * one.std(1)[:, None])


def nuclei_splits(kinds: dict[Kind, list[str]], nuclei: Path) -> dict[str, list[str]]:
    """Split → names, in order."""
    train, val = [], []
    for names in kinds.values():
        chosen: list[str] = []
        seen = 0
        for field in fields_of(nuclei, names):
            seen += len(field)
            chosen += field if 5 * (len(chosen) + len(field)) < seen + 5 else []
        val += chosen
        train += [name for name in names if name not in chosen]
    return {"train": sorted(train), "val": sorted(val)}


def aerial_splits(aerial: Path) -> dict[str, list[str]]:
    """Split → names, in order."""
    names = sorted(path.stem for path in (aerial / "images").glob("*.jpg"))
    val = [name for name in names if name.startswith(VAL_TILES)]
    return {"train": [name for name in names if name not in val], "val": val}


def doubtful_pairs(kinds: dict[Kind, list[str]], splits: dict[str, list[str]], nuclei: Path) -> list[tuple[str, str]]:
    """Pairs of a val and a train image of which an edge may go on in the other's.

    What is finer than nine pixels along both edges correlates above 0.35, and from edge to edge it is at most 3.2 times
    as far as from either edge to the next line inside.
    """
    found = []
    for names in kinds.values():
        pictures = [Image.open(nuclei / "images" / f"{name}.png").convert("L") for name in names]
        images = np.stack([np.asarray(picture, np.float32) for picture in pictures])  # (N, H, W)
        for turned in (images, images.swapaxes(1, 2)):  # left and right, above and below
            last, first = turned[:, :, -1], turned[:, :, 0]  # (N, L)
            fine = [edges - uniform_filter1d(edges, 9, axis=1) for edges in (last, first)]
            inside = [np.abs(edges - turned[:, :, at]).mean(1) for edges, at in ((last, -2), (first, 1))]
            for one, other in np.argwhere(correlation(*fine) > 0.35):
                near = np.abs(last[one] - first[other]).mean() <= 3.2 * min(inside[0][one], inside[1][other])
                pairs = permutations((names[one], names[other])) if near else ()
                found += [(a, b) for a, b in pairs if a in splits["val"] and b in splits["train"]]
    return sorted(found)


def correlation(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """`(N, N)`: of rows of one with rows of the other, `(N, L)`."""
    scaled = []
    for rows in (one, other):
        centred = rows - rows.mean(1, keepdims=True)
        scaled.append(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6))
    return scaled[0] @ scaled[1].T


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
    written = parser.add_mutually_exclusive_group(required=True)
    written.add_argument("--aerial", type=Path)
    written.add_argument("--pairs", action="store_true")
    given = parser.parse_args(argv)
    kinds = kinds_of(given.nuclei)
    splits = nuclei_splits(kinds, given.nuclei)
    if given.pairs:
        print(*(f"{val} {train}" for val, train in doubtful_pairs(kinds, splits, given.nuclei)), sep="\n")
        return
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
