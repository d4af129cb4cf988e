"""Time of an epoch with and without cached features of a frozen backbone.

    python benchmarks/cached_features.py --threads 1

An epoch trains on crops of the bundled nuclei, evaluates the val images and writes checkpoints. The first epoch is left
out. Weights are random, which does not affect the time.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from processes import machine, parser
from rich.console import Console

from crispseg.data import Augment, Nuclei
from crispseg.training import ModelConfig, TrainConfig, train

MODELS = ["fcn:vit_small_patch16_224", "fpn:vit_small_patch16_224"]


def seconds(model: str, backbone: str, cached: bool, epochs: int, repeat: int, out: Path) -> float:
    """Return the seconds per epoch, without the first one."""
    config = TrainConfig(
        Nuclei(),
        model=ModelConfig(model, backbone, False),
        augment=Augment(crop=192, turn=True, photometric=False, repeat=repeat),
        out=out,
        epochs=epochs,
        batch_size=8,
        freeze_backbone=True,
        cache_features=cached,
        cache_versions=1,
        device="cpu",
        precision="fp32",
        workers=0,
        loggers=[],
    )
    folder = train(config, console=Console(file=io.StringIO())).folder
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        ends = [float(row["seconds"]) for row in csv.DictReader(file)]
    return (ends[-1] - ends[0]) / (epochs - 1)


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL:BACKBONE")
    made.add_argument("--epochs", type=int, default=2, help="epochs per run, at least 2")
    made.add_argument("--repeat", type=int, default=4, help="crops per image and epoch")
    given = made.parse_args(argv)
    torch.set_num_threads(given.threads)
    print(f"{given.threads} threads, {machine()}\n\n| model | s/epoch | cached | ratio |\n| --- | ---: | ---: | ---: |")
    for name in given.models:
        model, backbone = name.split(":")
        with tempfile.TemporaryDirectory() as folder:
            plain = seconds(model, backbone, False, given.epochs, given.repeat, Path(folder) / "plain")
            cached = seconds(model, backbone, True, given.epochs, given.repeat, Path(folder) / "cached")
        print(f"| {model} on {backbone} | {plain:.2f} | {cached:.2f} | {plain / cached:.1f} |", flush=True)


if __name__ == "__main__":
    main()
