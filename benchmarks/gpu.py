"""Times and memory of networks and training steps on a CUDA device, or, to check that it runs, on the CPU.

    python benchmarks/gpu.py --device cuda --csv benchmarks/gpu.csv
    python benchmarks/gpu.py --device cpu --size 64 96 --batches 1 --rounds 2 --networks crisp --ways last first graph

| kind | a call is |
| --- | --- |
| network | normalised images on the device to logits at their own stride, batch norms merged |
| step | all outputs, the loss, the backward pass and AdamW |

`last` and `first` are the channels' place in memory, `compile` is torch.compile, `graph` a replayed CUDA graph.
Milliseconds are the median and the 95th percentile of the rounds after three of warm-up; peak MiB are those of
PyTorch's allocator, on CUDA alone. What a device or a network cannot do is a row with its reason. Weights are random.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pandas as pd
import torch
from latency import CLASSES, NETWORKS, PEERS
from torch import Tensor

from crispseg.cli.main import keep_freed_memory
from crispseg.config.registry import load_plugins
from crispseg.data import Nuclei
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import smooth_images
from crispseg.inference import fold_batch_norms
from crispseg.inference.device import processor_name, usable_device
from crispseg.inference.segmenter import smooth_outputs
from crispseg.io.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.training import TrainConfig
from crispseg.training.losses import WeightedLoss
from crispseg.training.optimization import build_optimizer, float32_depthwise

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
COLUMNS = ["kind", "what", "way", "dtype", "batch", "size", "p50_ms", "p95_ms", "peak_mib", "device", "torch"]
COLUMNS += ["problem"]

Call = Callable[[], object]


def forward(name: str, way: str, dtype: str, batch: int, size: tuple[int, int], device: torch.device) -> Call:
    """A network that sees a batch."""
    layout = torch.contiguous_format if way == "first" else torch.channels_last
    folded = fold_batch_norms(NETWORKS[name].build(), smooth_images((1, 64, 64), 3), smooth_outputs)
    model: SegmentationModel = folded.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = smooth_images((batch, *size), 3).to(device).contiguous(memory_format=layout)
    run: Callable[[Tensor], Tensor] = model.coarse_logits
    if way == "compile":
        run = torch.compile(run, dynamic=True)

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "fp32"):
            return run(images)

    return graph_of(call, device) if way == "graph" else call


def graph_of(call: Call, device: torch.device) -> Call:
    """The same work, recorded once and replayed."""
    if device.type != "cuda":
        raise CrispsegError("CUDA graphs need a CUDA device")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def step(name: str, way: str, dtype: str, batch: int, size: tuple[int, int], device: torch.device) -> Call:
    """A training step, on images and labels that stay the same."""
    config = TrainConfig(Nuclei(), batch_size=batch, optimizer="adamw", hard_fraction=1)
    model = NETWORKS[name].build().train().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer, loss = build_optimizer(model, config), WeightedLoss(config.losses, 1)
    images = smooth_images((batch, *size), 3).to(device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(CLASSES, (batch, *size), device=device)
    outputs = torch.compile(model.outputs) if way == "compile" else model.outputs
    kept = ExitStack()  # as in training: once for all steps, as a compiler starts again when a module's hooks change
    if device.type == "cpu" and dtype == "bf16":
        kept.enter_context(float32_depthwise(model))

    def call(_kept: ExitStack = kept) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, DTYPES[dtype], enabled=dtype != "fp32"):
            total = loss(outputs(images), labels)
        total.backward()
        optimizer.step()

    return call


BUILDERS = {"network": forward, "step": step}
WAYS = {"network": ("last", "first", "compile", "graph"), "step": ("last", "compile")}


# Measuring -----------------------------------------------------------------------------------------------------------


def measure(make: Callable[[], Call], device: torch.device, rounds: int) -> dict[str, str]:
    """Times and memory of a call, or why there are none."""
    try:
        with _memory(device) as peak:
            call = make()
            taken = []
            for _ in range(rounds + 3):
                _wait(device)
                start = time.perf_counter()
                call()
                _wait(device)
                taken.append(1000 * (time.perf_counter() - start))
    except Exception as error:  # whatever a library, a driver or a compiler raises
        return {"problem": f"{type(error).__name__}: {one_line(error):.160}"}
    finally:
        torch.compiler.reset()
    kept = sorted(taken[3:])
    p95 = kept[min(len(kept) - 1, int(0.95 * len(kept)))]
    return {"p50_ms": f"{statistics.median(kept):.3f}", "p95_ms": f"{p95:.3f}", "peak_mib": peak()}


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def _memory(device: torch.device) -> Iterator[Callable[[], str]]:
    """In the block the allocator's peak is noted."""
    if device.type != "cuda":
        yield lambda: ""
        return
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    yield lambda: f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


def rows(given: argparse.Namespace, device: torch.device) -> Iterator[dict[str, str]]:
    """One after the other, as they are measured."""
    size = given.size[0], given.size[1]
    for name in given.networks:
        for kind, build in BUILDERS.items():
            ways = [way for way in WAYS[kind] if way in given.ways]
            for dtype in DTYPES:
                for way in ways if kind in given.kinds and not (dtype == "fp16" and kind == "step") else ():
                    for batch in given.batches:
                        found = measure(lambda: build(name, way, dtype, batch, size, device), device, given.rounds)  # noqa: B023
                        about = {"kind": kind, "what": name, "way": way, "dtype": dtype, "batch": str(batch)}
                        yield about | {"size": f"{size[0]}×{size[1]}"} | found


def report(given: argparse.Namespace) -> None:
    """The rows as Markdown, and in the file."""
    load_plugins([str(PEERS)])
    keep_freed_memory()  # as training does
    device = usable_device(given.device)
    where = {"device": processor_name(device), "torch": torch.__version__}
    print(f"{where['device']}, torch {where['torch']}\n")
    print("| " + " | ".join(COLUMNS[:9]) + " | problem |\n|" + " --- |" * 10)
    kept = []
    for row in rows(given, device):
        kept.append(row | where)
        print("| " + " | ".join(row.get(column, "") for column in (*COLUMNS[:9], "problem")) + " |", flush=True)
        if given.csv:
            with atomic_path(given.csv) as temporary:
                pd.DataFrame(kept, columns=COLUMNS).to_csv(temporary, index=False)


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--device", default="cuda")
    made.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    made.add_argument("--kinds", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    made.add_argument("--ways", nargs="+", choices=WAYS["network"], default=WAYS["network"])
    made.add_argument("--batches", type=int, nargs="+", default=[1, 4, 16])
    made.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    made.add_argument("--rounds", type=int, default=30)
    made.add_argument("--csv", type=Path, default=None)
    report(made.parse_args(argv))


if __name__ == "__main__":
    main()
