"""Reading annotation files: instances in COCO's JSON, and labelme's JSON of one image.

COCO: https://cocodataset.org/#format-data. labelme: https://github.com/wkentaro/labelme.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from crispseg.data import shapes
from crispseg.data.shapes import Patch
from crispseg.errors import CrispsegError

OUTSIDE = 1.0
"""Pixels by which a point may lie outside of its image: annotation tools round."""

AREAS = {"polygon": 3, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""labelme's kinds of shapes that have an area, and how many points they need."""

LISTED = 5
"""Bad shapes that an error tells of, of all that it counts."""


@dataclass(frozen=True)
class Shape:
    """One thing that is marked in an image."""

    label: str
    kind: str
    """One of `AREAS`, or "runs"."""
    parts: Any
    """What it is drawn from, by its kind: outlines, corners, run lengths."""
    crowd: bool = False

    def draw(self, height: int, width: int) -> list[Patch]:
        """Its pixels in an image of this size, in one patch or several.

        Raises:
            ValueError: what it is drawn from makes no sense; the message says why, without the shape's name.
        """
        if self.kind == "runs":
            size = self.parts.get("size")
            if size != [height, width]:
                raise ValueError(f"its size is {size}, but the image is {[height, width]} (height, width)")
            return [shapes.runs(self.parts.get("counts"), height, width)]
        outlines = [_points(part, AREAS[self.kind], height, width) for part in self.parts["points"]]
        if self.kind == "mask":
            return [_picture(self.parts.get("mask"), outlines[0], height, width)]
        make = {"rectangle": shapes.rectangle, "circle": shapes.circle}.get(self.kind, shapes.polygon)
        return [make(points, height, width) for points in outlines]


@dataclass
class Annotated:
    """An image and what is marked in it."""

    image: str
    """Its path as the annotations give it."""
    source: Path
    """The file of annotations, and so where a relative path may start."""
    size: tuple[int, int] | None
    """`(H, W)` where the annotations say it."""
    shapes: list[tuple[str, Shape]] = field(default_factory=list)
    """Each with the name by which errors call it."""


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
    """Of the classes: COCO's in the order of their ids, labelme's in that of the alphabet."""
    faults: tuple[Fault, ...]
    """Shapes that are in no image, since what the file says of them makes no sense."""


def refuse(faults: Sequence[Fault]) -> None:
    """Raise an error that counts the bad shapes and tells of the first few, where there are any."""
    if not faults:
        return
    sources = {fault.source for fault in faults}
    if len(faults) == 1:
        raise CrispsegError(f"{faults[0].source}: {faults[0].text}")
    if len(sources) == 1:
        start, texts = f"{faults[0].source} has", [fault.text for fault in faults[:LISTED]]
    else:
        start, texts = f"{len(sources)} files have", [f"{source}: {text}" for source, text in faults[:LISTED]]
    listed = " ".join(f"({number}) {text}" for number, text in enumerate(texts, 1))
    raise CrispsegError(f"{start} {len(faults)} bad shapes: {listed}{' …' if len(faults) > LISTED else ''}")


def read_annotations(path: Path) -> Annotations:
    """Read a file of either kind; shapes that make no sense are among its `faults`.

    Raises:
        CrispsegError: it cannot be read, is no JSON, neither kind, or contradicts itself in its images or categories.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise CrispsegError(f"cannot read {path} ({error.strerror}); give a JSON file of annotations") from None
    except json.JSONDecodeError as error:
        raise CrispsegError(
            f"{path} is no JSON (line {error.lineno}, column {error.colno}: {error.msg}); export it again"
        ) from None
    except (ValueError, RecursionError):  # other text than UTF-8, or a number of thousands of digits
        raise CrispsegError(f"{path} is no JSON; give annotations of COCO or labelme") from None
    if isinstance(tree, dict) and isinstance(tree.get("shapes"), list):
        return _labelme(path, tree)
    if isinstance(tree, dict) and isinstance(tree.get("images"), list) and isinstance(tree.get("annotations"), list):
        return _coco(path, tree)
    raise CrispsegError(
        f"{path} holds neither COCO's 'images', 'annotations' and 'categories' nor labelme's 'shapes'; export it in "
        "one of these formats"
    )


def _coco(path: Path, tree: Mapping[str, Any]) -> Annotations:
    names: dict[int, str] = {}
    for index, entry in enumerate(_entries(path, tree, "categories", ("id", "name"))):
        if not isinstance(entry["id"], int):
            raise CrispsegError(
                f"{path}: category {index} has the id {entry['id']!r}, which is no whole number; export it again"
            )
        if entry["id"] in names:
            raise CrispsegError(f"{path} gives the id {entry['id']} to two categories; export it again")
        names[entry["id"]] = str(entry["name"])
    if not names:
        raise CrispsegError(f"{path} has no 'categories', which name the classes; export it with them")
    images: dict[int | str, Annotated] = {}
    for index, entry in enumerate(_entries(path, tree, "images", ("id", "file_name"))):
        if not isinstance(entry["id"], int | str):
            raise CrispsegError(f"{path}: image {index} has the id {entry['id']!r}, which is no id; export it again")
        if entry["id"] in images:
            raise CrispsegError(f"{path} gives the id {entry['id']} to two images; export it again")
        try:
            size = _size(entry, "height", "width")
        except (TypeError, ValueError):
            raise CrispsegError(f"{path}: height and width of image {index} are no numbers; export it again") from None
        images[entry["id"]] = Annotated(str(entry["file_name"]), path, size)
    faults = []
    for index, entry in enumerate(tree["annotations"]):
        what = f"annotation {entry.get('id', index) if isinstance(entry, dict) else index}"
        try:
            shape = _coco_shape(entry, images, names)
        except ValueError as error:
            faults.append(Fault(path, f"{what} {error}"))
        else:
            images[entry["image_id"]].shapes.append((what, shape))
    return Annotations("coco", tuple(images.values()), tuple(names[key] for key in sorted(names)), tuple(faults))


def _entries(path: Path, tree: Mapping[str, Any], name: str, keys: tuple[str, ...]) -> list[Mapping[str, Any]]:
    """A list of COCO's objects, each with the keys; empty where there is none."""
    found = tree.get(name) or []
    if not isinstance(found, list):
        raise CrispsegError(f"{path}: '{name}' is no list; export it again")
    for index, entry in enumerate(found):
        lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
        if lacking:
            raise CrispsegError(f"{path}: entry {index} of '{name}' lacks {' and '.join(lacking)}; export it again")
    return found


def _coco_shape(entry: Any, images: Container[int | str], names: Mapping[int, str]) -> Shape:
    """The shape of an annotation of these images and categories, by their ids.

    Raises:
        ValueError: it makes no sense; the message says why and what to do, without the annotation's name.
    """
    if not isinstance(entry, dict) or not {"image_id", "category_id"} <= entry.keys():
        raise ValueError("lacks image_id or category_id; export it again")
    image, category = entry["image_id"], entry["category_id"]
    if not all(isinstance(key, int | str) for key in (image, category)):
        raise ValueError("has an image_id or category_id that is no id; export it again")
    if image not in images:
        raise ValueError(f"belongs to the image {image}, which is not listed; export it again")
    if category not in names:
        known = ", ".join(map(str, sorted(names)[:10])) + (", …" if len(names) > 10 else "")
        raise ValueError(f"has the unknown category {category}; 'categories' lists {known}: add it there")
    label, found, crowd = names[category], entry.get("segmentation"), bool(entry.get("iscrowd"))
    if not found:
        raise ValueError("has no segmentation, and a box alone makes no mask; remove it")
    if isinstance(found, dict):
        return Shape(label, "runs", found, crowd)
    if isinstance(found, list) and all(isinstance(part, list) and len(part) % 2 == 0 for part in found):
        parts = [list(zip(part[::2], part[1::2], strict=True)) for part in found]
        return Shape(label, "polygon", {"points": parts}, crowd)
    raise ValueError("has a segmentation that is neither polygons [[x, y, …], …] nor run lengths; correct or remove it")


def _labelme(path: Path, tree: Mapping[str, Any]) -> Annotations:
    if not isinstance(tree.get("imagePath"), str):
        raise CrispsegError(f"{path} has no imagePath, so its image is not known; save it with labelme again")
    try:
        size = _size(tree, "imageHeight", "imageWidth")
    except (TypeError, ValueError):
        raise CrispsegError(f"{path}: imageHeight and imageWidth are no numbers; save it with labelme again") from None
    image = Annotated(tree["imagePath"].replace("\\", "/"), path, size)
    faults = []
    for index, entry in enumerate(tree["shapes"]):
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str) or "points" not in entry:
            faults.append(Fault(path, f"shape {index} lacks a label or points; save it with labelme again"))
            continue
        kind, what = str(entry.get("shape_type") or "polygon"), f"shape {index} ('{entry['label']}')"
        if kind not in AREAS:
            remedy = f"draw it as one of {', '.join(AREAS)}, or remove it"
            faults.append(Fault(path, f"{what} is of the kind '{kind}', which has no area; {remedy}"))
            continue
        parts = {"points": [entry["points"]], "mask": entry.get("mask")}
        image.shapes.append((what, Shape(entry["label"], kind, parts)))
    names = tuple(sorted({shape.label for _, shape in image.shapes}))
    return Annotations("labelme", (image,), names, tuple(faults))


def _size(entry: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    """`(H, W)`, or None where it is not given."""
    if entry.get(height) is None or entry.get(width) is None:
        return None
    return int(entry[height]), int(entry[width])


def _points(given: Any, least: int, height: int, width: int) -> NDArray[np.float64]:
    """Points `(N, 2)`, checked.

    Raises:
        ValueError: they are no points, too few, or outside of the image.
    """
    try:
        points = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ValueError("its points are no pairs of numbers") from None
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise ValueError("its points are no pairs of numbers")
    if len(points) < least:
        raise ValueError(f"it has {len(points)} points, but needs {least}")
    outside = ((points < -OUTSIDE) | (points > (width + OUTSIDE, height + OUTSIDE))).any(axis=1)
    if outside.any():
        x, y = points[outside][0]
        raise ValueError(f"its point ({x:g}, {y:g}) lies outside of the image, {height}x{width} (height x width)")
    return points


def _picture(text: Any, corners: NDArray[np.float64], height: int, width: int) -> Patch:
    """labelme's kind "mask": a picture in base64 whose first pixel is at the first corner."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as picture:
            mask = np.asarray(picture.convert("L")) > 0
    except (TypeError, ValueError, OSError, binascii.Error):
        raise ValueError("its mask is no picture in base64") from None
    left, top = corners.min(axis=0).round().astype(int).tolist()
    if min(top, left) < 0 or top + mask.shape[0] > height or left + mask.shape[1] > width:
        raise ValueError(f"its mask of {mask.shape[0]}x{mask.shape[1]} at ({left}, {top}) leaves the image")
    return shapes.cropped(mask, top, left)


def annotation_files(sources: Sequence[Path]) -> list[Path]:
    """The JSON files that are named, and those in folders that are, sub-folders included.

    Raises:
        CrispsegError: a source is missing, or a folder without any.
    """
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found = sorted(path for path in source.rglob("*.json") if not path.name.startswith("."))
            if not found:
                raise CrispsegError(f"{source} holds no JSON files; give annotations of COCO or labelme")
        elif source.is_file():
            found = [source]
        else:
            raise CrispsegError(f"{source} does not exist; give a JSON file of annotations, or a folder of them")
        files.update(dict.fromkeys(found))
    return list(files)
