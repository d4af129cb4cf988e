"""GeoJSON in pixels, as in QuPath, or on a map; and GeoPackages, by geopandas.

QuPath: https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Iterable, Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from crispseg.data.annotations import Annotations, MarkedImage, Outlined, Pixels, Shape, draw_outlines
from crispseg.errors import CrispsegError, one_line
from crispseg.io.tiff import SUFFIXES, open_dataset
from crispseg.labels import LabelSet

LONGITUDES = "OGC:CRS84"
"""Reference system of GeoJSON on a map that names none."""


def read_geojson(path: Path, content: Any) -> Annotations:
    """Read the polygons of the image with the name of the file; a `CrispsegError` is raised for other features.

    They are in pixels if QuPath wrote them, and otherwise on the map, if the image has a map position.
    """
    tree: Any = {"features": content} if isinstance(content, list) else content
    features = tree.get("features", [tree])
    image = MarkedImage(path.stem, path, (None, None), on_map=True)
    for index, each in enumerate(features if isinstance(features, list) else [features]):
        what = f"{path}: feature {index}"
        try:
            system = tree["crs"]["properties"]["name"] if tree.get("crs") else ""
            given, kind, parts = each["properties"], each["geometry"]["type"], each["geometry"]["coordinates"]
            label = given.get("classification") or given.get("class")
            label = label["name"] if isinstance(label, dict) else label
        except (LookupError, TypeError, AttributeError) as error:
            raise CrispsegError(f"{what} is not GeoJSON ({one_line(error)}); export it again") from None
        if not label or kind not in ("Polygon", "MultiPolygon"):
            lacks = f"is a {kind}, not a polygon" if label else "has no class"
            raise CrispsegError(f"{what} {lacks}; draw a polygon with a class in QuPath or with the property 'class'")
        parts = [parts] if kind == "Polygon" else parts
        draw = partial(_draw, parts, None if "objectType" in given and not system else system)
        image.shapes.append(Shape(what, str(label), draw))
    return Annotations((image,), tuple(sorted({shape.label for shape in image.shapes})))


def write_geojson(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a file for each image, in pixels, with QuPath's classes."""
    for image in images:
        features = _features(image)
        for properties in (each["properties"] for each in features):
            name = properties.pop("class")
            color = classes.palette[classes.index(name)]
            properties |= {"objectType": "annotation", "classification": {"name": name, "color": color}}
        text = json.dumps({"type": "FeatureCollection", "features": features})
        image.path(folder, ".geojson").write_text(text, encoding="utf-8")


def read_geopackage(path: Path) -> Annotations:
    """Read a GeoPackage of one layer like `read_geojson`; a damaged file raises a `CrispsegError`."""
    try:
        frame = geopandas().read_file(path)
        system = {"crs": {"properties": {"name": frame.crs.to_wkt()}}} if frame.crs else {}
        tree = json.loads(frame.to_json())
    except (ValueError, OSError, RuntimeError) as error:  # as GDAL raises them
        raise CrispsegError(f"{path} is not a GeoPackage of polygons ({one_line(error)}); export it again") from None
    return read_geojson(path, {"features": tree["features"], **system})


def write_geopackage(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a file for each image, in map coordinates if it has any."""
    for image in images:
        features, (system, transform) = _features(image), position(image.file)
        for geometry in (each["geometry"] for each in features if transform is not None):
            geometry["coordinates"] = [_moved(ring, transform) for ring in geometry["coordinates"]]
        frame = geopandas().GeoDataFrame.from_features(features, system and system.to_wkt(), ["geometry", "class"])
        with warnings.catch_warnings(action="ignore"):  # most images have no map position
            frame.to_file(image.path(folder, ".gpkg"), driver="GPKG", layer="areas")


def geopandas() -> Any:
    """Return the library; if it is not installed, a `CrispsegError` is raised."""
    if find_spec("geopandas") is None:
        raise CrispsegError("GeoPackages need geopandas and rasterio: pip install geopandas rasterio")
    return importlib.import_module("geopandas")


def _features(image: Outlined) -> list[dict[str, Any]]:
    return [
        {
            "type": "Feature",
            "properties": {"class": name},
            "geometry": {"type": "Polygon", "coordinates": [[*ring, ring[0]] for ring in outlines]},
        }
        for name, outlines in image.areas()
    ]


@cache
def position(file: Path) -> tuple[Any, Any]:
    """Return the reference system of an image, and its transform from pixels to the map; None if it has none."""
    if file.suffix.lower() not in SUFFIXES:
        return None, None
    with open_dataset(file) as dataset:
        return dataset.crs, None if dataset.transform.is_identity else dataset.transform


def _moved(ring: Sequence[Any], transform: Any) -> list[Any]:
    a, b, c, d, e, f = transform[:6]
    points: list[Any] = (np.array(ring)[:, :2] @ [(a, d), (b, e)] + (c, f)).tolist()
    return points


def _draw(parts: Sequence[Any], system: str | None, height: int, width: int, file: Path) -> Pixels:
    """Return the pixels of polygons with holes, on a map with this reference system; None if they are in pixels."""
    crs, transform = (None, None) if system is None else position(file)
    if system and transform is None:
        raise ValueError(f"it is on a map ({system[:40]}), but {file} has no map position; give GeoTIFFs as images")
    if transform is not None:
        if crs is not None:
            warp, shape = importlib.import_module("rasterio.warp"), {"type": "MultiPolygon", "coordinates": parts}
            parts = warp.transform_geom(system or LONGITUDES, crs, shape)["coordinates"]
        parts = [[_moved(ring, ~transform) for ring in part] for part in parts]
    inside = np.zeros(height * width, np.bool_)
    for outer, *holes in parts:
        drawn = draw_outlines("polygon", [outer], height, width)
        inside[np.setdiff1d(drawn, draw_outlines("polygon", holes, height, width) if holes else [])] = True
    return np.flatnonzero(inside)
