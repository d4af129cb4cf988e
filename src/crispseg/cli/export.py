"""`crispseg export RUN --format F --out FILE [--precision P] [--calibrate DATA] [--limit.miou POINTS ...]`"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from rich.console import Console
from rich.table import Table

from crispseg.cli.parsing import RUN, Parser, parse_data, take_flag
from crispseg.cli.scoring import checked_splits, recorded_data
from crispseg.cli.target import found_data
from crispseg.config.plugins import load_plugins
from crispseg.data import DataSource
from crispseg.errors import CrispsegError
from crispseg.evaluation.tables import text_table
from crispseg.export.certificate import DISTANCE, Certificate, Compared, ExportLimits
from crispseg.export.formats import Format, Precision
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import Calibration
from crispseg.models import SegmentationModel

IN_FLOAT = {
    "sampling": "flows, coordinates, sampling, attention and the classifier",
    "decoder": "all but the backbone, as a limit was broken otherwise",
    "fine": "all but the deeper part of the backbone, as a limit was broken otherwise",
}


def run(argv: Sequence[str]) -> None:
    """Run the command. A file that breaks a limit is kept aside, and makes the exit status 2."""
    parser = Parser(
        prog="crispseg export",
        description="Write a trained model as one file for ONNX Runtime, OpenVINO or torch.export, for batches and "
        "images of any size, with a certificate of what it computes beside the model, and what it takes.",
    )
    parser.add_argument("run", help=RUN)
    parser.add_argument("--format", type=Format, required=True, help="of a file FILE.onnx, FILE.xml or FILE.pt2")
    parser.add_argument("--out", type=Path, required=True, help="file to write, over an earlier one")
    parser.add_argument(
        "--precision", type=Precision, default="fp32", help="fp32, bf16 or int8, which is learned from --calibrate"
    )
    parser.add_argument(
        "--calibrate",
        metavar="DATA",
        help="a folder of data, a run or the name of a data source: int8 learns from its train, and the file is scored "
        "on its val; brings --data.* keys. By default what the run recorded for int8, and nothing for others",
    )
    parser.add_argument("--images", type=int, default=100, help="images of train and of val, at most so many of each")
    parser.add_argument("--rounds", type=int, default=5, help="how often an image is timed")
    group = parser.add_argument_group("Limits, of each size; a file that breaks one is kept aside")
    group.add_class_arguments(ExportLimits, "limit", as_group=False)
    parser.add_argument("--plugins", type=list[str], default=[], help="Python files to import first")
    parsed, data = _parse(list(argv), parser)
    load_plugins(parsed.plugins)
    for key in ("images", "rounds"):
        if parsed[key] < 1:
            raise CrispsegError(f"--{key} is {parsed[key]}; give at least 1")
    model = SegmentationModel.from_pretrained(parsed.run)
    chosen = None
    if data is not None:
        (held_out,) = checked_splits([model], data, "val")
        chosen = Calibration(data.dataset("train"), held_out, parsed.images, data.name)
    certificate = export_model(
        model,
        parsed.out,
        parsed.format,
        precision=parsed.precision,
        data=chosen,
        limits=ExportLimits(**vars(parsed.limit)),
        rounds=parsed.rounds,
    )
    show(certificate)
    print(f"{certificate.network}, {certificate.bytes / 1e6:.1f} MB, is in {parsed.out}")


def _parse(argv: list[str], parser: Parser) -> tuple[Namespace, DataSource | None]:
    """The keys, and the data if any are named, or needed and recorded by the run."""
    target = take_flag(argv, "--calibrate")
    if target is not None:
        return parse_data(argv, {"data": found_data(target)[0]}, parser)
    if take_flag(argv, "--precision") == "int8" and argv and not argv[0].startswith("-"):
        recorded = recorded_data(argv[0])
        if "name" in recorded.get("data", {}):
            return parse_data(argv, recorded, parser)
        raise CrispsegError(f"{argv[0]} does not say which data it was trained on; give --calibrate DATA for int8")
    return parser.parse(argv), None


def show(certificate: Certificate) -> None:
    """Print what a certificate says."""
    for comparison in certificate.comparisons:
        print(f"compared with the model at {comparison}")
    print(f"the same images by the model and by the file, {certificate.data or 'random blobs'}:")
    Console().print(_table(certificate), highlight=False)
    if certificate.memory:
        model, file = (f"{value / 1e6:.0f} MB" for value in certificate.memory)
        print(f"peak memory {model} → {file}")
    if certificate.kept:
        print(f"in float: {IN_FLOAT[certificate.kept]}")


def _table(certificate: Certificate) -> Table:
    head = ["size", "images", "same labels", "mIoU", f"boundary F {DISTANCE} px", "ms"]
    rows = [
        [
            "×".join(map(str, row.size)),
            str(row.images),
            f"{row.labels:.2f} %",
            _change(row.miou, 2),
            _change(row.boundary_f, 2),
            _change(row.milliseconds, 1),
        ]
        for row in certificate.rows
    ]
    return text_table(head, rows)


def _change(pair: Compared | None, digits: int) -> str:
    return "–" if pair is None else " → ".join(f"{value:.{digits}f}" for value in pair)
