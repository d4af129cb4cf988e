"""Labels of a map as polygons, in the coordinates of the map."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path

from crispseg.errors import CrispsegError
from crispseg.io.files import atomic_path
from crispseg.io.tiff import open_dataset
from crispseg.labels import IGNORE


def write_polygons(labels: str | Path, target: str | Path, names: Sequence[str]) -> int:
    """Write the areas of a TIFF of class ids as GeoJSON, a feature for each part that sides of pixels join.

    Their properties are `class` and `id`. Coordinates are those of the map, whose reference system stands in the
    member `crs`, as GDAL and QGIS write and read it; pixels where the image lies nowhere. Ignored pixels (255) have no
    polygon.

    Args:
        labels: the TIFF.
        target: GeoJSON file; replaced only when it is complete.
        names: of the classes.

    Returns:
        The number of polygons.

    Raises:
        CrispsegError: as `check_system`.
    """
    code = check_system(labels)
    with open_dataset(labels) as dataset, atomic_path(target) as temporary, temporary.open("w") as file:
        features, rasterio = (importlib.import_module(name) for name in ("rasterio.features", "rasterio"))
        system = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:EPSG::{code}"}}
        head = {"type": "FeatureCollection", "name": Path(target).stem} | ({"crs": system} if code else {})
        file.write(json.dumps(head)[:-1] + ', "features": [')
        count = 0
        for geometry, value in features.shapes(rasterio.band(dataset, 1), transform=dataset.transform):
            if value == IGNORE:
                continue
            properties = {"class": names[int(value)], "id": int(value)}
            feature = {"type": "Feature", "properties": properties, "geometry": geometry}
            file.write((",\n" if count else "\n") + json.dumps(feature))
            count += 1
        file.write("\n]}\n")
        return count


def check_system(image: str | Path) -> int | None:
    """The EPSG code of a TIFF's reference system; None where it lies nowhere.

    Raises:
        CrispsegError: rasterio is not installed; the TIFF is missing or broken; its system has no EPSG code, or its
            place is told by ground control points.
    """
    with open_dataset(image) as dataset:
        if dataset.gcps[0]:
            raise CrispsegError(f"{image} lies on the map by ground control points; warp it (gdalwarp) before polygons")
        code: int | None = dataset.crs.to_epsg() if dataset.crs else None
        if dataset.crs and code is None:
            raise CrispsegError(f"the reference system of {image} has no EPSG code; warp it to one that has (gdalwarp)")
        return code
