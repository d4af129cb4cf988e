"""Prediction of image files from the settings to the last result."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Sequence, Set
from contextlib import ExitStack, closing, suppress
from functools import cached_property, lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console

from crispseg.config.settings import checks_arguments, construct
from crispseg.errors import CrispsegError, CrispsegWarning, telling
from crispseg.inference.device import in_parallel
from crispseg.inference.segmentation import Segmentation
from crispseg.inference.tiled import segment_tiff
from crispseg.io.files import digest, owned, write_table, written_lines
from crispseg.io.images import image_channels
from crispseg.io.opening import file_and_page
from crispseg.io.parallel import tried
from crispseg.io.progress import print_lines, progress
from crispseg.io.results import made_of_result
from crispseg.io.sampled_values import assumed_range
from crispseg.io.stages import stage, stage_seconds
from crispseg.prediction.fastest import bf16_hint, fastest, is_usable
from crispseg.prediction.job import PredictionJob
from crispseg.prediction.outputs import NOVELTY, OUTPUTS, image_file, outputs_of
from crispseg.prediction.plan import Plan, planned
from crispseg.prediction.predictions import Predictions

if TYPE_CHECKING:
    from crispseg.prediction.outlines import Outlines

FIRST_IMAGES = 2  # number of images on which runtimes are compared
HINT_IMAGES = 20  # minimum number of images for a hint
WRITING_THREADS = 4  # at most; PyTorch's number of threads limits them too


@checks_arguments
def predict_files(
    run: str | PathLike[str],
    images: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    console: Console | None = None,
    **settings: Any,
) -> Predictions:
    """Segment image files and write the results.

    Each image gets `NAME.png`, a palette PNG of class ids, and `NAME_overlay.png`. Results are written atomically, so
    one that exists is complete. Images that cannot be read are left out with a warning.

    Args:
        run: run folder, folder of folds, saved model, name of a bundled model, hub id, or file of `crispseg export`.
        images: files, folders with their sub-folders, patterns, and text files that list paths.
        out: folder to write to; by default a new one next to the images.
        console: console for progress, if it is a terminal.
        **settings: arguments of `PredictionJob`.

    Raises:
        CrispsegError: options conflict; an image, model or class is unknown; two images have one name; results would be
            next to an image or overwrite other files; or the folder cannot be written or is used by another process.
    """
    job = construct(PredictionJob, {"run": fspath(run), **settings})
    if job.resumes and out is None:
        raise CrispsegError(f"{'shard' if job.shard else 'resume'} needs a folder to continue in; give out")
    plan = planned(job, [images] if isinstance(images, str | Path) else images, out)
    return Pipeline(job, plan, console).run()


class Pipeline:
    """The steps of one prediction, from the model to the last result.

    Args:
        job: settings.
        plan: images and the files of their results.
        console: console for progress, if it is a terminal.
    """

    def __init__(self, job: PredictionJob, plan: Plan, console: Console | None) -> None:
        self.job, self.plan, self.console = job, plan, console
        self.segmenter = job.segmenter()
        if self.segmenter.value_range is None:
            files = sorted(plan.names.keys() - plan.maps)  # also those of other shards; each map is measured by itself
            channels = image_channels(self.segmenter.info.in_chans)
            self.segmenter.value_range = assumed_range(files, channels)
        # Labels are last, since an image that fails before them has no result that would look complete.
        self.writers = [output(job, self.segmenter, plan.out) for output in reversed(outputs_of(job))]
        black = np.zeros((64, 64, image_channels(self.segmenter.info.in_chans)), np.uint8)
        scores_novelty = self.segmenter.novelty(black) is not None
        self.lists_novelty = scores_novelty and job.shard is None and job.server is None
        if job.refuse and not scores_novelty:
            raise CrispsegError(f"{job.run} does not know its training images; leave out refuse, or train it again")
        self.made_by = job.made_by(self.segmenter)
        self.digest = lru_cache(WRITING_THREADS)(digest)  # pages have one file
        self.predictions = Predictions(plan.out, len(plan.files) + len(plan.unread))

    @cached_property
    def outlines(self) -> Outlines:
        """Outlines of the results."""
        from crispseg.prediction.outlines import Outlines  # imported here, because other predictions do not need it

        return Outlines(self.job, self.segmenter.label_set, self.plan.out)

    def run(self) -> Predictions:
        """Segment the images and write the results."""
        plan, predictions = self.plan, self.predictions
        finished = self.finished_images()
        predictions.skipped = predictions.done = len(finished)
        for image in plan.unread:
            reason = "has a format that cannot be read; convert it to PNG or JPEG"
            predictions.leave_out(image, CrispsegError(f"{image} {reason}"))
        with ExitStack() as stack:
            if self.job.shard is None:  # several shards write to one folder
                stack.enter_context(owned(plan.out, *(results[0].parent for results in plan.files.values())))
            stack.enter_context(telling(self.state))
            for writer in self.writers:
                stack.callback(writer.finish, predictions)  # also after Ctrl-C
            known = self.earlier_novelty() if self.job.server is None else {}
            if self.lists_novelty:
                stack.callback(self.write_novelty)
                self.recall_novelty(known, finished - plan.maps)
            self.segment([image for image in plan.files if image not in finished])
            if self.job.writes_annotations:
                self.write_annotations()
        if self.job.tolerance is not None:
            predictions.outlines = self.outlines.simplification()
        return predictions

    def state(self) -> str:
        """Return what is done, for the message of an interruption."""
        again = "; run the same command to resume" if self.job.resumes else ""
        return f"{self.predictions.done} of {self.predictions.total} images are segmented in {self.plan.out}{again}"

    def made_of(self, image: Path) -> str:
        """Return the metadata of an image's results: its digest, the model and the settings."""
        file, page = file_and_page(image)
        return json.dumps({**self.made_by, "image": self.digest(file), "page": page})

    def finished_images(self) -> set[Path]:
        """Return the images to skip, whose results are of the same image, model and settings."""
        if not self.job.resumes:
            return set()
        complete = [image for image, results in self.plan.files.items() if self.plan.existing.keys() >= {*results}]
        compared = progress(complete, "Comparing", console=self.console)
        finished = {image for image in compared if self.plan.matches(image, self.made_of(image))}
        if others := len(complete) - len(finished):
            reason = "are from other images, another model or other settings; they are replaced"
            warnings.warn(f"results of {others} images in {self.plan.out} {reason}", CrispsegWarning, stacklevel=2)
        return finished

    def earlier_novelty(self) -> dict[str, float]:
        """Return the novelty in an earlier table, which is removed, because new results make it outdated."""
        table, known = self.plan.out / NOVELTY, dict[str, float]()
        with suppress(FileNotFoundError):  # another shard may have removed it
            known = {row["image"]: float(row["novelty"]) for row in csv.DictReader(written_lines(table))}
            table.unlink()
        return known

    def recall_novelty(self, known: dict[str, float], finished: Set[Path]) -> None:
        """Note the novelty of images to skip; that of images without a known one is computed."""
        for path in progress(sorted(finished), "Reading", console=self.console):
            image = str(Path(self.plan.names[path]).parent / path.name)
            if image not in known:
                pixels, _ = self.segmenter.read(path)
                known[image] = round(self.segmenter.novelty(pixels) or 0, 3)
            self.predictions.novelty[image] = known[image]

    def write_novelty(self) -> None:
        """Write the table of the novelty of all images so far, unless all of them are maps or failed."""
        if self.predictions.novelty:
            write_table(self.plan.out / NOVELTY, [("image", "novelty"), *sorted(self.predictions.novelty.items())])

    def compare_ways(self, images: Sequence[Path]) -> None:
        """Choose the fastest way, if requested, or print what bfloat16 would save; unreadable images wait."""
        if not self.job.fast and not self.needs_hint(len(images)):
            return
        results = map(tried(self.segmenter.read), images[:FIRST_IMAGES])
        arrays = [result[0] for result in results if not isinstance(result, CrispsegError)]
        if not arrays:
            return
        if not self.job.fast:
            line = bf16_hint(self.job, self.segmenter, arrays[0], len(images))
        else:
            self.segmenter, line = fastest(self.job, self.segmenter, arrays)
        if line and self.console:
            print_lines(self.console, [line])

    def needs_hint(self, count: int) -> bool:
        """Return whether a person may want to know what bfloat16 would save for this number of images."""
        seen = self.console is not None and count >= HINT_IMAGES
        return seen and self.job.is_plain and is_usable(self.segmenter, "torch", "bf16")

    def segment(self, missing: Sequence[Path]) -> None:
        """Segment maps, then images, and write their results."""
        images = [image for image in missing if image not in self.plan.maps]
        self.compare_ways(images)
        for image in missing:
            if image in self.plan.maps:
                self.segment_map(image)
        self.segment_images(images)

    def segment_map(self, image: Path) -> None:
        """Segment a TIFF in tiles, unless only its polygons are missing."""
        labels = self.plan.files[image][0]
        rasters = [file for file in self.plan.files[image] if file.suffix == labels.suffix]
        made_of = self.made_of(image)
        is_made = self.job.resumes and all(self.plan.existing.get(file) == made_of for file in rasters)
        try:
            if not is_made:
                segment_tiff(self.segmenter, image, *rasters, console=self.console, made_by=made_of)
            if self.job.polygons:
                self.outlines.write_map(labels)
            self.predictions.done += 1
        except CrispsegError as error:
            self.predictions.leave_out(image, error)

    def segment_images(self, images: Sequence[Path]) -> None:
        """Segment images, while several threads write the results before."""
        # Any output may need probabilities; few results are in memory.
        stream = self.segmenter.stream(images, on_error=self.predictions.leave_out, probabilities=True)
        with (
            stage_seconds() as self.predictions.seconds,
            closing(stream) as results,
            closing(in_parallel(results, self.write, min(WRITING_THREADS, torch.get_num_threads()))) as written,
        ):
            for result, writing in progress(written, "Segmenting", len(images), self.console):
                try:
                    writing.result()
                    if self.is_refused(result):
                        continue
                    for writer in self.writers:
                        writer.add(result)
                    self.predictions.done += 1
                except CrispsegError as error:
                    self.predictions.leave_out(result.path or result.name, error)

    def is_refused(self, result: Segmentation) -> bool:
        """Return whether the image is left out, because it is unlike the training images."""
        return self.job.refuse and self.predictions.novelty.get(image_file(result), 0) > 1

    def write(self, result: Segmentation) -> None:
        """Write all outputs of an image, or none if it is refused, and remove the others of an earlier prediction."""
        assert result.path is not None
        result.name = self.plan.names[result.path]
        if (novelty := result.novelty()) is not None:
            self.predictions.novelty[image_file(result)] = round(novelty, 3)
        with stage("writing"):
            if self.is_refused(result):
                for file in self.plan.files[result.path]:
                    file.unlink(missing_ok=True)
            else:
                result.made_of = self.made_of(result.path)
                for writer in self.writers:
                    writer.write(result)
            if self.job.server is None:
                self.remove_outdated(result)

    def remove_outdated(self, result: Segmentation) -> None:
        """Remove files of outputs that this prediction does not write."""
        for name in {*OUTPUTS.names()} - {*self.job.extras}:
            files = [self.plan.out / f"{result.name}{ending}" for ending in OUTPUTS[name].endings]
            if files and made_of_result(files[0]) is not None:
                for file in files:
                    file.unlink(missing_ok=True)

    def write_annotations(self) -> None:
        """Write the folder of annotations for a labelling tool, from the labels of all images."""
        from crispseg.data import formats  # imported here, because other predictions do not need it

        of_image, names, files = self.outlines.of_image, self.plan.names, self.plan.files
        images = {*files} - {*self.predictions.failed}
        written = sorted(image for image in images if files[image][0].exists())  # others are refused
        listed = progress(written, "Outlining", console=self.console)
        outlined = (of_image(image, names[image], files[image]) for image in listed)
        folder = self.plan.out / self.job.format
        formats.write_annotations(folder, outlined, self.segmenter.label_set)
        self.predictions.annotations = folder
