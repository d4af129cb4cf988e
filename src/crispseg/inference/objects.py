"""Single objects of a class: its connected parts, extended into the pixels of a border class between them.

Coordinates follow COCO: (0, 0) is the top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import NonNegativeInt
from scipy.ndimage import distance_transform_edt, gaussian_filter, mean
from skimage.measure import label, regionprops
from skimage.morphology import h_maxima
from skimage.segmentation import expand_labels, watershed

from crispseg.config.settings import CHECKS, Settings
from crispseg.errors import CrispsegError
from crispseg.io.files import write_file, write_table
from crispseg.io.images import MADE_OF, write_image
from crispseg.io.outlines import segmentations
from crispseg.io.results import check_results, check_text
from crispseg.labels import LabelSet
from crispseg.visualization import pages
from crispseg.visualization import pictures as visuals

REACH = 5  # largest distance in pixels at which border pixels join an object
SMOOTHING, NECK = 1, 0.5  # pixels; chosen on true masks of nuclei in training images
FRAGMENT = 0.1  # smallest area of an object with a border class, as a share of the median in its image
OBJECT_ENDINGS = ("_objects.png", "_objects.csv")  # name endings of the result files of an image


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class ObjectRule(Settings):
    """Rule that assigns pixels to the objects of a class.

    Pixels of the class that are connected by sides form one object. Corners do not connect, since a border may be one
    pixel wide. Each pixel of the border class then joins the nearest object within the reach, between pixel centres;
    ties are arbitrary. Objects stay connected: a border pixel joins only if sides connect it with the object, directly
    or through other border pixels of the object.

    Args:
        index: the id of the class.
        border: the id of the class of pixels between objects, or None.
        reach: distance in pixels; 0 leaves out the border.
        min_size: area in pixels; smaller objects are left out. By default, a tenth of the median area of the image's
            objects if they have a border class, which leaves fragments of objects, else 0.
        split: whether to separate touching objects at their necks, see `parts_at_necks`.
    """

    index: int
    border: int | None = None
    reach: NonNegativeInt = REACH
    min_size: NonNegativeInt | None = None
    split: bool = False

    def find(self, labels: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Return object numbers `(H, W)` of class ids `(H, W)`: 1, 2, … in the order of first pixels, or 0."""
        pixels = labels == self.index
        ids = np.asarray(label(parts_at_necks(pixels) if self.split else pixels, connectivity=1), np.int32)
        if self.border is not None:
            grown = np.where(labels == self.border, expand_labels(ids, self.reach), ids)
            pieces = label(grown, connectivity=1)
            has_pixels = np.zeros(pieces.max() + 1, np.bool_)  # of the class, not only of the border
            has_pixels[pieces[ids > 0]] = True
            ids = np.where(has_pixels[pieces], grown, 0)
        areas = np.bincount(ids.ravel())
        areas[0] = 0
        present = areas > 0
        least: float = self.min_size or 0
        if self.min_size is None and self.border is not None and present.any():
            least = FRAGMENT * float(np.median(areas[present]))
        large = present & (areas >= least)
        return (large.cumsum(dtype=np.int32) * large)[ids]


def parts_at_necks(pixels: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Return numbers `(H, W)` of the parts of objects `(H, W)`, which are cut where they are narrow; 0 for no object.

    A part is a basin of the smoothed distance to the outline, whose peak rises `NECK` above the saddle.
    """
    distance = gaussian_filter(distance_transform_edt(np.pad(pixels, 1))[1:-1, 1:-1], SMOOTHING)
    peaks = label(h_maxima(np.where(pixels, distance, 0), NECK)) * pixels
    parts = watershed(-distance, peaks, mask=pixels)
    flat = label(pixels & (parts == 0), connectivity=1)  # too small for a peak
    return np.asarray(np.where(flat > 0, flat + parts.max(), parts), np.int32)


def object_rules(
    labels: LabelSet,
    names: str | Sequence[str] | None,
    border: str | None = None,
    reach: int = REACH,
    min_size: int | None = None,
    split: bool = False,
    panoptic: bool = False,
) -> dict[str, ObjectRule]:
    """Return the rule of each class by name; a single class may have a border.

    Unknown or equal classes, a border for no or several object classes, or a size for none, raise a `CrispsegError`.
    """
    several = check_object_options(names, border, min_size, split, panoptic)
    margin = None if border is None else labels.index(border)
    return {name: ObjectRule(labels.index(name), margin, reach, min_size, split) for name in several}


def check_object_options(
    names: str | Sequence[str] | None, border: str | None, min_size: int | None, split: bool, panoptic: bool = False
) -> Sequence[str]:
    """Return the names of the object classes; raise a CrispsegError if the options contradict each other."""
    if names is None:
        if (border, min_size, split, panoptic) != (None, None, False, False):
            need = "objects_border, objects_min_size, objects_split and panoptic need objects"
            raise CrispsegError(f"{need}; give their class")
        return []
    several = [names] if isinstance(names, str) else names
    if not several or len({*several}) < len(several):
        raise CrispsegError(f"is {several}; give different classes, such as nucleus, or leave it out", "objects")
    if border is not None and (split or len(several) > 1 or border in several):
        raise CrispsegError(f"is {border}; it is for objects of one other class, without split", "objects_border")
    return several


NUMBERED = ObjectRule(1, border=2)  # rule for the classes of `crispseg.data.mask_lookup.three_classes`


class Object(NamedTuple):
    """One object, a row of the table."""

    id: int  # number of the object in `Objects.ids`
    area: int  # number of pixels
    x: int  # left edge of its box; `x`, `y`, `width` and `height` follow COCO
    y: int
    width: int
    height: int
    centroid_x: float
    centroid_y: float
    rectangle_length: float  # longer side of the smallest rotated rectangle around its pixels
    rectangle_width: float
    probability: float | None  # mean over the object's pixels with the label of the class; None for images in tiles
    category: str = ""  # name of its class


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects of one or several classes in an image; `len` and iteration over `Object` are supported.

    Args:
        name: stem of the files that `save` writes, from the image.
        categories: names of the classes.
        ids: `(H, W)` object numbers, 1 to N, and 0 for no object.
        image: `(H, W, 3)` RGB.
        table: `(N,)` rows, in the order of the numbers.
        made_of: as for `Segmentation`.
    """

    name: str
    categories: tuple[str, ...]
    ids: NDArray[np.int32] = field(repr=False)
    image: NDArray[np.uint8] = field(repr=False)
    table: tuple[Object, ...] = field(repr=False)
    made_of: str = field(repr=False, default="")

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Object]:
        return iter(self.table)

    def overlay(self, opacity: float = 0.5) -> NDArray[np.uint8]:
        """Return the image with coloured objects, `(H, W, 3)` RGB; `opacity` is that of the colours, 0 to 1."""
        return visuals.overlay(self.image, visuals.object_colors(self.ids), visuals.OBJECT_CLASSES, opacity)

    def _repr_html_(self) -> str:
        """Return HTML for notebooks: the objects over the image, their number and their areas."""
        areas = [("median area, px", int(np.median([row.area for row in self])), "")] if len(self) else []
        return pages.notebook(
            pictures=[pages.embedded(self.overlay(), self.name, photo=True)],
            values=[(f"{', '.join(self.categories)}, objects", len(self), ""), *areas],
        )

    def save(self, folder: str | Path, pixel_size: str | None = None, page: int | None = None) -> tuple[Path, Path]:
        """Write `NAME_objects.png`, the numbers in 16-bit grey, and `NAME_objects.csv`, the table. Return both paths.

        Args:
            pixel_size: side of a pixel with its unit, such as "0.5um"; the table then also has areas in that unit.
            page: page of a z-stack; the table then has a column for it.

        Raises:
            CrispsegError: the folder cannot be written, a file that is not a result would be overwritten, 16 bits are
                too few for all objects, or `pixel_size` is wrong.
        """
        check_count(len(self), self.name)
        numbers, table = (Path(folder) / f"{self.name}{ending}" for ending in OBJECT_ENDINGS)
        check_results(numbers)
        check_text(table, "id,area,")
        write_image(numbers, self.ids.astype(np.uint16), self.made_of or MADE_OF)
        of_page = {} if page is None else {"page": page}
        header, rows = [*Object._fields, *of_page], [[*row, *of_page.values()] for row in self]
        if pixel_size:
            pixel, unit = pixel_area(pixel_size)
            header.append(f"area_{unit}")
            rows = [[*cells, round(row.area * pixel, 6)] for cells, row in zip(rows, self, strict=True)]
        write_table(table, [header, *rows])
        return numbers, table

    def annotations(self) -> list[dict[str, Any]]:
        """Return the objects as COCO annotations, without the ids of image and category.

        `segmentation` encloses exactly the object's pixels, so that it agrees with `area`. It has polygons along the
        edges of pixels, or run lengths for objects with holes. `score` is the probability, if known.
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


def check_count(objects: int, name: str) -> None:
    """Raise a CrispsegError if 16 bits are too few for the numbers of the objects in an image."""
    if objects > 0xFFFF:
        raise CrispsegError(f"{name} has {objects} objects, more than 65,535; cut the image")


def pixel_area(size: str) -> tuple[float, str]:
    """Return the area of a pixel and its unit from the side of a pixel; errors are those of `pixel_side`.

    >>> pixel_area("0.5um")
    (0.25, 'um2')
    """
    side, unit = pixel_side(size)
    return side**2, f"{unit}2"


def pixel_side(size: str) -> tuple[float, str]:
    """Return the side of a pixel and its unit.

    >>> pixel_side("0.5um")
    (0.5, 'um')

    Raises:
        CrispsegError: `size` is not a positive number with a unit.
    """
    parts = re.fullmatch(r"(\d*\.?\d+) ?([a-zA-Zµμ]+)", size)
    if parts is None or not float(parts[1]):
        raise CrispsegError(f"is {size}; give the side of a pixel with its unit, such as 0.5um", "pixel_size")
    return float(parts[1]), parts[2]


def measured(
    ids: NDArray[np.int32], own: NDArray[np.bool_], probability: NDArray[np.float32] | None = None
) -> tuple[Object, ...]:
    """Return the table of objects with the numbers `ids` `(H, W)`, 1 to N, or 0.

    The probability `(H, W)` of the class, if known, is averaged over the pixels `own` `(H, W)` of each object.
    """
    table, numbers = [], range(1, ids.max() + 1)
    means = [None for _ in numbers] if probability is None else mean(probability, ids * own, numbers).round(4).tolist()
    for region, score in zip(regionprops(ids), means, strict=True):
        top, left, bottom, right = region.bbox
        y, x = (round(float(side) + 0.5, 2) for side in region.centroid)
        box = left, top, right - left, bottom - top
        table.append(Object(region.label, int(region.area), *box, x, y, *rectangle(region.image), score))
    return tuple(table)


def rectangle(mask: NDArray[np.bool_]) -> tuple[float, float]:
    """Return length and width of the smallest rotated rectangle around the pixels of a mask `(H, W)`."""
    corners = np.argwhere(mask)[:, None] + np.indices((2, 2)).reshape(2, 4).T  # (pixels, 4, 2)
    _, sides, _ = cv2.minAreaRect(corners.reshape(-1, 2).astype(np.float32))
    return round(max(sides), 2), round(min(sides), 2)


class CocoFile:
    """Objects of several images for a COCO file, with categories from id 1 on."""

    def __init__(self, path: str | Path, categories: Sequence[str]) -> None:
        self.path, self.ids = path, {name: index for index, name in enumerate(categories, 1)}
        self.images: list[dict[str, Any]] = []
        self.annotations: list[dict[str, Any]] = []

    def add(self, file_name: str, objects: Objects) -> None:
        """Add an image and its objects."""
        (height, width), image, before = objects.ids.shape, len(self.images) + 1, len(self.annotations)
        self.images.append({"id": image, "file_name": file_name, "height": height, "width": width})
        for row, annotation in zip(objects, objects.annotations(), strict=True):
            references = {"image_id": image, "category_id": self.ids[row.category]}
            self.annotations.append({**annotation, "id": before + row.id, **references})

    def write(self) -> None:
        """Write the file; raise a CrispsegError if its folder cannot be written."""
        categories = [{"id": index, "name": name} for name, index in self.ids.items()]
        content = {"categories": categories, "annotations": self.annotations, "images": self.images}
        write_file(self.path, json.dumps(content))
