"""Certificate of an exported file: its logits, labels, scores, time and memory compared with those of the model."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import gc
import importlib.util
import math
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import psutil
import pydantic
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from crispseg.config.settings import CHECKS, Settings
from crispseg.data.catalogue import spread
from crispseg.data.dataset import Sample
from crispseg.evaluation.bootstrap import number
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.scores import SegmentationScores
from crispseg.export.quantization import Calibration
from crispseg.inference.device import processor_name
from crispseg.inference.runtime import AnyModel, Run
from crispseg.inference.segmenter import Segmenter
from crispseg.io.images import image_channels
from crispseg.models import SegmentationModel

CHECKED = ((1, 32, 57), (2, 97, 160), (1, 471, 630))
"""Images, height and width at which a file is compared with its model."""
TOLERANCE = 1e-3
"""Largest absolute difference of a logit; beyond logits of `LARGE`, relative to them, as float32 is no more exact."""
LARGE = 100.0
SAME_LABELS = 0.999
DECIDED_OTHERWISE = 0.001
"""Share of the pixels of a refined model whose logits need not agree: where two directions, or boundary and none, are
equal but for rounding, a pixel takes the logits of another one."""
FACTORS = (0.5, 1.0, 1.5)
"""Factors of the held-out images' size at which they are segmented."""
DISTANCE = 3
"""Pixels within which boundaries match."""
PACKAGES = ("crispseg", "torch", "timm", "onnxruntime", "openvino")
"""Packages whose versions a certificate names."""

View: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
"""An image and its class ids, if they are known."""


class Comparison(NamedTuple):
    """Logits of a file compared with those of the model, at one size."""

    size: tuple[int, int, int]
    """Images, height, width."""
    largest: float
    """The largest of the model's logits, absolute."""
    difference: float
    """The largest of any logit, absolute; of a refined model, without the pixels that are `DECIDED_OTHERWISE`."""
    same_labels: float
    """Share of pixels, 0 to 1."""

    @property
    def agrees(self) -> bool:
        """Whether difference and labels are within the tolerance; never with values that are not finite."""
        return self.difference <= TOLERANCE * max(1.0, self.largest / LARGE) and self.same_labels >= SAME_LABELS

    def __str__(self) -> str:
        size = "×".join(map(str, self.size))
        return (
            f"{size}: largest difference {self.difference:.1e} in logits of up to {self.largest:.3g}, "
            f"{100 * self.same_labels:.3f} % equal labels"
        )


@torch.inference_mode()
def compare(run: Run, model: SegmentationModel, size: tuple[int, int, int]) -> Comparison:
    """Compare what a file computes with what the model computes, in float32, on random smooth images."""
    images = smooth_images(size, model.info.in_chans)
    expected, logits = reference(model)(images), run(images)
    same = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
    differences = (logits - expected).abs().amax(1).flatten()  # (N · H · W,)
    left_out = int(DECIDED_OTHERWISE * differences.numel()) if model.refiner else 0
    difference = differences.kthvalue(differences.numel() - left_out).values.item()  # the largest of the rest
    return Comparison(size, expected.abs().max().item(), difference, same)


def smooth_images(size: tuple[int, int, int], in_chans: int) -> Tensor:
    """Return blobs of some 16 pixels with a little noise, of the spread of normalised images, always the same."""
    count, height, width = size
    random = torch.Generator().manual_seed(0)
    blobs = torch.randn(count, in_chans, height // 16 + 2, width // 16 + 2, generator=random)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=True)
    return blobs + 0.1 * torch.randn(blobs.shape, generator=random)


def reference(model: SegmentationModel) -> SegmentationModel:
    """Copy a model in its plainest form: float32, on the CPU, in eval mode, without gradients."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    return plain.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)


class Compared(NamedTuple):
    """One quantity of the model, and of the file."""

    model: float
    file: float


@dataclass(frozen=True)
class CertificateRow:
    """Labels, scores and times at one size."""

    size: tuple[int, int]
    """Height and width, of the first image where they differ."""
    images: int
    labels: float
    """Percent of the pixels to which file and model give the same label."""
    milliseconds: Compared
    """Median from an image to its labels, of the first image."""
    p95: Compared
    miou: Compared | None
    """In percent; None without labelled images, as the next."""
    boundary_f: Compared | None
    """In percent, within `DISTANCE` pixels, a mean over the classes."""


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class ExportLimits(Settings):
    """Limits of a file at every size; None is no limit.

    Args:
        labels: percent of the pixels whose labels must agree, at least.
        miou: points of mIoU that may be lost.
        boundary_f: points of boundary F that may be lost.
        latency: milliseconds of the file over those of the model, at most.
        memory: peak memory of the file over that of the model, at most.

    Raises:
        CrispsegError: a value out of range.
    """

    prefix = "limit."
    labels: float | None = Field(default=None, ge=0, le=100)
    miou: float | None = Field(default=None, ge=0, le=100)
    boundary_f: float | None = Field(default=None, ge=0, le=100)
    latency: float | None = Field(default=None, gt=0)
    memory: float | None = Field(default=None, gt=0)

    def broken_scores(self, rows: tuple[CertificateRow, ...]) -> list[str]:
        """Return a line for each limit on labels and scores that is broken."""
        found = []
        for row in rows:
            at = f"at {row.size[0]}×{row.size[1]}"
            if self.labels is not None and row.labels < self.labels:
                found.append(f"{row.labels:.2f} % of the labels agree {at}, less than limit.labels {self.labels:g}")
            for name, limit, pair in (("miou", self.miou, row.miou), ("boundary_f", self.boundary_f, row.boundary_f)):
                lost = 0.0 if limit is None or pair is None else pair.model - pair.file
                if math.isnan(lost):
                    found.append(f"limit.{name} {limit:g} cannot be checked {at}: the images have nothing to score")
                elif limit is not None and lost > limit:
                    found.append(f"{lost:.2f} points are lost {at}, over limit.{name} {limit:g}")
        return found

    def broken(self, rows: tuple[CertificateRow, ...], memory: Compared | None) -> list[str]:
        """Return a line for each limit that is broken."""
        found = self.broken_scores(rows)
        if self.memory is not None and memory is None:
            found.append(f"limit.memory {self.memory:g} cannot be checked: the memory could not be measured")
        costs = [("latency", self.latency, f"time at {row.size[0]}×{row.size[1]}", row.milliseconds) for row in rows]
        for name, limit, what, pair in [*costs, ("memory", self.memory, "memory", memory)]:
            if limit is not None and pair is not None and pair.file > limit * pair.model:
                ratio = pair.file / pair.model
                found.append(f"the {what} is {ratio:.2f} of the model's, over limit.{name} {limit:g}")
        return found


@dataclass(frozen=True)
class Certificate:
    """Comparison of an exported file with its model."""

    network: str
    format: str
    precision: str
    kept: str | None
    """Layers of an int8 file that stayed in float, see `crispseg.export.quantization.in_float`."""
    data: str | None
    """Data on which it was scored; None for images of random blobs."""
    rows: tuple[CertificateRow, ...]
    memory: Compared | None
    """Bytes by which a process grows from opening to the largest first image; None if unknown."""
    comparisons: tuple[Comparison, ...]
    """Comparisons of the logits, on random images."""
    bytes: int
    """Size of the file."""
    limits: ExportLimits
    broken: tuple[str, ...]
    """The limits that are broken, in words."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the machine and the versions of what computed."""

        def plain(value: Any) -> Any:
            if isinstance(value, Compared):
                return {key: number(each) for key, each in value._asdict().items()}
            return value

        record = {key: plain(value) for key, value in vars(self).items()}
        return {
            **record,
            "rows": [{key: plain(value) for key, value in vars(row).items()} for row in self.rows],
            "comparisons": [comparison._asdict() for comparison in self.comparisons],
            "limits": dataclasses.asdict(self.limits),
            "processor": processor_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": {name: version(name) for name in PACKAGES if importlib.util.find_spec(name)},
        }


class Trial:
    """An exported file and its model, opened to run on the same images at three sizes.

    Args:
        model: the model.
        open_file: opens the file.
        data: whose held-out images are seen, at `FACTORS` of their size; None for random blobs at `CHECKED`.

    Attributes:
        memory: see `Certificate`.

    Raises:
        CrispsegError: the file cannot be opened, or an image cannot be read.
    """

    def __init__(self, model: SegmentationModel, open_file: Callable[[], AnyModel], data: Calibration | None) -> None:
        self.model, self.data = model, data
        self.first = next(_views(model, data))
        self.opened: list[AnyModel] = []
        self.both: list[Segmenter] = []

        def first_image(open_it: Callable[[], AnyModel]) -> None:
            self.opened.append(open_it())
            self.both.append(Segmenter(self.opened[-1], "cpu"))
            self.both[-1].labels(self.first[-1][0])

        model_grew = resident_growth(lambda: first_image(lambda: model))
        file_grew = resident_growth(lambda: first_image(open_file))
        self.memory = Compared(model_grew, file_grew) if model_grew and file_grew else None  # 0 is no measurement

    def comparisons(self) -> tuple[Comparison, ...]:
        """Return those of the logits of random images, at `CHECKED` sizes."""
        return tuple(compare(self.opened[1], self.model, size) for size in CHECKED)

    def rows(self, rounds: int) -> tuple[CertificateRow, ...]:
        """Labels and scores of all images at each size, and times of the first one, the median of so many rounds."""
        classes = self.model.num_classes
        metrics = [
            [(SegmentationScores(classes), BoundaryScores(classes, (DISTANCE,))) for _ in self.both] for _ in FACTORS
        ]
        same, pixels, images = np.zeros(len(FACTORS)), np.zeros(len(FACTORS)), 0
        for views in _views(self.model, self.data):
            images += 1
            for at, (image, truth) in enumerate(views):
                seen = [segmenter.labels(image) for segmenter in self.both]
                same[at] += (seen[0] == seen[1]).sum()
                pixels[at] += seen[0].size
                for labels, each in zip(seen, metrics[at], strict=True):
                    for metric in each if truth is not None else ():
                        metric.update(torch.from_numpy(labels)[None], torch.from_numpy(truth)[None])
        rows = []
        for at, (image, truth) in enumerate(self.first):
            median, p95 = (Compared(*map(float, row)) for row in np.percentile(self._times(image, rounds), (50, 95), 0))
            scores = boundaries = None
            if truth is not None:
                scores = Compared(*(float(matrix.scores().miou) for matrix, _ in metrics[at]))
                boundaries = Compared(*(found.scores().mean[DISTANCE] for _, found in metrics[at]))
            agree = float(100 * same[at] / pixels[at])
            rows.append(
                CertificateRow((image.shape[0], image.shape[1]), images, agree, median, p95, scores, boundaries)
            )
        return tuple(rows)

    def _times(self, image: NDArray[np.uint8], rounds: int) -> NDArray[np.float64]:
        """Milliseconds `(rounds, 2)` of model and file, in turns, so that a machine that slows down slows both."""
        taken = np.empty((rounds, 2))
        for turn, column in product(range(rounds), range(2)):
            start = time.perf_counter()
            self.both[column].labels(image)
            taken[turn, column] = 1000 * (time.perf_counter() - start)
        return taken


def resident_growth(run: Callable[[], Any]) -> int | None:
    """Return the most bytes by which this process grows while something runs, operators of any library included.

    None on systems other than Linux.
    """
    gc.collect()
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)  # what was freed before would otherwise be used again, and count nothing
    before = psutil.Process().memory_info().rss
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the highest mark so far
    except OSError:
        run()
        return None
    run()
    import resource  # not on Windows

    return max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before, 0)


def _views(model: SegmentationModel, data: Calibration | None) -> Iterator[list[View]]:
    """Each held-out image at three sizes; without data, one set of random blobs."""
    info = model.info
    if data is None:
        channels = image_channels(info.in_chans)
        blobs = [smooth_images((1, height, width), channels)[0].permute(1, 2, 0) for _, height, width in CHECKED]
        yield [((255 * each.sigmoid()).to(torch.uint8).numpy(), None) for each in blobs]
        return
    held_out = data.held_out.with_channels(info.in_chans, info.value_range)
    for index in spread(len(held_out), data.images):
        sample = held_out[index]
        yield [_scaled(sample, factor) for factor in FACTORS]


def _scaled(sample: Sample, factor: float) -> View:
    """Images are averaged where they shrink; labels are those of the nearest pixel."""
    if factor == 1:
        return sample.image, sample.labels
    width, height = (max(round(side * factor), 1) for side in sample.size[::-1])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image = np.asarray(cv2.resize(sample.image, (width, height), interpolation=how), np.uint8)
    labels = cv2.resize(sample.labels, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
    return image, np.asarray(labels, np.uint8)
