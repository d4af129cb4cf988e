"""Parameters and multiply-adds of the models whose counts the papers state.

    python benchmarks/counts.py
    python benchmarks/counts.py agln agln_lite

Three counters: all multiply-adds; those of products with weights, without products of two features (attention); and
what a counter that hooks modules sees, by which AGLN's Table VIII was counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Column, Table
from torch import nn

import crispseg
from crispseg.benchmarking import count_multiply_adds, count_parameters
from crispseg.benchmarking.counting import forward_on_meta

ROWS: list[tuple[str, str, int, int, dict[str, Any]]] = [
    ("sfnet", "resnet18_deep", 19, 1024, {}),
    ("sfnet", "resnet50_deep", 19, 1024, {}),
    ("sfnet", "resnet101_deep", 19, 1024, {}),
    ("sfnet", "df1", 19, 1024, {}),
    ("sfnet", "df2", 19, 1024, {}),
    ("sfnet", "shufflenetv2_x1_0", 19, 1024, {}),
    *(
        ("sfnet", backbone, classes, 480, options)
        for classes in (60, 150)
        for backbone in ("resnet50_deep", "resnet101_deep")
        for options in ({"fuse": "add"}, {})
    ),
    ("sfnet_lite", "resnet18_deep", 19, 1024, {}),
    ("sfnet_lite", "stdc1", 19, 1024, {}),
    ("sfnet_lite", "stdc2", 19, 1024, {}),
    ("upernet", "resnet101", 19, 1024, {}),
    ("ddsm_upernet", "resnet101", 19, 1024, {}),
    ("deeplabv3plus", "resnet101", 19, 1024, {}),
    ("ddsm_deeplabv3plus", "resnet101", 19, 1024, {}),
    ("fcn", "resnet101_deep", 59, 480, {"output_stride": 8}),
    ("fpn", "resnet101_deep", 59, 480, {}),
    ("agln", "resnet101_deep", 59, 480, {}),
    ("agln_lite", "resnet101_deep", 59, 480, {}),
    ("unept", "deit_base_distilled_patch16_384", 150, 480, {}),
    ("unept", "deit_base_distilled_patch16_384", 150, 480, {"self_attention": "full"}),
    ("unept", "resnet50", 150, 480, {}),
]

TABLE_8 = {"fcn": (52.09, 196.75), "fpn": (54.32, 124.59), "agln": (61.71, 187.16), "agln_lite": (55.74, 135.56)}
"""AGLN's Table VIII: M parameters and G FLOPs."""


class Counts(NamedTuple):
    """M parameters and G multiply-adds."""

    parameters: float
    all: float
    with_weights: float
    in_modules: float


def counts(name: str, backbone: str, classes: int, size: int, options: dict[str, Any]) -> Counts:
    """One row of `ROWS`."""
    model = crispseg.create_model(name, num_classes=classes, backbone=backbone, **options)
    products = (count_multiply_adds(model, size, size, attention=attention) for attention in (True, False))
    return Counts(
        count_parameters(model) / 1e6, *(each / 1e9 for each in products), count_in_modules(model, size, size) / 1e9
    )


def beside(here: float, paper: float) -> str:
    """A count and by how much it differs from the paper's, in percent."""
    return f"{here:.2f} ({100 * (here / paper - 1):+.2f} %)"


PER_INPUT = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PER_OUTPUT = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)


def count_in_modules(model: nn.Module, height: int, width: int, in_chans: int = 3) -> int:
    """What a counter that hooks modules sees of the same pass, such as MMCV's, by which MMSegmentation counts.

    Convolutions and linear layers with their biases, 2 for each value that a batch norm is given, 1 for each value
    that a ReLU gives and that a pooling is given. Whatever is no module counts nothing: products of two features,
    interpolation, sums.
    """
    total = 0

    def add(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += output.numel() * (module.weight[0].numel() + (module.bias is not None))
        elif isinstance(module, nn.BatchNorm2d):
            total += 2 * args[0].numel()
        elif isinstance(module, PER_INPUT):
            total += args[0].numel()
        elif isinstance(module, PER_OUTPUT):
            total += output.numel()

    hooks = [module.register_forward_hook(add) for module in model.modules()]
    try:
        forward_on_meta(model, height, width, in_chans)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("models", nargs="*", metavar="MODEL", help="of these alone")
    asked = made.parse_args(argv).models
    if unknown := [name for name in asked if name not in {row[0] for row in ROWS}]:
        made.error(f"no rows of {', '.join(unknown)}; give some of {', '.join(dict.fromkeys(row[0] for row in ROWS))}")
    names = (Column(name, overflow="fold") for name in ("model", "backbone"))
    table = Table(*names, "classes", "input", "M parameters", "G multiply-adds", "… with weights", "… in modules")
    papers = Table("AGLN's Table VIII", "M parameters", "G in modules", "G with weights", title="beside the paper")
    for row in ROWS:
        name, backbone, classes, size, options = row
        if asked and name not in asked:
            continue
        found = counts(*row)
        label = " ".join([name, *(f"{option}={value}" for option, value in options.items())])
        shown = (f"{found.parameters:.2f}", *(f"{each:.1f}" for each in found[1:]))
        table.add_row(label, backbone, str(classes), f"{size}×{size}", *shown)
        if name in TABLE_8:
            parameters, giga = TABLE_8[name]
            differences = (beside(found.parameters, parameters), beside(found.in_modules, giga))
            papers.add_row(name, *differences, beside(found.with_weights, giga))
    console = Console()
    console.print(table)
    if papers.rows:
        console.print(papers)


if __name__ == "__main__":
    main()
