"""Time and memory of networks and training steps on a CUDA device or the CPU.

    python benchmarks/gpu.py --csv benchmarks/gpu.csv
    python benchmarks/gpu.py --csv /tmp/gpu.csv --device cpu --tiny

| kind | a call |
| --- | --- |
| network | normalised images on the device to logits at the network's stride; merged batch norms |
| segmenter | an RGB image in memory to labels in memory, by `Segmenter` |
| step | images and labels on the device: all outputs, the recipe's loss and optimizer |

Ways: channels last or first in memory, `compile` (torch.compile), `graph` (a replayed CUDA graph). Times are the median
and 95th percentile after three warm-up calls. Memory is the peak of PyTorch's allocator on CUDA. A failed row has the
reason. Existing rows are skipped and `--minutes` limits a call, so several calls can fill one file. Weights, images and
labels are random.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from latency import NETWORKS, PEERS, Named
from torch import Tensor

from crispseg import Segmenter
from crispseg.cli.main import keep_freed_memory
from crispseg.cli.train import Train
from crispseg.config.registry import load_plugins
from crispseg.config.yaml_files import RECIPES
from crispseg.data.boundary_targets import boundary_targets
from crispseg.errors import CrispsegError, one_line
from crispseg.export.certificate import smooth_images
from crispseg.inference import fold_batch_norms
from crispseg.inference.device import processor_name, usable_device
from crispseg.inference.segmenter import smooth_outputs
from crispseg.io.files import atomic_path
from crispseg.models import SegmentationModel
from crispseg.training.depthwise import FastDepthwise
from crispseg.training.losses import BoundaryRefinementLoss, WeightedLoss
from crispseg.training.optimization import build_optimizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIZE, STREET = (512, 1024), (1024, 2048)
STREET_NETWORKS = {  # SFNet's Tables 5 and 6 report their speed
    "sfnet": NETWORKS["sfnet"],
    "sfnet_dfnet1": Named("sfnet", "df1"),
    "sfnet_dfnet2": Named("sfnet", "df2"),
    "sfnet_lite": NETWORKS["sfnet_lite"],
    "crisp": NETWORKS["crisp"],
}
COMPILED = ("crisp", "sfnet", "smp_fpn")
WARM_UP, SECONDS = 3, 2.0  # calls; seconds of measured calls in a row
RECIPE_CLASSES = {"ade20k": 150, "camvid": 11, "cityscapes": 19, "mapillary": 65, "pascal_context": 60, "voc2012": 21}

Call = Callable[[], object]


class Row(NamedTuple):
    """Columns that identify a row of one device."""

    kind: str
    subject: str
    way: str
    dtype: str
    batch: int
    height: int
    width: int


FIELDS = [*Row._fields, "p50_ms", "p95_ms", "peak_mib", "problem", "device", "torch"]


def network(row: Row, device: torch.device, backend: str) -> Call:
    layout = torch.contiguous_format if row.way == "first" else torch.channels_last
    named = STREET_NETWORKS.get(row.subject) or NETWORKS[row.subject]
    folded = fold_batch_norms(named.build(), smooth_images((1, 64, 64), 3), smooth_outputs)
    model: SegmentationModel = folded.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = smooth_images((row.batch, row.height, row.width), 3).to(device).contiguous(memory_format=layout)
    run: Callable[[Tensor], Tensor] = model.logits
    if row.way == "compile":
        run = torch.compile(run, backend=backend)

    def call() -> Tensor:
        with torch.inference_mode(), torch.autocast(device.type, DTYPES[row.dtype], enabled=row.dtype != "fp32"):
            return run(images)

    return graph_of(call, device) if row.way == "graph" else call


def graph_of(call: Call, device: torch.device) -> Call:
    """Record the call as a CUDA graph, and return its replay."""
    if device.type != "cuda":
        raise CrispsegError("CUDA graphs need a CUDA device")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def segmenter(row: Row, device: torch.device, _: str) -> Call:
    opened = Segmenter(NETWORKS[row.subject].build(), device, precision=row.dtype)
    image = (255 * smooth_images((1, row.height, row.width), 3)[0].sigmoid()).byte().permute(1, 2, 0).numpy()
    return lambda: opened.labels(image)


def step(row: Row, device: torch.device, backend: str) -> Call:
    """Return a training step with the model, loss and optimizer of a recipe."""
    config = Train.parsed([row.subject, "--data.root", ".", "--model.pretrained", "false"]).config()
    classes = RECIPE_CLASSES[Path(row.subject).stem.removesuffix("_aug").removesuffix("_from_mapillary")]
    model = config.model.build(classes, auxiliary=config.auxiliary_weight > 0).train()
    model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(model, config)
    loss: torch.nn.Module = WeightedLoss(config.losses, config.hard_fraction, None, config.auxiliary_weight)
    images = (
        smooth_images((row.batch, row.height, row.width), 3).to(device).contiguous(memory_format=torch.channels_last)
    )
    labels = torch.randint(classes, (row.batch, -(-row.height // 40), -(-row.width // 40)))
    labels = labels.repeat_interleave(40, 1).repeat_interleave(40, 2)[:, : row.height, : row.width]  # squares
    truth = [labels.to(device)]
    if config.model.refine:
        loss = BoundaryRefinementLoss(loss, config.boundary_weights, config.direction_mask)
        targets = [boundary_targets(mask.numpy(), config.boundary_distance) for mask in labels.byte()]
        truth.append(torch.stack([torch.from_numpy(target) for target in targets]).to(device))
    loss = loss.to(device)
    outputs = torch.compile(model.outputs, backend=backend) if row.way == "compile" else model.outputs
    fast = FastDepthwise() if device.type == "cpu" and row.dtype == "bf16" else nullcontext()

    def call() -> None:
        optimizer.zero_grad()
        with fast, torch.autocast(device.type, DTYPES[row.dtype], enabled=row.dtype != "fp32"):
            total = loss(outputs(images), *truth)
        total.backward()
        optimizer.step()

    return call


BUILDERS: dict[str, Callable[[Row, torch.device, str], Call]] = {
    "network": network,
    "segmenter": segmenter,
    "step": step,
}


def plan(tiny: bool) -> Iterator[Row]:
    """Yield all rows, the most important first."""
    size, street, batches = ((64, 96), (64, 128), (1, 2)) if tiny else (SIZE, STREET, (1, 16))
    recipes = sorted(str(path.relative_to(RECIPES)) for path in RECIPES.glob("*/*.yaml"))
    for name, dtype in product(NETWORKS, DTYPES):
        yield Row("network", name, "last", dtype, batches[0], *size)
    for name in recipes:
        crop = (96, 96) if tiny else crop_of(name)
        yield Row("step", name, "last", "bf16", 2 if tiny else 16, *crop)
        yield Row("step", name, "last", "fp32", 2 if tiny else 4, *crop)
    for name, way in product(STREET_NETWORKS, ("last", "graph")):
        yield Row("network", name, way, "fp16", 1, *street)
    for name, dtype in product(("crisp_s", "crisp", "sfnet", "smp_fpn"), ("fp32", "bf16")):
        yield Row("segmenter", name, "last", dtype, 1, *street)
    for name, dtype in product(NETWORKS, ("fp32", "bf16")):
        yield Row("network", name, "last", dtype, batches[1], *size)
        yield Row("network", name, "graph", dtype, batches[0], *size)
        yield Row("network", name, "first", dtype, batches[1], *size)
    for name in COMPILED:
        yield Row("network", name, "compile", "bf16", batches[1], *size)
    for name in ("sfnet/cityscapes.yaml", "unept/ade20k.yaml"):
        yield Row("step", name, "compile", "bf16", 2 if tiny else 16, *((96, 96) if tiny else crop_of(name)))


def crop_of(recipe: str) -> tuple[int, int]:
    crop = Train.parsed([recipe, "--data.root", "."]).config().augment.crop
    assert isinstance(crop, tuple), crop
    return crop[0], crop[1]


def measure(row: Row, device: torch.device, rounds: int, tiny: bool) -> dict[str, str]:
    """Return times and memory of a row, or the reason of a failure.

    At most `rounds` calls are measured, within two seconds; a tiny row is called once.
    """
    torch.manual_seed(0)
    warm_up, seconds, backend = (0, 0.0, "aot_eager") if tiny else (WARM_UP, SECONDS, "inductor")
    try:
        if device.type == "cuda":
            gc.collect()
            torch._C._cuda_clearCublasWorkspaces()  # workspaces of the CUDA graphs' streams
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        call = BUILDERS[row.kind](row, device, backend)
        taken: list[float] = []
        while len(taken) <= warm_up or (len(taken) < warm_up + rounds and sum(taken[warm_up:]) < 1000 * seconds):
            wait(device)
            start = time.perf_counter()
            call()
            wait(device)
            taken.append(1000 * (time.perf_counter() - start))
        peak = f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}" if device.type == "cuda" else ""
    except Exception as error:  # libraries, drivers and compilers raise almost anything
        return {"problem": f"{type(error).__name__}: {one_line(error):.160}"}
    finally:
        torch.compiler.reset()
    kept = sorted(taken[warm_up:])
    p95 = kept[min(len(kept) - 1, int(0.95 * len(kept)))]
    return {"p50_ms": f"{statistics.median(kept):.3f}", "p95_ms": f"{p95:.3f}", "peak_mib": peak}


def wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def report(given: argparse.Namespace) -> None:
    """Add missing rows to the file and print them."""
    load_plugins([str(PEERS)])
    keep_freed_memory()  # as training does
    device = usable_device(given.device)
    where = {"device": processor_name(device), "torch": torch.__version__}
    print(f"{where['device']}, torch {where['torch']}\n")
    rows = pd.read_csv(given.csv, dtype=str, keep_default_na=False).to_dict("records") if given.csv.exists() else []
    done = {tuple(row[field] for field in (*Row._fields, "device")) for row in rows}
    end = time.monotonic() + 60 * given.minutes
    for row in plan(given.tiny):
        if row.kind not in given.kinds or (*map(str, row), where["device"]) in done:
            continue
        if time.monotonic() > end:
            print("the time is over; the same command measures the remaining rows")
            return
        measured = measure(row, device, given.rounds, given.tiny)
        rows.append({field: str(value) for field, value in row._asdict().items()} | measured | where)
        print(*row, *measured.values(), flush=True)
        with atomic_path(given.csv) as temporary:
            pd.DataFrame(rows, columns=FIELDS).to_csv(temporary, index=False)


def main(argv: Sequence[str] | None = None) -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--csv", type=Path, required=True)
    made.add_argument("--device", default="cuda")
    made.add_argument("--kinds", nargs="+", choices=BUILDERS, default=list(BUILDERS))
    made.add_argument("--rounds", type=int, default=30, help="maximum number of calls within two seconds")
    made.add_argument("--minutes", type=float, default=8)
    made.add_argument("--tiny", action="store_true", help="use small images, to check that every row works")
    report(made.parse_args(argv))


if __name__ == "__main__":
    main()
