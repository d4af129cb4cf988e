"""Export of models; a file is kept only after a run and a comparison with the model. See docs/export.md."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import get_args

import torch
from pydantic import NonNegativeFloat

from crispseg.errors import CrispsegError, one_line
from crispseg.evaluation.evaluate import check_classes
from crispseg.export.certificate import CHECKED, Certificate, compare, measure, time_ratio
from crispseg.export.formats import FILE_FORMATS, NOT_POSSIBLE, ONE_SIZE, Format, Output, Precision, plain_file, write
from crispseg.export.quantization import Calibration
from crispseg.inference.device import runs_coreml
from crispseg.inference.segmenter import check_finite
from crispseg.io.files import LITTER, writable_file, writable_folder
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.info import MIN_SIDE
from crispseg.nn.points import Sampling

TRACES_ALL = "2.13"  # first version of PyTorch that exports all models at all sizes


def export_model(
    model: SegmentationModel,
    path: str | Path,
    format: Format,
    *,
    precision: Precision = "fp32",
    data: Calibration | None = None,
    max_drop: NonNegativeFloat | None = None,
    sampling: Sampling = "grid_sample",
    output: Output = "logits",
    size: tuple[int, int] | None = None,
    triton: bool = False,
) -> Certificate:
    """Write a file from `images` (N, C, H, W), normalised float32, to logits or labels at their size; certify it.

    Batch norms are folded into their convolutions. The model is not changed. The path of the certificate is `path` plus
    `.json`.

    Args:
        model: the model.
        path: output path with the suffix of the format: .onnx, .xml (with weights in a .bin next to it), .pt2, .pte
            or .mlpackage (a folder).
        format: see `Format`.
        precision: fp32, bf16 or int8, which is calibrated on data. In bf16, OpenVINO rounds the coordinates of
            `grid_sample` too; `gather` in crisp keeps their whole pixels.
        data: images for the 8-bit ranges and for the evaluation of the file.
        max_drop: largest allowed loss of mIoU and boundary F on val, in points; if it is exceeded, no file is written.
        sampling: `grid_sample` reads features at points by the runtime's operator; `gather` by four gathered rows and
            their weighted sum, for runtimes without the operator or with a slow one.
        output: `logits` (N, num_classes, H, W) float32, or `labels` (N, H, W) uint8, which need less memory but give no
            probabilities.
        size: height and width of the images. ExecuTorch and Core ML files need it; by default, other files accept any
            number of images of any size. An OpenVINO file for one image of one size takes less time.
        triton: also write the settings of Triton Inference Server, `config.pbtxt`, next to an ONNX file; other
            settings there are not overwritten.

    Raises:
        CrispsegError: the suffix is wrong, or the file cannot be written; a package is missing; the model cannot be
            exported, or not in this precision; a float32 file has other results; or the loss is unknown or too large.
            The file is then not written, and an earlier one of this name is kept.
    """
    path = Path(path)
    check_choices(model, path, format, precision, data)
    if (size and min(size) < MIN_SIDE) or (format in ONE_SIZE and not size):
        only = f", but {format} files accept one size" if format in ONE_SIZE else ""
        raise CrispsegError(f"size is {size}{only}; give a height and width of at least {MIN_SIDE}")
    for name, value, allowed in ("sampling", sampling, Sampling), ("output", output, Output):
        if value not in get_args(allowed):
            raise CrispsegError(f"{name} is {value!r}; give {' or '.join(get_args(allowed))}")
    if data is None and (precision == "int8" or max_drop is not None):
        raise CrispsegError("int8 and max_drop need labelled images; give data for calibration")
    if triton and format != "onnx":
        raise CrispsegError(f"triton needs an ONNX file, but format is {format}; use onnx, or leave out triton")
    if size and (precision == "int8" or triton):
        raise CrispsegError("int8 and triton need a file for all sizes; leave out size")
    settings = triton_settings(path, model.info, output)
    old_settings = path.with_name("config.pbtxt")
    if triton and old_settings.exists() and old_settings.read_bytes() != settings.encode():
        raise CrispsegError(f"{old_settings} has other settings; move it, or leave out triton")
    if (format, sampling) == ("coreml", "gather"):
        raise CrispsegError("coremltools cannot convert gathered rows; use grid_sample for Core ML")
    runs = format != "coreml" or runs_coreml()
    if data is not None and not runs:
        raise CrispsegError("Core ML files can be scored on macOS only; leave out calibrate, data and max_drop")
    check_finite(model)
    checked = () if not runs else ((2, *size),) if size else CHECKED
    title = f"{model.info.name} on {model.info.backbone}"
    package = format == "coreml" and (path / "Manifest.json").exists()
    place = writable_folder(path.parent) if package else writable_file(path).parent
    with tempfile.TemporaryDirectory(prefix=LITTER, dir=place, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        made = folder / path.name
        try:
            file = write(model, made, format, precision, data, sampling, output, size)
            comparisons = tuple(compare(file, model, each) for each in checked)
        except OSError as error:
            error.filename, error.filename2 = str(path), None
            raise
        except Exception as error:  # exporters and runtimes raise almost anything
            reason = one_line(error)
            reason = reason if isinstance(error, CrispsegError) else f"{type(error).__name__}: {reason}"
            reason = reason.replace(str(made), path.name)
            old = torch.__version__ < TRACES_ALL
            hint = f"; PyTorch {TRACES_ALL} and later export more models than {torch.__version__}" if old else ""
            raise CrispsegError(f"{title} cannot be exported to {path}: {reason:.300}{hint}") from error
        for each in comparisons:  # float32 must agree; other logits must be finite, and other labels mostly equal
            finite = each.same_labels > 0.5 if each.difference is None else math.isfinite(each.difference)
            if not (each.agrees if precision == "fp32" else finite):
                raise CrispsegError(f"{title} exported to {path} has different results and is removed; {each}")
        measured = None if data is None else measure(model, file, data)
        for score, pair in {"mIoU": measured.miou, "boundary F": measured.boundary_f}.items() if measured else ():
            drop = math.nan if pair.model is None or pair.file is None else pair.model - pair.file
            if max_drop is not None and not drop <= max_drop:
                lost = f"{drop:.2f} points of {score}, and max_drop is {max_drop:g}; use another precision"
                raise CrispsegError(f"{path} is not written: {title} in {precision} loses {lost}")
        over_bf16 = None
        if (format, precision) == ("openvino", "int8"):
            other = folder / "bf16" / path.name
            other.parent.mkdir()
            plain_file(made).rename(plain_file(other))
            assert data is not None
            over_bf16 = time_ratio(file, write(model, other, format, "bf16", None, sampling, output), data)
            shutil.rmtree(other.parent)
        plain_file(made).unlink(missing_ok=True)
        stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        found = Certificate(
            title, format, precision, data.name if data else None, measured, comparisons, stored, over_bf16
        )
        text = json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n"
        (folder / f"{path.name}.json").write_text(text, encoding="utf-8")
        if triton:
            (folder / "config.pbtxt").write_text(settings, encoding="utf-8")
        if package:
            shutil.rmtree(path)
        for part in sorted(folder.iterdir(), key=lambda part: part == made):  # the main file last
            part.replace(place / part.name)
    return found


def check_choices(model: SegmentationModel, path: Path, format: str, precision: str, data: Calibration | None) -> None:
    """Raise a CrispsegError if options conflict, before the work starts."""
    kind = FILE_FORMATS[format]
    if path.suffix != kind.suffix:
        name = path.with_suffix(kind.suffix).name if path.name else f"model{kind.suffix}"
        raise CrispsegError(f"{path} does not end in {kind.suffix}; name it {name}")
    if reason := NOT_POSSIBLE.get((format, precision)):
        raise CrispsegError(f"there is no {format} in {precision}: {reason}")
    if missing := [name for name in kind.needs if importlib.util.find_spec(name) is None]:
        raise CrispsegError(f"{format} export needs {' and '.join(missing)}; pip install {' '.join(missing)}")
    if data is not None:
        check_classes(model.info, data.held_out.labels)


def triton_settings(path: Path, info: ModelInfo, output: Output = "logits") -> str:
    """Return `config.pbtxt` of Triton Inference Server for an ONNX file; images of one size are batched."""
    result = "TYPE_UINT8 dims: [ -1, -1 ]" if output == "labels" else f"TYPE_FP32 dims: [ {info.num_classes}, -1, -1 ]"
    return f"""\
backend: "onnxruntime"
default_model_filename: {json.dumps(path.name, ensure_ascii=False)}
max_batch_size: 8
input {{ name: "images" data_type: TYPE_FP32 dims: [ {info.in_chans}, -1, -1 ] }}
output {{ name: "{output}" data_type: {result} }}
dynamic_batching {{ max_queue_delay_microseconds: 5000 }}
"""
