"""A folder of images that a person paints and a model learns and segments, in turns; without any window."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from crispseg.config.files import real_path
from crispseg.errors import CrispsegError, flags_of
from crispseg.folders.names import read_names, write_names
from crispseg.inference import Segmentation, Segmenter
from crispseg.inference.image_files import named_images
from crispseg.inference.objects import Objects
from crispseg.io.files import atomic_path, user_path, writable_folder
from crispseg.io.images import find_images, image_size, read_mask, write_labels
from crispseg.io.opening import faults, opened
from crispseg.io.results import made_of_result
from crispseg.io.tiff_reading import has_more_pages
from crispseg.labelling.following import Candidate, images_to_label
from crispseg.labels import IGNORE, LabelSet
from crispseg.models import SegmentationModel
from crispseg.models.saving import CONFIG_FILE, MODEL, read_info
from crispseg.nn import ceil_div

CLASSES_FILE = "classes.txt"
CHILD = "crispseg.annotation.child"  # module that runs a command
MODEL_WRITTEN = f"{MODEL}/{CONFIG_FILE}"  # file of a run whose model is whole
BORDER_CLASS = "border"  # class of the pixels between objects
ACCEPTED = "accepted"  # metadata of masks that are accepted predictions
SIDE, HELD_BACK = 32, 5  # side of squares, in pixels, and number of squares of which one is held back for evaluation
WINDOW = 256  # least side, in pixels, of the parts of larger images that evaluations read
CANDIDATES = 20  # number of images, evenly spread and others after each training, among which the next one is chosen
REGIONS_COMPARED = 64  # number of regions in them, of which the first one without labels is suggested
FEW_LABELS = {"backbone_lr_factor": 0.1, "augment.cutmix": 64}  # settings of `crispseg train`
START_AND_END = 9.0  # seconds of the first training before its first step and after its last; later, as measured
LEAST_SECONDS = 5.0  # seconds of the shortest training

Labels = NDArray[np.uint8]  # class ids (H, W), 255 for unlabelled pixels


class Progress(NamedTuple):
    """State of a training: its share, 1 at the end, remaining seconds, and the best mIoU on held-back labels so far."""

    share: float
    seconds_left: float
    miou: float | None


class Project:
    """Folder of images that a person paints and a model learns and segments, in turns.

    It has `images`, their labels in `masks` (255 for unlabelled pixels; no file for an image without any),
    `classes.txt`, and trained models in `runs`. `crispseg train` and other commands read it like any data. Invalid
    classes, broken images or a folder that cannot be written raise a `CrispsegError`.

    Args:
        folder: folder of the project; it is created if it is missing.
        images: images to add: files, folders or patterns. Each page of a TIFF becomes an image.
        classes: names of the classes; by default those of `classes.txt`, or background and object.
    """

    def __init__(self, folder: str | Path, images: Sequence[str | Path] = (), classes: Sequence[str] = ()) -> None:
        self.folder = user_path(folder)
        for part in ("images", "masks", "runs"):
            writable_folder(self.folder / part)
        listing = self.folder / CLASSES_FILE
        if classes or not listing.exists():
            write_names(listing, LabelSet.colored([*classes] or ["background", "object"]).names)
        self.classes = LabelSet.colored(read_names(listing))
        self.images = dict[str, Path]()  # by name
        for file in find_images(self.folder / "images"):
            name = file.relative_to(self.folder / "images").with_suffix("").as_posix()
            if name in self.images:
                raise CrispsegError(f"{file} and {self.images[name]} have the same stem, so one mask; rename one")
            self.images[name] = file
        self.add(images)
        self.accepted = {name for name in self.painted if made_of_result(self.mask(name)) == ACCEPTED}
        self.runs = [str(run) for run in sorted((self.folder / "runs").iterdir()) if (run / MODEL_WRITTEN).exists()]
        self.model = self.runs[-1] if self.runs else None  # to predict with, and to start training from
        self.changed: set[str] = set()  # names of images whose labels have been written since the last training
        self._start_and_end = START_AND_END
        self._ranked: tuple[str | None, list[Candidate]] = None, []  # model, and regions in which labels help it

    @property
    def painted(self) -> list[str]:
        """Names of the images with labels."""
        return [name for name in self.images if self.mask(name).exists()]

    def add(self, images: Sequence[str | Path]) -> None:
        """Link images into the project, or copy them; those that it already has are left out.

        An image of the project that was moved or removed is replaced by one of the same stem.
        """
        for path, given_name in named_images(images).items():
            name = given_name.replace("/", "_")
            if pages := pages_of(path):
                self._add_pages(name, pages)
            else:
                self._add_file(name, path)

    def _add_pages(self, name: str, pages: Sequence[NDArray[Any]]) -> None:
        """Write the pages of a stack, under a name that no other stack has."""
        while any(not self._may_be(page, values) for page, values in numbered(name, pages).items()):
            name += "_2"
        for page, values in numbered(name, pages).items():
            self.images[page] = self.folder / f"images/{page}.tif"
            write_values(self.images[page], values)

    def _add_file(self, name: str, path: Path) -> None:
        """Link an image, under a name that no other image has."""
        while name in self.images and self.images[name].exists() and not filecmp.cmp(path, self.images[name]):
            name += "_2"
        if name in self.images and not self.images[name].exists():
            self.images.pop(name).unlink(missing_ok=True)
        if name not in self.images:
            self.images[name] = self.folder / f"images/{name}{path.suffix}"
            link(path, self.images[name])

    def _may_be(self, name: str, page: NDArray[Any]) -> bool:
        """Return whether a page can have this name: no other image has it."""
        file = self.images.get(name)
        if file is None:
            return True
        with faults(file):
            return file.suffix == ".tif" and np.array_equal(tifffile.imread(file).ravel(), page.ravel())

    def mask(self, name: str) -> Path:
        """Return the path of the labels of an image; the file exists if it has any."""
        return self.folder / "masks" / f"{name}.png"

    def labels(self, name: str) -> Labels:
        """Return the labels of an image, `(H, W)`; a value without a class raises a `CrispsegError`."""
        file, size = self.mask(name), image_size(self.images[name])
        if not file.exists():
            return np.full(size, IGNORE, np.uint8)
        mask = read_mask(file)
        if mask.shape != size:
            raise CrispsegError(f"{file} has the shape {mask.shape}, but its image {size}; restore or remove it")
        unknown = mask[(mask >= len(self.classes)) & (mask != IGNORE)]
        if unknown.size:
            fault = f"{file} has the value {unknown[0]}, but {CLASSES_FILE} lists {len(self.classes)} classes"
            raise CrispsegError(f"{fault}; write a name for each value, one per line")
        return mask.astype(np.uint8)

    def write(self, name: str, labels: Labels) -> None:
        """Write the labels of an image, which are then on the disk; without any labels, the file is removed.

        If the image is in `accepted`, the file is marked as an accepted prediction, unless pixels are unlabelled again.
        """
        self.changed.add(name)
        if (labels == IGNORE).any():
            self.accepted.discard(name)
        if (labels == IGNORE).all():
            self.mask(name).unlink(missing_ok=True)
        else:
            write_labels(self.mask(name), labels, self.classes.palette, ACCEPTED if name in self.accepted else "")

    def train(
        self,
        minutes: float = 1.0,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        stop: Event | None = None,
    ) -> Path:
        """Train on all labels in another process, starting from `model`, and return the run, which becomes `model`.

        A fifth of the labels, in a fixed pattern of squares, is held back to evaluate the model. Too few labels, or a
        training that fails, raise a `CrispsegError`.

        Args:
            minutes: duration of the whole call; the training itself takes at least five seconds.
            on_progress: called with the progress about once a second.
            stop: event that ends the training; the best model so far is kept.
        """
        started, stop = time.monotonic(), stop or Event()
        run = self._new_run()
        data, log = self._divided(run.name), writable_folder(run) / "log.txt"
        self.changed.clear()
        seconds = max(60 * minutes - self._start_and_end, LEAST_SECONDS)
        command = [sys.executable, "-P", "-m", CHILD, "train", str(data), *self._flags(run, seconds / 60)]
        pipe = subprocess.PIPE  # whose end ends the training: here, and if this process is killed
        with log.open("w") as file, subprocess.Popen(command, stdin=pipe, stdout=file, stderr=file) as process:
            while process.poll() is None and not stop.wait(1):
                left = max(60 * minutes - (time.monotonic() - started), 0)
                on_progress(Progress(min(1 - left / (60 * minutes), 0.99), left, best_miou(run)))
        has_model = (run / MODEL_WRITTEN).exists()
        if not has_model or (process.returncode and not stop.is_set()):
            last_line = log.read_text(errors="replace").strip().rpartition("\n")[2]
            reason = "it was stopped before its first evaluation; train longer" if stop.is_set() else last_line or log
            outcome = f"failed after its last model, {run}" if has_model else "made no model"
            raise CrispsegError(f"the training {outcome}: {reason}")
        if not stop.is_set():
            self._start_and_end = time.monotonic() - started - seconds
        on_progress(Progress(1, 0, best_miou(run)))
        self.model = str(run)
        self.runs.append(self.model)
        return run

    def _flags(self, run: Path, minutes: float) -> list[str]:
        """Return the settings of a training as flags."""
        settings = {"minutes": minutes, "out": str(run), "loggers": [], "ignore": [IGNORE]} | FEW_LABELS
        settings |= {"classes": [*self.classes.names]} | ({"init_from": self.model} if self.model else {})
        return flags_of(settings)

    def _new_run(self) -> Path:
        numbers = [int(run.name) for run in (self.folder / "runs").iterdir() if run.name.isdecimal()]
        return self.folder / "runs" / f"{max(numbers, default=0) + 1:03}"

    def _divided(self, run: str) -> Path:
        """Write training labels and held-back ones as the splits of a folder, which is hidden from other commands."""
        place = self.folder / ".divided" / run
        masks = {name: self.labels(name) for name in self.painted}
        if not masks:
            raise CrispsegError(f"{self.folder} has no labels; paint some pixels of each class")
        shutil.rmtree(place, ignore_errors=True)  # of a run that was removed, or did not start
        for is_val, split in enumerate(("train", "val")):
            parts = {name: np.where(held_back(mask) == is_val, mask, IGNORE) for name, mask in masks.items()}
            present = set[int]().union(*(np.unique(part).tolist() for part in parts.values()))
            for name, mask in masks.items():
                labels = np.where(np.isin(mask, [*present]), parts[name], mask)  # other classes are too few to divide
                if is_val:
                    self._write_windows(name, labels, place / split)
                elif (labels != IGNORE).any():
                    write_labels(place / split / "masks" / f"{name}.png", labels, self.classes.palette)
                    link(self.images[name], place / split / "images" / f"{name}{self.images[name].suffix}")
        return place

    def _write_windows(self, name: str, labels: Labels, place: Path) -> None:
        """Write the windows of an image that have labels, so that evaluations read no other parts of it."""
        with opened(self.images[name]) as raster:
            values = raster.numbers(3)
        height, width = labels.shape
        rows, columns = max(height // WINDOW, 1), max(width // WINDOW, 1)
        for row, column in np.ndindex(rows, columns):
            down = slice(row * height // rows, (row + 1) * height // rows)
            across = slice(column * width // columns, (column + 1) * width // columns)
            if (labels[down, across] != IGNORE).any():
                window = f"{name}_{row}_{column}"
                write_labels(place / "masks" / f"{window}.png", labels[down, across], self.classes.palette)
                write_values(place / "images" / f"{window}.tif", values[down, across])

    def predict(self, name: str) -> Segmentation:
        """Return the prediction for an image; without a model, raise a `CrispsegError`."""
        if self.model is None:
            raise CrispsegError(f"{self.folder} has no model yet; train one, or choose a bundled model")
        return segmenter_of(self.model)(self.images[name])

    def measure(self, name: str) -> Objects:
        """Return the predicted objects of all classes but the background; a class named border separates others."""
        result = self.predict(name)
        foreground = result.label_set.foreground
        classes = [category for category in foreground if category != BORDER_CLASS]
        return result.objects(classes, BORDER_CLASS if BORDER_CLASS in foreground and len(classes) == 1 else None)

    def save(self, name: str) -> Path:
        """Write the prediction and the objects of an image to `predictions`, and return that folder."""
        folder = self.folder / "predictions"
        self.predict(name).save(folder)
        self.measure(name).save(folder)
        return folder

    def suggest(self) -> Candidate:
        """Return where labels help most: the region in which the model is uncertain and that is unlike others.

        Its `name` is that of the image, its `box` has left, top, width and height in pixels. Accepted images are left
        out; regions without labels, in images that have not been labelled since the last training, come first. Without
        a model, it is the first image without labels.
        """
        names = [name for name in self.images if name not in self.accepted]
        if not names:
            raise CrispsegError(f"{self.folder / 'images'} has no image to label; add images")
        if self.model is None:
            name = next((name for name in names if not self.mask(name).exists()), names[0])
            height, width = image_size(self.images[name])
            return Candidate(self.images[name], name, 1, box=(0, 0, width, height))
        model, regions = self._ranked
        regions = [region for region in regions if region.name in names]
        if model != self.model or not regions:
            regions = self._regions(self.model, names)
            self._ranked = self.model, regions
        return min(regions, key=self._is_done)

    def _regions(self, model: str, names: Sequence[str]) -> list[Candidate]:
        """Return regions of some of these images, unlike each other and some labelled images; the first helps most."""
        step = ceil_div(len(names), CANDIDATES)
        candidates = {self.images[name]: name for name in names[len(self.runs) % step :: step]}
        labelled = [self.images[name] for name in self.painted[:: ceil_div(len(self.painted), CANDIDATES) or 1]]
        network = SegmentationModel.from_pretrained(model)
        return images_to_label(network, segmenter_of(model), candidates, labelled, REGIONS_COMPARED, strokes=True)

    def _is_done(self, region: Candidate) -> tuple[bool, bool]:
        """Return whether a region has labels, and whether its image has been labelled since the last training."""
        left, top, width, height = region.box
        labels = self.labels(region.name)[top : top + height, left : left + width]
        return bool((labels != IGNORE).any()), region.name in self.changed


@lru_cache(maxsize=1)
def segmenter_of(model: str) -> Segmenter:
    """Return the segmenter of a model; if the model has no range for 16-bit images, each is scaled by its own."""
    segmenter = Segmenter(model)
    segmenter.value_range = segmenter.value_range or "image"
    return segmenter


def held_back(mask: Labels) -> NDArray[np.bool_]:
    """Return which pixels `(H, W)` are held back for evaluation, always the same ones of an image."""
    rows, columns = np.ogrid[: mask.shape[0], : mask.shape[1]]
    return np.asarray((rows // SIDE + 2 * (columns // SIDE)) % HELD_BACK == 0)


def best_miou(run: Path) -> float | None:
    """Return the best mIoU of a training that may be under way; None before its first model."""
    if not (run / MODEL_WRITTEN).exists():
        return None
    return float(read_info(run / MODEL).metrics["val_miou"])


def pages_of(path: Path) -> list[NDArray[Any]]:
    """Return the pages of a TIFF with several; nothing for other images."""
    pages = list[NDArray[Any]]()
    if path.suffix.lower() in (".tif", ".tiff"):
        with faults(path), tifffile.TiffFile(path) as tiff:
            for series in tiff.series if has_more_pages(tiff) else ():
                pages += [*series.asarray().reshape(-1, *series.keyframe.shape)]  # of one size
    return pages


def numbered(name: str, pages: Sequence[NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the pages of an image by their names."""
    return {f"{name}_{number:03}": page for number, page in enumerate(pages, 1)}


def write_values(path: Path, values: NDArray[Any]) -> None:
    """Write grey values `(H, W)` or `(H, W, 1)`, or those of RGB, also with alpha, to a TIFF."""
    is_grey = values.ndim == 2 or values.shape[2] == 1
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, values, photometric="minisblack" if is_grey else "rgb")


def link(image: Path, path: Path) -> None:
    """Link an image; copy it if the system has no links."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.symlink_to(real_path(image))
    except OSError:
        shutil.copy(image, path)
