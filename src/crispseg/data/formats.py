"""Formats of annotations: their readers and writers, and recognition of a file's format.

Readers raise a `CrispsegError` for damaged files, for those of another format and for shapes that make no mask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.annotations import Annotations, Outlined, read_coco, read_labelme, write_coco, write_labelme
from crispseg.data.cvat import read_cvat, write_cvat
from crispseg.data.geojson import read_geojson, write_geojson
from crispseg.data.label_studio import read_label_studio, write_label_studio
from crispseg.data.yolo import read_yolo, write_yolo
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_folder, check_new_folder
from crispseg.labels import LabelSet


class Format(NamedTuple):
    """A format of annotations: suffixes of its files, none for YOLO, and its reader and writer."""

    title: str
    suffixes: tuple[str, ...]
    read: Callable[..., Annotations]
    write: Callable[[Path, Iterable[Outlined], LabelSet], None]


FORMATS = {
    "coco": Format("COCO", (".json",), read_coco, write_coco),
    "yolo": Format("YOLO", (), read_yolo, write_yolo),
    "cvat": Format("CVAT", (".xml",), read_cvat, write_cvat),
    "labelstudio": Format("Label Studio", (".json",), read_label_studio, write_label_studio),
    "labelme": Format("labelme", (".json",), read_labelme, write_labelme),
    "geojson": Format("GeoJSON", (".geojson", ".json"), read_geojson, write_geojson),
}
"""Formats by name."""


def read_annotations(path: Path, images: Path | None = None) -> tuple[str, Annotations]:
    """Return the name of the format and the content of a file, or of a folder of YOLO with its images."""
    if path.is_dir():
        return "yolo", read_yolo(path, images)
    if path.suffix.lower() == ".xml":
        return "cvat", read_cvat(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # or text that is not UTF-8, or a number with thousands of digits
        remedy = "unpack it, and give the folder" if path.suffix.lower() == ".zip" else "export it again"
        raise CrispsegError(f"{path} is not JSON ({one_line(error)}); {remedy}") from None
    first = content[0] if isinstance(content, list) and content else content
    keys = first if isinstance(first, dict) else {}
    if keys.get("type") in ("FeatureCollection", "Feature"):
        name = "geojson"
    elif "data" in keys or (keys and first is not content):
        name = "labelstudio"
    else:
        name = "labelme" if "shapes" in keys else "coco"
    return name, FORMATS[name].read(path, content)


def check_annotations(name: str, folder: Path) -> Path:
    """Return the folder in `folder` for a format; a `CrispsegError` is raised if it exists or cannot be written."""
    if (folder / name).exists():
        raise CrispsegError(f"{folder / name} exists and may have been corrected; move it, or give another out")
    return check_new_folder(folder / name)


def write_annotations(folder: Path, masks: Iterable[tuple[Path, str, NDArray[np.uint8]]], classes: LabelSet) -> None:
    """Write a new folder, named like its format, with the areas of all classes but the background.

    Args:
        folder: the folder; it is created when it is complete.
        masks: path of each image, its name without suffix, and its class ids `(H, W)`; 255 is not written.
        classes: the classes.
    """
    with atomic_folder(folder) as made:
        FORMATS[folder.name].write(made, (Outlined(*mask, folder, classes) for mask in masks), classes)
