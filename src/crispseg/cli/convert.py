"""`crispseg convert OFFICIAL.pth --out DIR [--data NAME]`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crispseg.cli.command import WithData
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.io.files import owned
from crispseg.models.official import convert_official


@dataclass(kw_only=True)
class Convert(WithData):
    """Convert a checkpoint of an official SFNet or SFNet-Lite to a saved model.

    The backbone can be ResNet-18, 50 or 101, DF1, DF2, STDC-1 or STDC-2.

    Args:
        checkpoint: official .pth file.
        out: folder to write the model to.
    """

    name = "convert"
    words = ("checkpoint",)
    checkpoint: Path
    out: Path

    def __call__(self) -> None:
        known: tuple[Any, ...] = ()
        if self.data:  # most data sets know their class names without files; the others report what they need
            data = self.chosen({})
            source = build_data({"root": "."} | data if "images" not in data else data)
            known = source.label_set(), source.ledger_entry
        with owned(self.out):
            if (self.out / "config.json").exists():
                raise CrispsegError(f"is {self.out}, which already contains a model; give another folder", "out")
            model = convert_official(self.checkpoint, *known)
            model.save_pretrained(self.out)
        self.results |= {"out": self.out, "model": model.info.title, "num_classes": model.info.num_classes}
        print(f"{model.info.title}, {model.info.num_classes} classes, is in {self.out}")
