"""JSON annotations of COCO and labelme; pycocotools rasterises their outlines.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme. In both formats, (0, 0) is
the top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pydantic import BaseModel, Field, FiniteFloat, StrictInt, StrictStr, ValidationError

from crispseg.errors import CrispsegError, one_line

OUTSIDE = 1.0
"""Distance in pixels by which a point may be outside its image, because annotation tools round."""

POINTS = {"polygon": 3, "rectangle": 2, "circle": 2}
"""Supported shape types of labelme and their minimum number of points."""

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` flat pixel indices in row-major order: row · width + column."""


class Shape(NamedTuple):
    """An annotated shape of an image."""

    name: str
    """Name in error messages."""
    label: str
    draw: Callable[[int, int], Pixels]
    """Return its pixels in an image of this height and width; raise an error if the shape is invalid."""
    crowd: bool = False


@dataclass
class MarkedImage:
    """An image and its annotated shapes."""

    image: str
    """Image path as written in the annotations."""
    source: Path
    """Annotation file; a relative image path may start from its folder."""
    size: tuple[int | None, int | None]
    """`(H, W)` if the annotations include it."""
    shapes: list[Shape] = field(default_factory=list)
    name: str = ""
    """Name in the output folder, without suffix; by default its path."""
    split: str = ""
    """Its split, or folder names that imply it; by default the path of the annotations implies it."""


class Annotations(NamedTuple):
    """Content of an annotation file."""

    images: tuple[MarkedImage, ...]
    names: tuple[str, ...]
    """Class names, sorted by id for COCO and YOLO, and alphabetically for labelme."""


class _Category(BaseModel):
    id: StrictInt
    name: StrictStr


class _Image(BaseModel):
    id: int | str
    file_name: StrictStr
    height: int | None = None
    width: int | None = None


class RunLengths(BaseModel):
    """COCO run lengths, as numbers or compressed text."""

    size: tuple[int, int]
    counts: list[int] | str


class _Instance(BaseModel):
    id: int | str = "without an id"
    image_id: int | str
    category_id: int
    segmentation: list[Annotated[list[FiniteFloat], Field(min_length=6)]] | RunLengths | None = None
    iscrowd: bool = False


class _Coco(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[_Instance]


class _LabelmeShape(BaseModel):
    label: StrictStr
    shape_type: str | None = None
    points: list[tuple[FiniteFloat, FiniteFloat]]


class _Labelme(BaseModel):
    imagePath: StrictStr
    imageHeight: int | None = None
    imageWidth: int | None = None
    shapes: list[_LabelmeShape]


def read_annotations(path: Path) -> Annotations:
    """Read a COCO or labelme file; another format or a shape that cannot become a mask raises a `CrispsegError`."""
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # or text that is not UTF-8, or a number with thousands of digits
        raise CrispsegError(f"{path} is not JSON ({one_line(error)}); export it again") from None
    labelme = isinstance(tree, dict) and "shapes" in tree
    try:
        return _labelme(path, _Labelme.model_validate(tree)) if labelme else _coco(path, _Coco.model_validate(tree))
    except ValidationError as error:
        worst = max(error.errors(), key=lambda each: len(each["loc"]))  # the deepest of several alternatives
        reason = f"{'.'.join(map(str, worst['loc']))}: {worst['msg']}"
        kind = "labelme" if labelme else "COCO (or labelme)"
        raise CrispsegError(f"{path} is not valid {kind} ({reason}); export it again") from None


def _coco(path: Path, tree: _Coco) -> Annotations:
    names = {entry.id: entry.name for entry in tree.categories}
    images = {entry.id: MarkedImage(entry.file_name, path, (entry.height, entry.width)) for entry in tree.images}
    for one in tree.annotations:
        what = f"{path}: annotation {one.id}"
        if one.image_id not in images or one.category_id not in names:
            which = f"image {one.image_id} and category {one.category_id}"
            raise CrispsegError(f"{what} refers to {which}, but the file does not list both; export it again")
        if not one.segmentation:
            raise CrispsegError(f"{what} has a box but no segmentation; remove it")
        if isinstance(one.segmentation, RunLengths):
            draw = partial(_draw_runs, one.segmentation)
        else:
            draw = partial(draw_outlines, "polygon", one.segmentation)
        images[one.image_id].shapes.append(Shape(what, names[one.category_id], draw, one.iscrowd))
    return Annotations(tuple(images.values()), tuple(names[key] for key in sorted(names)))


def _labelme(path: Path, tree: _Labelme) -> Annotations:
    image = MarkedImage(tree.imagePath.replace("\\", "/"), path, (tree.imageHeight, tree.imageWidth))
    for index, one in enumerate(tree.shapes):
        what, kind = f"{path}: shape {index} ('{one.label}')", one.shape_type or "polygon"
        if kind not in POINTS:
            remedy = f"draw it as one of {', '.join(POINTS)}, or remove it"
            raise CrispsegError(f"{what} has the unsupported shape type '{kind}'; {remedy}")
        image.shapes.append(Shape(what, one.label, partial(draw_outlines, kind, [one.points])))
    return Annotations((image,), tuple(sorted({shape.label for shape in image.shapes})))


def draw_outlines(kind: str, outlines: Sequence[Sequence[Any]], height: int, width: int) -> Pixels:
    """Return the pixels inside any of the outlines; `kind` is a shape type of labelme, polygon for COCO."""
    polygons = []
    for outline in outlines:
        points = np.array(outline, np.float64).reshape(-1, 2)  # x before y
        if len(points) < POINTS[kind]:
            raise ValueError(f"it has {len(points)} points, but needs {POINTS[kind]}")
        if ((points < -OUTSIDE) | (points > (width + OUTSIDE, height + OUTSIDE))).any():
            raise ValueError(f"it has points outside of the image, {height}x{width} (height x width)")
        if kind == "circle":  # its centre, and a point of its rim
            (x, y), rows, columns = points[0], np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
            return np.flatnonzero((columns - x) ** 2 + (rows - y) ** 2 < ((points[1] - points[0]) ** 2).sum())
        if kind == "rectangle":  # two opposite corners
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        polygons.append(points.ravel().tolist())
    return np.flatnonzero(coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))))


def _draw_runs(runs: RunLengths, height: int, width: int) -> Pixels:
    """Return the pixels of run lengths, which alternate between 0 and 1, column by column from top to bottom."""
    if runs.size != (height, width):
        raise ValueError(f"its size is {list(runs.size)}, but the image is {[height, width]} (height, width)")
    encoded = runs.model_dump()
    if isinstance(runs.counts, list):
        encoded = coco.frPyObjects(encoded, height, width)
    inside = coco.decode(encoded)
    try:  # pycocotools refuses too many pixels, but leaves missing ones undefined
        coco.decode({**encoded, "size": (1, height * width - 1)})
    except ValueError:
        return np.flatnonzero(inside)
    raise ValueError(f"its counts cover fewer pixels than the image has, {height * width}")
