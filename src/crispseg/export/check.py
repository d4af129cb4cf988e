"""What an exported file computes beside its model: the same labels and scores or not, in how much time and memory."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
import pydantic
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from crispseg.benchmarking.timing import Latency, latencies, take_turns
from crispseg.config.settings import CHECKS, Settings
from crispseg.data.dataset import Sample
from crispseg.data.overview import spread
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.scores import SegmentationScores
from crispseg.evaluation.tables import number
from crispseg.export.quantization import Calibration
from crispseg.inference.exported import Network, Run, open_network
from crispseg.inference.memory import resident_growth
from crispseg.inference.segmenter import Segmenter
from crispseg.io.images import image_channels
from crispseg.models import SegmentationModel

CHECKED = ((1, 32, 57), (2, 97, 160), (1, 471, 630))
"""Images, height and width at which a file is compared with its model."""
FACTORS = (0.5, 1.0, 1.5)
"""Of the held-out images' own size: the three at which they are seen."""
DISTANCE = 3
"""Pixels within which boundaries match."""

TOLERANCE = 1e-3
"""Largest absolute difference of a logit; beyond logits of `LARGE`, relative to them, as float32 is no more exact."""
LARGE = 100.0
SAME_LABELS = 0.999
DECIDED_OTHERWISE = 0.001
"""Share of the pixels of a refined model whose logits need not agree: where two directions, or boundary and none, are
equal but for rounding, a pixel takes the logits of another one."""

View: TypeAlias = tuple[NDArray[np.uint8], NDArray[np.uint8] | None]
"""An image and its class ids, if they are known."""


class Comparison(NamedTuple):
    """A file's logits beside the model's, at one size."""

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


class Pair(NamedTuple):
    """One quantity of the model, and of the file."""

    model: float
    file: float


@dataclass(frozen=True)
class Row:
    """What was found at one size."""

    size: tuple[int, int]
    """Height and width, of the first image where they differ."""
    images: int
    labels: float
    """Percent of the pixels to which file and model give the same label."""
    milliseconds: Pair
    """Median from an image to its labels, of the first image."""
    p95: Pair
    miou: Pair | None
    """In percent; None without labelled images, as the next."""
    boundary_f: Pair | None
    """In percent, within `DISTANCE` pixels, a mean over the classes."""


@pydantic.dataclasses.dataclass(frozen=True, config=CHECKS)
class Limits(Settings):
    """What a file must keep to at every size; None is no limit.

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

    def broken_scores(self, rows: tuple[Row, ...]) -> list[str]:
        """What is said of the limits on labels and scores that are broken."""
        found = []
        for row in rows:
            at = f"at {row.size[0]}×{row.size[1]}"
            if self.labels is not None and row.labels < self.labels:
                found.append(f"{row.labels:.2f} % of the labels agree {at}, less than limit.labels {self.labels:g}")
            for name, limit, pair in (("miou", self.miou, row.miou), ("boundary_f", self.boundary_f, row.boundary_f)):
                if limit is None or pair is None:
                    continue
                lost = pair.model - pair.file
                if math.isnan(lost):
                    found.append(f"limit.{name} {limit:g} cannot be checked {at}: the images have nothing to score")
                elif lost > limit:
                    found.append(f"{lost:.2f} points are lost {at}, over limit.{name} {limit:g}")
        return found

    def broken(self, rows: tuple[Row, ...], memory: Pair | None) -> list[str]:
        """What is said of all limits that are broken."""
        found = self.broken_scores(rows)
        if self.memory is not None and memory is None:
            found.append(f"limit.memory {self.memory:g} cannot be checked: the memory could not be measured")
        costs = [(f"the time at {row.size[0]}×{row.size[1]}", row.milliseconds) for row in rows]
        for name, limit, pairs in (
            ("latency", self.latency, costs),
            ("memory", self.memory, [] if memory is None else [("the memory", memory)]),
        ):
            for what, pair in pairs:
                if limit is not None and pair.file > limit * pair.model:
                    found.append(f"{what} is {pair.file / pair.model:.2f} of the model's, over limit.{name} {limit:g}")
        return found


@dataclass(frozen=True)
class Certificate:
    """How an exported file compares with its model."""

    network: str
    format: str
    precision: str
    kept: str | None
    """Of 8 bits, what stayed in float, see `crispseg.export.quantization.in_float`."""
    data: str | None
    """On which it was scored; None for images of random blobs."""
    rows: tuple[Row, ...]
    memory: Pair | None
    """Bytes by which a process grows from opening until the largest first image is seen; None where not known."""
    comparisons: tuple[Comparison, ...]
    """On random images, of the logits."""
    bytes: int
    """Of the file."""
    limits: Limits
    broken: tuple[str, ...]
    """The limits that are broken, in words."""

    def as_json(self) -> dict[str, Any]:
        """As plain values, with the machine it was taken on."""
        from crispseg.benchmarking.report import processor_name, versions

        def plain(value: Any) -> Any:
            return {key: number(each) for key, each in value._asdict().items()} if isinstance(value, Pair) else value

        rows = [{key: plain(value) for key, value in vars(row).items()} for row in self.rows]
        return {
            **{
                key: value
                for key, value in vars(self).items()
                if key not in ("rows", "memory", "comparisons", "limits")
            },
            "rows": rows,
            "memory": plain(self.memory),
            "comparisons": [comparison._asdict() for comparison in self.comparisons],
            "limits": dataclasses.asdict(self.limits),
            "processor": processor_name(torch.device("cpu")),
            "threads": torch.get_num_threads(),
            "versions": versions(),
        }


class Trial:
    """An exported file and its model, opened to run on the same images at three sizes.

    Args:
        model: the model.
        file: the file.
        data: whose held-out images are seen, at `FACTORS` of their size; None for random blobs at `CHECKED`.

    Attributes:
        memory: see `Certificate`.

    Raises:
        CrispsegError: the file cannot be opened, or an image cannot be read.
    """

    def __init__(self, model: SegmentationModel, file: Path, data: Calibration | None) -> None:
        self.model, self.data = model, data
        self.first = next(_views(model, data))
        opened: list[tuple[Network, Segmenter]] = []

        def see(get: Callable[[], Network]) -> int | None:
            def first_image() -> None:
                network = get()
                opened.append((network, Segmenter(network, "cpu")))
                opened[-1][1].labels(self.first[-1][0])

            return resident_growth(first_image)

        model_grew, file_grew = see(lambda: model), see(lambda: open_network(file))
        (_, ours), (self.network, theirs) = opened
        self.both = ours, theirs
        self.memory = Pair(model_grew, file_grew) if model_grew and file_grew else None  # 0 is no measurement

    def comparisons(self) -> Iterator[Comparison]:
        """Of the logits of random images, at `CHECKED` sizes."""
        return (compare(self.network, self.model, size) for size in CHECKED)

    def rows(self, rounds: int) -> tuple[Row, ...]:
        """Labels and scores of all images at each size, and times of the first one, the median of so many rounds."""
        metrics = [[(SegmentationScores(self.model.num_classes), self._boundary()) for _ in self.both] for _ in FACTORS]
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
            times = self._times(image, rounds)
            scores = boundaries = None
            if truth is not None:
                scores = Pair(*(float(matrix.scores().miou) for matrix, _ in metrics[at]))
                boundaries = Pair(*(found.scores().mean[DISTANCE] for _, found in metrics[at]))
            medians, p95 = (Pair(*values) for values in zip(*times, strict=True))
            agree = float(100 * same[at] / pixels[at])
            rows.append(Row((image.shape[0], image.shape[1]), images, agree, medians, p95, scores, boundaries))
        return tuple(rows)

    def _boundary(self) -> BoundaryScores:
        return BoundaryScores(self.model.num_classes, (DISTANCE,))

    def _times(self, image: NDArray[np.uint8], rounds: int) -> list[Latency]:
        """In turns, so that a machine that slows down slows both."""

        def turn(segmenter: Segmenter) -> Any:
            return lambda watch: watch("labels", segmenter.labels, image)

        laps = take_turns([turn(each) for each in self.both], range(rounds), warmup=0, clock=time.perf_counter)
        return [latencies(taken)["labels"] for taken in laps]


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
    """Blobs of some 16 pixels with a little noise, of the spread of normalised images, always the same."""
    count, height, width = size
    random = torch.Generator().manual_seed(0)
    blobs = torch.randn(count, in_chans, height // 16 + 2, width // 16 + 2, generator=random)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=True)
    return blobs + 0.1 * torch.randn(blobs.shape, generator=random)


def reference(model: SegmentationModel) -> SegmentationModel:
    """A copy in the plainest form: float32, on the CPU, in eval mode, without gradients."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    return plain.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
