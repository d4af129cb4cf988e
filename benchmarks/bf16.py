"""`Segmenter` in bf16 beside float32, on the images of a folder: time of an image, in turns, and the labels.

python benchmarks/bf16.py RUN IMAGES --threads 2
"""

import argparse
import statistics
import time
from pathlib import Path

import torch

from crispseg import Segmenter
from crispseg.io.images import find_images, read_image


def main() -> None:
    """Print the two numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run or a saved model")
    parser.add_argument("images", type=Path, help="a folder")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    segmenters = {bf16: Segmenter(arguments.run, bf16=bf16) for bf16 in (False, True)}
    seconds: dict[bool, list[float]] = {False: [], True: []}
    equal = pixels = 0
    for path in find_images(arguments.images):
        image, labels = read_image(path), {}
        for bf16, segmenter in segmenters.items():
            start = time.perf_counter()
            labels[bf16] = segmenter(image).labels
            seconds[bf16].append(time.perf_counter() - start)
        equal += int((labels[True] == labels[False]).sum())
        pixels += labels[True].size
    medians = {bf16: statistics.median(times[1:]) for bf16, times in seconds.items()}  # the first warms up
    print(f"{len(seconds[True])} images, {arguments.threads} threads")
    print(f"float32 {medians[False]:.3f} s, bf16 {medians[True]:.3f} s an image: {medians[True] / medians[False]:.2f}")
    print(f"equal labels: {100 * equal / pixels:.2f} %")


if __name__ == "__main__":
    main()
