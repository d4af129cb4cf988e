"""Prediction of image files: selection of images, result files, and resuming."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from crispseg.errors import CrispsegError, CrispsegWarning, did_you_mean, telling
from crispseg.inference.device import FloatPrecision, in_parallel
from crispseg.inference.image_files import Source, check_outputs, named_images, unused_folder
from crispseg.inference.objects import FILES, CocoFile, object_rules, pixel_area
from crispseg.inference.protocols import Protocol
from crispseg.inference.runtime import Backend, is_exported
from crispseg.inference.segmenter import Segmentation, Segmenter
from crispseg.inference.servers import SERVERS
from crispseg.inference.tiled import segment_tiff
from crispseg.io.files import check_new_folder, digest, owned, write_table
from crispseg.io.images import MADE_OF, read_mask, write_image
from crispseg.io.outlines import write_polygons
from crispseg.io.progress import progress
from crispseg.io.tiff import SUFFIXES, open_dataset
from crispseg.io.value_range import ValueRange
from crispseg.models.saving import fingerprint

PALETTE = "palette"
COCO = "objects.json"  # COCO file of the objects of all images
CONFIDENCE = "_confidence"  # ending of the names of maps of confidence
SHARES = "shares.csv"  # table of the class shares of each image


@dataclass
class Predictions:
    """Results of `predict_files`."""

    out: Path  # folder of the results
    total: int  # number of requested images; with `shard`, of its part
    skipped: int = 0  # number of images whose results existed before
    done: int = 0  # number of images with results, including skipped ones
    failed: list[Source] = field(default_factory=list)  # images that cannot be read, or whose results cannot be named
    objects: int | None = None  # number of objects in `objects.json`; None if it is not written
    annotations: Path | None = None  # folder of annotations, if `format` is that of a labelling tool

    def leave_out(self, image: Source, error: CrispsegError) -> None:
        """Count an image as failed, with a warning."""
        self.failed.append(image)
        warnings.warn(f"left out: {error}", CrispsegWarning, stacklevel=2)


def predict_files(
    run: str | Path,
    images: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    device: str | None = None,
    backend: Backend = "auto",
    protocol: Protocol | str = "whole",
    value_range: ValueRange | None = None,
    precision: FloatPrecision = "fp32",
    compile: bool = False,
    format: str = PALETTE,
    tiles: int | None = None,
    polygons: bool = False,
    outlines: bool = False,
    objects: str | list[str] | None = None,
    objects_border: str | None = None,
    objects_min_size: int | None = None,
    confidence: bool = False,
    shares: bool = False,
    pixel_size: str | None = None,
    resume: bool = False,
    shard: str | None = None,
    console: Console | None = None,
) -> Predictions:
    """Segment image files and write the results.

    Each image gets `NAME.png`, a palette PNG of class ids, and `NAME_overlay.png`. Results are written atomically, so
    one that exists is complete. Images that cannot be read are left out with a warning.

    Args:
        run: run folder, saved model, name of a bundled model, hub id, or file of `crispseg export`.
        images: files, folders with their sub-folders, patterns, and text files that list paths.
        out: folder to write to; by default a new one next to the images.
        device: cpu or cuda; by default CUDA if available.
        backend: runtime of an exported file; by default ONNX Runtime for .onnx, OpenVINO for .xml. With onnxruntime
            or openvino, a saved model is exported once, in this precision, to a cached file.
        protocol: scales, windows and flips; by default the whole image once.
        value_range: values of 16-bit images that become black and white, such as [0, 4095]; by default as in training.
        precision: fp32, or bf16, which is faster and slightly less exact.
        compile: compile the network at the first image.
        format: palette; files for the evaluation server of cityscapes, ade20k or voc; or coco, yolo, cvat, labelstudio,
            labelme or geojson (QuPath), whose annotations are added in a folder of that name.
        tiles: side of the tiles in which large images are processed; TIFFs are then read and written in parts, as
            `NAME.tif`.
        polygons: also write `NAME.geojson` of these TIFFs.
        outlines: show outlines of areas in `NAME_overlay.png` instead of the areas.
        objects: class, or a list of them, whose objects are written as `NAME_objects.png` and `NAME_objects.csv`; and
            to `objects.json`, if neither `resume` nor `shard` is given.
        objects_border: class of the pixels between objects.
        objects_min_size: area in pixels; smaller objects are left out. By default, a tenth of the median area of the
            image's objects with objects_border, else 0.
        confidence: also write `NAME_confidence.png`, the largest probability of each pixel from 0 to 255; for TIFFs in
            tiles, `NAME_confidence.tif` with the map position.
        shares: also write `shares.csv`, the share of each class in each image.
        pixel_size: side of a pixel with its unit, such as 0.5um; tables then also have areas in that unit.
        resume: skip images whose existing results have metadata of the same image, model and settings.
        shard: part of the sorted images, such as "1/3"; includes `resume`.
        console: console for progress, if it is a terminal.

    Raises:
        CrispsegError: options conflict; an image, model or class is unknown; two images have one name; results would be
            next to an image or overwrite other files; or the folder cannot be written or is used by another process.
    """
    if (resume or shard) and out is None:
        raise CrispsegError(f"{'shard' if shard else 'resume'} needs a folder to continue in; give out")
    part = shard_slice(shard) if shard else slice(None)
    resume = resume or shard is not None
    images = [images] if isinstance(images, str | Path) else images
    names = named_images(images)
    maps = {image for image in names if tiles is not None and image.suffix.lower() in SUFFIXES}
    annotated = format not in (PALETTE, *SERVERS)
    if annotated:
        from crispseg.data import formats  # imported here, because other predictions do not need it

        if format not in formats.FORMATS:
            known = [PALETTE, *SERVERS, *formats.FORMATS]
            raise CrispsegError(f"format is {format}{did_you_mean(format, known)}")
        if shard:
            raise CrispsegError(f"format {format} needs all images; leave out shard, and resume after the last shard")
    if polygons and not maps:
        raise CrispsegError("polygons are made from TIFFs in tiles; give TIFFs, and tiles such as 1024")
    apart = {"format": format in SERVERS, "shares": shares, "objects": objects is not None and not shares}
    if confidence and format in SERVERS:
        raise CrispsegError(f"confidence conflicts with format {format}; leave out one of them")
    apart |= {"tiles of TIFFs": bool(maps), "resume": shares and resume}
    if len(given := [option for option, is_given in apart.items() if is_given]) > 1:
        raise CrispsegError(f"{given[0]} conflicts with {given[1]}; leave out one of them")
    out = unused_folder(images, names) if out is None else Path(out)
    area = pixel_area(pixel_size) if pixel_size else None
    server, table = SERVERS.get(format), out / SHARES
    ends = [
        [".png", "_overlay.png", *[f"{CONFIDENCE}.png"] * confidence, *(FILES if objects else ())],
        [".tif", *[f"{CONFIDENCE}.tif"] * confidence, *[".geojson"] * polygons],
    ]
    files = {
        image: [out / server.file(image)] if server else [out / f"{name}{end}" for end in ends[image in maps]]
        for image, name in names.items()
    }
    check_outputs(out, files)
    marked = check_new_folder(out / format) if annotated else None
    files = {image: files[image] for image in sorted(names, key=names.__getitem__)[part]}
    there = {  # `made_of` of existing results, the labels of an image first; None for other files
        result: _says(result if result.suffix in (".png", ".tif") else results[0])
        for results in files.values()
        for result in results
        if result.exists()
    }
    foreign = [result for result in there if there[result] is None]
    if shares and table.exists() and not table.read_text("utf-8", "replace").startswith("image,pixels"):
        foreign.append(table)
    if foreign:
        raise CrispsegError(f"{foreign[0]} is not a result of predict and would be overwritten; give another out")
    segmenter = Segmenter(
        run,
        device,
        backend=backend,
        protocol=protocol,
        value_range=value_range,
        precision=precision,
        compile=compile,
        tile=tiles,
    )
    if confidence and segmenter.labels_only:
        raise CrispsegError(f"confidence needs logits, but {run} has only labels; export it with output logits")
    classes = segmenter.label_set.names
    named = [*object_rules(segmenter.label_set, objects, objects_border, min_size=objects_min_size)]
    if server is not None:
        server.check(segmenter.info)
    model = digest(Path(run), Path(run).with_suffix(".bin")) if is_exported(run) else fingerprint(run)
    made_by: dict[str, Any] = {"model": model, "protocol": str(segmenter.protocol), "precision": precision}
    made_by |= {"value_range": segmenter.value_range, "tiles": tiles, "outlines": outlines, "pixel_size": pixel_size}
    made_by |= {"objects": objects, "objects_border": objects_border, "objects_min_size": objects_min_size}
    made_by |= {"format": PALETTE if annotated else format}

    def made_of(image: Path) -> str:
        return json.dumps({**made_by, "image": digest(image)})

    def is_made(image: Path) -> bool:
        """Return whether existing results match the current image; polygons match if newer than their map."""
        results, expected = files[image], made_of(image)
        young = image not in maps or results[0].stat().st_mtime_ns <= results[-1].stat().st_mtime_ns
        return young and all(there[result] == expected for result in results)

    complete = [image for image in files if resume and there.keys() >= {*files[image]}]
    made = {image for image in progress(complete, "Comparing", console=console) if is_made(image)}
    if others := len(complete) - len(made):
        note = "are from other images, another model or other settings; they are replaced"
        warnings.warn(f"results of {others} images in {out} {note}", CrispsegWarning, stacklevel=2)
    found = Predictions(out, len(files), len(made), len(made))
    coco = None if objects is None or resume else CocoFile(out / COCO, named)
    rows: list[list[Any]] = []

    def write(result: Segmentation) -> None:
        assert result.path is not None
        result.name, result.made_of = names[result.path], made_of(result.path)
        if server is not None:
            server.save(out, result.path, result.labels, result.made_of)
            return
        if objects is not None:
            each = result.objects(objects, objects_border, min_size=objects_min_size)
            each.save(out, pixel_size)
        elif _says(out / f"{result.name}{FILES[0]}") is not None:  # objects of an earlier prediction are outdated
            for end in FILES:
                (out / f"{result.name}{end}").unlink(missing_ok=True)
        sure = out / f"{result.name}{CONFIDENCE}.png"
        if confidence:
            write_image(sure, result.confidence(), result.made_of)
        elif _says(sure) is not None:
            sure.unlink()
        result.save(out, outlines)
        file, pixels, parts = f"{result.name}{result.path.suffix}", result.labels.size, result.shares().values()
        areas = [round(share * pixels * area[0], 6) for share in parts] if area else []
        rows.append([file, pixels, *parts, *areas])
        if coco is not None:
            coco.add(file, each)

    def write_shares() -> None:
        units = [f"{name}_{area[1]}" for name in classes if area]
        write_table(table, [["image", "pixels", *classes, *units], *sorted(rows)])

    with ExitStack() as stack:
        if shard is None:  # several shards write to one folder
            stack.enter_context(owned(out, *{result[0].parent for result in files.values()}))
        again = "; run the same command to resume" if resume else ""
        stack.enter_context(telling(lambda: f"{found.done} of {found.total} images are segmented in {out}{again}"))
        if shares:
            stack.callback(write_shares)
        if coco is not None:
            stack.callback(coco.write)  # also after Ctrl-C, with the images so far
        for image in [image for image in files if image in maps and image not in made]:
            target, expected = files[image][0], made_of(image)
            try:
                parts = [file for file in files[image] if file.suffix == target.suffix]
                if not resume or any(there.get(file) != expected for file in parts):
                    segment_tiff(segmenter, image, *parts, console=console, made_by=expected)
                if polygons:
                    write_polygons(target, target.with_suffix(".geojson"), classes)
                found.done += 1
            except CrispsegError as error:
                found.leave_out(image, error)
        pictures = [image for image in files if image not in maps and image not in made]
        results = stack.enter_context(closing(segmenter.stream(pictures, on_error=found.leave_out)))
        written = stack.enter_context(closing(in_parallel(results, write, workers=1)))
        for result, writing in progress(written, "Segmenting", len(pictures), console):
            try:
                writing.result()
                found.done += 1
            except CrispsegError as error:
                found.leave_out(result.path or result.name, error)
        if marked is not None:
            listed = progress(sorted({*files} - {*found.failed}), "Outlining", console=console)
            masks = ((image, names[image], read_mask(files[image][0])) for image in listed)
            formats.write_annotations(marked, masks, segmenter.label_set)
            found.annotations = marked
    found.objects = None if coco is None else len(coco.annotations)
    return found


def _says(result: Path) -> str | None:
    """Return `made_of` from the metadata of a result, or None; it is empty if the pixels are damaged."""
    with suppress(Exception), warnings.catch_warnings(action="ignore"):  # damaged files raise almost anything
        if result.suffix == ".tif":
            with open_dataset(result) as dataset:
                return str(dataset.tags()[MADE_OF])
        with Image.open(result) as picture:
            made_of = str(picture.info[MADE_OF])
            try:
                picture.load()
            except Exception:  # damaged data raise almost anything
                return ""
            return made_of
    return None


def shard_slice(text: str) -> slice:
    """Return the slice of the sorted images that a shard such as "2/3" contains.

    >>> shard_slice("2/3")
    slice(1, None, 3)
    """
    parts = re.fullmatch(r"(\d+)/(\d+)", text)
    if parts is None or not 1 <= int(parts[1]) <= int(parts[2]):
        raise CrispsegError(f"shard is {text}; give number and total, such as 1/3, 2/3 or 3/3")
    return slice(int(parts[1]) - 1, None, int(parts[2]))
