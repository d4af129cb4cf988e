"""Writers of results, one class for each output.

To add an output, register a subclass of `Output` here or in a plugin: `outputs: [NAME]` then writes it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import numpy as np
from skimage.segmentation import relabel_sequential

from crispseg.config.registry import Registry
from crispseg.errors import CrispsegError
from crispseg.inference.objects import (
    OBJECT_ENDINGS,
    CocoFile,
    Objects,
    check_count,
    measured,
    object_rules,
    pixel_area,
)
from crispseg.inference.segmentation import Segmentation
from crispseg.inference.segmenter import Segmenter
from crispseg.io.files import write_file, write_table
from crispseg.io.images import image_channels, write_image
from crispseg.io.opening import file_and_page, opened
from crispseg.prediction.job import PANOPTIC, PredictionJob
from crispseg.prediction.measures import OBJECTS, SUMMARY, Measurements, ObjectTables, measurements
from crispseg.prediction.predictions import Predictions
from crispseg.prediction.report import OBJECT_REPORT, REPORT_START, write_report
from crispseg.visualization.pages import THUMBNAIL, Picture, embedded
from crispseg.visualization.pictures import numbered

COCO = "objects.json"  # COCO file of the objects of all images
NOVELTY = "novelty.csv"  # table of how much each image is unlike the training images
SHARES = "shares.csv"  # table of the class shares of each image
PANOPTIC_FILE = "panoptic.json"  # COCO file of the segments of all images


class Output:
    """One kind of result of an image.

    Args:
        job: settings.
        segmenter: the model; a subclass raises a CrispsegError if it lacks something.
        out: folder of the results.
    """

    endings: ClassVar[tuple[str, ...]] = ()
    """Endings of the names of an image's files, such as `_confidence.png`. The first is a PNG with `made_of`."""
    starts: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Files of all images, and their first characters; files that begin otherwise are not overwritten."""

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        self.job, self.segmenter, self.out = job, segmenter, out

    def write(self, result: Segmentation) -> None:
        """Write the files of an image; their names begin with `result.name`. Several threads call it."""

    def add(self, result: Segmentation) -> None:
        """Add an image, whose files are all written, to the files of all images. It is called in order."""

    def finish(self, predictions: Predictions) -> None:
        """Write the files of all images. It is also called after an error, with the images so far."""


OUTPUTS: Registry[type[Output]] = Registry("output")
"""Outputs that images can get in addition to their labels, by name."""


class LabelFiles(Output):
    """`NAME.png`, a palette PNG of class ids, and `NAME_overlay.png`."""

    endings = (".png", "_overlay.png")
    starts = ((NOVELTY, "image,novelty"),)

    def write(self, result: Segmentation) -> None:
        result.save(self.out, self.job.outlines)


class ServerFiles(Output):
    """A file for the evaluation server of a benchmark."""

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        super().__init__(job, segmenter, out)
        assert job.server is not None
        self.server = job.server
        self.server.check(segmenter.info)

    def write(self, result: Segmentation) -> None:
        assert result.path is not None
        self.server.save(self.out, result.path, result.labels, result.made_of)


@OUTPUTS.register("confidence")
class ConfidenceMap(Output):
    """`NAME_confidence.png`, the largest probability of each pixel from 0 to 255."""

    endings = ("_confidence.png",)

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        super().__init__(job, segmenter, out)
        if segmenter.labels_only:
            raise CrispsegError(f"confidence needs logits, but {job.run} has only labels; export it with output logits")

    def write(self, result: Segmentation) -> None:
        write_image(self.out / f"{result.name}_confidence.png", result.confidence(), result.made_of)


@OUTPUTS.register("objects")
class ObjectFiles(Output):
    """Numbers and table of the objects of an image, which its overlay shows; tables and a page of all images."""

    endings = OBJECT_ENDINGS
    starts = ((COCO, '{"categories": '), (OBJECTS, "image,"), (SUMMARY, "image,"), (OBJECT_REPORT, REPORT_START))

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        super().__init__(job, segmenter, out)
        rules = object_rules(segmenter.label_set, job.objects, **job.object_options)
        # A process that skips images or has a part of them does not know all objects.
        self.coco = None if job.resumes else CocoFile(out / COCO, [*rules])
        self.tables = ObjectTables([*rules], job.pixel_size)
        self.pictures: list[tuple[str, str, Picture]] = []
        self.objects: dict[str, tuple[Objects, Measurements, Picture]] = {}  # of images that are written, by name

    def write(self, result: Segmentation) -> None:
        job = self.job
        assert job.objects is not None and result.path is not None
        objects = result.objects(job.objects, **job.object_options)
        objects.save(self.out, job.pixel_size, file_and_page(result.path)[1])
        result.picture = numbered(objects.image, objects.ids)
        if self.coco is not None:
            with opened(result.path) as raster:  # the file's values, which may have 16 bits
                values = raster.numbers(image_channels(self.segmenter.info.in_chans))
            picture = embedded(numbered(objects.image, objects.ids, THUMBNAIL), f"objects of {result.name}", photo=True)
            self.objects[result.name] = objects, measurements(objects.ids, values), picture

    def add(self, result: Segmentation) -> None:
        if self.coco is not None:
            objects, columns, picture = self.objects.pop(result.name)
            self.coco.add(image_file(result), objects)
            self.tables.add(image_file(result), objects, columns)
            self.pictures.append((image_file(result), quote(os.fsencode(f"{result.name}_overlay.png")), picture))

    def finish(self, predictions: Predictions) -> None:
        if self.coco is not None:
            self.coco.write()
            self.tables.write(self.out)
            write_report(self.out, self.tables, self.pictures)
            predictions.objects = len(self.coco.annotations)


@OUTPUTS.register(PANOPTIC)
class PanopticFiles(Output):
    """`NAME_panoptic.png`, the segment of each pixel, and `panoptic.json` of all images, in COCO's format.

    The id of a segment, R + 256 G + 65536 B, is 256 · object + class id + 1. Objects are numbered in each class; those
    of other classes have the number 0. Border pixels in no object belong to no segment, which is 0.
    """

    endings = ("_panoptic.png",)
    starts = ((PANOPTIC_FILE, '{"images": '),)

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        super().__init__(job, segmenter, out)
        self.rules = object_rules(segmenter.label_set, job.objects, **job.object_options)
        self.infos: dict[str, Any] = {}  # of images that are written, by name
        self.images, self.annotations = list[Any](), list[Any]()

    def write(self, result: Segmentation) -> None:
        labels, names = result.labels.astype(np.int64), self.segmenter.label_set.names
        others = [names.index(name) for name in {*names} - {*self.rules, self.job.objects_border}]
        ids = np.where(np.isin(labels, others), labels + 1, 0)
        for rule in self.rules.values():
            numbers = rule.find(result.labels).astype(np.int64)
            check_count(numbers.max(), result.name)
            ids = np.where(numbers > 0, 256 * numbers + rule.index + 1, ids)
        colors = np.stack([ids % 256, ids // 256 % 256, ids // 256**2], axis=2).astype(np.uint8)
        write_image(self.out / f"{result.name}_panoptic.png", colors, result.made_of)
        numbers, _, ids_of_numbers = relabel_sequential(ids)
        self.infos[result.name] = infos = []
        for row in measured(numbers, numbers > 0):
            box = {"area": row.area, "bbox": [row.x, row.y, row.width, row.height], "iscrowd": 0}
            segment = int(ids_of_numbers[row.id])
            infos.append({"id": segment, "category_id": segment % 256 - 1, **box})

    def add(self, result: Segmentation) -> None:
        (height, width), image = result.labels.shape, len(self.images) + 1
        self.images.append({"id": image, "file_name": image_file(result), "height": height, "width": width})
        segments = {"file_name": f"{result.name}_panoptic.png", "segments_info": self.infos.pop(result.name)}
        self.annotations.append({"image_id": image, **segments})

    def finish(self, predictions: Predictions) -> None:
        content: dict[str, Any] = {"images": self.images, "annotations": self.annotations, "categories": []}
        for index, name in enumerate(self.segmenter.label_set.names):
            category = {"id": index, "name": name, "isthing": int(name in self.rules)}
            content["categories"].append({**category, "color": self.segmenter.label_set.palette[index]})
        write_file(self.out / PANOPTIC_FILE, json.dumps(content))


@OUTPUTS.register("shares")
class ShareTable(Output):
    """`shares.csv`, the share of each class in each image."""

    starts = ((SHARES, "image,pixels"),)

    def __init__(self, job: PredictionJob, segmenter: Segmenter, out: Path) -> None:
        super().__init__(job, segmenter, out)
        self.area, self.unit = pixel_area(job.pixel_size) if job.pixel_size else (0.0, "")
        self.rows: list[list[Any]] = []

    def add(self, result: Segmentation) -> None:
        pixels, shares = result.labels.size, result.shares().values()
        in_unit = [share * pixels * self.area for share in shares if self.unit]
        self.rows.append([image_file(result), pixels, *(round(value, 6) for value in (*shares, *in_unit))])

    def finish(self, predictions: Predictions) -> None:
        classes = self.segmenter.label_set.names
        in_unit = [f"{name}_{self.unit}" for name in classes if self.unit]
        write_table(self.out / SHARES, [["image", "pixels", *classes, *in_unit], *sorted(self.rows)])


def outputs_of(job: PredictionJob) -> list[type[Output]]:
    """Return the outputs of a prediction, the labels first."""
    return [LabelFiles if job.server is None else ServerFiles, *(OUTPUTS[name] for name in job.extras)]


def image_file(result: Segmentation) -> str:
    """Return the name of the image in tables: its path in its folder."""
    assert result.path is not None
    return str(Path(result.name).parent / result.path.name)
