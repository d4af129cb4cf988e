"""Parameters and multiply-adds of the papers' models, compared with the papers' numbers.

    python benchmarks/counts.py
    python benchmarks/counts.py agln

Multiply-adds are counted in three ways: all; without products of two features (attention); and by a counter that hooks
modules, as MMCV's does. AGLN's Table VIII was counted in the last way.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from torch import nn

from crispseg.benchmarking import count_multiply_adds, count_parameters
from crispseg.recipes import PAPERS, read_rows

PER_INPUT = (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
PER_OUTPUT = (nn.ReLU, nn.ReLU6, nn.PReLU, nn.ELU, nn.LeakyReLU)


def count_in_modules(model: nn.Module, height: int, width: int, in_chans: int = 3) -> int:
    """Return the count of one forward pass by a counter that hooks modules.

    It counts convolutions and linear layers with their biases. Each input value of a batch norm counts 2; each output
    value of a ReLU and each input value of a pooling counts 1. Products of two features, interpolation and sums are not
    counted.
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
        count_multiply_adds(model, height, width, in_chans)
    finally:
        for hook in hooks:
            hook.remove()
    return total


def compared(here: float, paper: float | None) -> str:
    """Return a count and its difference from the paper's in percent."""
    return f"{here:.2f}" + (f" ({100 * (here / paper - 1):+.2f} %)" if paper else "")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("papers", nargs="*", metavar="PAPER", help=f"{', '.join(PAPERS)}; default: all")
    counts = ("M parameters", "paper", "G, all", "G, with weights", "G, in modules", "paper")
    table = Table("paper", "row", Column("what it is", overflow="fold"), *counts)
    for row in (row for paper in parser.parse_args(argv).papers or PAPERS for row in read_rows(paper)):
        if row.row is None or not (row.parameters or row.multiply_adds):
            continue
        model, size = row.build(), row.counted.size
        products = [count_multiply_adds(model, *size, attention=attention) for attention in (True, False)]
        cells = [compared(count / 1e9, row.multiply_adds) for count in (*products, count_in_modules(model, *size))]
        paper = [f"{value:g}" if value else "" for value in (row.parameters, row.multiply_adds)]
        parameters = compared(count_parameters(model) / 1e6 + row.counted.auxiliary, row.parameters)
        table.add_row(row.paper, row.name, row.label, parameters, paper[0], *cells, paper[1])
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
