"""Outlines of pixels: objects in COCO's format, and areas of a map as polygons in its coordinates."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.io.files import write_file
from crispseg.io.polygons import Coverage, Ring, coverage
from crispseg.io.tiff import open_dataset
from crispseg.labels import IGNORE

CocoShape: TypeAlias = Ring | dict[str, object]  # COCO segmentation: run lengths, or `[x, y, x, y, …]` of each outline


def segmentations(ids: NDArray[np.int32]) -> list[CocoShape]:
    """Return polygons around the pixels of each object in a map of numbers `(H, W)`, 0 or 1 to N.

    Each part of an object, connected by sides, has one polygon. Objects with holes, even those closed only by a corner,
    have run lengths, because programs fill such holes.
    """
    parts = defaultdict[int, list[Any]](list)
    for number, outlines in coverage(ids, 0).rings():
        parts[number].append(outlines)
    shapes: list[CocoShape] = []
    for number in range(1, ids.max() + 1):
        if max(map(len, parts[number]), default=0) > 1:
            flat = (ids == number).ravel(order="F")  # column by column, alternately outside and inside
            changes = np.flatnonzero(np.diff(flat, prepend=False))
            shapes.append({"size": [*ids.shape], "counts": np.diff([0, *changes, flat.size]).tolist()})
        else:
            shapes.append([np.ravel(outer).tolist() for (outer,) in parts[number]])
    return shapes


def joined(outlines: Sequence[Ring]) -> Ring:
    """Return an outline without holes: a line, there and back, joins each hole to the outer outline."""
    ring, *holes = outlines
    for hole in holes:
        nearest = int(np.abs(np.array(ring) - hole[0]).sum(1).argmin())
        ring = [*ring[: nearest + 1], *hole, hole[0], *ring[nearest:]]
    return ring


def write_polygons(
    labels: str | Path, target: str | Path, names: Sequence[str], covered: Coverage | None = None
) -> int:
    """Write the areas of a TIFF of class ids as GeoJSON, one feature for each part that is connected by sides.

    Their properties are `class` and `id`. Coordinates are those of the map, and the member `crs` is its reference
    system, as in GDAL and QGIS. Images without a map position have pixel coordinates. Ignored pixels (255) have no
    polygon. With `covered`, they are its polygons. Returns the number of polygons.
    """
    with open_dataset(labels) as dataset:
        code = dataset.crs.to_epsg() if dataset.crs else None
        if dataset.gcps[0] or (dataset.crs and code is None):
            raise CrispsegError(f"{labels} has no EPSG code, or is positioned by control points; warp it (gdalwarp)")
        covered = covered or coverage(dataset.read(1), 0)
        geometries = zip(covered.on_map(dataset.transform), covered.values.tolist(), strict=True)
        features = [
            {"type": "Feature", "properties": {"class": names[value], "id": value}, "geometry": geometry}
            for geometry, value in geometries
            if value != IGNORE
        ]
    system = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    head = {"type": "FeatureCollection", "name": Path(target).stem} | ({"crs": system} if code else {})
    text = json.dumps({**head, "features": features}, allow_nan=False, default=attrgetter("__geo_interface__"))
    write_file(target, text)
    return len(features)
