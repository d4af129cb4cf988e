"""Comparison of runtimes and precisions on the first images of a prediction."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from crispseg.errors import CrispsegError
from crispseg.inference.device import FloatPrecision, cpu_has_bf16
from crispseg.inference.runtime import Backend
from crispseg.inference.segmenter import Segmenter
from crispseg.nn import ceil_div
from crispseg.prediction.job import PredictionJob

WAYS: tuple[tuple[Backend, FloatPrecision], ...] = (  # other than float32 in PyTorch
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
)
AGREEMENT = 0.995  # minimum share of pixels with the labels of float32 in PyTorch
HINT_SECONDS = 60.0  # minimum duration of a prediction with a hint, whose measurement then takes about 5 % of it
HINT_SAVING = 0.1  # minimum share of the time that the hint promises to save

Images = Sequence[NDArray[np.uint8]]


def fastest(job: PredictionJob, segmenter: Segmenter, images: Images) -> tuple[Segmenter, str]:
    """Return the fastest segmenter whose labels agree with those of `segmenter`, and a line that names it."""
    job = replace(job, value_range=segmenter.value_range, fast=False)  # which may be that of the folder
    labels, seconds = timed_labels(segmenter, images)
    chosen, shortest, line = segmenter, seconds, "fast: fp32 in PyTorch is the fastest"
    for backend, precision in WAYS:
        if not is_usable(segmenter, backend, precision):
            continue
        with suppress(CrispsegError):  # the runtime lacks an operation, for example
            other = replace(job, backend=backend, precision=precision).segmenter()
            others, duration = timed_labels(other, images)
            if duration < shortest and (share := agreement(labels, others)) >= AGREEMENT:
                chosen, shortest = other, duration
                line = f"fast: backend {backend} in precision {precision} takes {duration / seconds:.2f} of the time"
                line += f" of fp32 in PyTorch; labels agree on {share:.2%} of the pixels of {len(images)} images"
    return chosen, line


def bf16_hint(job: PredictionJob, segmenter: Segmenter, image: NDArray[np.uint8], count: int) -> str | None:
    """Return what bfloat16 would save for `count` such images, measured on a quarter, if it is worth a line."""
    height, width = image.shape[:2]
    parts = [image[: ceil_div(height, 2), : ceil_div(width, 2)]]
    labels, seconds = timed_labels(segmenter, parts)
    if 4 * seconds * count < HINT_SECONDS:
        return None
    others, duration = timed_labels(replace(job, precision="bf16").segmenter(), parts)
    saving, share = 1 - duration / seconds, agreement(labels, others)
    if saving < HINT_SAVING or share < AGREEMENT:
        return None
    line = f"precision bf16 would save {saving:.0%} of the network's time (labels agree on {share:.2%} of the pixels)"
    return f"{line}; fast also compares runtimes"


def is_usable(segmenter: Segmenter, backend: Backend, precision: FloatPrecision) -> bool:
    """Return whether the segmenter's device has a runtime, if it is installed, and a precision."""
    on_cpu = segmenter.device.type == "cpu"
    has_runtime = backend == "torch" or (on_cpu and importlib.util.find_spec(backend) is not None)
    return has_runtime and (precision == "fp32" or not on_cpu or cpu_has_bf16())


def timed_labels(segmenter: Segmenter, images: Images) -> tuple[Images, float]:
    """Return the labels of images, and the seconds of a second run."""
    labels = [segmenter.labels(image) for image in images]
    began = time.perf_counter()
    for image in images:
        segmenter.labels(image)
    return labels, time.perf_counter() - began


def agreement(labels: Images, others: Images) -> float:
    """Return the share of pixels with equal labels."""
    equal = [(ids == other).ravel() for ids, other in zip(labels, others, strict=True)]
    return float(np.concatenate(equal).mean())
