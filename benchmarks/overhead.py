"""Time of `Segmenter.labels` on a photograph in memory, compared with that of its network alone.

    python benchmarks/overhead.py --networks crisp crisp_s sfnet --threads_of 1 2

`Segmenter.labels` turns a uint8 array into class ids. The network turns a normalised tensor into logits of the same
size; its batch norms are merged and its layout is channels last, as in `Segmenter`. Both are called in turns in one
process, and the one that begins alternates. Weights are random.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import processes
import torch
from latency import NETWORKS, PEERS

import crispseg
from crispseg.config.registry import load_plugins
from crispseg.export.certificate import smooth_images
from crispseg.inference.segmenter import as_batch, folded_model

CITYSCAPES_CLASSES = 19
WARM_UP_TURNS = 3


def main() -> None:
    parser = processes.parser(__doc__)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["crisp", "crisp_s", "sfnet"])
    parser.add_argument("--threads_of", nargs="+", type=int, default=[1, 2], help="numbers of threads")
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--size", nargs=2, type=int, default=[512, 1024], help="height and width of the image")
    given = parser.parse_args()
    load_plugins([str(PEERS)])
    print(f"{processes.machine()}, {given.size[0]}×{given.size[1]}, {given.turns} turns\n")
    print("| network | threads | network ms | labels ms | ratio of medians | median ratio |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in given.networks:
        calls = ways(name, given.size)
        for threads in given.threads_of:
            torch.set_num_threads(threads)
            network, labels = seconds_in_turns(calls, given.turns)
            ratios = [mine / alone for mine, alone in zip(labels, network, strict=True)]
            times = f"{1000 * median(network):.1f} | {1000 * median(labels):.1f}"
            print(f"| {name} | {threads} | {times} | {median(labels) / median(network):.3f} | {median(ratios):.3f} |")


@torch.inference_mode()
def ways(name: str, size: list[int]) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return a call of the network and one of `Segmenter.labels`, on the same image."""
    named, device = NETWORKS[name], torch.device("cpu")
    model = crispseg.create_model(named.model, num_classes=CITYSCAPES_CLASSES, backbone=named.backbone, **named.options)
    segmenter, network = crispseg.Segmenter(model, device), folded_model(model, device)
    image = (255 * smooth_images((1, *size), 3)[0].sigmoid()).byte().permute(1, 2, 0).contiguous().numpy()
    images = as_batch(image, model.info, device)

    @torch.inference_mode()
    def run_network() -> object:
        return network(images)

    return run_network, lambda: segmenter.labels(image)


def seconds_in_turns(calls: tuple[Callable[[], object], Callable[[], object]], turns: int) -> tuple[list[float], ...]:
    """Return the seconds of each call in each turn, after a few turns to warm up."""
    seconds: tuple[list[float], ...] = ([], [])
    for turn in range(WARM_UP_TURNS + turns):
        for way in (0, 1) if turn % 2 else (1, 0):
            began = time.perf_counter()
            calls[way]()
            seconds[way].append(time.perf_counter() - began)
    return tuple(taken[WARM_UP_TURNS:] for taken in seconds)


if __name__ == "__main__":
    main()
