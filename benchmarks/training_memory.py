"""Peak memory of a training step of UN-EPT with boundary refinement on the CPU, at several image sizes.

    python benchmarks/training_memory.py --threads 2

A step is that of `crispseg train` with AdamW: all outputs, the loss of Eq. 7, the backward pass and the update. The
model has 150 classes; weights, images and labels are random. Each size runs in a separate process. A tiny first step
allocates gradients and AdamW's state, which are printed separately with the weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from processes import machine, parser, process

from crispseg.data import Nuclei
from crispseg.data.boundary_targets import boundary_targets
from crispseg.models import SegmentationModel
from crispseg.training import ModelConfig, TrainConfig
from crispseg.training.depthwise import FastDepthwise
from crispseg.training.losses import BoundaryRefinementLoss, WeightedLoss
from crispseg.training.optimization import build_optimizer
from crispseg.training.task import Batch, SegmentationTask

CLASSES = 150
TINY = 64  # image side of the first step, pixels
REGION = 40  # side of one-class squares in the labels, pixels
PAPER = {"resnet50": "7.0G", "deit_base_distilled_patch16_384": "8.5G"}
"""Table 8's "Mem Cost" for 480×480 crops."""


def settings(backbone: str, batch: int, precision: Literal["fp32", "bf16"]) -> TrainConfig:
    """Return the paper's optimizer and loss; other settings do not matter here."""
    return TrainConfig(
        Nuclei(),
        model=ModelConfig("unept", backbone, False, refine="boundary"),
        batch_size=batch,
        optimizer="adamw",
        hard_fraction=1,
        auxiliary_weight=0.4,
        precision=precision,
    )


def build(config: TrainConfig) -> SegmentationModel:
    model = config.model.build(CLASSES, auxiliary=config.auxiliary_weight > 0)
    return model.to(memory_format=torch.channels_last)


def make_batch(config: TrainConfig, side: int) -> Batch:
    """Return a batch in the data loader's format."""
    regions = torch.randint(CLASSES, (-(-side // REGION),) * 2, dtype=torch.uint8)
    labels = regions.repeat_interleave(REGION, 0).repeat_interleave(REGION, 1)[:side, :side].contiguous()
    targets = torch.from_numpy(boundary_targets(labels.numpy(), config.boundary_distance))
    images = torch.randn(config.batch_size, config.model.in_chans, side, side)
    return [images, *(each.expand(config.batch_size, -1, -1).contiguous() for each in (labels.long(), targets))]


def prepare(config: TrainConfig) -> Callable[[int], object]:
    """Return a training step on images of a given side, in its process."""
    torch.manual_seed(0)
    model = build(config)
    loss = WeightedLoss(config.losses, config.hard_fraction, auxiliary_weight=config.auxiliary_weight)
    task = SegmentationTask(model, BoundaryRefinementLoss(loss, config.boundary_weights), config)
    optimizer = build_optimizer(model, config)
    warnings.filterwarnings("ignore", message=".*self.trainer.* reference is not registered")  # nothing is logged

    def step(side: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        with FastDepthwise(), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            total = task.training_step(make_batch(config, side), 0)
        total.backward()
        optimizer.step()

    step(TINY)
    return step


def main(argv: Sequence[str] | None = None) -> None:
    made = parser(__doc__)
    made.add_argument("--backbones", nargs="+", default=[*PAPER], metavar="BACKBONE")
    made.add_argument("--sizes", nargs="+", type=int, default=[240, 480, 720], help="height and width, pixels")
    made.add_argument("--batch", type=int, default=1, help="images per step")
    made.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    given = made.parse_args(argv)
    print(f"{given.precision}, batch of {given.batch}, {given.threads} threads, {machine()}")
    for backbone in given.backbones:
        config = settings(backbone, given.batch, given.precision)
        parameters = sum(each.nbytes for each in build(config).parameters()) / 2**20
        fixed = 4 * parameters  # weights, gradients and AdamW's two moments
        print(f"\n{backbone}; the paper: {PAPER.get(backbone, '–')}; at any size {fixed:.0f} MiB")
        print("| image | MiB of the step | MiB a megapixel | GiB in all |\n| --- | ---: | ---: | ---: |")
        for side in sorted({*given.sizes}):
            with process(f"{backbone} at {side}×{side}", partial(prepare, config), given.threads) as step:
                taken = step(side).mebibytes
            megapixels = given.batch * side**2 / 1e6
            print(f"| {side}×{side} | {taken:.0f} | {taken / megapixels:.0f} | {(fixed + taken) / 1024:.2f} |")


if __name__ == "__main__":
    main()
