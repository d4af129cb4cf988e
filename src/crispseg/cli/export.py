"""`crispseg export RUN --format F --out FILE [--precision P] [--calibrate DATA]`"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import PositiveInt
from rich.console import Console

from crispseg.cli.command import WithData
from crispseg.cli.keys import WithOptions
from crispseg.data import DataSource
from crispseg.data.named import build_data
from crispseg.errors import CrispsegError
from crispseg.evaluation.checked import checked_splits
from crispseg.evaluation.recorded import named_data, recorded_data
from crispseg.evaluation.summary import DISTANCE
from crispseg.export.certificate import Certificate
from crispseg.export.formats import FILE_FORMATS, Format
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import Calibration
from crispseg.models import SegmentationModel

LARGEST_LOSS = 0.5  # points of a score that int8 may lose before another precision is recommended


@dataclass(kw_only=True)
class Export(WithOptions, WithData):
    """Write a trained model as one file for ONNX Runtime, OpenVINO, PyTorch, ExecuTorch, Core ML, QGIS or BioImage.IO.

    It accepts images of any size unless size is given; ExecuTorch, Core ML and deepness files need it.

    A certificate compares the file's outputs with the model's.

    Args:
        run: a run's folder, a saved model's folder, a hub id, or the name of a bundled model.
        format: format of the file; the default follows the suffix of out (FILE.onnx, FILE.xml, FILE.pt2,
            FILE.pte, FILE.mlpackage or FILE.zip).
        out: file to write; an existing file is overwritten.
        calibrate: a folder of data, a run or the name of a data source. Its train split is used to calibrate int8, its
            val split to score the file. The default is the run's data for int8 and max_drop, and no data otherwise.
        calibration_images: maximum number of train images and of val images.
    """

    name = "export"
    words = ("run",)
    function = staticmethod(export_model)
    run: str
    format: Format | None = None
    out: Path
    calibrate: str | None = None
    calibration_images: PositiveInt = 100

    def __call__(self) -> None:
        of_suffix = {kind.suffix: name for name, kind in reversed(FILE_FORMATS.items())}  # the first of equal ones
        kind: Any = self.format or of_suffix.get(self.out.suffix.lower())
        if kind is None:
            raise CrispsegError(f"is {self.out}; use a name that ends in {', '.join(of_suffix)}", "out")
        data = self.calibration_data()
        model = SegmentationModel.from_pretrained(self.run)
        calibration = None
        if data is not None:
            (held_out,) = checked_splits([model], data, "val")
            calibration = Calibration(data.dataset("train"), held_out, self.calibration_images, data.name)
        console = Console(stderr=True)
        certificate = export_model(model, self.out, kind, data=calibration, console=console, **self.options)
        self.results |= {"out": self.out, **certificate.as_json()}
        show(certificate)
        print(f"{certificate.network}, {certificate.bytes / 1e6:.1f} MB, is in {self.out}")

    def calibration_data(self) -> DataSource | None:
        """Return the given data, or else those of the run if they are needed."""
        needed = self.options.get("precision") == "int8" or self.options.get("max_drop") is not None
        if self.calibrate:
            settings, _ = named_data(self.calibrate)
        elif self.data:
            settings = {}
        elif needed:
            settings = recorded_data(self.run)
        else:
            return None
        return build_data(self.chosen(settings))


def show(certificate: Certificate) -> None:
    """Print a certificate."""
    for comparison in certificate.comparisons:
        print(f"compared with the model at {comparison}")
    if certificate.format == "coreml" and not certificate.comparisons:
        print("not compared with the model, since Core ML files run on macOS only; export it there for a comparison")
    if measured := certificate.measured:
        print(f"{measured.images} images of {certificate.data}, model → file: {measured.labels:.2f} % same labels")
        better = "fp32" if certificate.format == "onnx" else "bf16"
        for name, pair in {"mIoU": measured.miou, f"boundary F {DISTANCE} px": measured.boundary_f}.items():
            if math.isfinite(pair.loss):
                lossy = certificate.precision == "int8" and pair.loss > LARGEST_LOSS
                remedy = f"; --precision {better} is better" if lossy else ""
                print(f"  {name} {pair.model:.2f} → {pair.file:.2f}{remedy}")
