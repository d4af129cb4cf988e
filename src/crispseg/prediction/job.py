"""Settings of one prediction of files, and the conflicts between them."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt

from crispseg.config.settings import shortened
from crispseg.errors import CrispsegError, check_installed, did_you_mean
from crispseg.inference.device import DeviceName, FloatPrecision
from crispseg.inference.objects import check_object_options
from crispseg.inference.protocols import Protocol
from crispseg.inference.runtime import Backend, is_exported
from crispseg.inference.segmenter import Segmenter
from crispseg.inference.servers import SERVERS, ServerFormat
from crispseg.inference.tiling import Tile
from crispseg.io.files import digest
from crispseg.io.value_range import ValueRange
from crispseg.models.saving import fingerprint

PALETTE = "palette"
PANOPTIC = "panoptic"
VECTOR_FORMATS = ("gpkg", "svg")  # not of a labelling tool

OF_RESULTS = ("tiles", "outlines", "pixel_size", "objects", "objects_border", "objects_min_size", "objects_split")
"""Options that results depend on, without those of the model."""

CONFLICTS = {  # options that exclude others
    "format of a server": ("shares", "objects", "confidence", "outputs", "tiles of TIFFs"),
    "tiles of TIFFs": ("shares", "objects"),
    "format panoptic": ("resume",),
    "shares": ("resume",),
    "refuse": ("fast", "tiles of TIFFs"),
    "fast": ("backend", "precision", "compile", "an exported file"),
}


@dataclass(frozen=True, kw_only=True)
class PredictionJob:
    """Settings of one call of `predict_files`.

    Args:
        run: run folder, saved model, name of a bundled model, hub id, or file of `crispseg export`.
        device: cpu or cuda; by default CUDA if available.
        backend: runtime of an exported file; by default ONNX Runtime for .onnx, OpenVINO for .xml. With onnxruntime
            or openvino, a saved model is exported once, in this precision, to a cached file.
        protocol: scales, windows and flips; by default the whole image once.
        value_range: values of 16-bit images that become black and white, such as [0, 4095]; by default as in training.
        precision: fp32, or bf16, which is faster and slightly less exact; by default fp32.
        compile: compile the network at the first image.
        fast: compare precisions and installed runtimes on the first two images, and use the fastest one whose labels
            agree with those of fp32 in PyTorch on 99.5 % of the pixels. Files are exported once, in some minutes.
        format: palette; files for the evaluation server of cityscapes, ade20k or voc; coco, yolo, cvat, labelstudio,
            labelme, geojson (QuPath, or the map of TIFFs in tiles), gpkg or svg, whose polygons, those of `objects` if
            given, are added in a folder of that name; or panoptic, which adds COCO's `NAME_panoptic.png` and
            `panoptic.json` of the objects and of the other classes.
        tolerance: largest distance in pixels between these polygons, which share their borders, and the edges of
            pixels; by default they follow the edges.
        square: give these polygons right angles where the tolerance allows it.
        tiles: side of the tiles in which large images are processed; TIFFs are then read and written in parts, as
            `NAME.tif`.
        polygons: also write `NAME.geojson` of these TIFFs, the same as format geojson for maps.
        outlines: show outlines of areas in `NAME_overlay.png` instead of the areas.
        objects: class, or a list of them, whose objects are written as `NAME_objects.png` and `NAME_objects.csv`; and
            to `objects.json`, `objects.csv`, `summary.csv` and the page `report.html`, if neither `resume` nor `shard`
            is given. `NAME_overlay.png` then shows the outlines of objects, each in a colour, and their numbers.
        objects_border: class of the pixels between objects.
        objects_min_size: area in pixels; smaller objects are left out. By default, a tenth of the median area of the
            image's objects with objects_border, else 0.
        objects_split: separate touching objects at their necks, if they have no border class.
        confidence: also write `NAME_confidence.png`, the largest probability of each pixel from 0 to 255; for TIFFs in
            tiles, `NAME_confidence.tif` with the map position.
        shares: also write `shares.csv`, the share of each class in each image.
        outputs: names of further outputs, which plugins register.
        pixel_size: side of a pixel with its unit, such as 0.5um; tables then also have areas in that unit.
        refuse: write no results of images that are unlike the training images; see `Segmentation.novelty`.
        resume: skip images whose existing results have metadata of the same image, model and settings.
        shard: part of the sorted images, such as "1/3"; includes `resume`.
    """

    run: str
    device: DeviceName | None = None
    backend: Backend = "auto"
    protocol: Protocol | str = "whole"
    value_range: ValueRange | None = None
    precision: FloatPrecision | None = None
    compile: bool = False
    fast: bool = False
    format: str = PALETTE
    tolerance: Annotated[float, Field(ge=0)] | None = None
    square: bool = False
    tiles: Tile | None = None
    polygons: bool = False
    outlines: bool = False
    objects: str | list[str] | None = None
    objects_border: str | None = None
    objects_min_size: NonNegativeInt | None = None
    objects_split: bool = False
    confidence: bool = False
    shares: bool = False
    outputs: list[str] | None = None
    pixel_size: str | None = None
    refuse: bool = False
    resume: bool = False
    shard: str | None = None

    def __post_init__(self) -> None:
        shard_slice(self.shard)  # reports a wrong shard before images are searched for
        if self.writes_annotations:
            check_annotation_format(self.format, self.shard)
        self.check_outlines()
        check_object_options(self.objects, **self.object_options, panoptic=self.format == PANOPTIC)

    @property
    def server(self) -> ServerFormat | None:
        """Format of a benchmark's server, if the labels are written in one."""
        return SERVERS.get(self.format)

    @property
    def is_plain(self) -> bool:
        """Whether a saved model runs in the default way."""
        return self.backend == "auto" and self.precision is None and not (self.compile or is_exported(self.run))

    @property
    def writes_annotations(self) -> bool:
        """Whether annotations for a labelling tool are written."""
        return self.format not in (PALETTE, PANOPTIC) and self.server is None

    @property
    def extras(self) -> tuple[str, ...]:
        """Names of the outputs in `OUTPUTS` that each image gets in addition to its labels."""
        options = {"objects": self.objects is not None, "confidence": self.confidence, "shares": self.shares}
        options[PANOPTIC] = self.format == PANOPTIC
        return (*[name for name, is_given in options.items() if is_given], *(self.outputs or ()))

    @property
    def resumes(self) -> bool:
        """Whether images with complete results are skipped."""
        return self.resume or self.shard is not None

    @property
    def object_options(self) -> dict[str, Any]:
        """Arguments of `Segmentation.objects`, but for the classes."""
        return {"border": self.objects_border, "min_size": self.objects_min_size, "split": self.objects_split}

    def check_outlines(self) -> None:
        """Raise a CrispsegError if polygons are simplified without a format that has them, or without packages."""
        if self.square and self.tolerance is None:
            raise CrispsegError("needs a tolerance; give it in pixels, such as 1.5", "square")
        if self.tolerance is not None:
            if not (self.writes_annotations or self.polygons):
                raise CrispsegError("is for polygons; give a format such as geojson, coco, gpkg or svg", "tolerance")
            check_installed("rasterio", "tolerance", "'crispseg[vector]'")
        if self.format == "gpkg":
            check_installed("pyogrio", "format gpkg", "'crispseg[vector]'")

    def check_conflicts(self, has_maps: bool) -> None:
        """Raise a CrispsegError for options that exclude each other; `has_maps` is whether TIFFs are read in tiles."""
        if self.polygons and not has_maps:
            raise CrispsegError("polygons are made from TIFFs in tiles; give TIFFs, and tiles such as 1024")
        given = {field.name: getattr(self, field.name) != field.default for field in fields(self)}
        given |= {
            "format of a server": self.server is not None,
            "format panoptic": self.format == PANOPTIC,
            "tiles of TIFFs": has_maps,
            "resume": self.resumes,
            "an exported file": is_exported(self.run),
        }
        for option, others in CONFLICTS.items():
            for other in others:
                if given[option] and given[other]:
                    raise CrispsegError(f"{option} conflicts with {other}; leave out one of them")

    def segmenter(self) -> Segmenter:
        """Open the model."""
        return Segmenter(
            self.run,
            self.device,
            backend=self.backend,
            protocol=self.protocol,
            value_range=self.value_range,
            precision=self.precision or "fp32",
            compile=self.compile,
            tile=self.tiles,
        )

    def made_by(self, segmenter: Segmenter) -> dict[str, Any]:
        """Return the model and the settings that results depend on."""
        weights = [Path(self.run), Path(self.run).with_suffix(".bin")]
        return {
            "model": digest(*weights) if is_exported(self.run) else fingerprint(self.run),
            "protocol": str(segmenter.protocol),
            "precision": "fast" if self.fast else self.precision or "fp32",
            "value_range": segmenter.value_range,
            **{name: getattr(self, name) for name in OF_RESULTS},
            "format": PALETTE if self.writes_annotations else self.format,
            "polygons": [self.tolerance, self.square] if self.polygons and self.tolerance else None,
            "refuse": self.refuse,  # results of unlike images are then none to keep
        }


def check_annotation_format(name: str, shard: str | None) -> None:
    """Raise a CrispsegError for an unknown format, or for a part of the images."""
    from crispseg.data.formats import ANNOTATION_WRITERS  # imported here, because other predictions do not need it

    if name not in ANNOTATION_WRITERS:
        known = [PALETTE, PANOPTIC, *SERVERS, *ANNOTATION_WRITERS]
        raise CrispsegError(f"format is {name}{did_you_mean(name, known)}")
    if shard is not None:
        raise CrispsegError(f"format {name} needs all images; leave out shard, and resume after the last shard")


def shard_slice(text: str | None) -> slice:
    """Return the slice of the sorted images that a shard such as "2/3" contains; None contains all.

    >>> shard_slice("2/3")
    slice(1, None, 3)
    """
    if text is None:
        return slice(None)
    parts = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise CrispsegError(f"shard is {shortened(text)}; give number and total, such as 1/3, 2/3 or 3/3")
    return slice(int(parts[1]) - 1, None, int(parts[2]))
