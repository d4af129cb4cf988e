"""The page of the objects of all images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crispseg.io.files import write_file
from crispseg.prediction.measures import ObjectTables
from crispseg.visualization import pages

OBJECT_REPORT = "report.html"
REPORT_START = '<!doctype html>\n<html lang="en" class="objects">'


def write_report(folder: Path, tables: ObjectTables, pictures: Sequence[tuple[str, str, pages.Picture]]) -> None:
    """Write the page to a folder; `pictures` are the images of the tables: name, address and a small picture."""
    unit, categories = tables.unit.removesuffix("2") or "pixels", tables.categories
    values = np.array([(row[3], 100 * row[6]) for row in tables.images]).reshape(-1, len(categories), 2)
    counts, shares = values[..., 0], values[..., 1].sum(1, keepdims=True)
    areas, diameters = tables.sizes()
    names = "objects in an image", f"area, square {unit}", f"equivalent diameter, {unit}"
    columns = zip(names, (counts.sum(1), areas, diameters), ("images", "objects", "objects"), strict=True)
    html = pages.render(
        "objects.html",
        title=f"{len(areas)} objects of class {', '.join(categories)} in {len(counts)} images",
        measures=[
            (name, f"{np.median(column):.4g}", pages.chart(name, ("hist", column, 30), xlabel=name, ylabel=counted))
            for name, column, counted in columns
            if column.size
        ],
        head=[*categories, "% of pixels"],
        images=[*zip(pictures, np.hstack([counts, shares]).tolist(), strict=True)],
    )
    write_file(folder / OBJECT_REPORT, html)
