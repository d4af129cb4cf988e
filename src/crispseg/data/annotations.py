"""Shapes of annotations, which pycocotools rasterises, and files of COCO and labelme.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme. In all formats, (0, 0) is the
top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from crispseg.errors import CrispsegError
from crispseg.io.outlines import joined
from crispseg.io.polygons import Coverage, Ring
from crispseg.labels import LabelSet

OUTSIDE = 1.0  # distance in pixels by which a point may be outside its image, because annotation tools round
POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2}
"""Shape types of labelme and their minimum number of points."""
LINES = "line", "linestrip"  # of them, those that are drawn as strokes
STROKE = 3  # width in pixels of a line without a given width

MAX_OUTLINE = 4_000_000  # length in pixels of an outline of annotations, for which pycocotools takes 0.4 GB

Spans: TypeAlias = NDArray[np.int64]  # `(n, 2)` ranges of flat pixel indices, column by column: column · height + row


class Shape(NamedTuple):
    """An annotated shape of an image."""

    name: str  # name in error messages
    label: str
    draw: Callable[[int, int], Spans]  # returns its pixels for a height and a width; its error may be of any kind
    crowd: bool = False
    z_order: int = 0  # shapes of a higher order are on top
    line: bool = False  # whether it is a stroke rather than an area


@dataclass
class MarkedImage:
    """An image and its annotated shapes."""

    image: str  # image path as written in the annotations, or its name without suffix
    source: Path  # annotation file; a relative image path may start from its folder
    size: tuple[int | None, int | None] = (None, None)  # `(H, W)` if the annotations include it
    shapes: list[Shape] = field(default_factory=list)
    name: str = ""  # name in the output folder, without suffix; by default its path
    split: str = ""  # its split, or folder names that imply it; by default the path of the annotations implies it
    also: str = ""  # another name, with or without suffix, if no file has that of `image`
    entry: str = ""  # its place in messages, such as "a.json: image 3"; by default its annotation file
    scope: str = ""  # format that has one file an image; other annotation files list an image once


class Annotations(NamedTuple):
    """Content of an annotation file."""

    images: tuple[MarkedImage, ...]
    names: tuple[str, ...]  # class names, sorted by id for COCO and YOLO, as listed by CVAT, else alphabetical
    notes: tuple[str, ...] = ()  # lines about what is not imported


def alphabetical(images: Sequence[MarkedImage], notes: Sequence[str] = ()) -> Annotations:
    """Return annotations of a format that does not order its classes."""
    shapes = chain(*(image.shapes for image in images))
    return Annotations(tuple(images), tuple(sorted({shape.label for shape in shapes})), tuple(notes))


class Outlined(NamedTuple):
    """An image whose areas are written as annotations."""

    file: Path
    name: str  # its name in the annotations, without suffix
    labels: NDArray[Any]  # `(H, W)` class ids, or object numbers
    folder: Path  # folder of the annotations when they are complete
    names: Mapping[int, str]  # class of each label that is written
    covered: Coverage  # its polygons
    raster: Path | None = None  # TIFF at the map position of the image

    @property
    def file_name(self) -> str:
        """Its name in the annotations."""
        return f"{self.name}{self.file.suffix}"

    def path(self, folder: Path, suffix: str) -> Path:
        """Return the path of its own file of annotations, whose folder is created."""
        path = folder / f"{self.name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def areas(self) -> list[tuple[str, list[Ring]]]:
        """Return the class, the outline and the outlines of holes of each area."""
        return [(self.names[value], rings) for value, rings in self.covered.rings() if value in self.names]

    def polygons(self) -> list[tuple[str, Ring]]:
        """Return the class and the outline of each area; a line joins the outlines of holes to it."""
        return [(name, joined(outlines)) for name, outlines in self.areas()]


def claim(owners: dict[Any, Any], key: Any, owner: Any, claimed: str) -> None:
    """Record the only owner of a key; a second one raises a `CrispsegError` that names both."""
    first = owners.setdefault(key, owner)
    if first != owner:
        raise CrispsegError(f"{claimed} is both {first} and {owner}; correct one of them in the annotations")


def class_name(value: Any, place: str) -> str:
    """Return a class name of annotations; all but text and whole numbers raise a `CrispsegError`."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise CrispsegError(f"{place} has {json.dumps(value)} as class name; write it in quotes, or remove it")
    return str(value)


def read_coco(path: Path, content: Any) -> Annotations:
    """Read a COCO file; a shape that cannot become a mask, or an ambiguous id, raises a `CrispsegError`."""
    names, files, images, ids = dict[Any, str](), dict[Any, str](), dict[Any, MarkedImage](), dict[str, Any]()
    for entry in content["categories"]:
        category = f"{path}: category {entry['id']}"
        claim(names, entry["id"], class_name(entry["name"], category), category)
    for entry in content["images"]:
        number, file, size = entry["id"], str(entry["file_name"]), (entry.get("height"), entry.get("width"))
        claim(files, number, file, f"{path}: image {number}")
        images[number] = MarkedImage(file, path, size, entry=f"{path}: image {number}")
    for entry in content["annotations"]:
        image, category, outlines = entry["image_id"], entry["category_id"], entry.get("segmentation")
        shape_name = f"{path}: annotation {entry.get('id', 'without an id')}"
        if image not in images or category not in names:
            which = f"image {image} and category {category}"
            raise CrispsegError(f"{shape_name} refers to {which}, but the file does not list both; export it again")
        if not outlines:
            raise CrispsegError(f"{shape_name} has a box but no segmentation; remove it")
        if entry.get("iscrowd") not in (None, 0, 1):
            raise CrispsegError(f"{shape_name} has the iscrowd {entry['iscrowd']!r}; write 0 or 1")
        claim(ids, names[category], category, f"{path}: the id of '{names[category]}'")
        is_runs = isinstance(outlines, dict)
        draw = partial(_draw_runs, outlines) if is_runs else partial(draw_outlines, "polygon", outlines)
        images[image].shapes.append(Shape(shape_name, names[category], draw, bool(entry.get("iscrowd"))))
    return Annotations(tuple(images.values()), tuple(names[key] for key in sorted(names)))


def write_coco(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write annotations/instances_default.json, with polygons, and run lengths of areas with holes."""
    listed, annotations = list[Any](), list[Any]()
    for image in images:
        height, width = image.labels.shape
        listed.append({"id": len(listed) + 1, "file_name": image.file_name, "height": height, "width": width})
        for name, outlines in image.areas():
            runs = coco.merge(coco.frPyObjects([np.ravel(joined(outlines)).tolist()], height, width))
            shape: Any = [np.ravel(outlines[0]).tolist()]
            if len(outlines) > 1:
                shape = {"size": [height, width], "counts": runs["counts"].decode()}
            ids = {"id": len(annotations) + 1, "image_id": len(listed), "category_id": classes.index(name)}
            box = {"area": int(coco.area(runs)), "bbox": coco.toBbox(runs).tolist(), "iscrowd": 0}
            annotations.append({**ids, "segmentation": shape, **box})
    categories = [{"id": classes.index(name), "name": name} for name in classes.foreground]
    tree = {"categories": categories, "images": listed, "annotations": annotations}
    (folder / "annotations").mkdir()
    (folder / "annotations/instances_default.json").write_text(json.dumps(tree), encoding="utf-8")


def read_labelme(path: Path, content: Any) -> Annotations:
    """Read a labelme file; a shape that cannot become a mask raises a `CrispsegError`."""
    size = content.get("imageHeight"), content.get("imageWidth")
    image = MarkedImage(str(content["imagePath"]), path, size, also=path.stem, scope="labelme")
    for index, shape in enumerate(content["shapes"]):
        label = class_name(shape["label"], f"{path}: shape {index}").strip()
        kind, mask = shape.get("shape_type") or "polygon", shape.get("mask")
        shape_name = f"{path}: shape {index} ('{label}')"
        if kind not in POINTS and mask is None:
            remedy = f"draw it as one of {', '.join(POINTS)}, or remove it"
            raise CrispsegError(f"{shape_name} has the unsupported shape type '{kind}'; {remedy}")
        points = shape["points"]
        draw = partial(draw_outlines, kind, [points]) if mask is None else partial(_draw_png, mask, points)
        image.shapes.append(Shape(shape_name, label, draw, line=kind in LINES))
    return alphabetical([image])


def write_labelme(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a file for each image, with polygons."""
    for image in images:
        kind = {"shape_type": "polygon", "group_id": None}
        shapes: list[Any] = [{"label": name, "points": ring, "flags": {}, **kind} for name, ring in image.polygons()]
        size = {"imageHeight": image.labels.shape[0], "imageWidth": image.labels.shape[1]}
        place = Path(os.path.relpath(image.file, (image.folder / image.name).parent)).as_posix()
        tree = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": place, "imageData": None, **size}
        image.path(folder, ".json").write_text(json.dumps(tree), encoding="utf-8")


def draw_outlines(
    kind: str, outlines: Sequence[Sequence[Any]], height: int, width: int, thickness: float = STROKE
) -> Spans:
    """Return the pixels inside any of the outlines; `kind` is a shape type of labelme, polygon for COCO.

    Lines have a `thickness` in pixels.
    """
    spans, line = [], partial(_draw_line, thickness=max(round(thickness), 1))
    draws: dict[str, Callable[..., Spans]] = {"circle": _draw_circle, **dict.fromkeys(LINES, line)}
    for outline in outlines:
        points = point_array(outline)
        if len(points) < POINTS[kind]:
            raise CrispsegError(f"it has {len(points)} points, but needs {POINTS[kind]}")
        if not ((points >= -OUTSIDE) & (points <= (width + OUTSIDE, height + OUTSIDE))).all():  # also for NaN
            raise CrispsegError(f"it has points outside of the image, {height}x{width} (height x width)")
        if kind == "rectangle":  # two opposite corners
            (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
            points = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        draw = draws.get(kind, _draw_polygon)
        spans.append(draw(points, height, width))
    return united(spans)


def point_array(outline: Any) -> NDArray[np.float64]:
    """Return points `(N, 2)`, x before y, of pairs or of COCO's list of numbers; others raise a `CrispsegError`."""
    points = np.array(outline, np.float64)
    if points.ndim == 1:
        points = points.reshape(-1, 2)
    if points.shape[1:] != (2,):
        raise CrispsegError("its points are not pairs of x and y")
    return points


def draw_shares(kind: str, points: Any, whole: float, height: int, width: int) -> Spans:
    """Return the pixels inside points whose unit is width and height divided by `whole`, such as 100 for percent."""
    scaled = point_array(points) * (width / whole, height / whole)
    return draw_outlines(kind, [scaled.tolist()], height, width)


def draw_mask(mask: NDArray[np.bool_], left: int, top: int, height: int) -> Spans:
    """Return the pixels of a mask whose first pixel is at `left`, `top`, see `check_within`."""
    edges = np.diff(np.pad(mask, ((1, 1), (0, 0))).astype(np.int8), axis=0)  # where each column begins and ends
    columns, rows = np.nonzero(edges.T)
    return ((columns + left) * height + rows + top).reshape(-1, 2)


def check_within(left: int, top: int, rows: int, columns: int, height: int, width: int) -> None:
    """Raise a `CrispsegError` unless a mask of this position and size is within the image."""
    if min(left, top) < 0 or left + columns > width or top + rows > height:
        place = f"{rows}x{columns} at column {left}, row {top}"
        raise CrispsegError(f"its mask, {place}, is not within the image, {height}x{width} (height x width)")


def united(parts: Sequence[Spans]) -> Spans:
    """Return the pixels that are in any of the parts."""
    starts, ends = np.concatenate(parts).T
    positions, steps = np.concatenate([starts, ends]), np.repeat([1, -1], len(starts))
    order = positions.argsort()
    positions, depth = positions[order], steps[order].cumsum()
    filled = np.flatnonzero((depth[:-1] > 0) & (positions[1:] > positions[:-1]))
    return np.stack([positions[filled], positions[filled + 1]], axis=1)


def _draw_polygon(points: NDArray[np.float64], height: int, width: int) -> Spans:
    """Return the pixels inside an outline; pycocotools takes time and memory in proportion to its length."""
    length = np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum()
    if length > MAX_OUTLINE:
        raise CrispsegError(f"its outline is {length:,.0f} pixels long, more than {MAX_OUTLINE:,}")
    runs = coco.frPyObjects([points.ravel().tolist()], height, width)[0]
    return _spans(_run_lengths(runs["counts"]), height * width)


def _draw_line(points: NDArray[np.float64], height: int, width: int, thickness: int) -> Spans:
    """Return the pixels of a line through points, drawn on the part of the image around it."""
    pixels = np.floor(points).astype(np.int32)
    left, top = np.maximum(pixels.min(0) - thickness, 0).tolist()
    right, bottom = np.minimum(pixels.max(0) + thickness + 1, (width, height)).tolist()
    canvas = np.zeros((bottom - top, right - left), np.uint8)
    cv2.polylines(canvas, [pixels - (left, top)], False, 1)  # its own thickness of 3 is 5 pixels
    pen = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (thickness, thickness))
    return draw_mask(cv2.dilate(canvas, pen) > 0, left, top, height)


def _draw_circle(points: NDArray[np.float64], height: int, width: int) -> Spans:
    """Return the pixels of a circle, given by its centre and a point of its rim."""
    (x, y), rim = points
    radius = np.hypot(*(rim - (x, y)))
    left, top = (max(0, math.floor(centre - radius)) for centre in (x, y))
    rows = np.arange(top, min(height, y + radius))[:, None] + 0.5
    columns = np.arange(left, min(width, x + radius)) + 0.5
    return draw_mask((columns - x) ** 2 + (rows - y) ** 2 < ((rim - (x, y)) ** 2).sum(), left, top, height)


def _draw_runs(runs: dict[str, Any], height: int, width: int) -> Spans:
    """Return the pixels of run lengths, which alternate between 0 and 1, column by column from top to bottom."""
    if runs["size"] != [height, width]:
        raise CrispsegError(f"its size is {runs['size']}, but the image is {[height, width]} (height, width)")
    counts = runs["counts"]
    lengths = np.array(counts, np.int64) if isinstance(counts, list) else _run_lengths(str(counts).encode())
    return _spans(lengths, height * width)


def _spans(lengths: NDArray[np.int64], pixels: int) -> Spans:
    """Return the spans of run lengths, which must cover all pixels of the image."""
    if ((lengths < 0) | (lengths > pixels)).any() or lengths.sum() != pixels:
        raise CrispsegError(f"its counts cover {lengths.sum()} pixels, but the image has {pixels}")
    ends = lengths.cumsum()
    return ends[: len(ends) // 2 * 2].reshape(-1, 2)


def _run_lengths(text: bytes) -> NDArray[np.int64]:
    """Return the run lengths in COCO's text, which pycocotools only decodes to whole images.

    A number has groups of 5 bits, the lowest first; a sixth bit marks all but the last. The bit before it is the sign.
    From the fourth number on, it is the difference to the number before the previous one.
    """
    codes = np.frombuffer(text, np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    groups = last - first + 1
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, groups))
    numbers = np.add.reduceat((codes & 31) << shifts, first)
    numbers -= (codes[last] >> 4 & 1) << 5 * groups
    for start in (1, 2):
        numbers[start::2] = numbers[start::2].cumsum()
    return numbers


def _draw_png(text: str, points: Sequence[Any], height: int, width: int) -> Spans:
    """Return the pixels of a PNG as Base64, whose first pixel is at the first point."""
    left, top = map(round, points[0])
    with Image.open(io.BytesIO(base64.b64decode(text))) as mask:
        check_within(left, top, mask.height, mask.width, height, width)
        return draw_mask(np.asarray(mask.convert("L")) > 0, left, top, height)
