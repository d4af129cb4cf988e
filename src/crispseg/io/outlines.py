"""Outlines of pixels: objects in COCO's format, and areas of a map as polygons in its coordinates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from skimage.measure import label

from crispseg.errors import CrispsegError
from crispseg.io.files import write_file
from crispseg.io.tiff import open_dataset
from crispseg.labels import IGNORE

Ring: TypeAlias = list[list[int]]  # corners `[x, y]` of an outline along the edges of pixels; the first is at (0, 0)
CocoShape: TypeAlias = Ring | dict[str, object]  # COCO segmentation: run lengths, or `[x, y, x, y, …]` of each outline


def segmentations(ids: NDArray[np.int32]) -> list[CocoShape]:
    """Return polygons around the pixels of each object in a map of numbers `(H, W)`, 0 or 1 to N.

    Each part of an object, connected by sides, has one polygon. Objects with holes, even those closed only by a corner,
    have run lengths, because programs fill such holes.
    """
    shapes: list[CocoShape] = []
    for number, box in enumerate(find_objects(ids), 1):
        mask = ids[box] == number
        a, b, c, d = mask[:-1, :-1], mask[:-1, 1:], mask[1:, :-1], mask[1:, 1:]
        outer, holes = _rings(mask, box)
        if holes or ((a == d) & (b == c) & (a != b)).any():
            flat = (ids == number).ravel(order="F")  # column by column, alternately outside and inside
            changes = np.flatnonzero(np.diff(flat, prepend=False))
            shapes.append({"size": [*ids.shape], "counts": np.diff([0, *changes, flat.size]).tolist()})
        else:
            shapes.append([np.ravel(ring).tolist() for ring in outer])
    return shapes


def areas(labels: NDArray[np.uint8], background: int | None) -> Iterator[tuple[int, list[Ring]]]:
    """Yield the areas of class ids `(H, W)` that are connected by sides, without those of the background and of 255.

    An area is its class id, its outer outline, and the outlines of its holes, even those closed only by a corner.
    """
    parts = label(labels, connectivity=1, background=-1)
    for number, box in enumerate(find_objects(parts), 1):
        mask = parts[box] == number
        value = int(labels[box][mask][0])
        if value not in (background, IGNORE):
            outer, holes = _rings(mask, box)
            yield value, [*outer, *holes]


def joined(outlines: Sequence[Ring]) -> Ring:
    """Return an outline without holes: a line, there and back, joins each hole to the outer outline."""
    ring, *holes = outlines
    for hole in holes:
        nearest = int(np.abs(np.array(ring) - hole[0]).sum(1).argmin())
        ring = [*ring[: nearest + 1], *hole, hole[0], *ring[nearest:]]
    return ring


def _rings(mask: NDArray[np.bool_], box: tuple[slice, slice]) -> tuple[list[Ring], list[Ring]]:
    """Return the outlines of a mask in its box, clockwise, and those of its holes, counterclockwise."""
    # In a mask of twice the size, outline pixels are next to the corners of the object's pixels.
    double = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    outlines, inside = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    outer, holes = list[Ring](), list[Ring]()
    for outline, above in zip(outlines, inside[0, :, 3], strict=True):
        corners = (outline[:, 0] + 1) // 2 + (box[1].start, box[0].start)  # (n, 2), x and y
        corners = corners[(corners != np.roll(corners, 1, axis=0)).any(axis=1)]
        ring = np.concatenate([corners[:1], corners[:0:-1]]).tolist()
        (outer if above < 0 else holes).append(ring)
    return sorted(outer, key=lambda ring: ring[0][::-1]), holes


def write_polygons(labels: str | Path, target: str | Path, names: Sequence[str]) -> int:
    """Write the areas of a TIFF of class ids as GeoJSON, one feature for each part that is connected by sides.

    Their properties are `class` and `id`. Coordinates are those of the map, and the member `crs` is its reference
    system, as in GDAL and QGIS. Images without a map position have pixel coordinates. Ignored pixels (255) have no
    polygon. Returns the number of polygons.
    """
    with open_dataset(labels) as dataset:
        from rasterio import band
        from rasterio.features import shapes

        code = dataset.crs.to_epsg() if dataset.crs else None
        if dataset.gcps[0] or (dataset.crs and code is None):
            raise CrispsegError(f"{labels} has no EPSG code, or is positioned by control points; warp it (gdalwarp)")
        features = [
            {"type": "Feature", "properties": {"class": names[int(value)], "id": int(value)}, "geometry": geometry}
            for geometry, value in shapes(band(dataset, 1), transform=dataset.transform)
            if value != IGNORE
        ]
    system = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
    head = {"type": "FeatureCollection", "name": Path(target).stem} | ({"crs": system} if code else {})
    write_file(target, json.dumps({**head, "features": features}, allow_nan=False))
    return len(features)
