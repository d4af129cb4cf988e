"""Annotations as JSON: instances of COCO, and labelme's of one image. COCO's own code draws their outlines.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme. In both, (0, 0) is the top
left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import base64
import io
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
from crispseg.io.opening import decoding

OUTSIDE = 1.0
"""Pixels by which a point may lie outside of its image: annotation tools round."""

AREAS = {"polygon": 3, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""labelme's kinds of shapes that have an area, and how many points they need."""

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` places in an image that is laid out row by row: row · width + column."""


class Shape(NamedTuple):
    """One thing that is marked in an image."""

    name: str
    """For errors."""
    label: str
    draw: Callable[[int, int], Pixels]
    """Returns its pixels in an image of this height and width; raises where it makes no sense."""
    crowd: bool = False


@dataclass
class MarkedImage:
    """An image and the shapes that are marked in it."""

    image: str
    """Its path as the annotations give it."""
    source: Path
    """The file of annotations, and so where a relative path may start."""
    size: tuple[int | None, int | None]
    """`(H, W)` where the annotations say it."""
    shapes: list[Shape] = field(default_factory=list)
    name: str = ""
    """Its name in the folder to be, without suffix; by default its path."""
    split: str = ""
    """Its split, or names of folders that tell it; by default the path of the annotations tells it."""


class Annotations(NamedTuple):
    """The content of one file."""

    images: tuple[MarkedImage, ...]
    names: tuple[str, ...]
    """Names of the classes: COCO's and YOLO's in the order of their ids, labelme's in that of the alphabet."""


class _Category(BaseModel):
    id: StrictInt
    name: StrictStr


class _Image(BaseModel):
    id: int | str
    file_name: StrictStr
    height: int | None = None
    width: int | None = None


class RunLengths(BaseModel):
    """COCO's form of an area: numbers or compressed text."""

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
    mask: str | None = None


class _Labelme(BaseModel):
    imagePath: StrictStr
    imageHeight: int | None = None
    imageWidth: int | None = None
    shapes: list[_LabelmeShape]


def read_annotations(path: Path) -> Annotations:
    """Read a file of either kind.

    Raises:
        CrispsegError: it is no JSON, neither kind, or has a shape that makes no mask.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also other text than UTF-8, or a number of thousands of digits
        raise CrispsegError(f"{path} is no JSON ({one_line(error)}); export it again") from None
    labelme = isinstance(tree, dict) and "shapes" in tree
    try:
        return _labelme(path, _Labelme.model_validate(tree)) if labelme else _coco(path, _Coco.model_validate(tree))
    except ValidationError as error:
        worst = max(error.errors(), key=lambda each: len(each["loc"]))  # of what may be of two kinds, the deepest
        reason = f"{'.'.join(map(str, worst['loc']))}: {worst['msg']}"
        kind = "labelme" if labelme else "COCO (or labelme)"
        raise CrispsegError(f"{path} is not as {kind} has it ({reason}); export it again") from None


def _coco(path: Path, tree: _Coco) -> Annotations:
    names = {entry.id: entry.name for entry in tree.categories}
    images = {entry.id: MarkedImage(entry.file_name, path, (entry.height, entry.width)) for entry in tree.images}
    for one in tree.annotations:
        what = f"{path}: annotation {one.id}"
        if one.image_id not in images or one.category_id not in names:
            which = f"image {one.image_id} and category {one.category_id}"
            raise CrispsegError(f"{what} belongs to {which}, which the file does not list both; export it again")
        if not one.segmentation:
            raise CrispsegError(f"{what} has no segmentation, and a box alone makes no mask; remove it")
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
        if kind not in AREAS:
            remedy = f"draw it as one of {', '.join(AREAS)}, or remove it"
            raise CrispsegError(f"{what} is of the kind '{kind}', which has no area; {remedy}")
        draw = partial(_draw_picture, one) if kind == "mask" else partial(draw_outlines, kind, [one.points])
        image.shapes.append(Shape(what, one.label, draw))
    return Annotations((image,), tuple(sorted({shape.label for shape in image.shapes})))


def draw_outlines(kind: str, outlines: Sequence[Sequence[Any]], height: int, width: int) -> Pixels:
    """The pixels inside one of the outlines, which are of labelme's kind; COCO's are polygons."""
    polygons = []
    for outline in outlines:
        points = np.array(outline, np.float64).reshape(-1, 2)  # x before y
        if len(points) < AREAS[kind]:
            raise ValueError(f"it has {len(points)} points, but needs {AREAS[kind]}")
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
    """The pixels of run lengths: columns from left to right, each from top to bottom, 0 and 1 in turns."""
    if runs.size != (height, width):
        raise ValueError(f"its size is {list(runs.size)}, but the image is {[height, width]} (height, width)")
    counts = _uncompressed(runs.counts) if isinstance(runs.counts, str) else runs.counts
    if sum(counts) != height * width:  # of which pycocotools leaves pixels undefined
        raise ValueError(f"its counts make {sum(counts)} pixels, but the image has {height * width}")
    inside = np.repeat(np.arange(len(counts)) % 2, counts)
    return np.flatnonzero(inside.reshape(width, height).T)


def _uncompressed(text: str) -> list[int]:
    """The numbers of COCO's compressed text.

    A character holds five bits and whether more follow; from the fourth number on it is the change to the last but one.
    """
    counts: list[int] = []
    value = shift = 0
    for code in text.encode("ascii"):
        value |= (code - 48 & 31) << shift
        shift += 5
        if not code - 48 & 32:
            value -= (value >> shift - 1 & 1) << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts


def _draw_picture(shape: _LabelmeShape, height: int, width: int) -> Pixels:
    """labelme's kind "mask": a picture in base64 whose first pixel is at the first corner."""
    left, top = np.array(shape.points).min(axis=0).round().astype(int).tolist()
    with decoding(io.BytesIO(base64.b64decode(shape.mask or ""))) as picture:
        mask = np.asarray(picture.convert("L")) > 0
    if min(top, left) < 0 or top + mask.shape[0] > height or left + mask.shape[1] > width:
        raise ValueError(f"its mask at ({left}, {top}) leaves the image")
    whole = np.zeros((height, width), bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return np.flatnonzero(whole)
