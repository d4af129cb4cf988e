"""ONNX Runtime beside eager PyTorch on the CPU: the same images, in turn, medians.

    python benchmarks/export_speed.py --height 512 --width 1024 --threads 2

A ratio below 1 means that ONNX Runtime takes less time.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import crispseg
from crispseg.certificate import smooth_images
from crispseg.export import export_model
from crispseg.inference import fold_batch_norms
from crispseg.inference.exported import open_onnx


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sfnet")
    parser.add_argument("--backbone", default="resnet18_deep")
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    model = crispseg.create_model(arguments.model, num_classes=19, backbone=arguments.backbone).eval()
    images = smooth_images((1, arguments.height, arguments.width), 3)
    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "model.onnx", "onnx", rounds=1)
        session, _ = open_onnx(Path(folder) / "model.onnx")  # of as many threads
    folded = fold_batch_norms(model, smooth_images((1, 64, 64), 3))
    last = folded.to(memory_format=torch.channels_last)
    images_last = images.to(memory_format=torch.channels_last)
    runs: dict[str, Callable[[], Tensor]] = {
        "PyTorch": lambda: model(images),
        "PyTorch, folded, channels last": lambda: last(images_last),
        "ONNX Runtime": lambda: session(images),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for turn in range(arguments.rounds + 2):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if turn >= 2:  # after warming up
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    size = f"{arguments.height}×{arguments.width}, {arguments.threads} threads, {arguments.rounds} rounds"
    print(f"{arguments.model} on {arguments.backbone}, {size}")
    for name, median in medians.items():
        print(f"{name:32}{1000 * median:9.1f} ms   ONNX Runtime / this: {medians['ONNX Runtime'] / median:.2f}")


if __name__ == "__main__":
    main()
