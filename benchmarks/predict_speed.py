"""What reading and writing cost: `crispseg predict` of a folder beside the same network on images in memory.

python benchmarks/predict_speed.py --images 200 --rounds 3

All in turn with the same images: medians, and the median of the ratios of the turns, to the mean of the network alone
before and after. The command has further threads that read and write. Its seconds are those from the first image
written to the last, so without its start; the network's are without start too.
Images are drawn unless --folder has some; the model has random weights unless --run names one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import processes
import torch
from numpy.typing import NDArray

from crispseg import Segmenter, create_model
from crispseg.cli.allocation import keep_freed_memory
from crispseg.export.agreement import smooth_images
from crispseg.io.images import find_images, read_image, write_image


def main() -> None:
    """Measure and print."""
    made = processes.parser(__doc__)
    made.add_argument("--images", type=processes.positive, default=200)
    made.add_argument("--folder", type=Path, default=None, help="with images, in place of drawn ones of 480×360")
    made.add_argument("--run", default=None, help="a trained model in place of one with random weights")
    made.add_argument("--model", default="crisp")
    made.add_argument("--backbone", default="tf_efficientnet_lite0")
    made.add_argument("--rounds", type=processes.positive, default=3)
    processes.run(made, None, report)


def report(given: argparse.Namespace) -> None:
    """Both ways in turn, and the table."""
    keep_freed_memory()  # as the command does
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = given.run or make_model(given.model, given.backbone, folder / "model")
        chosen = find_images(given.folder)[: given.images] if given.folder else make_images(folder / "in", given.images)
        listed = folder / "list.txt"
        listed.write_text("\n".join(str(path.resolve()) for path in chosen) + "\n", encoding="utf-8")
        segmenter = Segmenter(run, device="cpu")
        images = [read_image(path) for path in chosen]
        alone, stream, command = [], [], []
        before = network_alone(segmenter, images)
        for number in range(given.rounds):
            command.append(by_command(run, listed, folder / f"out{number}"))
            stream.append(streamed(segmenter, images))
            after = network_alone(segmenter, images)
            alone.append((before + after) / 2)  # a machine that slows down slows all
            before = after
    ways = {
        "the network, on images in memory, one at a time": alone,
        "the same, two at a time": stream,
        "`crispseg predict`, files to files": command,
    }
    print(f"{processes.machine()}, {os.cpu_count()} cores, {given.threads} threads")
    print("| way | images a second | of the first, median and span of the turns |")
    print("| --- | ---: | ---: |")
    for way, rates in ways.items():
        ratios = [rate / beside for rate, beside in zip(rates, alone, strict=True)]
        span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {way} | {statistics.median(rates):.2f} | {span} |")


def make_model(name: str, backbone: str, folder: Path) -> str:
    torch.manual_seed(0)
    create_model(name, num_classes=11, backbone=backbone).save_pretrained(folder)
    return str(folder)


def make_images(folder: Path, count: int) -> list[Path]:
    """Smooth ones with a little noise, of 480×360."""
    noise = np.random.default_rng(0)
    smooth = smooth_images((count, 360, 480), 3)
    for number, image in enumerate(smooth.permute(0, 2, 3, 1).numpy()):  # (H, W, 3)
        pixels = 128 + 50 * image + noise.normal(0, 4, image.shape)
        write_image(folder / f"{number:04}.png", pixels.clip(0, 255).astype(np.uint8))
    return find_images(folder)


def network_alone(segmenter: Segmenter, images: list[NDArray[np.uint8]]) -> float:
    """Images a second, from pixels in memory to labels in memory."""
    segmenter.labels(images[0])
    began = time.perf_counter()
    for image in images:
        segmenter.labels(image)
    return len(images) / (time.perf_counter() - began)


def streamed(segmenter: Segmenter, images: list[NDArray[np.uint8]]) -> float:
    """Images a second by `Segmenter.stream`, in memory."""
    began = time.perf_counter()
    for _ in segmenter.stream(images):
        pass
    return len(images) / (time.perf_counter() - began)


def by_command(run: str, listed: Path, out: Path) -> float:
    """Images a second, from files to files."""
    argv = ["predict", run, str(listed), "--out", str(out), "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "crispseg", *argv], check=True, stdout=subprocess.DEVNULL)
    first, *rest = sorted(path.stat().st_mtime for path in out.rglob("*_overlay.png"))
    return len(rest) / (rest[-1] - first)


if __name__ == "__main__":
    main()
