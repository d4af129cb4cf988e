"""Label Studio's JSON: https://labelstud.io/guide/task_format. Brush masks are run lengths of thi.ng/rle-pack."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from crispseg.data.annotations import (
    Annotations,
    MarkedImage,
    Outlined,
    Shape,
    Spans,
    alphabetical,
    class_name,
    draw_mask,
    draw_shares,
)
from crispseg.errors import CrispsegError
from crispseg.io.files import foreign_endings
from crispseg.io.images import SUFFIXES
from crispseg.io.outlines import joined
from crispseg.io.polygons import Coverage, coverage
from crispseg.labels import IGNORE, LabelSet

NOT_SHAPES = ("choices", "datetime", "labels", "number", "rating", "taxonomy", "textarea")
"""Types of results that describe the region with the same id."""
ADDRESS = re.compile(r"/|\w+://")
"""Start of an address; other texts that end like an image are names of files."""
WORD_BITS, RUN_BITS = 8, 16  # of a value and of the length of a run in written brush masks

UNANNOTATED = "no annotation; they were left out"
SEVERAL_ANNOTATIONS = "more than one annotation; of each, the ground truth or, without one, the last was imported"


def read_label_studio(path: Path, content: Any) -> Annotations:
    """Read the ground truth or last annotation of each task, or predictions if no task has an annotation."""
    tasks = content if isinstance(content, list) else [content]
    if "annotation_id" in tasks[0]:
        raise CrispsegError(f"{path} is Label Studio's JSON-MIN; export it as JSON")
    annotated = any(task.get("annotations") for task in tasks)
    marked: list[MarkedImage] = []
    counts = {UNANNOTATED: 0, SEVERAL_ANNOTATIONS: 0}
    for index, task in enumerate(tasks):
        data, results = task["data"], _results(task.get("annotations" if annotated else "predictions"))
        images = _marked(path, f"{path}: task {index}", data, results[-1]) if results else []
        marked += images
        counts[UNANNOTATED] += not images
        counts[SEVERAL_ANNOTATIONS] += len(results) > 1
    notes = [] if annotated else [f"{path} has no annotations; its predictions were imported"]
    notes += [f"{count} tasks of {path} have {problem}" for problem, count in counts.items() if count]
    return alphabetical(marked, notes)


def _results(annotations: list[dict[str, Any]] | None) -> list[list[dict[str, Any]]]:
    """Return the regions of each annotation that was not cancelled, of the ground truth last."""
    ordered = sorted(annotations or [], key=lambda annotation: bool(annotation.get("ground_truth")))
    return [annotation["result"] for annotation in ordered if not annotation.get("was_cancelled")]


def write_label_studio(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write tasks.json, with polygons as predictions."""
    control = {"from_name": "label", "to_name": "image", "type": "polygonlabels"}
    tasks = []
    for image in images:
        predictions = [
            {"model_version": "crispseg", "result": regions(image.labels, classes, control, image.covered, image.names)}
        ]
        tasks.append({"data": {"image": f"/data/local-files/?d={quote(image.file_name)}"}, "predictions": predictions})
    (folder / "tasks.json").write_text(json.dumps(tasks), encoding="utf-8")


def regions(
    labels: NDArray[np.uint8],
    classes: LabelSet,
    control: Mapping[str, str],
    covered: Coverage | None = None,
    names: Mapping[int, str] | None = None,
) -> list[dict[str, Any]]:
    """Return class ids `(H, W)` as results of a prediction, without the background and 255.

    `control` has their `from_name`, `to_name` and `type`. With `brushlabels`, each class is a brush mask. With
    `polygonlabels`, each area, or polygon of `covered` with `names`, is a polygon; a line joins its holes to it.
    """
    height, width = labels.shape
    head = {**control, "original_width": width, "original_height": height, "image_rotation": 0}
    shapes: list[tuple[int, dict[str, Any]]] = []
    if control["type"] == "brushlabels":
        for index in {*np.unique(labels).tolist()} - {classes.background, IGNORE}:
            shapes.append((index, {"format": "rle", "rle": brush_runs(labels == index)}))
    else:
        for index, outlines in (covered or coverage(labels, 0)).rings():
            points = np.array(joined(outlines)) * (100 / width, 100 / height)
            shapes.append((index, {"points": points.tolist()}))
    names = names or {classes.index(name): name for name in classes.foreground}
    return [{**head, "value": {**value, control["type"]: [names[index]]}} for index, value in shapes if index in names]


def brush_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Return the bytes of a brush mask `(H, W)`: run lengths of RGBA values, 0 or 255; see `_draw_brush`."""
    flat, longest = mask.ravel(), 2**RUN_BITS
    edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    bits = [f"{4 * flat.size:032b}{WORD_BITS - 1:05b}", 4 * f"{RUN_BITS - 1:04b}"]
    for start, end in pairwise(edges):
        value = f"{255 * int(flat[start]):0{WORD_BITS}b}"
        for position in range(4 * start, 4 * end, longest):
            length = min(longest, 4 * end - position)
            bits.append(f"100{length - 1:0{RUN_BITS}b}{value}")  # a repeated value, whose length has the first size
    digits = np.frombuffer("".join(bits).encode(), np.uint8)
    return np.packbits(digits == ord("1")).tolist()


def _marked(path: Path, task: str, data: dict[str, Any], result: list[dict[str, Any]]) -> list[MarkedImage]:
    """Return the images of a task; of several images, only those with shapes."""
    images = _images(path, task, data)
    regions = [region for region in result if "original_width" in region]  # others are about the whole task
    labels = defaultdict[Any, list[str]](list)  # of regions by their ids, from <Labels>
    for region in regions:
        labels[region.get("id")] += region["value"].get("labels", [])
    for index, region in enumerate(regions):
        if region["type"] in NOT_SHAPES:
            continue
        name = f"{task}: region {index} ({region['type']})"
        key = region.get("to_name") if len(images) > 1 else min(images)
        if key not in images:
            listed = ", ".join(sorted(images))
            raise CrispsegError(f"{name} is on the image '{key}', but the task has {listed}; give both the same name")
        image = images[key]
        image.size = (region["original_height"], region["original_width"])
        image.shapes.append(_shape(name, region, labels[region.get("id")]))
    return [image for image in images.values() if image.shapes or len(images) == 1]


def _images(path: Path, task: str, data: dict[str, Any]) -> dict[str, MarkedImage]:
    """Return the images of a task by their key, without file names of other images."""
    addressed, named = dict[str, MarkedImage](), dict[str, MarkedImage]()
    for key, value in data.items():
        address = str(value)
        local = address.partition("?d=")[2]
        image = PurePosixPath(unquote(local or address.partition("?")[0]))
        if image.suffix.lower() in SUFFIXES:
            place = str(image) if local else image.name
            also = re.sub(r"^[0-9a-f]{8}-", "", foreign_endings(place)[-1].name)  # without the prefix of uploads
            kind = addressed if ADDRESS.match(address) else named
            kind[key] = MarkedImage(place, path, also=also, entry=f"{task} ({key})")
    known = {image.also for image in addressed.values()}
    images = addressed | {key: image for key, image in named.items() if image.also not in known}
    if not images:
        raise CrispsegError(f"{task} has no image in its data; export it again with the image's address")
    return images


def _shape(name: str, region: dict[str, Any], more: list[str]) -> Shape:
    """Return the shape of a region, whose label may be in another result: `more` are the labels there."""
    kind, value = region["type"].removesuffix("labels"), region["value"]
    labels = [*value.get(f"{kind}labels", []), *more]
    if kind not in ("polygon", "brush", "rectangle") or not labels:
        raise CrispsegError(f"{name} is not a polygon, box or brush mask with a label; correct or remove it")
    if len({*labels}) > 1:
        raise CrispsegError(f"{name} has the labels {' and '.join(labels)}, but a pixel has one class; remove one")
    if region.get("image_rotation") or value.get("rotation"):
        raise CrispsegError(f"{name} is rotated, or its image; draw it upright, on the image as it is")
    label = class_name(labels[0], name)
    if kind == "brush":
        return Shape(name, label, partial(_draw_brush, bytes([*value["rle"]])))
    if kind == "rectangle":
        left, top, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
        return Shape(name, label, partial(draw_shares, "rectangle", [(left, top), (left + width, top + height)], 100))
    return Shape(name, label, partial(draw_shares, "polygon", value["points"], 100))


def _draw_brush(runs: bytes, height: int, width: int) -> Spans:
    """Return the opaque pixels of run lengths of RGBA values."""
    bits, position = "".join(f"{byte:08b}" for byte in runs), 0

    def number(size: int) -> int:
        nonlocal position
        position += size
        return int(bits[position - size : position], 2)

    total = number(32)
    if total != 4 * height * width:
        raise CrispsegError(f"its run lengths cover {total // 4} pixels, but the image has {height * width}")
    values = np.zeros(total, np.uint8)
    word, sizes, start = number(5) + 1, [number(4) + 1 for _ in range(4)], 0
    while start < len(values):
        repeated = number(1)
        end = start + 1 + number(sizes[number(2)])
        values[start:end] = number(word) if repeated else [number(word) for _ in range(start, end)]
        start = end
    return draw_mask(values[3::4].reshape(height, width) > 0, 0, 0, height)
