"""Images per second of `crispseg predict` from file to file, and of the same network on images in memory.

    python benchmarks/predict_speed.py --run nuclei --folder photos --rounds 3

The network is timed alone and in `Segmenter.stream`. All use the same images, in turns; the results are medians. To
exclude the start of the command, its time on a tenth of the images is subtracted from that on all.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import processes
import torch

from crispseg import Segmenter
from crispseg.io.images import find_images, read_image


def main() -> None:
    parser = processes.parser(__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--folder", type=Path, required=True, help="folder of images")
    parser.add_argument("--run", default="nuclei", help="trained model")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    torch.set_num_threads(given.threads)
    paths = [str(path.resolve()) for path in find_images(given.folder)[: given.images]]
    segmenter = Segmenter(given.run, device="cpu")
    images = [read_image(path) for path in paths]
    rates: dict[str, list[float]] = {"network": [], "stream": [], "crispseg predict": []}
    for _ in range(given.rounds):
        began = time.perf_counter()
        for image in images:
            segmenter.labels(image)
        rates["network"].append(len(images) / (time.perf_counter() - began))
        began = time.perf_counter()
        for _result in segmenter.stream(images):
            pass
        rates["stream"].append(len(images) / (time.perf_counter() - began))
        few = len(paths) // 10
        seconds = by_command(given.run, paths) - by_command(given.run, paths[:few])
        rates["crispseg predict"].append((len(paths) - few) / seconds)
    print(f"{processes.machine()}, {given.threads} threads, {len(paths)} images")
    print("| way | images per second | ratio |\n| --- | ---: | ---: |")
    for way, found in rates.items():
        ratios = [rate / alone for rate, alone in zip(found, rates["network"], strict=True)]
        print(f"| {way} | {statistics.median(found):.2f} | {statistics.median(ratios):.2f} |")


def by_command(run: str, paths: list[str]) -> float:
    """Return the seconds of the command, including its start."""
    with tempfile.TemporaryDirectory() as out:
        began = time.perf_counter()
        argv = ["predict", run, *paths, "--out", f"{out}/labels", "--device", "cpu"]
        subprocess.run([sys.executable, "-m", "crispseg", *argv], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
