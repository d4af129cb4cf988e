"""`crispseg export RUN --format F --out FILE [--precision P] [--calibrate DATA] [--limit.miou POINTS ...]`"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import WithData
from crispseg.config.settings import Field, Tree, construct, fields_of
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.bootstrap import text_table
from crispseg.evaluation.evaluate import checked_splits, completed, named_data, recorded_data
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


@dataclass(kw_only=True)
class Export(WithData):
    """Write a trained model as one file for ONNX Runtime, OpenVINO or torch.export, for images of any size.

    It comes with a certificate of what it computes compared with the model, and what it takes. A file that breaks a
    limit is kept aside, and makes the exit status 2.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        format: of a file FILE.onnx, FILE.xml or FILE.pt2.
        out: file to write, over an earlier one.
        precision: fp32, bf16 or int8, which is learned from the data.
        calibrate: a folder of data, a run or the name of a data source: int8 learns from its train, and the file is
            scored on its val. By default what the run recorded for int8, and nothing for others.
        calibration_images: images of train and of val each, at most.
        rounds: how often an image is timed.
    """

    name: ClassVar[str] = "export"
    words: ClassVar[tuple[str, ...]] = ("run",)
    run: str
    format: Format
    out: Path
    precision: Precision = "fp32"
    calibrate: str | None = None
    calibration_images: PositiveInt = 100
    rounds: PositiveInt = 5
    limit: ExportLimits = field(init=False)

    @classmethod
    def more_keys(cls, tree: Tree) -> dict[str, dict[str, Field]]:
        """Return the limits of each size, and the keys of the data of calibrate."""
        limits = {f"limit.{key}": each for key, each in fields_of(ExportLimits).items()}
        return {"Limits, of each size": limits} | super().more_keys(tree)

    def take(self, tree: Tree) -> None:
        """Take the limits and the settings of the data."""
        limits = {key: tree.pop(key) for key in [*tree] if key.startswith("limit.")}
        self.limit = construct(ExportLimits, {key.removeprefix("limit."): limits[key] for key in limits}, "limit.")
        super().take(tree)

    def __call__(self) -> None:
        chosen = named_data(self.calibrate)[0] if self.calibrate else {}
        if not chosen and not self.data and self.precision == "int8" and not (chosen := recorded_data(self.run)):
            raise CrispsegError(f"{self.run} does not say which data it was trained on; give data to calibrate int8")
        settings = completed({**chosen, **self.data})
        data = build_data(settings) if settings else None
        model = SegmentationModel.from_pretrained(self.run)
        calibration = None
        if data is not None:
            (held_out,) = checked_splits([model], data, "val")
            calibration = Calibration(data.dataset("train"), held_out, self.calibration_images, data.name)
        certificate = export_model(
            model,
            self.out,
            self.format,
            precision=self.precision,
            data=calibration,
            limits=self.limit,
            rounds=self.rounds,
        )
        show(certificate)
        print(f"{certificate.network}, {certificate.bytes / 1e6:.1f} MB, is in {self.out}")


def show(certificate: Certificate) -> None:
    """Print what a certificate says."""
    for comparison in certificate.comparisons:
        print(f"compared with the model at {comparison}")
    print(f"the same images by the model and by the file, {certificate.data or 'random blobs'}:")
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
    Console().print(text_table(head, rows), highlight=False)
    if certificate.memory:
        model, file = (f"{value / 1e6:.0f} MB" for value in certificate.memory)
        print(f"peak memory {model} → {file}")
    if certificate.kept:
        print(f"in float: {IN_FLOAT[certificate.kept]}")


def _change(pair: Compared | None, digits: int) -> str:
    return "–" if pair is None else " → ".join(f"{value:.{digits}f}" for value in pair)


run = Export.start
