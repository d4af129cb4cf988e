"""Formats of annotations: their readers and writers, and recognition of a file's format.

Readers raise a `CrispsegError` for shapes that make no mask, and almost any error for content of another form.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from zipfile import is_zipfile

from crispseg.config.files import read_text
from crispseg.data.annotations import Annotations, Outlined, read_coco, read_labelme, write_coco, write_labelme
from crispseg.data.cvat import read_cvat, write_cvat
from crispseg.data.geojson import read_geojson, write_geojson
from crispseg.data.gis import write_gpkg, write_svg
from crispseg.data.label_studio import read_label_studio, write_label_studio
from crispseg.data.yolo import read_yolo, write_yolo
from crispseg.errors import CrispsegError, one_line
from crispseg.io.files import atomic_folder
from crispseg.labels import LabelSet


class Format(NamedTuple):
    """A format of annotations: suffixes of its files, none for YOLO, and its reader and writer."""

    title: str
    suffixes: tuple[str, ...]
    marks: set[str]  # its JSON, or the first entry of a list, has one of these keys
    read: Callable[..., Annotations]
    write: Callable[[Path, Iterable[Outlined], LabelSet], None]


FORMATS = {
    "coco": Format("COCO", (".json",), {"images", "categories"}, read_coco, write_coco),
    "yolo": Format("YOLO", (), set(), read_yolo, write_yolo),
    "cvat": Format("CVAT", (".xml",), set(), read_cvat, write_cvat),
    "labelstudio": Format("Label Studio", (".json",), {"data", "annotation_id"}, read_label_studio, write_label_studio),
    "labelme": Format("labelme", (".json",), {"shapes"}, read_labelme, write_labelme),
    "geojson": Format("GeoJSON", (".geojson", ".json"), {"features", "geometry"}, read_geojson, write_geojson),
}
"""Formats by name."""

ANNOTATION_WRITERS = {name: form.write for name, form in FORMATS.items()} | {"gpkg": write_gpkg, "svg": write_svg}
"""Writers of all formats by name."""


def read_annotations(path: Path, images: Path | None = None) -> tuple[str, Annotations]:
    """Return the name of the format and the content of a file, or of a folder of YOLO with its images."""
    if path.is_dir():
        return "yolo", read_yolo(path, images)
    if path.is_file() and is_zipfile(path):
        raise CrispsegError(f"{path} is a ZIP file; unpack it, and give its folder")
    form = "XML" if path.suffix.lower() == ".xml" else "JSON"
    again = "export it again, as docs/labelling.md shows"
    try:
        if form == "XML":
            content = ElementTree.parse(path).getroot()
        else:
            content = json.loads(read_text(path), object_pairs_hook=_object)
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CrispsegError(f"{path} is not {form} ({one_line(error)}); {again}") from None
    name = "cvat" if form == "XML" else _json_format(content)
    if name is None:
        raise CrispsegError(f"{path} has no known format of annotations; {again}")
    try:
        return name, FORMATS[name].read(path, content)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        problem = f"it lacks {error}" if isinstance(error, KeyError) else "an entry has an unknown structure"
        raise CrispsegError(f"{path} is not {FORMATS[name].title}'s format ({problem}); {again}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a repeated key, of which JSON would keep only the last value, raises a ValueError."""
    content = dict(pairs)
    if len(content) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"an object has '{repeated}' twice")
    return content


def _json_format(content: Any) -> str | None:
    """Return the format of JSON by its keys, or by those of its first entry."""
    first = content[0] if isinstance(content, list) and content else content
    keys = first.keys() if isinstance(first, dict) else set()
    return next((name for name, form in FORMATS.items() if form.marks & keys), None)


def write_annotations(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a new folder, named like its format, with the areas of images."""
    with atomic_folder(folder) as made:
        ANNOTATION_WRITERS[folder.name](made, images, classes)
