"""`crispseg list [--pretrained]`"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCard
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from crispseg.benchmarking.counting import count_parameters
from crispseg.cli.parsing import Parser
from crispseg.evaluation.tables import percent
from crispseg.models import SegmentationModel, list_models, models, saving


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg list",
        description="Networks to train or, with --pretrained, trained models that come with crispseg; every command "
        "takes their names in place of a run.",
    )
    parser.add_argument("--pretrained", action="store_true", help="trained models, with their scores and licences")
    pretrained = parser.parse(list(argv)).pretrained
    names = saving.shipped_models() if pretrained else list_models()
    rows = [trained(saving.SHIPPED / name) if pretrained else network(name) for name in names]
    if not rows:
        print("no trained models come with this crispseg")
        return
    head = ("name", "classes", "network", "parameters", "val mIoU", "licence") if pretrained else ("name", "what it is")
    table = Table(*(Column(each, overflow="fold", no_wrap=each == "name") for each in head), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    if pretrained:
        print(f"try one:  crispseg predict {names[0]} PHOTO.jpg --out predictions")
        print(f"what they were trained on and where they fail: {saving.SHIPPED}/NAME/{saving.CARD_FILE}")


def network(name: str) -> tuple[str, str]:
    """Name of a model, and what its builder says that it is."""
    summary = (inspect.getdoc(models[name]) or "").partition("\n\n")[0]
    return name, " ".join(summary.split())


def trained(folder: Path) -> tuple[str, ...]:
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
        f"{count_parameters(model) / 1e6:.2f} M",
        miou,
        str(ModelCard.load(folder / saving.CARD_FILE).data.license or "see its card"),
    )
