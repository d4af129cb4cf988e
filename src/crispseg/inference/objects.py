"""Single objects of one class: its connected parts, grown back into the pixels of the class that keeps them apart.

Coordinates are those of COCO: (0, 0) is the top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path
from crispseg.io.outlines import segmentations
from crispseg.labels import IGNORE, LabelSet
from crispseg.visualization import pages
from crispseg.visualization import pictures as visuals

REACH = 5
"""Pixels within which an object takes back its border."""
MOST_REACH = 32
"""The work for each pixel of the border grows with the square of the reach."""

FILES = ("_objects.png", "_objects.tif", "_objects.csv")
"""Ends of the names of files that are written for an image; it has numbers in one of the first two."""

COLORS = 40
"""In pictures of objects; further objects have the first ones again."""


@dataclass(frozen=True)
class ObjectRule:
    """Which pixels make up the objects of a class.

    Pixels of the class that touch with their sides are one object; corners do not join, since a border may be a line
    one pixel wide. Then each pixel of the border class joins the object whose nearest pixel of the class is nearest to
    its own centre, where that is within the reach; of several as near, the one above, then the one on the left. An
    object stays in one piece: such a pixel joins it where sides connect both, through border pixels of the same object.

    Args:
        index: the id of the class.
        border: the id of the class of pixels between objects; None where there is none.
        reach: pixels; 0 leaves the border out.

    Raises:
        CrispsegError: one class for both, or a reach that is no whole number of pixels from 0 to `MOST_REACH`.
    """

    index: int
    border: int | None = None
    reach: int = REACH

    def __post_init__(self) -> None:
        if self.index == self.border:
            raise CrispsegError(f"class {self.index} is named for objects and for their border; name two classes")
        if not isinstance(self.reach, int | np.integer) or not 0 <= self.reach <= MOST_REACH:
            raise CrispsegError(f"reach is {self.reach!r}; give a whole number of pixels, 0 to {MOST_REACH}")

    @classmethod
    def named(cls, labels: LabelSet, name: str, border: str | None = None, reach: int = REACH) -> ObjectRule:
        """The rule for classes by their names.

        Raises:
            CrispsegError: as above, or there is no class of such a name.
        """
        return cls(labels.index(name), None if border is None else labels.index(border), reach)

    def find(self, labels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Numbers of the objects in class ids `(H, W)`: `(H, W)`, 1, 2, … by their first pixels, and 0 elsewhere."""
        _, ids = cv2.connectedComponents((labels == self.index).view(np.uint8), connectivity=4, ltype=cv2.CV_32S)
        if self.border is not None and self.reach:
            return _grown(ids, labels == self.border, self.reach)
        numbers: NDArray[np.int32] = ids
        return numbers


NUMBERED = ObjectRule(1, border=2)
"""For the classes that `crispseg.data.mask_lookup.three_classes` makes of instance masks."""


def _grown(ids: NDArray[np.int32], free: NDArray[np.bool_], reach: int) -> NDArray[np.int32]:
    """The same, but free pixels have the number of the nearest object within the reach, if they are in one piece."""
    steps = np.arange(-reach, reach + 1)
    far = steps[:, None] ** 2 + steps**2
    disk = far <= reach**2
    near = free & (cv2.dilate((ids > 0).view(np.uint8), disk.view(np.uint8)) > 0)
    before = np.pad(ids, reach)  # so that no pixel's neighbours are beyond the image
    after = before.copy()
    places = np.flatnonzero(np.pad(near, reach))
    for at in np.argsort(far, axis=None, kind="stable")[: disk.sum()]:
        down, right = divmod(int(at), len(steps))
        found = before.ravel()[places + ((down - reach) * before.shape[1] + right - reach)]
        taken = found > 0
        after.ravel()[places[taken]] = found[taken]
        places = places[~taken]
    ids, numbers = before.ravel(), after.ravel()
    places = np.flatnonzero(ids != numbers)
    sides = np.array((-before.shape[1], -1, 1, before.shape[1]))
    front = places[(ids[places[:, None] + sides] == numbers[places, None]).any(1)]  # (K,)
    while front.size:  # each step looks around the pixels of the last one only: a piece may be long and thin
        ids[front] = numbers[front]
        beside = (front[:, None] + sides).ravel()  # (4 K,)
        front = np.unique(beside[(ids[beside] == 0) & (numbers[beside] == numbers[front].repeat(4))])
    return before[reach:-reach, reach:-reach].copy()


class Object(NamedTuple):
    """One object, a row of the table."""

    id: int
    """Its number in `Objects.ids`."""
    area: int
    """Pixels."""
    x: int
    """Left edge of its box; with `y`, `width` and `height` as COCO has boxes."""
    y: int
    width: int
    height: int
    centroid_x: float
    centroid_y: float
    probability: float | None
    """Mean probability of the class over the object's pixels that are labelled as it; None of an image in tiles."""


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one class in an image; `len` counts them, and iterating gives an `Object` each.

    Args:
        name: stem of the files that `save` writes, that of the image.
        category: name of the class.
        ids: `(H, W)`, 0 where there is no object, else its number, 1 to N.
        image: `(H, W, 3)` RGB.
        table: `(N,)` rows, in the order of the numbers.
    """

    name: str
    category: str
    ids: NDArray[np.int32] = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    table: tuple[Object, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Object]:
        return iter(self.table)

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """The image, each object under a colour of its own, `(H, W, 3)` RGB; `opacity` of the colours, 0 to 1.

        Raises:
            CrispsegError: another opacity.
        """
        colored = np.where(self.ids > 0, (self.ids - 1) % COLORS, IGNORE)
        return visuals.overlay(self.image, colored, LabelSet.numbered(COLORS), opacity)

    def _repr_html_(self) -> str:
        """What a notebook shows: the objects over the image, their number and their areas."""
        areas = [each.area for each in self]
        values = {"smallest": min(areas), "median": int(np.median(areas)), "largest": max(areas)} if areas else {}
        return pages.render(
            "notebook/objects.html",
            name=self.name,
            picture=pages.embedded(self.overlay(), f"{self.name}, objects over the image", photo=True),
            values=[
                (f"{self.category}, objects", len(self), ""),
                *((f"{which} area, px", area, "") for which, area in values.items()),
            ],
        )

    def save(self, folder: str | Path) -> tuple[Path, Path]:
        """Write `NAME_objects.png`, the numbers, and `NAME_objects.csv`, the table. Returns both paths.

        The numbers are 16-bit grey; of more than 65,535 objects `NAME_objects.tif`, 32-bit, takes the place of the PNG.
        One of both is there in the end: another that was written before is removed.

        Raises:
            CrispsegError: the folder cannot be written.
        """
        png, tif, table = (Path(folder) / f"{self.name}{ending}" for ending in FILES)
        deep = len(self) > 0xFFFF
        numbers, other = (tif, png) if deep else (png, tif)
        with atomic_path(numbers) as temporary:
            Image.fromarray(self.ids if deep else self.ids.astype(np.uint16)).save(temporary)
        other.unlink(missing_ok=True)
        return numbers, self.write_table(table)

    def write_table(self, path: str | Path) -> Path:
        """Write the table to a file, as CSV or as JSON, a list of rows, by its suffix. Returns the path.

        Raises:
            CrispsegError: another suffix, or the folder cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in (".csv", ".json"):
            raise CrispsegError(f"cannot write a table to {path}: give a file that ends in .csv or .json")
        rows = [row._asdict() for row in self]
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".json":
                json.dump(rows, file, indent=1)
            else:
                writer = csv.DictWriter(file, Object._fields)
                writer.writeheader()
                writer.writerows(rows)
        return path

    def annotations(self) -> list[dict[str, Any]]:
        """The objects as COCO's annotations, without the ids of image and category.

        `segmentation` encloses just the object's pixels, so that it agrees with `area`: polygons along the edges of
        pixels, or run lengths of an object with holes. `score` is the probability, where there is one.
        """
        return [
            {
                "id": row.id,
                "segmentation": segmentation,
                "area": row.area,
                "bbox": [row.x, row.y, row.width, row.height],
                "iscrowd": 0,
                **({} if row.probability is None else {"score": row.probability}),
            }
            for row, segmentation in zip(self, segmentations(self.ids), strict=True)
        ]


def measured(
    ids: NDArray[np.int32], own: NDArray[np.bool_], probability: NDArray[np.float32] | None = None
) -> tuple[Object, ...]:
    """The table of objects.

    Args:
        ids: `(H, W)`, 0 for none, else 1 to N; each number has a pixel that is its own.
        own: `(H, W)`, the pixels over which probabilities are averaged.
        probability: `(H, W)` of the class; None where it is not known.
    """
    count, width = int(ids.max()), ids.shape[1]
    places = np.flatnonzero(ids)
    owners = ids.ravel()[places] - 1
    rows, columns = np.divmod(places, width)
    areas = np.bincount(owners, minlength=count)
    first, last = np.full((2, count), ids.size), np.zeros((2, count), np.int64)
    for axis, values in enumerate((columns, rows)):
        np.minimum.at(first[axis], owners, values)
        np.maximum.at(last[axis], owners, values)
    centroids = [np.bincount(owners, values, count) / areas + 0.5 for values in (columns, rows)]
    means: list[float | None] = [None] * count
    if probability is not None:
        inside = places[own.ravel()[places]]
        owners = ids.ravel()[inside] - 1
        sums = np.bincount(owners, probability.ravel()[inside], count)
        means = np.round(sums / np.bincount(owners, minlength=count), 4).tolist()
    sizes = last - first + 1
    whole = (each.tolist() for each in (areas, *first, *sizes, *np.round(centroids, 2)))
    return tuple(map(Object, range(1, count + 1), *whole, means))


class CocoFile:
    """A JSON in COCO's format that grows image by image, with one category, of id 1; `coco_file` makes one."""

    def __init__(self, file: TextIO, category: str) -> None:
        self.count = 0
        """Annotations so far."""
        self._images: list[dict[str, Any]] = []
        self._file = file
        file.write(f'{{"categories": {json.dumps([{"id": 1, "name": category}])}, "annotations": [')

    def add(self, file_name: str, objects: Objects) -> None:
        """Add an image and its objects."""
        height, width = objects.ids.shape
        image = len(self._images) + 1
        ids = {"image_id": image, "category_id": 1}
        texts = [json.dumps({**each, "id": self.count + each["id"], **ids}) for each in objects.annotations()]
        self._images.append({"id": image, "file_name": file_name, "height": height, "width": width})
        self._file.write("".join("," * (number > 0) + "\n" + text for number, text in enumerate(texts, self.count)))
        self.count += len(texts)

    def finish(self) -> None:
        """Write what follows the annotations."""
        self._file.write(f'\n], "images": {json.dumps(self._images)}}}\n')


@contextmanager
def coco_file(path: str | Path, category: str) -> Iterator[CocoFile]:
    """A file of the objects of several images, which are written as they are added, and not kept in memory.

    It appears at the end of the block; after Ctrl-C, too, with the images that were added.

    Args:
        path: the file.
        category: name of the class.

    Raises:
        CrispsegError: the folder cannot be written.
    """
    interrupt = None
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        coco = CocoFile(file, category)
        try:
            yield coco
        except KeyboardInterrupt as error:
            interrupt = error
        coco.finish()
    if interrupt is not None:
        raise interrupt
