"""Backbones of timm: the smallest network of every module, trained for a step and exported, each in its own process.

    python benchmarks/backbones.py                # rows in backbones.csv; modules with a row are skipped
    python benchmarks/backbones.py resnet regnet  # these modules only

Networks with four strides are backbones of `crisp`, and plain vision transformers are backbones of `unept`. Weights are
random. A file is right if ONNX Runtime computes the labels and logits of PyTorch.
"""

from __future__ import annotations

import csv
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime  # noqa: F401  # once, before the processes fork
import onnxscript  # noqa: F401
import timm
import torch
from reporting import read_rows
from timm.models import _registry
from torch import nn

from crispseg import SegmentationModel, create_model
from crispseg.backbones.timm_networks import plain_strides
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import compare, smooth_images
from crispseg.export.formats import save_onnx
from crispseg.export.plan import ExportPlan
from crispseg.inference.runtime import open_onnx

CSV = Path(__file__).with_name("backbones.csv")
CPU_SECONDS = 150  # of a process
MEMORY = 8 * 2**30  # bytes
WINDOWS = ("window_size", "ws")  # attributes of blocks whose attention is in windows
STRIDES = {4, 8, 16, 32}
SIDES = (97, 130)
ODD = ((1, 33, 57), (2, *SIDES))
FIELDS = ["module", "backbone", "parameters", "model", "window", "step", "odd_sizes", "any_size", "one_size", "seconds"]


def smallest(module: str) -> tuple[str, int, str]:
    """Return the backbone with fewest parameters, their number, and the model for it; empty if there is none."""
    candidates = []
    for name in timm.list_models(module=module):
        try:
            with torch.device("meta"):
                network = timm.create_model(name, features_only=True)
            strides = network.feature_info.reduction()
        except (RuntimeError, NotImplementedError, AttributeError, AssertionError, TypeError, ValueError):
            continue
        model = "crisp" if {*strides} >= STRIDES else "unept" if plain_strides(name) else ""
        candidates += [(sum(weight.numel() for weight in network.parameters()), name, model)] if model else []
    count, name, model = min(candidates, default=(0, "", ""))
    return name, count, model


def train_step(model: SegmentationModel) -> None:
    """Take gradients, and let batch norms adopt the statistics of the images."""
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    loss = model.train()(smooth_images((4, 128, 128), 3)).square().mean()
    loss.backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    if not loss.isfinite() or not all(gradient.isfinite().all() for gradient in gradients):
        raise CrispsegError("gradients are not finite")


def odd_sizes(model: SegmentationModel) -> None:
    """Segment images of odd sizes."""
    for size in ODD:
        if model(smooth_images(size, 3)).shape[2:] != size[1:]:
            raise CrispsegError(f"logits of {size} have another size")


def export(model: SegmentationModel, sides: tuple[int, int] | None) -> None:
    """Write an ONNX file for images of any size, or of these sides, and compare it with the model."""
    with tempfile.TemporaryDirectory() as folder:
        path, plan = Path(folder, "a.onnx"), ExportPlan(model, sampling="gather", size=sides)
        save_onnx(plan, plan.trace(), path)
        for size in ODD if sides is None else [(1, *sides)]:
            comparison = compare(open_onnx(path)[0], model, size)
            if not comparison.agrees:
                raise CrispsegError(f"different results, {comparison}")


def measure(module: str, report: Callable[[dict[str, str]], None]) -> None:
    """Report the columns of a module one after the other."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    backbone, parameters, name = smallest(module)
    report({"backbone": backbone, "parameters": str(parameters), "model": name})
    if not backbone:
        return
    torch.manual_seed(0)
    stages: dict[str, Callable[[SegmentationModel], None]] = {
        "step": train_step,
        "odd_sizes": lambda model: odd_sizes(model.eval().requires_grad_(False)),
        "any_size": lambda model: export(model, None),
        "one_size": lambda model: export(model, SIDES),
    }
    try:
        model = create_model(name, num_classes=2, backbone=backbone, pretrained=False)
    except CrispsegError as error:
        report({"step": one_line(error)})
        return
    report({"window": "yes" if any({*WINDOWS} & {*vars(part)} for part in model.modules()) else "no"})
    for key, stage in stages.items():
        try:
            stage(model)
            report({key: "yes"})
            if key == "any_size":
                break
        except Exception as error:  # timm's networks and the exporters raise almost anything
            report({key: f"{type(error).__name__}: {one_line(error):.130}"})


def row_of(module: str) -> dict[str, str]:
    """Measure a module in a process of limited time and memory; columns that it did not reach are empty."""
    context, start = multiprocessing.get_context("fork"), time.monotonic()
    queue = context.SimpleQueue()
    process = context.Process(target=measure, args=(module, queue.put))
    process.start()
    process.join()
    row = {"module": module, "seconds": f"{time.monotonic() - start:.0f}"}
    while not queue.empty():
        row |= queue.get()
    return row


def main(modules: Sequence[str]) -> None:
    torch.set_num_threads(1)
    rows = read_rows(CSV)
    done = {row["module"] for row in rows}
    with CSV.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not rows:
            writer.writeheader()
        for module in modules or sorted({*_registry._model_to_module.values()}):
            if module not in done:
                writer.writerow(row_of(module))
                file.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
