"""Annotations: instances in COCO's JSON, and labelme's JSON of one image; and their shapes as pixels.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme. Coordinates of both: (0, 0) is
the top left corner of the first pixel, whose centre is (0.5, 0.5).
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from crispseg.data import annotations as shapes
from crispseg.data.pairing import few
from crispseg.errors import CrispsegError, one_line
from crispseg.io.opening import decoding

Pixels: TypeAlias = NDArray[np.int64]
"""`(n,)` places in an image that is laid out row by row: row · width + column."""


def polygon(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The inside of a closed outline by the even-odd rule, cut at the image's border.

    Args:
        points: `(N, 2)` corners, x before y, at least three.
        height, width: size of the image in pixels.
    """
    return _pixels(coco.frPyObjects([points.ravel().tolist()], height, width)[0])


def rectangle(corners: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The box between two opposite corners `(2, 2)`, cut at the image's border."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return polygon(np.array([(left, top), (right, top), (right, bottom), (left, bottom)]), height, width)


def circle(points: NDArray[np.float64], height: int, width: int) -> Pixels:
    """The pixels whose centre lies in the disk around the first of two points `(2, 2)`, the second being on its rim.

    Raises:
        ValueError: there are not two points.
    """
    if len(points) != 2:
        raise ValueError(f"it has {len(points)} points, but a circle has 2, its centre and one of its rim")
    (x, y), rim = points
    rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    return np.flatnonzero((columns - x) ** 2 + (rows - y) ** 2 < ((rim - points[0]) ** 2).sum())


def runs(counts: Any, height: int, width: int) -> Pixels:
    """The pixels that run lengths mark: columns from left to right, each from top to bottom, 0 and 1 in turns.

    Args:
        counts: numbers, or COCO's compressed text of them.
        height, width: size of the image in pixels.

    Raises:
        ValueError: they are no run lengths, or not of this size.
    """
    size = [height, width]
    try:
        if isinstance(counts, str):
            counts = _uncompressed(counts)
        if (total := sum(counts)) == height * width:
            return _pixels(coco.frPyObjects({"size": size, "counts": counts}, height, width))
    except (ValueError, TypeError, OverflowError):
        raise ValueError("its counts are no run lengths of this size") from None
    raise ValueError(f"its counts make {total} pixels, but the image has {height * width}")


def _uncompressed(text: str) -> list[int]:
    """The numbers of COCO's compressed text, since pycocotools does not say whether they cover the whole image.

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


def _pixels(rle: Any) -> Pixels:
    return np.flatnonzero(coco.decode(rle))


OUTSIDE = 1.0
"""Pixels by which a point may lie outside of its image: annotation tools round."""

AREAS = {"polygon": 3, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""labelme's kinds of shapes that have an area, and how many points they need."""


class Shape(NamedTuple):
    """One thing that is marked in an image."""

    name: str
    """How errors call it."""
    label: str
    draw: Callable[[int, int], shapes.Pixels]
    """Gives its pixels in an image of this height and width; its ValueError says why it makes no sense."""
    crowd: bool = False


@dataclass
class Annotated:
    """An image and what is marked in it."""

    image: str
    """Its path as the annotations give it."""
    source: Path
    """The file of annotations, and so where a relative path may start."""
    size: tuple[int, int] | None
    """`(H, W)` where the annotations say it."""
    shapes: list[Shape] = field(default_factory=list)


class Fault(NamedTuple):
    """A shape that cannot be drawn."""

    source: Path
    """The file of annotations."""
    text: str
    """Which one it is, why, and what to do."""


@dataclass(frozen=True)
class Annotations:
    """What one file holds."""

    kind: str
    """coco or labelme."""
    images: tuple[Annotated, ...]
    names: tuple[str, ...]
    """Names of the classes: COCO's in the order of their ids, labelme's in that of the alphabet."""
    faults: tuple[Fault, ...]
    """Shapes that are in no image, since what the file says of them makes no sense."""


def refuse(faults: Sequence[Fault]) -> None:
    """Raise an error that tells of the first bad shape and counts the others, where there are any."""
    if faults:
        more = f" ({len(faults) - 1} more shapes are bad)" if len(faults) > 1 else ""
        raise CrispsegError(f"{faults[0].source}: {faults[0].text}{more}")


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
    if isinstance(tree, dict) and isinstance(tree.get("shapes"), list):
        return _labelme(path, tree)
    if isinstance(tree, dict) and isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list):
        return _coco(path, tree)
    raise CrispsegError(
        f"{path} holds neither COCO's 'images', 'annotations' and 'categories' nor labelme's 'shapes'; export it in "
        "one of these formats"
    )


def _coco(path: Path, tree: Mapping[str, Any]) -> Annotations:
    if not tree.get("categories"):
        raise CrispsegError(f"{path} has no 'categories', which name the classes; export it with them")
    try:
        names = {_typed(entry, "id", int): _typed(entry, "name", str) for entry in tree["categories"]}
        images = {
            entry["id"]: Annotated(_typed(entry, "file_name", str), path, _size(entry, "height", "width"))
            for entry in tree["images"]
        }
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"'images' and 'categories' are not as COCO has them ({_reason(error)})"
        raise CrispsegError(f"{path}: {what}; export it again") from None
    for key, found in (("categories", names), ("images", images)):
        if len(found) < len(tree[key]):
            raise CrispsegError(f"{path} gives one id to two {key}; export it again")

    def add(entry: Mapping[str, Any], what: str) -> None:
        if (image := entry["image_id"]) not in images:
            raise ValueError(f"belongs to the image {image}, which is not listed; export it again")
        if (category := entry["category_id"]) not in names:
            listed = few(sorted(names), 10)
            raise ValueError(f"has the unknown category {category!r}; 'categories' lists {listed}: add it there")
        images[image].shapes.append(Shape(what, names[category], _coco_drawing(entry), bool(entry.get("iscrowd"))))

    faults = _add_all(tree["annotations"], add, path, "annotation", "COCO")
    return Annotations("coco", tuple(images.values()), tuple(names[key] for key in sorted(names)), faults)


def _coco_drawing(entry: Mapping[str, Any]) -> Callable[[int, int], shapes.Pixels]:
    """What draws an annotation."""
    found = entry.get("segmentation")
    if not found:
        raise ValueError("has no segmentation, and a box alone makes no mask; remove it")
    if isinstance(found, dict):
        return partial(_draw_runs, found)
    if isinstance(found, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in found):
        return partial(_draw_outlines, "polygon", [list(zip(part[::2], part[1::2], strict=True)) for part in found])
    raise ValueError("has a segmentation that is neither polygons [[x, y, …], …] nor run lengths; correct or remove it")


def _labelme(path: Path, tree: Mapping[str, Any]) -> Annotations:
    try:
        image = Annotated(tree["imagePath"].replace("\\", "/"), path, _size(tree, "imageHeight", "imageWidth"))
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        what = f"it does not name its image as labelme does ({_reason(error)})"
        raise CrispsegError(f"{path}: {what}; save it with labelme again") from None

    def add(entry: Mapping[str, Any], what: str) -> None:
        label, kind, points = _typed(entry, "label", str), entry.get("shape_type") or "polygon", entry["points"]
        if kind not in AREAS:
            remedy = f"draw it as one of {few(AREAS)}, or remove it"
            raise ValueError(f"('{label}') is of the kind '{kind}', which has no area; {remedy}")
        draw = partial(_draw_picture, entry) if kind == "mask" else partial(_draw_outlines, kind, [points])
        image.shapes.append(Shape(f"{what} ('{label}')", label, draw))

    faults = _add_all(tree["shapes"], add, path, "shape", "labelme")
    return Annotations("labelme", (image,), tuple(sorted({shape.label for shape in image.shapes})), faults)


def _add_all(
    entries: Sequence[Any], add: Callable[[Mapping[str, Any], str], None], path: Path, noun: str, tool: str
) -> tuple[Fault, ...]:
    """Add each entry, under a name, to its image; the faults are those of entries that `add` refuses."""
    faults = []
    for index, entry in enumerate(entries):
        what = f"{noun} {entry.get('id', index) if isinstance(entry, dict) else index}"
        try:
            add(entry, what)
        except (KeyError, TypeError, AttributeError) as error:
            faults.append(Fault(path, f"{what} is not as {tool} has it ({_reason(error)}); export it again"))
        except ValueError as error:
            faults.append(Fault(path, f"{what} {error}"))
    return tuple(faults)


def _size(entry: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    """`(H, W)`, or None where it is not given."""
    if entry.get(height) is None or entry.get(width) is None:
        return None
    return int(entry[height]), int(entry[width])


def _typed(entry: Mapping[str, Any], key: str, kind: type) -> Any:
    """An entry's value, of just this type: 1.5 is no id, and null no label."""
    if type(entry[key]) is not kind:
        raise TypeError(f"'{key}' is {entry[key]!r}, which is no {'whole number' if kind is int else 'text'}")
    return entry[key]


def _reason(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else one_line(error)


def _points(given: Any, least: int, height: int, width: int) -> NDArray[np.float64]:
    """Points `(N, 2)`, at least so many and inside of the image."""
    try:
        points = np.asarray(given, np.float64)
        sound = points.ndim == 2 and points.shape[1] == 2 and bool(np.isfinite(points).all())
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise ValueError("its points are no pairs of numbers")
    if len(points) < least:
        raise ValueError(f"it has {len(points)} points, but needs {least}")
    outside = ((points < -OUTSIDE) | (points > (width + OUTSIDE, height + OUTSIDE))).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise ValueError(f"its point ({x:g}, {y:g}) lies outside of the image, {height}x{width} (height x width)")
    return points


def _draw_outlines(kind: str, outlines: Sequence[Any], height: int, width: int) -> shapes.Pixels:
    """What lies inside of one of the outlines, which are of labelme's kind."""
    make = {"rectangle": shapes.rectangle, "circle": shapes.circle}.get(kind, shapes.polygon)
    drawn = [make(_points(points, AREAS[kind], height, width), height, width) for points in outlines]
    return drawn[0] if len(drawn) == 1 else np.unique(np.concatenate(drawn))


def _draw_runs(found: Mapping[str, Any], height: int, width: int) -> shapes.Pixels:
    if (size := found.get("size")) != [height, width]:
        raise ValueError(f"its size is {size}, but the image is {[height, width]} (height, width)")
    return shapes.runs(found.get("counts"), height, width)


def _draw_picture(entry: Mapping[str, Any], height: int, width: int) -> shapes.Pixels:
    """labelme's kind "mask": a picture in base64 whose first pixel is at the first corner."""
    left, top = _points(entry["points"], AREAS["mask"], height, width).min(axis=0).round().astype(int).tolist()
    try:
        with decoding(io.BytesIO(base64.b64decode(entry["mask"], validate=True))) as picture:
            leaves = min(top, left) < 0 or top + picture.height > height or left + picture.width > width
            rows, columns = picture.height, picture.width
            mask = None if leaves else np.asarray(picture.convert("L")) > 0  # a small file may hold very many pixels
    except Exception:  # on broken data Pillow's decoders raise almost anything
        raise ValueError("its mask is no picture in base64, or a far too large one") from None
    if mask is None:
        raise ValueError(f"its mask of {rows}x{columns} at ({left}, {top}) leaves the image")
    whole = np.zeros((height, width), bool)
    whole[top : top + rows, left : left + columns] = mask
    return np.flatnonzero(whole)


def annotation_files(sources: Sequence[Path]) -> list[Path]:
    """The JSON files that are named, and those in folders that are, sub-folders included.

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
