"""Outlines of the results of images, and what their simplification changed."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.data.annotations import Outlined
from crispseg.errors import CrispsegWarning
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.scores import SegmentationScores
from crispseg.inference.objects import OBJECT_ENDINGS
from crispseg.io.images import read_mask
from crispseg.io.opening import opened
from crispseg.io.outlines import write_polygons
from crispseg.io.polygons import Coverage, coverage
from crispseg.io.tiff import TIFF_SUFFIXES, open_dataset
from crispseg.labels import IGNORE, LabelSet
from crispseg.prediction.job import VECTOR_FORMATS, PredictionJob
from crispseg.prediction.predictions import Simplification


def warn_of_pixels(image: Path) -> None:
    """Warn if the pixel coordinates that QuPath needs are not those of the image on the map."""
    with opened(image) as raster:
        if raster.place:
            note = "outlines are in pixels, for QuPath; give the format gpkg for the coordinates of the map"
            warnings.warn(note, CrispsegWarning, stacklevel=2)


class Outlines:
    """Outlines of the results of all images."""

    def __init__(self, job: PredictionJob, classes: LabelSet, folder: Path) -> None:
        self.job, self.classes, self.folder = job, classes, folder
        self.points, self.distance = np.zeros(2, np.int64), 0.0
        self.of_maps: dict[Path, Coverage] = {}  # polygons of maps of labels that annotations will reuse
        self.iou, self.boundary = SegmentationScores(IGNORE), BoundaryScores(IGNORE, [1])

    def covered(self, labels: NDArray[Any]) -> Coverage:
        """Return the polygons of labels `(H, W)`, and count what simplification changed."""
        covered = coverage(labels, self.job.tolerance or 0, self.job.square)
        if self.job.tolerance is not None:
            from rasterio.features import rasterize

            self.points, self.distance = self.points + covered.points, max(self.distance, covered.distance)
            drawn = rasterize(zip(covered.polygons, covered.values, strict=True), labels.shape, dtype=np.int32)
            classes = 1 << 16 if labels.dtype == np.uint8 else IGNORE  # numbers of objects repeat
            true = labels.astype(np.int32)[None]
            maps = np.where(drawn == IGNORE, true, drawn) % classes, true % classes
            self.iou.update(*maps)
            self.boundary.update(*maps)
        return covered

    def write_map(self, labels: Path) -> None:
        """Write the polygons of a map of labels next to it."""
        covered = self.covered(read_mask(labels))
        write_polygons(labels, labels.with_suffix(".geojson"), self.classes.names, covered)
        if self.job.writes_annotations:
            self.of_maps[labels] = covered

    def of_image(self, image: Path, name: str, results: Sequence[Path]) -> Outlined:
        """Return the outlines of an image from its results, the first of which are its labels."""
        job, labels = self.job, read_mask(results[0])
        left_out = None if job.format in VECTOR_FORMATS else self.classes.background
        names = {index: label for index, label in enumerate(self.classes.names) if index != left_out}
        if job.objects is not None:
            ids, table = (results[0].with_name(f"{results[0].stem}{ending}") for ending in OBJECT_ENDINGS)
            labels = read_mask(ids)
            with table.open(newline="") as file:
                names = {int(row["id"]): row["category"] for row in csv.DictReader(file)}
        covered, place = self.of_maps.pop(results[0], None) or self.covered(labels), self.folder / job.format
        return Outlined(image, name, labels, place, names, covered, self._map_of(image, results[0]))

    def _map_of(self, image: Path, labels: Path) -> Path | None:
        """Return the TIFF whose map coordinates the outlines of an image have; None if they are in pixels."""
        raster = image if self.job.format == "gpkg" else labels
        is_map = raster.suffix.lower() in TIFF_SUFFIXES
        if is_map and self.job.format == "geojson":  # otherwise for QuPath
            with open_dataset(raster) as dataset:
                is_map = bool(dataset.crs)
        if not is_map and self.job.format == "geojson":
            warn_of_pixels(image)
        return raster if is_map else None

    def simplification(self) -> Simplification:
        """Return what simplification changed."""
        iou, boundary_f = self.iou.scores().miou, self.boundary.scores().measures()["boundary_f"][0]
        before, after = self.points.tolist()
        return Simplification(before, after, self.distance, 100 - iou, float(np.nan_to_num(100 - boundary_f)))
