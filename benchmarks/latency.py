"""How long one image takes on this processor: networks in PyTorch, ONNX Runtime and OpenVINO, in 32, 16 and 8 bits.

    python benchmarks/latency.py --networks sfnet crisp smp_fpn --out runs/latency --calibrate ../shared/data/camvid

All ways of a network in turns, each in a process of its own, from a normalised image in memory to logits of its size;
in every group there is `sfnet` in PyTorch, with which machines and minutes are compared. Weights are random, which the
time does not depend on; 8 bits learn their ranges from images of CamVid. Memory is the most that is resident, over what
the process had before it opened the file. A way that cannot be is a row with its reason. `--table` prints the rows.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import processes
import torch
from torch import Tensor

import crispseg
from crispseg.benchmarking.cost import count_multiply_adds
from crispseg.config.registry import load_plugins
from crispseg.data.sources import CamVid
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import smooth_images
from crispseg.export.formats import OPSET, describe, plain_file, write
from crispseg.export.quantization import Calibration
from crispseg.inference import fold_batch_norms
from crispseg.inference.runtime import METADATA, open_model
from crispseg.inference.segmenter import smooth_outputs
from crispseg.io.files import atomic_path
from crispseg.models import SegmentationModel

PEERS = Path(__file__).parent / "peers.py"
CSV = Path(__file__).parent / "latency.csv"
CLASSES = 11
LITE, RESNET = "tf_efficientnet_lite0", "resnet18"


class Named(NamedTuple):
    """A network with random weights."""

    model: str
    backbone: str
    options: dict[str, Any] = {}  # noqa: RUF012

    def build(self) -> SegmentationModel:
        """In eval mode, always with the same weights."""
        torch.manual_seed(0)
        made = crispseg.create_model(self.model, num_classes=CLASSES, backbone=self.backbone, **self.options)
        return made.eval()


NARROW = {"context": "conv", "merge": "concat"}  # as crisp was at first

NETWORKS = {
    "sfnet": Named("sfnet", "resnet18_deep"),
    "sfnet_narrow": Named("sfnet", LITE, {"width": 96}),  # about as many multiply-adds as smp_fpn
    "sfnet_lite": Named("sfnet_lite", "stdc1"),
    "ddsm": Named("ddsm_deeplabv3plus", RESNET),
    "agln_lite": Named("agln_lite", RESNET),
    "unept": Named("unept", RESNET),
    "crisp_s": Named("crisp_s", LITE),
    "crisp": Named("crisp", LITE),
    "narrow_s": Named("crisp_s", LITE, {"width": 32, **NARROW}),
    "narrow": Named("crisp", LITE, {"width": 48, **NARROW}),
    "smp_fpn": Named("smp_fpn", LITE),
    "smp_unet": Named("smp_unet", LITE),
    "smp_deeplabv3plus": Named("smp_deeplabv3plus", LITE),
    "smp_segformer": Named("smp_segformer", LITE),
}
"""By what they are called here."""


class Way(NamedTuple):
    """How a network is run."""

    format: str
    """plain: PyTorch, as it was trained; torch: as `Segmenter` runs it; or a format of crispseg export."""
    precision: str

    def __str__(self) -> str:
        return f"{self.format} {self.precision}"


PLAIN = Way("plain", "fp32")
WAYS = (
    PLAIN,
    *(Way("torch", precision) for precision in ("fp32", "bf16")),
    *(Way("onnx", precision) for precision in ("fp32", "int8")),
    *(Way("openvino", precision) for precision in ("fp32", "bf16", "int8")),
)
COLUMNS = (
    *("network", "backbone", "way", "threads", "height", "width", "gmacs", "p50_ms", "p95_ms", "over_plain"),
    *("over_sfnet", "peak_mib", "rounds", "processor", "torch", "problem"),
)


# In the process of one way -------------------------------------------------------------------------------------------


def opened(folder: Path, way: Way, size: tuple[int, int]) -> Callable[[Any], None]:
    """A call that computes the logits of one image."""
    load_plugins([str(PEERS)])
    torch.set_grad_enabled(False)
    images = smooth_images((1, *size), 3)
    run: Callable[[Tensor], Tensor]
    if way.format in ("plain", "torch"):
        model = SegmentationModel.from_pretrained(folder / "model").eval()
        run = model if way.format == "plain" else folded(model)
    else:
        run = open_model(file_of(folder, way)).forward
    if way.format == "torch":
        images = images.contiguous(memory_format=torch.channels_last)

    def call(_: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=way == Way("torch", "bf16")):
            run(images)

    return call


def folded(model: SegmentationModel) -> Any:
    """As `Segmenter` has it."""
    return fold_batch_norms(model, smooth_images((1, 64, 64), 3), smooth_outputs).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def file_of(folder: Path, way: Way) -> Path:
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[way.format]
    return folder / f"{way.format}-{way.precision}{suffix}"


# All of them ---------------------------------------------------------------------------------------------------------


def fixed(network: SegmentationModel, path: Path, size: tuple[int, int]) -> None:
    """An ONNX file for one size, of a network whose own code does not trace for all."""
    plain = fold_batch_norms(network, smooth_images((1, 64, 64), 3), smooth_outputs)
    images = smooth_images((1, *size), 3)
    written = torch.onnx.export(
        plain,
        (images,),
        dynamo=True,
        opset_version=OPSET,
        verbose=False,
        input_names=["images"],
        output_names=["logits"],
    )
    assert written is not None
    written.model.metadata_props[METADATA] = describe(network.info, precision="fp32")
    written.save(path, external_data=False)


def make(name: str, folder: Path, calibrate: Path | None, size: tuple[int, int]) -> dict[Way, str]:
    """Write the model and its files, if they are not there yet; the ways that cannot be, and why."""
    problems = folder / "problems.json"  # is there when all files are
    if not problems.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        network = NETWORKS[name].build()
        network.save_pretrained(folder / "model")
        data = None
        if calibrate:
            train = CamVid(str(calibrate)).dataset("train")
            data = Calibration(train, train, 20, "CamVid")
        found = {}
        for way in WAYS[3:]:
            print(f"writing {name}, {way}", flush=True)
            try:
                if way.precision == "int8" and data is None:
                    raise CrispsegError("not run: no --calibrate")
                path = file_of(folder, way)
                if name.startswith("smp_"):
                    fixed(network, path if way == Way("onnx", "fp32") else plain_file(path), size)
                if not path.exists():
                    write(network, path, *way, data)  # type: ignore[arg-type]
            except Exception as error:  # the exporters raise almost anything
                found[str(way)] = f"{type(error).__name__}: {one_line(error):.200}"
        problems.write_text(json.dumps(found))
    read = json.loads(problems.read_text())
    return {way: read[str(way)] for way in WAYS if str(way) in read}


def measure(name: str, out: Path, size: tuple[int, int], threads: int, rounds: int, bad: set[Way]) -> list[Any]:
    """One row a way."""
    ways = {(name, way): partial(opened, out / name, way, size) for way in WAYS if way not in bad}
    base = ("sfnet", PLAIN)
    ways = {base: partial(opened, out / "sfnet", PLAIN, size)} | ways
    taken: dict[Any, list[float]] = {key: [] for key in ways}
    memory = dict.fromkeys(ways, 0.0)
    with ExitStack() as stack:
        calls = {
            key: stack.enter_context(processes.process(str(key), prepare, threads, every=False))
            for key, prepare in ways.items()
        }
        for turn in range(rounds + 2):
            for key, call in calls.items():
                time.sleep(0.05)  # threads of the one before have stopped looking for work
                cost = call(None)
                memory[key] = max(memory[key], cost.mebibytes)
                taken[key] += [1000 * cost.seconds] if turn > 1 else []  # after warming up
    medians = {key: float(np.median(times)) for key, times in taken.items()}
    model = SegmentationModel.from_pretrained(out / name / "model")
    rows = []
    for key in ways:
        if key[0] != name:
            continue
        values = {
            "way": str(key[1]),
            "p50_ms": f"{medians[key]:.1f}",
            "p95_ms": f"{np.percentile(taken[key], 95):.1f}",
            "over_plain": f"{medians[key] / medians[name, PLAIN]:.3f}",
            "over_sfnet": f"{medians[key] / medians[base]:.3f}",
            "peak_mib": f"{memory[key]:.0f}",
        }
        rows.append(values | {"gmacs": f"{count_multiply_adds(model, *size, 3) / 1e9:.2f}"})
    return rows


def report(given: argparse.Namespace) -> None:
    """Make what is missing, measure, and add the rows to the file, in the place of earlier ones."""
    load_plugins([str(PEERS)])
    size = given.size[0], given.size[1]
    learned = "8-bits" if given.calibrate else "floats"
    folder = given.out / f"{size[0]}x{size[1]}-{learned}"  # whose files fit each other
    needed = dict.fromkeys(["sfnet", *given.networks])
    problems = {name: make(name, folder / name, given.calibrate, size) for name in needed}
    for name in given.networks:
        for threads in given.threads_of:
            rows = measure(name, folder, size, threads, given.rounds, set(problems[name]))
            rows += [{"way": str(way), "problem": reason} for way, reason in problems[name].items()]
            same = {
                "network": name,
                "backbone": NETWORKS[name].backbone,
                "threads": str(threads),
                "height": str(size[0]),
                "width": str(size[1]),
                "rounds": str(given.rounds),
                "processor": given.processor,
                "torch": torch.__version__,
            }
            keep(given.csv, [same | row for row in rows])
            print(f"measured {name}, {threads} threads", flush=True)
    show(given.csv, given.processor)


def keep(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Add rows to the file; rows of the same network, way, threads, size and processor are replaced."""
    frame = pd.DataFrame(rows, dtype=str)
    if path.is_file():
        frame = pd.concat([pd.read_csv(path, dtype=str), frame])
    frame = frame.drop_duplicates(["network", "way", "threads", "height", "width", "processor"], keep="last")
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, columns=COLUMNS, index=False)


def show(path: Path, processor: str, what: str = "p50_ms") -> None:
    """Print a column of the rows of a processor, a table for each size and number of threads."""
    frame = pd.read_csv(path, dtype=str).query("processor == @processor")
    for (threads, height, width), rows in frame.groupby(["threads", "height", "width"], sort=False):
        print(f"\n{processor}, {threads} threads, {height}×{width}, {what}\n")
        table = rows.pivot(index="network", columns="way", values=what)
        print(table.reindex(columns=map(str, WAYS)).fillna("–").to_markdown(), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    made.add_argument("--out", type=Path, default=Path("runs/latency"), help="where networks and files are kept")
    made.add_argument("--calibrate", type=Path, default=None, help="CamVid, for 8 bits")
    made.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    made.add_argument("--threads", dest="threads_of", type=int, nargs="+", default=[1, 2])
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--processor", default=processes.machine().partition(",")[0], help="its name in the table")
    made.add_argument("--csv", type=Path, default=CSV)
    made.add_argument("--table", action="store_true", help="print the rows there are, and measure nothing")
    given = made.parse_args(argv)
    if given.table:
        for what in ("p50_ms", "p95_ms", "peak_mib"):
            show(given.csv, given.processor, what)
    else:
        report(given)


if __name__ == "__main__":
    main()
