"""GeoJSON of QuPath, in pixels: https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from crispseg.data.annotations import (
    STROKE,
    Annotations,
    MarkedImage,
    Outlined,
    Shape,
    alphabetical,
    draw_outlines,
)
from crispseg.errors import CrispsegError
from crispseg.io.outlines import joined, write_polygons
from crispseg.labels import LabelSet


def read_geojson(path: Path, content: Any) -> Annotations:
    """Read polygons and lines of the image with the name of the file; a `CrispsegError` is raised for other features.

    A line has the width of its property "stroke-width", by default `STROKE`. Each part of a feature is a shape.
    Features without QuPath's classification are refused, because they may be in map coordinates.
    """
    image = MarkedImage(path.stem, path, scope="geojson")
    for index, feature in enumerate(content if isinstance(content, list) else content.get("features", [content])):
        image.shapes += _shapes(f"{path}: feature {index}", feature)
    return alphabetical([image])


def _shapes(name: str, feature: dict[str, Any]) -> list[Shape]:
    properties, geometry = feature["properties"] or {}, feature["geometry"]
    label, kind, parts = _label(properties), geometry["type"], geometry.get("coordinates", [])
    if not label or kind.removeprefix("Multi") not in ("Polygon", "LineString"):
        lacks = f"is a {kind}, not a polygon or a line" if label else "has no class of QuPath"
        remedy = "draw polygons or lines with a class in QuPath; gdal_rasterize makes masks of polygons on a map"
        raise CrispsegError(f"{name} {lacks}; {remedy}")
    parts = parts if kind.startswith("Multi") else [parts]
    if kind.endswith("Polygon"):
        return [Shape(name, label, partial(draw_outlines, "polygon", [joined(rings)])) for rings in parts]
    thickness = properties.get("stroke-width", STROKE)
    draws = [partial(draw_outlines, "linestrip", [part], thickness=thickness) for part in parts]
    return [Shape(name, label, draw, line=True) for draw in draws]


def _label(properties: dict[str, Any]) -> str:
    """Return the class of a feature as QuPath shows it; empty without one."""
    classification = properties.get("classification") or {}
    return str(classification.get("name") or ": ".join(classification.get("names", ())))


def write_geojson(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a file for each image, with QuPath's classes, or for a map as `write_polygons` does."""
    for image in images:
        if image.raster is not None:
            write_polygons(image.raster, image.path(folder, ".geojson"), classes.names, image.covered)
            continue
        features = []
        for name, outlines in image.areas():
            classification = {"name": name, "color": classes.palette[classes.index(name)]}
            geometry = {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in outlines]}
            properties = {"objectType": "annotation", "classification": classification}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
        text = json.dumps({"type": "FeatureCollection", "features": features})
        image.path(folder, ".geojson").write_text(text, encoding="utf-8")
