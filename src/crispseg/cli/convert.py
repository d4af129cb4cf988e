"""`crispseg convert OFFICIAL.pth --out DIR [--data NAME]`"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crispseg.cli.parsing import Parser, data_name, data_source, parse_data
from crispseg.errors import CrispsegError
from crispseg.io.files import writable_folder
from crispseg.models.official import convert_official


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg convert",
        description="Turn a checkpoint of an official SFNet or SFNet-Lite, on ResNet-18, 50, 101, DF1, DF2, STDC-1 or "
        "STDC-2, into a saved model.",
    )
    parser.add_argument("checkpoint", type=Path, help="the official .pth file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    name, labels = data_name(argv), None
    if name is None:
        parser.add_argument("--data", help="data whose class names and colours the model gets; may bring --data.* keys")
        parsed = parser.parse(list(argv))
    else:
        kind: Any = data_source(name)
        # Most data sets know their names without being at hand; the others say what their root must hold.
        root = {"root": "."} if "root" in {field.name for field in dataclasses.fields(kind)} else {}
        parsed, data = parse_data(argv, {"data": {"name": name, **root}}, parser)
        labels = data.label_set()
    if (parsed.out / "config.json").exists():
        raise CrispsegError(f"{parsed.out} holds a model already; choose another --out")
    writable_folder(parsed.out)
    model = convert_official(parsed.checkpoint, labels)
    model.save_pretrained(parsed.out)
    print(f"{model.info.name} on {model.info.backbone}, {model.info.num_classes} classes, is in {parsed.out}")
