"""`crispseg list [--pretrained]`"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from huggingface_hub import ModelCard
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from crispseg.cli.command import Command
from crispseg.evaluation.bootstrap import percent
from crispseg.models import SegmentationModel, list_models, models, saving


@dataclass(kw_only=True)
class List(Command):
    """List networks to train or, with --pretrained, bundled models; every command takes their names as RUN.

    Args:
        pretrained: bundled models, with their scores and licences.
    """

    name: ClassVar[str] = "list"
    pretrained: bool = False

    def __call__(self) -> None:
        names = saving.shipped_models() if self.pretrained else list_models()
        head: tuple[str, ...] = ("name", "what it is")
        rows: list[tuple[str, ...]]
        if self.pretrained:
            head = ("name", "classes", "network", "parameters", "val mIoU", "licence")
            rows = [_trained(saving.SHIPPED / name) for name in names]
        else:  # the first paragraph of a builder's docstring
            abouts = [(inspect.getdoc(models[name]) or "").partition("\n\n")[0] for name in names]
            rows = [(name, " ".join(about.split())) for name, about in zip(names, abouts, strict=True)]
        columns = (Column(each, overflow="fold", no_wrap=each == "name") for each in head)
        table = Table(*columns, box=None, pad_edge=False)
        for row in rows:
            table.add_row(*map(escape, row))
        Console().print(table)
        if self.pretrained:
            print(f"try one:  crispseg predict {names[0]} PHOTO.jpg --out predictions")
            print(f"what they were trained on and where they fail: {saving.SHIPPED}/NAME/{saving.CARD_FILE}")


def _trained(folder: Path) -> tuple[str, ...]:
    """What the folder of a model says of it."""
    model = SegmentationModel.from_pretrained(folder)
    info = model.info
    miou = percent(info.metrics.get("val_miou", float("nan")))
    if bounds := info.metrics.get("val", {}).get("intervals"):
        miou += " [{}, {}]".format(*map(percent, bounds["miou"]))
    return (
        folder.name,
        ", ".join(info.label_set().names),
        f"{info.name} on {info.backbone}",
        f"{sum(weight.numel() for weight in model.parameters()) / 1e6:.2f} M",
        miou,
        str(ModelCard.load(folder / saving.CARD_FILE).data.license or "see its card"),
    )


run = List.start
