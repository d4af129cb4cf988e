"""What this processor does in products of large matrices, and what share of that the networks of `latency.py` reach.

    python benchmarks/roofline.py --threads 2 --processor avx512_bf16

Multiply-adds a second are those of a product of two matrices of 2,048 × 2,048, in float32 and bfloat16 by PyTorch, in
8 bits (u8 × s8) by ONNX Runtime; bytes a second those of copying 256 MiB, read and written. Of each, the best round.
Convolutions are seldom faster than such products, and never by much.

    python benchmarks/roofline.py --profile sfnet crisp ddsm --size 512 1024

shows in place of that which operators of PyTorch take the time of a network, as `Segmenter` runs it in float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import latency
import numpy as np
import processes
import torch

from crispseg.config.plugins import load_plugins
from crispseg.export.agreement import smooth_images

SIDE = 2048
BYTES = 2**28


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    made = processes.parser(__doc__)
    made.add_argument("--rounds", type=processes.positive, default=10)
    made.add_argument("--processor", default=processes.machine().partition(",")[0], help="rows of it are compared")
    made.add_argument("--csv", type=Path, default=latency.CSV)
    made.add_argument("--profile", nargs="+", choices=latency.NETWORKS, default=[])
    made.add_argument("--size", type=int, nargs=2, default=(512, 1024), metavar=("HEIGHT", "WIDTH"))
    processes.run(made, argv, report)


def profiled(name: str, size: tuple[int, int], rounds: int) -> None:
    """The share of each operator in the time of its own work, of the median of several calls' sum."""
    load_plugins([str(latency.PEERS)])
    model = latency.folded(latency.NETWORKS[name].build())
    images = smooth_images((1, *size), 3).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        model.coarse_logits(images)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
            for _ in range(rounds):
                model.coarse_logits(images)
    own = {each.key: each.self_cpu_time_total / rounds / 1000 for each in seen.key_averages()}  # ms
    total = sum(own.values())
    print(f"\n{name}, {size[0]}×{size[1]}, {total:.0f} ms to coarse logits\n\n| operator | ms | share |")
    print("| --- | ---: | ---: |")
    for operator, taken in sorted(own.items(), key=lambda item: -item[1]):
        if taken > total / 100:
            print(f"| {operator.removeprefix('aten::')} | {taken:.1f} | {taken / total:.0%} |")


def report(given: argparse.Namespace) -> None:
    """The processor's speeds, and each row's share of them."""
    torch.set_num_threads(given.threads)
    if given.profile:
        print(f"{processes.machine()}, {given.threads} threads")
        for name in given.profile:
            profiled(name, (given.size[0], given.size[1]), given.rounds)
        return
    products = {
        "fp32": of_torch(torch.float32),
        "bf16": of_torch(torch.bfloat16),
        "int8": of_onnxruntime(given.threads),
    }
    best = {precision: SIDE**3 / fastest(call, given.rounds) / 1e9 for precision, call in products.items()}
    source, target = torch.ones(BYTES // 4), torch.empty(BYTES // 4)
    moved = 2 * BYTES / fastest(lambda: target.copy_(source), given.rounds) / 1e9
    print(f"{processes.machine()}, {given.threads} threads")
    print("| | fp32 | bf16 | int8 |\n| --- | ---: | ---: | ---: |")
    print("| G multiply-adds a second | " + " | ".join(f"{best[key]:.0f}" for key in best) + " |")
    print(f"\n{moved:.1f} GB read and written a second\n")
    if not given.csv.is_file():
        return
    print("| network | way | ms | at least, ms | share |\n| --- | --- | ---: | ---: | ---: |")
    for row in latency.read(given.csv):
        if (row["processor"], row["threads"]) == (given.processor, str(given.threads)) and row["p50_ms"]:
            least = 1000 * float(row["gmacs"]) / best[row["way"].rpartition(" ")[2]]
            taken = float(row["p50_ms"])
            print(f"| {row['network']} | {row['way']} | {taken:.0f} | {least:.0f} | {least / taken:.0%} |")


def fastest(call: Callable[[], object], rounds: int) -> float:
    """Seconds of the best round, after two that do not count."""
    taken = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken[2:])


def of_torch(dtype: torch.dtype) -> Callable[[], object]:
    first, second = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return lambda: first @ second


def of_onnxruntime(threads: int) -> Callable[[], object]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper

    sides = [SIDE, SIDE]
    values = np.random.default_rng(0)
    weight = onnx.numpy_helper.from_array(values.integers(-99, 99, sides, np.int8), "b")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, sides)],
        [helper.make_tensor_value_info("y", TensorProto.INT32, sides)],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {"a": values.integers(0, 255, sides, np.uint8)}
    return lambda: session.run(None, given)


if __name__ == "__main__":
    main()
