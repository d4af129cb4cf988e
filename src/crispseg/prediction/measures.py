"""Tables of the objects of all images: measurements of each object, and numbers of each image.

Shapes are those of `skimage.measure.regionprops`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from skimage.measure import regionprops_table

from crispseg.inference.objects import Object, Objects, pixel_area
from crispseg.io.files import write_table
from crispseg.io.opening import file_and_page

OBJECTS = "objects.csv"  # table of the objects of all images
SUMMARY = "summary.csv"  # table of the images

LENGTH_COLUMNS = {  # column → property
    "equivalent_diameter": "equivalent_diameter_area",
    "perimeter": "perimeter",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
}
RECTANGLE_COLUMNS = ("rectangle_length", "rectangle_width")
OTHER_COLUMNS = ("circularity", "eccentricity", "mean_intensity", "integrated_intensity", "touches_edge")


Measurements: TypeAlias = dict[str, NDArray[Any]]  # columns, each `(N,)`


def measurements(ids: NDArray[np.int32], values: NDArray[Any]) -> Measurements:
    """Return columns of `objects.csv`, each `(N,)`, of the objects with the numbers `ids` `(H, W)`.

    The intensity of a pixel is the mean of its values `(H, W, C)`. Circularity is 4π · area ÷ perimeter², at most 1.
    """
    properties = ("area", "bbox", "eccentricity", "intensity_mean", *LENGTH_COLUMNS.values())
    table = regionprops_table(ids, values.mean(2), properties)
    height, width = ids.shape
    columns = {name: table[key] for name, key in LENGTH_COLUMNS.items()}
    perimeter = np.maximum(columns["perimeter"], 1e-9)  # that of a single pixel is 0
    columns["circularity"] = np.minimum(4 * np.pi * table["area"] / perimeter**2, 1)
    columns["eccentricity"] = table["eccentricity"]
    columns["mean_intensity"] = table["intensity_mean"]
    columns["integrated_intensity"] = table["intensity_mean"] * table["area"]
    at_top_or_left = (table["bbox-0"] == 0) | (table["bbox-1"] == 0)
    at_end = (table["bbox-2"] == height) | (table["bbox-3"] == width)
    columns["touches_edge"] = (at_top_or_left | at_end).astype(np.int64)
    return columns


class ObjectTables:
    """Rows of the tables.

    Args:
        categories: names of the classes of objects.
        pixel_size: side of a pixel with its unit, such as "0.5um"; lengths, areas and densities are also given in it.
    """

    def __init__(self, categories: Sequence[str], pixel_size: str | None) -> None:
        self.categories = categories
        self.pixel, self.unit = (1.0, "") if pixel_size is None else pixel_area(pixel_size)
        area, length = f"_{self.unit}", f"_{self.unit.removesuffix('2')}"
        in_unit = [f"area{area}", *(f"{name}{length}" for name in (*LENGTH_COLUMNS, *RECTANGLE_COLUMNS))]
        self.columns = ["image", "page", *Object._fields, *LENGTH_COLUMNS, *OTHER_COLUMNS, *in_unit]
        self.objects: list[list[Any]] = []
        self.images: list[list[Any]] = []

    def add(self, image: str, objects: Objects, columns: Measurements) -> None:
        """Add the objects of an image with their measurements."""
        file, page = file_and_page(Path(image))
        measured = [columns[name].round(4).tolist() for name in (*LENGTH_COLUMNS, *OTHER_COLUMNS)]
        for row, *numbers in zip(objects, *measured, strict=True):
            lengths = np.array([*numbers[: len(LENGTH_COLUMNS)], row.rectangle_length, row.rectangle_width])
            lengths *= self.pixel**0.5
            in_unit = [round(row.area * self.pixel, 6), *lengths.round(6).tolist()]
            self.objects.append([str(file), page, *row, *numbers, *in_unit])
        for category in self.categories:
            areas = [row.area for row in objects if row.category == category]
            self.images.append([str(file), page, category, *self.numbers(areas, objects.ids.size)])

    def numbers(self, areas: Sequence[int], pixels: int) -> list[float]:
        """Return the columns of an image of this number of pixels from the areas of its objects of a class."""
        total, median = sum(areas), float(np.median(areas or [0]))
        in_unit = [total * self.pixel, median * self.pixel, len(areas) / (pixels * self.pixel)]
        numbers = [total / pixels, 1e6 * len(areas) / pixels, *in_unit]
        return [len(areas), total, median, *(float(f"{number:.6g}") for number in numbers)]

    def sizes(self) -> NDArray[np.float64]:
        """Return the areas and equivalent diameters `(2, N)` of all objects, in the unit if there is one."""
        area = self.columns.index(f"area_{self.unit}")
        diameter = self.columns.index(f"equivalent_diameter_{self.unit.removesuffix('2')}")
        return np.array([(row[area], row[diameter]) for row in self.objects]).reshape(-1, 2).T

    def write(self, folder: Path) -> None:
        """Write both tables; columns in units are left out if there is no unit."""
        area = f"_{self.unit}"
        images = ["image", "page", "category", "objects", "total_area", "median_area", "share", "per_megapixel"]
        images += [f"total_area{area}", f"median_area{area}", f"objects_per{area}"]
        for table, header, rows in ((OBJECTS, self.columns, self.objects), (SUMMARY, images, self.images)):
            in_pixels = [not name.endswith("_") for name in header]
            write_table(folder / table, [[*compress(row, in_pixels)] for row in [header, *sorted(rows)]])
