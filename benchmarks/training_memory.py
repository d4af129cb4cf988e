"""Peak memory of a training step of UN-EPT with boundary refinement, on the CPU, at several sizes.

    python benchmarks/training_memory.py --threads 2

A step is what `crispseg train` does with a batch: `SegmentationTask.training_step`, that is all outputs and Eq. 7 on
them, the backward pass, AdamW. 150 classes; weights, images and labels are random. Each size runs in a process of its
own. That has taken a tiny step before, so weights, gradients and AdamW's state, which any size needs, are there
already and printed apart. Columns are

- MiB, the process's peak resident set during the step less what was resident before it: the batch, what is kept for
  the backward pass, and temporary memory. The allocator holds no freed memory back;
- / Mpixel, the same for a million pixels of all images; / added Mpixel, for those that the row before does not have;
- × pixels and × MiB, over the first row;
- GiB in all, with weights, gradients and AdamW's state. Training takes this or less, as it has no gradients until the
  backward pass makes them.

Under bf16, the copies of weights that autocast keeps during the step are in MiB. Linux only.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from processes import machine, parser, positive, process, run
from rich.console import Console
from rich.table import Table

from crispseg.data import Nuclei
from crispseg.models import SegmentationModel
from crispseg.models.boundary_targets import BoundaryTargets
from crispseg.training import ModelConfig, TrainConfig
from crispseg.training.losses import BoundaryRefinementLoss, DeepSupervision, build_loss
from crispseg.training.optimization import build_optimizer
from crispseg.training.precision import float32_depthwise
from crispseg.training.task import Batch, SegmentationTask

CLASSES = 150
TINY = 64  # pixels, side of the images of a step that is not measured
REGION = 40  # pixels, side of the squares of one class in the labels
PAPER = {"resnet50": "7.0G", "deit_base_distilled_patch16_384": "8.5G"}
"""Table 8's "Mem Cost", of crops of 480×480."""


def settings(backbone: str, batch: int, precision: Literal["fp32", "bf16"]) -> TrainConfig:
    """The paper's optimizer and loss; the rest is of no matter here."""
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
    """As the data loader gives it."""
    regions = torch.randint(CLASSES, (-(-side // REGION),) * 2, dtype=torch.uint8)
    labels = regions.repeat_interleave(REGION, 0).repeat_interleave(REGION, 1)[:side, :side].contiguous()
    targets = torch.from_numpy(BoundaryTargets(config.boundary_distance)(labels.numpy()))
    images = torch.randn(config.batch_size, config.model.in_chans, side, side)
    return [images, *(each.expand(config.batch_size, -1, -1).contiguous() for each in (labels.long(), targets))]


def prepare(config: TrainConfig) -> Callable[[int], object]:
    """In its process, a step on images of a given side."""
    torch.manual_seed(0)
    model = build(config)
    loss = DeepSupervision(build_loss(config.losses, config.hard_fraction), config.auxiliary_weight)
    task = SegmentationTask(model, BoundaryRefinementLoss(loss, config.boundary_weights), config)
    optimizer = build_optimizer(model, config)
    warnings.filterwarnings("ignore", message=".*self.trainer.* reference is not registered")  # nothing is logged

    def step(side: int) -> None:
        optimizer.zero_grad(set_to_none=False)
        with float32_depthwise(model), torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16"):
            total = task.training_step(make_batch(config, side), 0)
        total.backward()
        optimizer.step()

    step(TINY)
    return step


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each backbone."""
    made = parser(__doc__)
    made.add_argument("--backbones", nargs="+", default=[*PAPER], metavar="BACKBONE")
    made.add_argument("--sizes", nargs="+", type=positive, default=[240, 480, 720], help="height and width, pixels")
    made.add_argument("--batch", type=positive, default=1, help="images of a step")
    made.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    run(made, argv, report)


def report(given: Namespace) -> None:
    console = Console()
    console.print(
        f"unept, refine=boundary, {CLASSES} classes, {given.precision}, batch of {given.batch}, "
        f"{given.threads} threads, {machine()}",
        soft_wrap=True,
    )
    for backbone in given.backbones:
        config = settings(backbone, given.batch, given.precision)
        weights, gradients, state = fixed = fixed_memory(build(config))
        console.print(
            f"\n{backbone}, at any size: {weights:.0f} MiB of weights, {gradients:.0f} of gradients, {state:.0f} of "
            f"AdamW's state. The paper: {PAPER.get(backbone, '–')}",
            soft_wrap=True,
        )
        mebibytes = {side: measure(config, side, given.threads) for side in sorted({*given.sizes})}
        console.print(as_table(given.batch, sum(fixed), mebibytes))


def fixed_memory(model: SegmentationModel) -> tuple[float, float, float]:
    """MiB of weights, gradients and AdamW's two means of them."""
    parameters, buffers = (sum(each.nbytes for each in many) / 2**20 for many in (model.parameters(), model.buffers()))
    return parameters + buffers, parameters, 2 * parameters


def measure(config: TrainConfig, side: int, threads: int) -> float:
    """MiB of a step."""
    name = f"{config.model.backbone} at {side}×{side}"
    with process(name, partial(prepare, config), threads, hold_back=False) as step:
        return step(side).mebibytes


def as_table(batch: int, fixed: float, mebibytes: dict[int, float]) -> Table:
    """What a step takes at each size, how that grows, and with the MiB that are fixed."""
    table = Table("image", "MiB", "/ Mpixel", "/ added Mpixel", "× pixels", "× MiB", "GiB in all")
    for column in table.columns[1:]:
        column.justify = "right"
    sides = list(mebibytes)
    pixels = {side: batch * side**2 / 1e6 for side in sides}
    for side, before in zip(sides, [None, *sides], strict=False):
        added = (mebibytes[side] - mebibytes[before]) / (pixels[side] - pixels[before]) if before else None
        table.add_row(
            f"{side}×{side}",
            f"{mebibytes[side]:.0f}",
            f"{mebibytes[side] / pixels[side]:.0f}",
            "–" if added is None else f"{added:.0f}",
            f"{pixels[side] / pixels[sides[0]]:.2f}",
            f"{mebibytes[side] / mebibytes[sides[0]]:.2f}",
            f"{(fixed + mebibytes[side]) / 1024:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
