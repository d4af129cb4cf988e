"""`crispseg list [--pretrained]`"""

from __future__ import annotations

import inspect
from dataclasses import dataclass

from huggingface_hub import ModelCard
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from crispseg.cli.command import Command
from crispseg.models import list_models, models, saving


@dataclass(kw_only=True)
class List(Command):
    """List networks to train or, with --pretrained, bundled models; every command takes their names as RUN.

    Args:
        pretrained: bundled models, with their scores and licences.
    """

    name = "list"
    pretrained: bool = False

    def __call__(self) -> None:
        if not self.pretrained:  # the first paragraph of a builder's docstring
            abouts = ((name, (inspect.getdoc(models[name]) or "").partition("\n\n")[0]) for name in list_models())
            _print(("name", "what it is"), *((name, " ".join(about.split())) for name, about in abouts))
            return
        rows = []
        for name in saving.shipped_models():
            info, card = saving.read_info(name), ModelCard.load(saving.SHIPPED / name / saving.CARD_FILE)
            miou = f"{info.metrics['val_miou']:.1f}"
            classes = ", ".join(info.label_set().names)
            rows.append((name, classes, f"{info.name} on {info.backbone}", miou, str(card.data.license)))
        _print(("name", "classes", "network", "val mIoU", "licence"), *rows)
        print(f"try one:  crispseg predict {rows[0][0]} PHOTO.jpg --out predictions")
        print(f"what they were trained on and where they fail: {saving.SHIPPED}/NAME/{saving.CARD_FILE}")


def _print(head: tuple[str, ...], *rows: tuple[str, ...]) -> None:
    table = Table(*(Column(each, overflow="fold", no_wrap=each == "name") for each in head), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
