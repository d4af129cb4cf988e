"""`crispseg convert OFFICIAL.pth --out DIR`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crispseg.cli.parsing import Parser
from crispseg.convert import convert_official
from crispseg.errors import CrispsegError
from crispseg.files import writable_folder


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg convert",
        description="Turn a checkpoint of an official SFNet (ResNet-18, 50, 101, DF1 or DF2) into a saved model.",
    )
    parser.add_argument("checkpoint", type=Path, help="the official .pth file")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parsed = parser.parse(list(argv))
    if (parsed.out / "config.json").exists():
        raise CrispsegError(f"{parsed.out} holds a model already; choose another --out")
    writable_folder(parsed.out)
    model = convert_official(parsed.checkpoint)
    model.save_pretrained(parsed.out)
    print(f"{model.info.name} on {model.info.backbone}, {model.info.num_classes} classes, is in {parsed.out}")
