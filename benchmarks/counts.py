"""Parameters and multiply-adds of the models whose counts the papers state."""

from typing import Any

from rich.console import Console
from rich.table import Column, Table

import crispseg
from crispseg.counting import count_multiply_adds, count_parameters

ROWS: list[tuple[str, str, int, int, dict[str, Any]]] = [
    ("sfnet", "resnet18_deep", 19, 1024, {}),
    ("sfnet", "resnet50_deep", 19, 1024, {}),
    ("sfnet", "resnet101_deep", 19, 1024, {}),
    ("sfnet", "df1", 19, 1024, {}),
    ("sfnet", "df2", 19, 1024, {}),
    ("sfnet", "shufflenetv2_x1_0", 19, 1024, {}),
    ("sfnet_lite", "resnet18_deep", 19, 1024, {}),
    ("sfnet_lite", "stdc1", 19, 1024, {}),
    ("sfnet_lite", "stdc2", 19, 1024, {}),
    ("upernet", "resnet101", 19, 1024, {}),
    ("ddsm_upernet", "resnet101", 19, 1024, {}),
    ("deeplabv3plus", "resnet101", 19, 1024, {}),
    ("ddsm_deeplabv3plus", "resnet101", 19, 1024, {}),
    ("fpn", "resnet101_deep", 59, 480, {}),
    ("agln", "resnet101_deep", 59, 480, {}),
    ("agln_lite", "resnet101_deep", 59, 480, {}),
    ("unept", "deit_base_distilled_patch16_384", 150, 480, {}),
    ("unept", "deit_base_distilled_patch16_384", 150, 480, {"self_attention": "full"}),
    ("unept", "resnet50", 150, 480, {}),
]


def main() -> None:
    """Print the table; the last column leaves out products of two features (attention)."""
    names = (Column(name, overflow="fold") for name in ("model", "backbone"))
    table = Table(*names, "classes", "input", "M parameters", "G multiply-adds", "… with weights")
    for name, backbone, classes, size, options in ROWS:
        model = crispseg.create_model(name, num_classes=classes, backbone=backbone, **options)
        products = (count_multiply_adds(model, size, size, attention=attention) for attention in (True, False))
        counts = (f"{count_parameters(model) / 1e6:.2f}", *(f"{number / 1e9:.1f}" for number in products))
        label = " ".join([name, *(f"{option}={value}" for option, value in options.items())])
        table.add_row(label, backbone, str(classes), f"{size}×{size}", *counts)
    Console().print(table)


if __name__ == "__main__":
    main()
