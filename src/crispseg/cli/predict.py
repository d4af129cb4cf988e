"""`crispseg predict RUN IMAGE_OR_DIR... [--out DIR] [--resume] [--shard I/N] [--format SERVER] [--objects CLASS]`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from crispseg.cli.keys import WithDevice, WithObjects, WithProtocol
from crispseg.errors import CrispsegError
from crispseg.inference.prediction import COCO, PALETTE, predict_files
from crispseg.inference.runtime import Backend


@dataclass(kw_only=True)
class Predict(WithDevice, WithObjects, WithProtocol):
    """Segment images: NAME.png contains the class ids (with colours), NAME_overlay.png shows them.

    With --format, files are written as a benchmark's server takes them; with --tiles, NAME.tif for a TIFF; with
    --objects, also NAME_objects.png, numbers, NAME_objects.csv, a table, and objects.json, outlines in COCO's format.

    Args:
        run: a run's folder, a saved model's folder, a hub id, the name of a bundled model, or an exported file.
        images: files, folders (with their sub-folders), patterns such as 'in/*.jpg' and lists of paths, LIST.txt.
        out: folder to write to; by default a new one next to the images.
        backend: what runs an exported file; by default ONNX Runtime for .onnx, OpenVINO for .xml.
        resume: skip images whose results, of the same model and settings, are in the folder.
        shard: one of N parts of the images, 1/3, 2/3 or 3/3, for as many processes with one folder; implies resume.
        bf16: compute in bfloat16: faster, a little less exact.
        compile: compile the network at the first image.
        format: palette, or files for the server of ade20k, cityscapes, voc2012 and the like.
        tiles: side of tiles, such as 1024, in which large images are processed, and TIFFs read and written.
        polygons: with tiles, also NAME.geojson of each TIFF: the areas of the classes in coordinates of the map.
        value_range: values of 16-bit images that are black and white, such as [0,4095], instead of the training's.
    """

    name = "predict"
    words = ("run", "images")
    first = ("out", "device", "tiles", "protocol", "resume", "shard")
    run: str
    images: list[str]
    out: Path | None = None
    backend: Backend = "auto"
    resume: bool = False
    shard: str | None = None
    bf16: bool = False
    compile: bool = False
    format: str = PALETTE
    tiles: int | None = None
    polygons: bool = False
    value_range: tuple[float, float] | None = None

    def __call__(self) -> None:
        """Images that cannot be read are named, left out, and make the exit status 2."""
        options = (
            *("device", "backend", "value_range", "bf16", "compile", "format", "tiles", "polygons", "objects"),
            *("objects_border", "resume", "shard"),
        )
        found = predict_files(
            self.run,
            self.images,
            self.out,
            protocol=self.chosen_protocol(),
            console=Console(stderr=True),
            **{key: getattr(self, key) for key in options},
        )
        of = f"{found.total} images" + (f" of shard {self.shard}" if self.shard else "")
        skipped = f", {found.skipped} of them before" if found.skipped else ""
        print(f"{found.done} of {of} segmented into {found.out}{skipped}")
        if found.objects is not None:
            print(f"{found.objects} objects of class {self.objects} in {found.out / COCO}")
        if failed := found.failed:
            raise CrispsegError(f"{len(failed)} of {of} could not be read, first {failed[0]}; they are named above")
