"""Certificate of an exported file, which compares its logits, labels and scores with those of the model."""

from __future__ import annotations

import copy
import importlib.util
import math
import tempfile
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tifffile
import torch
import torch.nn.functional as F
from torch import Tensor

from crispseg.evaluation.bootstrap import number
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.calibration import fitted_temperature
from crispseg.evaluation.scores import SegmentationScores
from crispseg.evaluation.summary import DISTANCE
from crispseg.export.quantization import Calibration
from crispseg.inference.device import processor_name
from crispseg.inference.runtime import AnyModel, ExportedModel, Run, pixels_of
from crispseg.inference.segmenter import Segmenter
from crispseg.io.parallel import spread
from crispseg.models import SegmentationModel

CHECKED = ((1, 32, 57), (2, 97, 160), (1, 471, 630))
"""Number of images, height and width of the comparisons of a file with its model."""
TOLERANCE = 1e-3
"""Largest absolute difference of logits, scaled up above `LARGE_LOGIT`, because float32 is less exact there."""
LARGE_LOGIT = 100.0
SAME_LABELS = 0.999
DECIDED_OTHERWISE = 0.001
"""Share of the pixels of a refined model whose logits may differ. If rounding decides between two directions, or
between boundary and none, a pixel gets the logits of another pixel."""


@dataclass(frozen=True)
class Comparison:
    """Comparison of the logits of a file with those of the model, at one size."""

    size: tuple[int, int, int]
    """Number of images, height, width."""
    largest: float
    """Largest absolute logit of the model, or its largest probability."""
    difference: float | None
    """Largest absolute difference of a logit or probability; for refined models without the pixels of
    `DECIDED_OTHERWISE`. None for a file of labels."""
    same_labels: float
    """Share of pixels with the same label, 0 to 1."""
    values: str = "logits"
    """Kind of the compared values: logits, or probabilities."""
    of_files: bool = False
    """Whether the images were files that `Segmenter` read, or random values."""

    @property
    def agrees(self) -> bool:
        """Whether difference and labels are within the tolerance and all values are finite."""
        near = self.difference is None or self.difference <= TOLERANCE * max(1.0, self.largest / LARGE_LOGIT)
        return near and self.same_labels >= SAME_LABELS

    @property
    def plausible(self) -> bool:
        """Whether a file of fewer bits works: all values are finite, and most labels equal."""
        return self.same_labels > 0.5 if self.difference is None else math.isfinite(self.difference)

    def __str__(self) -> str:
        size = "×".join(map(str, self.size)) + (" (image files)" if self.of_files else "")
        labels = f"{100 * self.same_labels:.3f} % equal labels"
        if self.difference is None:
            return f"{size}: {labels}"
        return (
            f"{size}: largest difference {self.difference:.1e} in {self.values} of up to {self.largest:.3g}, {labels}"
        )


@torch.inference_mode()
def compare(run: Run, model: SegmentationModel, size: tuple[int, int, int]) -> Comparison:
    """Compare the output of a file and its model, in float32, on random smooth images.

    A file of pixels is compared on image files with the `Segmenter` of the model.
    """
    images = smooth_images(size, model.info.in_chans)
    if isinstance(run, ExportedModel) and run.takes_pixels:
        pixels = pixels_of(images, model.info)
        expected, output = probabilities_of_files(model, pixels), run.of_input(pixels)
        if run.output == "logits":
            output = output.div(run.info.temperature).softmax(1)
        return replace(compared(size, expected, output, model), values="probabilities", of_files=True)
    expected, output = reference(model)(images), run(images)
    if isinstance(run, ExportedModel) and run.output == "probabilities":
        expected, output = expected.div(model.info.temperature), output.div(run.info.temperature)
        return replace(compared(size, expected.softmax(1), output.softmax(1), model), values="probabilities")
    return compared(size, expected, output, model)


def probabilities_of_files(model: SegmentationModel, pixels: Tensor) -> Tensor:
    """Return the probabilities of a model for TIFF images of pixels `(N, H, W, C)`."""
    segmenter, photometric = Segmenter(model, "cpu"), "rgb" if pixels.shape[3] == 3 else "minisblack"
    probabilities = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path = Path(folder, "image.tif")
        for image in pixels.numpy():
            tifffile.imwrite(path, image, photometric=photometric, planarconfig="contig")
            probabilities.append(torch.from_numpy(segmenter(path).probabilities()))
    return torch.stack(probabilities)


def compared(size: tuple[int, int, int], expected: Tensor, output: Tensor, model: SegmentationModel) -> Comparison:
    """Compare logits, probabilities or labels with the model's logits or probabilities."""
    largest = expected.abs().max().item()
    if output.dtype == torch.uint8:
        return Comparison(size, largest, None, (output == expected.argmax(1)).float().mean().item())
    same = (output.argmax(1) == expected.argmax(1)).float().mean().item()
    differences = (output - expected).abs().amax(1).flatten()  # (N · H · W,)
    left_out = int(DECIDED_OTHERWISE * differences.numel()) if model.refiner else 0
    difference = differences.kthvalue(differences.numel() - left_out).values.item()  # the largest of the rest
    return Comparison(size, largest, difference, same)


def smooth_images(size: tuple[int, int, int], in_chans: int) -> Tensor:
    """Return fixed images of blobs of about 16 pixels with slight noise, with the spread of normalised images."""
    count, height, width = size
    random = torch.Generator().manual_seed(0)
    blobs = torch.randn(count, in_chans, height // 16 + 2, width // 16 + 2, generator=random)
    blobs = F.interpolate(blobs, size=(height, width), mode="bicubic", align_corners=True)
    return blobs + 0.1 * torch.randn(blobs.shape, generator=random)


def reference(model: SegmentationModel) -> SegmentationModel:
    """Copy a model to float32 on the CPU, in eval mode and without gradients."""
    plain = copy.deepcopy(model).eval().requires_grad_(False)
    return plain.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Compared:
    """A score of the model and of the file; None if it is undefined."""

    model: float | None
    file: float | None

    @property
    def loss(self) -> float:
        """Points that the file loses; NaN if a score is undefined."""
        return math.nan if self.model is None or self.file is None else self.model - self.file


@dataclass(frozen=True)
class Measured:
    """Labels and scores of model and file on the same images."""

    images: int
    labels: float
    """Percentage of the pixels with the same label from file and model."""
    miou: Compared
    """mIoU in percent."""
    boundary_f: Compared
    """Boundary F-score in percent within `DISTANCE` pixels, mean over the classes."""


@dataclass(frozen=True)
class Certificate:
    """Comparison of an exported file with its model."""

    network: str
    format: str
    precision: str
    data: str | None
    measured: Measured | None
    """Scores on the data; None without data."""
    comparisons: tuple[Comparison, ...]
    """Comparisons of the logits, on random images; none for a Core ML file that was not written on macOS."""
    bytes: int
    """Size of the file in bytes."""

    def as_json(self) -> dict[str, Any]:
        """Return plain values, with the processor and the versions of the software."""
        packages = ("crispseg", "torch", "timm", "onnxruntime", "openvino", "executorch", "coremltools", "nncf")
        return {
            **asdict(self),
            "processor": processor_name(torch.device("cpu")),
            "versions": {name: version(name) for name in packages if importlib.util.find_spec(name)},
        }


def with_temperature_of(file: AnyModel, plan: Any) -> Any:
    """Return a plan with the temperature that fits the logits of its first file to the labels of held-out images."""
    temperature = fitted_temperature(Segmenter(file, "cpu"), plan.data.held_out, plan.data.images)
    model = copy.copy(plan.model)
    model.info = replace(model.info, temperature=temperature)
    return replace(plan, model=model)


def measure(model: SegmentationModel, file: AnyModel, data: Calibration) -> Measured:
    """Segment the held-out images with model and file, and compute scores."""
    segmenters = Segmenter(model, "cpu"), Segmenter(file, "cpu")
    classes, info = model.num_classes, model.info
    matrices = SegmentationScores(classes), SegmentationScores(classes)
    boundaries = BoundaryScores(classes, (DISTANCE,)), BoundaryScores(classes, (DISTANCE,))
    held_out = data.held_out.with_channels(info.in_chans, info.value_range)
    chosen = spread(len(held_out), data.images)
    same = pixels = 0
    for index in chosen:
        sample = held_out[index]
        ours, theirs = (segmenter.labels(sample.image) for segmenter in segmenters)
        same += int((ours == theirs).sum())
        pixels += ours.size
        for labels, matrix, boundary in zip((ours, theirs), matrices, boundaries, strict=True):
            matrix.update(labels[None], sample.labels[None])
            boundary.update(labels[None], sample.labels[None])
    mious = Compared(*(number(matrix.scores().miou) for matrix in matrices))
    boundary_fs = Compared(*(number(boundary.scores().measures()["boundary_f"][0]) for boundary in boundaries))
    return Measured(len(chosen), 100 * same / pixels, mious, boundary_fs)
