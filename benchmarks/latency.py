"""Latency and memory of networks in PyTorch, ONNX Runtime, OpenVINO and ExecuTorch on this processor.

    python benchmarks/latency.py --networks sfnet crisp smp_fpn --out runs/latency --calibrate ../shared/data/camvid

Each way runs in a separate process, from a normalised image in memory to logits or labels of its size. The ways of a
network are timed in turns, in two groups: PyTorch and ONNX Runtime, then the others. Both groups include PyTorch as
trained.

Files of our networks use `gather` sampling. Files of peers, ExecuTorch and OpenVINO (except int8) are for one size.
Weights are random, which does not affect the time; int8 is calibrated on CamVid. Memory is the peak resident memory
minus that before the file is opened. A way that fails is a row with the reason. `--table` prints the rows, and
`--write_only` writes the files.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import processes
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import crispseg
from crispseg.benchmarking.cost import count_multiply_adds
from crispseg.config.registry import load_plugins
from crispseg.data.sources import CamVid
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import smooth_images
from crispseg.export.formats import FILE_FORMATS, float_file, save_onnx
from crispseg.export.plan import ExportPlan, Output
from crispseg.export.quantization import Calibration, Input
from crispseg.inference import fold_batch_norms
from crispseg.inference.runtime import open_model
from crispseg.inference.segmenter import smooth_outputs
from crispseg.io.files import atomic_path
from crispseg.models import ModelInfo, SegmentationModel

PEERS = Path(__file__).parent / "peers.py"
CSV = Path(__file__).parent / "latency.csv"
CLASSES = 11
OTHERS = ("smp_fpn", "smp_unet", "smp_deeplabv3plus", "smp_segformer", "lraspp")
LITE, RESNET = "tf_efficientnet_lite0", "resnet18"


class Named(NamedTuple):
    """A network with random weights."""

    model: str
    backbone: str
    options: dict[str, Any] = {}  # noqa: RUF012

    def build(self) -> SegmentationModel:
        """Build the network in eval mode, always with the same weights."""
        torch.manual_seed(0)
        made = crispseg.create_model(self.model, num_classes=CLASSES, backbone=self.backbone, **self.options)
        return made.eval()


NETWORKS = {
    "sfnet": Named("sfnet", "resnet18_deep"),
    "sfnet_narrow": Named("sfnet", LITE, {"width": 96}),  # about as many multiply-adds as smp_fpn
    "sfnet_lite": Named("sfnet_lite", "stdc1"),
    "ddsm": Named("ddsm_deeplabv3plus", RESNET),
    "agln_lite": Named("agln_lite", RESNET),
    "unept": Named("unept", RESNET),
    "crisp_s": Named("crisp_s", LITE),
    "crisp": Named("crisp", LITE),
    "crisp_l": Named("crisp_l", LITE),
    "wide": Named("crisp", LITE, {"width": 256}),  # crisp before its channels were halved
    "smp_fpn": Named("smp_fpn", LITE),
    "smp_unet": Named("smp_unet", LITE),
    "smp_deeplabv3plus": Named("smp_deeplabv3plus", LITE),
    "smp_segformer": Named("smp_segformer", LITE),
    "lraspp": Named("lraspp", LITE),
}
"""Networks by their names in the CSV file."""


class Way(NamedTuple):
    """Runtime, precision and output of a network."""

    format: Literal["plain", "torch", "onnx", "openvino", "executorch"]
    """plain: PyTorch as trained; torch: PyTorch as in `Segmenter`; others: formats of `crispseg export`."""
    precision: Literal["fp32", "bf16", "int8"]
    output: Output = "logits"

    def __str__(self) -> str:
        return f"{self.format} {self.precision}{' labels' * (self.output == 'labels')}"


@dataclass(frozen=True, eq=False)
class ResizedImages(Calibration):
    """Images that calibrate a file of one size."""

    size: tuple[int, int] = (0, 0)

    def batches(self, info: ModelInfo, input: Input = "float") -> list[Any]:
        return [F.interpolate(torch.from_numpy(batch), self.size).numpy() for batch in super().batches(info, input)]


PLAIN = Way("plain", "fp32")
WAYS = (
    PLAIN,
    Way("torch", "fp32"),
    Way("torch", "bf16"),
    Way("onnx", "fp32"),
    Way("onnx", "int8"),
    Way("openvino", "fp32"),
    Way("openvino", "bf16"),
    Way("openvino", "bf16", "labels"),
    Way("openvino", "int8"),
    Way("executorch", "fp32"),
)
COLUMNS = (
    *("network", "backbone", "way", "threads", "height", "width", "gmacs", "p50_ms", "p95_ms", "over_plain"),
    *("peak_mib", "rounds", "processor", "torch", "problem"),
)


def opened(folder: Path, way: Way) -> Callable[[tuple[int, int]], None]:
    """Return a call that computes logits or labels of one image of a size."""
    load_plugins([str(PEERS)])
    torch.set_grad_enabled(False)
    open_file = lru_cache(1)(partial(runner, folder, way))  # keeps the last file open
    layout = torch.channels_last if way.format == "torch" else torch.contiguous_format
    images = cache(lambda size: smooth_images((1, *size), 3).contiguous(memory_format=layout))

    def call(size: tuple[int, int]) -> None:
        run = open_file(file_of(folder, way, size))
        with torch.autocast("cpu", torch.bfloat16, enabled=way == Way("torch", "bf16")):
            run(images(size))

    return call


def runner(folder: Path, way: Way, path: Path) -> Callable[[Tensor], Tensor]:
    if way.format not in ("plain", "torch"):
        return open_model(path).forward
    model = SegmentationModel.from_pretrained(folder / "model").eval()
    return model if way.format == "plain" else folded(model)


def folded(model: SegmentationModel) -> Any:
    """Fold batch norms as `Segmenter` does."""
    return fold_batch_norms(model, smooth_images((1, 64, 64), 3), smooth_outputs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def normalized(image: NDArray[np.uint8], info: ModelInfo) -> Tensor:
    """Normalise an image `(H, W, C)` by NumPy, as a batch `(1, C, H, W)`."""
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    values = (image.astype(np.float32) / 255 - mean) / std
    return torch.from_numpy(values).permute(2, 0, 1)[None]


def file_of(folder: Path, way: Way, size: tuple[int, int]) -> Path:
    """Return the path of the model or its file; files for one size are in a folder of that size."""
    if way.format in ("plain", "torch"):
        return folder / "model"
    one_size = has_one_size(folder.name, way)
    place = folder / "{}x{}".format(*size) if one_size else folder
    place.mkdir(parents=True, exist_ok=True)
    return place / f"{way.format}-{way.precision}-{way.output}{FILE_FORMATS[way.format].suffix}"


def has_one_size(name: str, way: Way) -> bool:
    openvino = way.format == "openvino" and way.precision != "int8"
    return way.format == "executorch" or name in OTHERS or openvino


def fixed(network: SegmentationModel, path: Path, size: tuple[int, int], output: Output) -> None:
    """Write an ONNX file for one size, for networks that cannot be traced for all sizes."""
    plan = ExportPlan(network, output=output, size=size)
    save_onnx(plan, plan.trace(), path)


def make(name: str, folder: Path, calibrate: Path | None, size: tuple[int, int]) -> dict[Way, str]:
    """Write the model and its missing files; return the ways that fail, with reasons."""
    network, data, failures = model_of(name, folder), data_of(name, calibrate, size), {}
    for way in WAYS[3:]:
        path = file_of(folder, way, size)
        if not path.exists():
            print(f"writing {name}, {way}", flush=True)
            try:
                if way.precision == "int8" and data is None:
                    raise CrispsegError("8 bits need --calibrate")
                if name in OTHERS and way.format != "executorch":
                    fixed(network, path if way == Way("onnx", "fp32") else float_file(path), size, way.output)
                if not path.exists():
                    only = size if has_one_size(name, way) else None
                    plan = ExportPlan(network, way.precision, "gather", way.output, only, data)
                    FILE_FORMATS[way.format].write(plan, path)  # type: ignore[index]
            except Exception as error:  # the exporters raise almost anything
                failures[way] = f"{type(error).__name__}: {one_line(error):.200}"
    return failures


def model_of(name: str, folder: Path) -> SegmentationModel:
    """Build a network, and save it if it is not saved yet."""
    network = NETWORKS[name].build()
    if not (folder / "model").is_dir():
        network.save_pretrained(folder / "model")
    return network


def data_of(name: str, calibrate: Path | None, size: tuple[int, int]) -> Calibration | None:
    """Return images that calibrate int8."""
    if calibrate is None:
        return None
    train = CamVid(str(calibrate)).dataset("train")
    if name in OTHERS:
        return ResizedImages(train, train, 20, "CamVid", size)
    return Calibration(train, train, 20, "CamVid")


def measure(
    name: str, out: Path, threads: int, rounds: int, ways_of: Mapping[tuple[int, int], Sequence[Way]]
) -> dict[tuple[int, int], list[dict[str, str]]]:
    """Return the rows of each size; memory is the peak so far, so sizes must increase."""
    model = SegmentationModel.from_pretrained(out / name / "model")
    gmacs = {size: f"{count_multiply_adds(model, *size, 3) / 1e9:.2f}" for size in ways_of}
    rows: dict[tuple[int, int], list[dict[str, str]]] = {size: [] for size in ways_of}
    for group in (WAYS[1:5], WAYS[5:]):  # all at once need too much memory
        with ExitStack() as stack:
            calls = {
                way: stack.enter_context(processes.process(str(way), partial(opened, out / name, way), threads))
                for way in (PLAIN, *group)
                if any(way in ways for ways in ways_of.values())
            }
            for size, ways in ways_of.items():
                costs: dict[Way, list[processes.Cost]] = {way: [] for way in calls if way in ways}
                for _ in range(2 + rounds_of(rounds, size)):
                    for way, own in costs.items():
                        time.sleep(0.05)  # until threads of the previous process are idle
                        own.append(calls[way](size))
                taken = {way: [1000 * cost.seconds for cost in own[2:]] for way, own in costs.items()}  # after warm-up
                medians = {way: float(np.median(times)) for way, times in taken.items()}
                rows[size] += [
                    {
                        "way": str(way),
                        "p50_ms": f"{medians[way]:.1f}",
                        "p95_ms": f"{np.percentile(taken[way], 95):.1f}",
                        "over_plain": f"{medians[way] / medians[PLAIN]:.3f}",
                        "peak_mib": f"{max(cost.mebibytes for cost in own):.0f}",
                        "gmacs": gmacs[size],
                        "rounds": str(len(taken[way])),
                    }
                    for way, own in costs.items()
                    if way != PLAIN or not rows[size]
                ]
    return rows


def rounds_of(rounds: int, size: tuple[int, int]) -> int:
    """Return fewer rounds for images above half a million pixels, but at least three."""
    return min(rounds, max(3, rounds * 2**19 // (size[0] * size[1])))


def report(given: argparse.Namespace) -> None:
    """Write missing files, measure, and add the rows to the CSV file."""
    load_plugins([str(PEERS)])
    for name in given.networks:
        folder, sizes = given.out / name, sorted(given.sizes)
        problems = {size: make(name, folder, given.calibrate, size) for size in sizes}
        ways_of = {size: [way for way in WAYS if way not in problems[size]] for size in sizes}
        for threads in () if given.write_only else given.threads_of:
            measured = measure(name, given.out, threads, given.rounds, ways_of)
            for size, rows in measured.items():
                rows += [{"way": str(way), "problem": reason} for way, reason in problems[size].items()]
                same = {
                    "network": name,
                    "backbone": NETWORKS[name].backbone,
                    "threads": str(threads),
                    "height": str(size[0]),
                    "width": str(size[1]),
                    "processor": given.processor,
                    "torch": torch.__version__,
                }
                keep(given.csv, [same | row for row in rows])
            print(f"measured {name}, {threads} threads", flush=True)


def keep(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Add rows to the file; replace rows of the same network, way, threads, size and processor."""
    frame = pd.DataFrame(rows, dtype=str)
    if path.is_file():
        frame = pd.concat([pd.read_csv(path, dtype=str), frame])
    frame = frame.drop_duplicates(["network", "way", "threads", "height", "width", "processor"], keep="last")
    with atomic_path(path) as temporary:
        frame.reindex(columns=COLUMNS).to_csv(temporary, index=False)


def show(path: Path, processor: str, column: str = "p50_ms") -> None:
    """Print a column of a processor's rows, in a table for each size and number of threads."""
    frame = pd.read_csv(path, dtype=str).query("processor == @processor")
    for (threads, height, width), rows in frame.groupby(["threads", "height", "width"], sort=False):
        print(f"\n{processor}, {threads} threads, {height}×{width}, {column}\n")
        table = rows.pivot(index="network", columns="way", values=column)
        print(table.reindex(columns=map(str, WAYS)).fillna("–").to_markdown(), flush=True)


def sides(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    made.add_argument("--out", type=Path, default=Path("runs/latency"), help="folder of networks and files")
    made.add_argument("--calibrate", type=Path, default=None, help="folder of CamVid, for int8")
    made.add_argument("--sizes", type=sides, nargs="+", default=[(512, 1024)], help="sizes, such as 360x480")
    made.add_argument("--threads", dest="threads_of", type=int, nargs="+", default=[1, 2])
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--processor", default=processes.machine().partition(",")[0], help="processor in the table")
    made.add_argument("--csv", type=Path, default=CSV)
    made.add_argument("--write_only", action="store_true", help="write files without measuring")
    made.add_argument("--table", action="store_true", help="print existing rows without measuring")
    given = made.parse_args(argv)
    if given.table:
        for column in ("p50_ms", "p95_ms", "peak_mib"):
            show(given.csv, given.processor, column)
    else:
        report(given)
        if not given.write_only:
            show(given.csv, given.processor)


if __name__ == "__main__":
    main()
