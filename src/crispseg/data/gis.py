"""Polygons for maps and drawings: GeoPackage and SVG."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import starmap
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import shapely

from crispseg.data.annotations import Outlined
from crispseg.errors import CrispsegError
from crispseg.io.polygons import Ring
from crispseg.io.tiff import open_dataset
from crispseg.labels import LabelSet

NO_POSITION = 'LOCAL_CS["Undefined Cartesian SRS",UNIT["metre",1]]'  # a GeoPackage's system for plain images


def write_gpkg(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a layer for each image: polygons with `class` and `id`, on the map if the image has a position."""
    from pyogrio import raw

    for image in images:
        polygons, system = image.covered.polygons, None
        if image.raster is not None:
            with open_dataset(image.raster) as dataset:
                if dataset.gcps[0]:
                    raise CrispsegError(f"{image.file} is positioned by control points; warp it (gdalwarp)")
                polygons, system = image.covered.on_map(dataset.transform), dataset.crs and dataset.crs.to_wkt()
        is_named = np.isin(image.covered.values, [*image.names])
        ids = image.covered.values[is_named]
        columns = [np.array([image.names[value] for value in ids.tolist()], np.object_), ids]
        form = {"driver": "GPKG", "layer": Path(image.name).name, "geometry_type": "Polygon"}
        form["crs"] = system or NO_POSITION
        raw.write(image.path(folder, ".gpkg"), shapely.to_wkb(polygons[is_named]), columns, ["class", "id"], **form)


def write_svg(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write a drawing for each image, with a group of paths for each class."""
    for image in images:
        height, width = image.labels.shape
        lines = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" fill-rule="evenodd">']
        areas = image.areas()
        for name, color in classes.legend:
            paths = [f'<path d="{svg_path(rings)}"/>' for kind, rings in areas if kind == name]
            lines += [f'<g fill="rgb{(*color,)}"><title>{escape(name)}</title>', *paths, "</g>"]
        image.path(folder, ".svg").write_text("\n".join([*lines, "</svg>\n"]), encoding="utf-8")


def svg_path(rings: Iterable[Ring]) -> str:
    """Return the commands that draw closed outlines."""
    return "".join(f"M{' '.join(starmap('{:g},{:g}'.format, ring))}Z" for ring in rings)
