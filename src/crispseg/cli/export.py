"""`crispseg export RUN --format onnx|torch_export --out FILE`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from crispseg.cli.parsing import RUN, Parser
from crispseg.export import EXPORTERS
from crispseg.models import SegmentationModel
from crispseg.plugins import load_plugins


def run(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = Parser(
        prog="crispseg export",
        description="Write a trained model as one file for ONNX Runtime or torch.export, for batches and images of any "
        "size. The file is run and compared with the model first.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument(
        "--format", type=Literal["onnx", "torch_export"], required=True, help="of a file FILE.onnx or FILE.pt2"
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write, over an earlier one")
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed = parser.parse(list(argv))
    load_plugins(parsed.plugins)
    model = SegmentationModel.from_pretrained(parsed.run)
    for comparison in EXPORTERS[parsed.format](model, parsed.out):
        print(f"compared with the model at {comparison}")
    megabytes = parsed.out.stat().st_size / 1e6
    print(f"{model.info.name} on {model.info.backbone}, {megabytes:.1f} MB, is in {parsed.out}")
