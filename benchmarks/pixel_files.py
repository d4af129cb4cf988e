"""Times of exported files that take pixels, over those of files that take normalised images; both return labels.

    python benchmarks/pixel_files.py --networks crisp crisp_s sfnet --out runs/pixel_files

Networks have random weights. Their files are written once, with the defaults of `crispseg export`. The files of a
runtime take turns in one process. `float` and `uint8` are milliseconds of the session, and `numpy` includes the
normalisation by NumPy for the first file. `same` is the percentage of pixels with equal labels.
"""

from __future__ import annotations

import argparse
import time
from collections import ChainMap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from latency import NETWORKS, Named, normalized, sides

from crispseg.benchmarking.cost import take_turns
from crispseg.export.certificate import smooth_images
from crispseg.export.formats import FILE_FORMATS, Format
from crispseg.export.plan import ExportPlan
from crispseg.export.quantization import Input
from crispseg.inference.runtime import open_model, pixels_of

FORMATS: tuple[Format, ...] = ("onnx", "openvino")
INPUTS: tuple[Input, ...] = ("float", "uint8")
PAUSE = 0.1  # seconds; threads of the session before it wait actively for more work


def file_of(network: Named, folder: Path, format: Format, input: Input) -> Path:
    """Return the file of a network, which is written if it does not exist."""
    written = FILE_FORMATS[format]
    path = folder / f"{input}{written.suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        written.write(ExportPlan(network.build(), sampling=written.sampling, input=input, output="labels"), path)
    return path


def measure(paths: Sequence[Path], size: tuple[int, int], rounds: int) -> dict[str, float]:
    """Return the milliseconds of the files of both inputs, and their ratios."""
    floats, pixel_file = map(open_model, paths)
    pixels = pixels_of(smooth_images((1, *size), floats.info.in_chans), floats.info)
    images = normalized(pixels[0].numpy(), floats.info).contiguous()
    calls: dict[str, Any] = {
        "float": lambda: floats.of_input(images),
        "uint8": lambda: pixel_file.of_input(pixels),
        "numpy": lambda: floats.of_input(normalized(pixels[0].numpy(), floats.info)),
    }
    turns = [{"pause": lambda: time.sleep(PAUSE), name: call} for name, call in calls.items()]
    latencies = ChainMap(*take_turns(turns, rounds, warmup=3, device=torch.device("cpu")))
    times = {name: latencies[name].median for name in calls}
    ratios = {f"uint8 / {other}": times["uint8"] / times[other] for other in ("float", "numpy")}
    same = (calls["float"]() == calls["uint8"]()).float().mean().item()
    return times | ratios | {"same": 100 * same}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=["crisp", "crisp_s", "sfnet"])
    made.add_argument("--out", type=Path, default=Path("runs/pixel_files"), help="folder of the files")
    made.add_argument("--size", type=sides, default=(512, 1024), help="size, such as 512x1024")
    made.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    made.add_argument("--rounds", type=int, default=25)
    given = made.parse_args()
    rows = []
    for name in given.networks:
        for format in FORMATS:
            paths = [file_of(NETWORKS[name], given.out / name, format, input) for input in INPUTS]
            for threads in given.threads:
                torch.set_num_threads(threads)
                times = measure(paths, given.size, given.rounds)
                rows.append({"network": name, "format": format, "threads": threads, **times})
    print(pd.DataFrame(rows).round(3).to_markdown(index=False))


if __name__ == "__main__":
    main()
