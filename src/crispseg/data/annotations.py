"""Annotation files: instances in COCO's JSON, and labelme's JSON of one image. COCO's own code draws their shapes.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme. In both, (0, 0) is the top
left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from pydantic import BaseModel, FiniteFloat, StrictInt, StrictStr, ValidationError

from crispseg.data.pairing import few
from crispseg.errors import CrispsegError, one_line
from crispseg.io.opening import decoding

OUTSIDE = 1.0
"""Pixels by which a point may lie outside of its image: annotation tools round."""

AREAS = {"polygon": 3, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""labelme's kinds of shapes that have an area, and how many points they need."""

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` places in an image that is laid out row by row: row · width + column."""
Points: TypeAlias = list[tuple[FiniteFloat, FiniteFloat]]


class Shape(NamedTuple):
    """One thing that is marked in an image."""

    name: str
    """For errors."""
    label: str
    draw: Callable[[int, int], Pixels]
    """Returns its pixels in an image of this height and width; its ValueError says why it makes no sense."""
    crowd: bool = False


@dataclass
class Annotated:
    """An image and the shapes that are marked in it."""

    image: str
    """Its path as the annotations give it."""
    source: Path
    """The file of annotations, and so where a relative path may start."""
    size: tuple[int | None, int | None]
    """`(H, W)` where the annotations say it."""
    shapes: list[Shape] = field(default_factory=list)


@dataclass(frozen=True)
class Annotations:
    """The content of one file."""

    images: tuple[Annotated, ...]
    names: tuple[str, ...]
    """Names of the classes: COCO's in the order of their ids, labelme's in that of the alphabet."""
    faults: tuple[str, ...]
    """A line for each shape that makes no sense, and so is in no image."""


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
    image_id: int | str
    category_id: int
    segmentation: list[list[FiniteFloat]] | RunLengths | None = None
    iscrowd: bool = False


class _Coco(BaseModel):
    images: list[_Image]
    categories: list[_Category]
    annotations: list[Any]


class _LabelmeShape(BaseModel):
    label: StrictStr
    shape_type: str | None = None
    points: Points
    mask: str | None = None


class _Labelme(BaseModel):
    imagePath: StrictStr
    imageHeight: int | None = None
    imageWidth: int | None = None
    shapes: list[Any]


def annotation_files(sources: Sequence[Path]) -> list[Path]:
    """Return the JSON files that are named, and those in folders that are, sub-folders included.

    Raises:
        CrispsegError: a source is missing, or a folder without any.
    """
    files: list[Path] = []
    for source in sources:
        below = sorted(path for path in source.rglob("*.json") if not path.name.startswith("."))
        if not (found := [source] if source.is_file() else below):
            what = "holds no JSON files" if source.is_dir() else "does not exist"
            remedy = "give a JSON file of annotations of COCO or labelme, or a folder of them"
            raise CrispsegError(f"{source} {what}; {remedy}")
        files += found
    return list(dict.fromkeys(files))


def read_annotations(path: Path) -> Annotations:
    """Read a file of either kind; shapes that make no sense are among its `faults`.

    Raises:
        CrispsegError: it cannot be read, is no JSON, neither kind, or contradicts itself in its images or categories.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CrispsegError(f"cannot read {path} ({error.strerror}); give a JSON file of annotations") from None
    except (ValueError, RecursionError) as error:  # also other text than UTF-8, or a number of thousands of digits
        raise CrispsegError(f"{path} is no JSON ({one_line(error)}); export it again") from None
    keys = tree.keys() if isinstance(tree, dict) else set()
    try:
        if "shapes" in keys:
            return _labelme(path, _Labelme.model_validate(tree))
        if {"images", "annotations"} <= keys:
            return _coco(path, _Coco.model_validate(tree))
    except ValidationError as error:
        kind = "labelme" if "shapes" in keys else "COCO"
        raise CrispsegError(f"{path} is not as {kind} has it ({_reason(error)}); export it again") from None
    raise CrispsegError(
        f"{path} holds neither COCO's 'images', 'annotations' and 'categories' nor labelme's 'shapes'; export it in "
        "one of these formats"
    )


def _coco(path: Path, tree: _Coco) -> Annotations:
    names = {entry.id: entry.name for entry in tree.categories}
    images = {entry.id: Annotated(entry.file_name, path, (entry.height, entry.width)) for entry in tree.images}
    for key, found, count in (("categories", names, len(tree.categories)), ("images", images, len(tree.images))):
        if len(found) < count:
            raise CrispsegError(f"{path} gives one id to two {key}; export it again")

    def add(entry: Any, what: str) -> None:
        one = _Instance.model_validate(entry)
        if one.image_id not in images:
            raise ValueError(f"belongs to the image {one.image_id}, which is not listed; export it again")
        if one.category_id not in names:
            listed = few(sorted(names), 10)
            raise ValueError(f"has the unknown category {one.category_id}; 'categories' lists {listed}: add it there")
        if not one.segmentation:
            raise ValueError("has no segmentation, and a box alone makes no mask; remove it")
        if isinstance(one.segmentation, RunLengths):
            draw = partial(_draw_runs, one.segmentation)
        elif any(len(part) % 2 for part in one.segmentation):
            raise ValueError("has a polygon that is no list [x, y, x, y, …]; correct or remove it")
        else:
            polygons = [list(zip(part[::2], part[1::2], strict=True)) for part in one.segmentation]
            draw = partial(_draw_outlines, "polygon", polygons)
        images[one.image_id].shapes.append(Shape(what, names[one.category_id], draw, one.iscrowd))

    faults = _add_all(tree.annotations, add, f"{path}: annotation")
    return Annotations(tuple(images.values()), tuple(names[key] for key in sorted(names)), faults)


def _labelme(path: Path, tree: _Labelme) -> Annotations:
    image = Annotated(tree.imagePath.replace("\\", "/"), path, (tree.imageHeight, tree.imageWidth))

    def add(entry: Any, what: str) -> None:
        one = _LabelmeShape.model_validate(entry)
        if (kind := one.shape_type or "polygon") not in AREAS:
            remedy = f"draw it as one of {few(AREAS)}, or remove it"
            raise ValueError(f"('{one.label}') is of the kind '{kind}', which has no area; {remedy}")
        draw = partial(_draw_picture, one) if kind == "mask" else partial(_draw_outlines, kind, [one.points])
        image.shapes.append(Shape(f"{what} ('{one.label}')", one.label, draw))

    faults = _add_all(tree.shapes, add, f"{path}: shape")
    return Annotations((image,), tuple(sorted({shape.label for shape in image.shapes})), faults)


def _add_all(entries: Iterable[Any], add: Callable[[Any, str], None], noun: str) -> tuple[str, ...]:
    """Add each entry, under a name, to its image; the faults are those of entries that `add` refuses."""
    faults = []
    for index, entry in enumerate(entries):
        what = f"{noun} {entry.get('id', index) if isinstance(entry, dict) else index}"
        try:
            add(entry, what)
        except ValidationError as error:
            faults.append(f"{what} is not as its format has it ({_reason(error)}); export it again")
        except ValueError as error:
            faults.append(f"{what} {error}")
    return tuple(faults)


def _reason(error: ValidationError) -> str:
    worst = max(error.errors(), key=lambda each: len(each["loc"]))  # of what may be of two kinds, the deepest
    return f"{'.'.join(map(str, worst['loc']))}: {worst['msg']}"


def _draw_outlines(kind: str, outlines: Sequence[Points], height: int, width: int) -> Pixels:
    """The pixels inside one of the outlines, which are of labelme's kind; COCO's are polygons."""
    drawn = [_draw_outline(kind, _inside(points, AREAS[kind], height, width), height, width) for points in outlines]
    return drawn[0] if len(drawn) == 1 else np.unique(np.concatenate(drawn))


def _draw_outline(kind: str, points: NDArray[np.float64], height: int, width: int) -> Pixels:
    if kind == "circle":  # its centre, and a point of its rim
        if len(points) != 2:
            raise ValueError(f"it has {len(points)} points, but a circle has 2, its centre and one of its rim")
        (x, y), rim = points
        rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
        return np.flatnonzero((columns - x) ** 2 + (rows - y) ** 2 < ((rim - points[0]) ** 2).sum())
    if kind == "rectangle":  # two opposite corners
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    return np.flatnonzero(coco.decode(coco.frPyObjects([points.ravel().tolist()], height, width)[0]))


def _inside(given: Points, least: int, height: int, width: int) -> NDArray[np.float64]:
    """Points `(N, 2)`, x before y, at least so many and inside of the image."""
    points = np.array(given, np.float64).reshape(-1, 2)
    if len(points) < least:
        raise ValueError(f"it has {len(points)} points, but needs {least}")
    outside = ((points < -OUTSIDE) | (points > (width + OUTSIDE, height + OUTSIDE))).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise ValueError(f"its point ({x:g}, {y:g}) lies outside of the image, {height}x{width} (height x width)")
    return points


def _draw_runs(runs: RunLengths, height: int, width: int) -> Pixels:
    """The pixels of run lengths: columns from left to right, each from top to bottom, 0 and 1 in turns."""
    if runs.size != (height, width):
        raise ValueError(f"its size is {list(runs.size)}, but the image is {[height, width]} (height, width)")
    try:
        counts = _uncompressed(runs.counts) if isinstance(runs.counts, str) else runs.counts
        if (total := sum(counts)) == height * width:  # else pycocotools leaves pixels undefined
            return np.flatnonzero(coco.decode(coco.frPyObjects({"size": runs.size, "counts": counts}, height, width)))
    except (ValueError, TypeError, OverflowError):
        raise ValueError("its counts are no run lengths of this size") from None
    raise ValueError(f"its counts make {total} pixels, but the image has {height * width}")


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
    left, top = _inside(shape.points, AREAS["mask"], height, width).min(axis=0).round().astype(int).tolist()
    try:
        with decoding(io.BytesIO(base64.b64decode(shape.mask or "", validate=True))) as picture:
            rows, columns = picture.height, picture.width
            leaves = min(top, left) < 0 or top + rows > height or left + columns > width
            mask = None if leaves else np.asarray(picture.convert("L")) > 0  # a small file may hold very many pixels
    except Exception:  # on broken data Pillow's decoders raise almost anything
        raise ValueError("its mask is no picture in base64, or a far too large one") from None
    if mask is None:
        raise ValueError(f"its mask of {rows}x{columns} at ({left}, {top}) leaves the image")
    whole = np.zeros((height, width), bool)
    whole[top : top + rows, left : left + columns] = mask
    return np.flatnonzero(whole)
