"""`crispseg list [--pretrained]`"""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass

from huggingface_hub import ModelCard

from crispseg.cli.command import Command
from crispseg.data.sources import PART
from crispseg.errors import command_line
from crispseg.models import list_models, models, saving


@dataclass(kw_only=True)
class List(Command):
    """List networks to train or, with --pretrained, bundled models; every command accepts their names as RUN.

    Args:
        pretrained: list bundled models with their scores and licences.
    """

    name = "list"
    pretrained: bool = False

    def __call__(self) -> None:
        if not self.pretrained:
            for name in list_models():  # the first paragraph of a builder's docstring
                about = (inspect.getdoc(models[name]) or "").partition("\n\n")[0]
                print(f"{name:20}{' '.join(about.split())}")
                self.results[name] = " ".join(about.split())
            return
        for name in saving.shipped_models():
            info, card = saving.read_info(name), ModelCard.load(saving.SHIPPED / name / saving.CARD_FILE)
            scores = f"val mIoU {info.metrics['val_miou']:.1f}, licence {card.data.license or 'see its card'}"
            self.results[name] = asdict(info)
            classes = ", ".join(info.label_set().names)
            print(f"{name:20}{classes}: {info.title}, {scores}")
            print(*(f"{'':20}{entry.kind} {entry.name}: {entry.licence}" for entry in info.licences), sep="\n")
        image = min((PART / "images").glob("*.png"))
        print("try one:", command_line(["predict", "nuclei", image], {"out": "predictions"}), sep="\n  ")
        print(f"training data and weaknesses: {saving.SHIPPED}/NAME/{saving.CARD_FILE}")
