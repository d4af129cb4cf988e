"""Export of models; a file is kept only after a run and a comparison with the model. See docs/export.md."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import NonNegativeFloat
from rich.console import Console

from crispseg.config.settings import checks_arguments
from crispseg.errors import CrispsegError, one_line
from crispseg.evaluation.checked import check_classes
from crispseg.export.certificate import Certificate, Comparison, Measured, compare, measure, with_temperature_of
from crispseg.export.deepness import resolution_of
from crispseg.export.formats import FILE_FORMATS, Format, float_file
from crispseg.export.plan import ExportPlan, Output, Precision, Sampling
from crispseg.export.quantization import Calibration, Input
from crispseg.export.triton import SETTINGS, check_settings, triton_settings
from crispseg.inference.device import runs_coreml
from crispseg.inference.runtime import AnyModel
from crispseg.inference.segmenter import check_finite
from crispseg.io.files import workplace, writable_file, writable_folder
from crispseg.io.progress import working
from crispseg.io.tiff_reading import MAX_PIXELS
from crispseg.models import SegmentationModel
from crispseg.models.info import MIN_SIDE

TRACES_ALL = "2.13"  # first version of PyTorch that exports all models at all sizes


@checks_arguments
def export_model(
    model: SegmentationModel,
    path: str | Path,
    format: Format,
    *,
    precision: Precision = "fp32",
    data: Calibration | None = None,
    max_drop: NonNegativeFloat | None = None,
    sampling: Sampling | None = None,
    input: Input = "float",
    output: Output | None = None,
    size: tuple[int, int] | None = None,
    triton: bool = False,
    pixel_size: str | None = None,
    console: Console | None = None,
) -> Certificate:
    """Write a file from images to logits, probabilities or labels at their size, and certify it.

    Batch norms are folded into their convolutions. The model is not changed. The path of the certificate is `path` plus
    `.json`.

    Args:
        model: the model.
        path: output path with the suffix of the format: .onnx, .xml (with weights in a .bin next to it), .pt2, .pte,
            .mlpackage (a folder) or .zip.
        format: see `Format`; deepness is an ONNX file for QGIS's plug-in of that name, bioimageio a package of weights
            in ONNX and TorchScript.
        precision: fp32, bf16 or int8, which is calibrated on data and has its own temperature. In bf16, OpenVINO rounds
            the coordinates of `grid_sample` too; `gather` in crisp keeps their whole pixels.
        data: images for the 8-bit ranges and for the evaluation of the file.
        max_drop: largest allowed loss of mIoU and boundary F on val, in points; if it is exceeded, no file is written.
        sampling: `gather` reads features at points by four gathered rows and their weighted sum, `grid_sample` by the
            runtime's operator, which some have wrong or slow. By default `gather`, but `grid_sample` for torch_export
            and coreml.
        input: `float` for `images` (N, in_chans, H, W), normalised float32; or `uint8` for pixels (N, H, W, C) as
            decoders give them, which the file normalises. They are uint16 for a model with a value range. A model of
            one channel takes RGB, and, in a file for all sizes, also grey of one channel.
        output: `logits` or `probabilities` (N, num_classes, H, W) float32, or `labels` (N, H, W) uint8, which need less
            memory but give no probabilities. By default `logits`, but `probabilities` for deepness and
            bioimageio.
        size: height and width of the images. ExecuTorch, Core ML and deepness files need it; by default, others accept
            any number of images of any size. An OpenVINO file for one image of one size takes less time.
        triton: also write the settings of Triton Inference Server, `config.pbtxt`, next to an ONNX file; other
            settings there are not overwritten.
        pixel_size: side of a pixel of the training images with its unit, such as 0.5m, for deepness.
        console: console for progress, if it is a terminal.

    Raises:
        CrispsegError: the suffix is wrong, or the file cannot be written; a package is missing; the model cannot be
            exported, or not in this precision; a float32 file has other results; or the loss is unknown or too large.
            The file is then not written, and an earlier one of this name is kept.
    """
    path, kind = Path(path), FILE_FORMATS[format]
    resolution = resolution_of(pixel_size) if pixel_size else None
    plan = ExportPlan(model, precision, sampling or kind.sampling, input, output or kind.output, size, data, resolution)
    check_plan(plan, path, format, max_drop=max_drop, triton=triton)
    settings = triton_settings(path, plan)
    if triton:
        check_settings(path, settings)
    check_finite(model)
    sizes = plan.compared_sizes if runs_here(format) else []
    with replacing(path) as folder:
        made = folder / path.name
        with working(f"Writing {path.name} and comparing it with the model", console), reported(plan, made, path):
            file = kind.write(plan, made)
            if precision == "int8" and output != "labels":
                plan = with_temperature_of(file, plan)
                float_file(made).unlink()
                file = kind.write(plan, made)
            comparisons = tuple(compare(file, model, size) for size in sizes)
        check_comparisons(plan, comparisons, path)
        measured = None if data is None else measured_loss(plan, data, file, max_drop, path)
        float_file(made).unlink(missing_ok=True)
        certificate = certified(plan, format, folder, measured, comparisons)
        text = json.dumps(certificate.as_json(), indent=2, ensure_ascii=False)
        made.with_name(f"{made.name}.json").write_text(f"{text}\n", encoding="utf-8")
        if triton:
            made.with_name(SETTINGS).write_text(settings, encoding="utf-8")
    return certificate


def certified(
    plan: ExportPlan, format: Format, folder: Path, measured: Measured | None, comparisons: tuple[Comparison, ...]
) -> Certificate:
    """Return the certificate of the files in a folder."""
    size_in_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    data = None if plan.data is None else plan.data.name
    return Certificate(plan.model.info.title, format, plan.precision, data, measured, comparisons, size_in_bytes)


def check_plan(plan: ExportPlan, path: Path, format: Format, *, max_drop: float | None, triton: bool) -> None:
    """Raise a CrispsegError if options conflict, before the work starts."""
    of_file, of_data = conflicts(plan, path, format, triton), conflicts_with_data(plan, format, max_drop)
    for is_conflict, message in (*of_file, *of_data):
        if is_conflict:
            raise CrispsegError(message)
    if plan.data is not None:
        check_classes(plan.model.info, plan.data.held_out.labels)


def conflicts(plan: ExportPlan, path: Path, format: Format, triton: bool) -> Sequence[tuple[object, str]]:
    """Return whether the plan has each combination of options that is not possible, and the message."""
    kind, int8 = FILE_FORMATS[format], plan.precision == "int8"
    name = f"{path.stem or 'model'}{kind.suffix}"
    missing = [name for name in kind.packages if importlib.util.find_spec(name.partition(".")[0]) is None]
    unsupported = kind.unsupported.keys() & {plan.precision, plan.sampling, plan.input, plan.model.info.value_range}
    reasons = "; ".join(f"{value}: {kind.unsupported[value]}" for value in sorted(unsupported))
    return (
        (path.suffix != kind.suffix, f"{path} does not end in {kind.suffix}; name it {name}"),
        (unsupported, f"there is no {format} in {reasons}"),
        (kind.output not in ("logits", plan.output), f"{format} files give {kind.output}; leave out output"),
        (missing, f"{format} export needs {' and '.join(missing)}; pip install {' '.join(missing)}"),
        *conflicts_of_size(plan, format),
        (kind.of_maps and plan.model.info.value_range, f"{format} takes images of 8 bits, not of a value range"),
        (kind.of_maps != bool(plan.resolution), f"{format}: pixel_size, such as 0.5m, is for deepness, which needs it"),
        (plan.size and (int8 or triton), "int8 and triton need a file for all sizes; leave out size"),
        (triton and format != "onnx", f"triton needs an ONNX file, but format is {format}; use onnx"),
    )


def conflicts_of_size(plan: ExportPlan, format: Format) -> Sequence[tuple[object, str]]:
    """Return the same for the size of the images."""
    kind, given = FILE_FORMATS[format], f"size is {plan.size}"
    sides = f"give a height and width of at least {MIN_SIDE}, and at most {MAX_PIXELS:,} pixels"
    if plan.size is None:
        return ((kind.one_size, f"{given}, but {format} files accept one size; {sides}"),)
    height, width = plan.size
    return (
        (min(height, width) < MIN_SIDE or height * width > MAX_PIXELS, f"{given}; {sides}"),
        (kind.of_maps and height != width, f"{given}, but {format} needs a square; give one side twice"),
    )


def conflicts_with_data(plan: ExportPlan, format: Format, max_drop: float | None) -> Sequence[tuple[object, str]]:
    """Return the same for options that need labelled images, or cannot be scored on them."""
    if plan.data is None:
        needs_data = plan.precision == "int8" or max_drop is not None
        return ((needs_data, "int8 and max_drop need labelled images; give data for calibration"),)
    measures_images = (plan.input, plan.model.info.value_range) == ("uint8", "image")
    return (
        (not runs_here(format), "Core ML files can be scored on macOS only; leave out data and calibrate"),
        (measures_images, "a file that scales each image itself cannot be scored; use input float"),
    )


def runs_here(format: Format) -> bool:
    """Return whether files of a format can be run on this machine."""
    return format != "coreml" or runs_coreml()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new folder for a file and those next to it; move them to the folder of `path` if there is no error."""
    package = path.suffix == ".mlpackage" and (path / "Manifest.json").exists()  # an earlier one, which is a folder
    place = writable_folder(path.parent) if package else writable_file(path).parent
    with workplace(path) as folder:
        yield folder
        if package:
            shutil.rmtree(path)
        for part in sorted(folder.iterdir(), key=lambda part: part.name == path.name):  # the main file last
            part.replace(place / part.name)


@contextmanager
def reported(plan: ExportPlan, made: Path, path: Path) -> Iterator[None]:
    """Turn errors of exporters and runtimes into a CrispsegError that names the model and the requested path."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    except Exception as error:  # exporters and runtimes raise almost anything
        kind = "" if isinstance(error, CrispsegError) else f"{type(error).__name__}: "
        reason = f"{kind}{one_line(error)}".replace(str(made), path.name)
        if torch.__version__ < TRACES_ALL:
            reason = f"{reason:.300}; PyTorch {TRACES_ALL} and later export more models than {torch.__version__}"
        raise CrispsegError(f"{plan.model.info.title} cannot be exported to {path}: {reason:.400}") from error


def check_comparisons(plan: ExportPlan, comparisons: Sequence[Comparison], path: Path) -> None:
    """Raise a CrispsegError if a file has other results: float32 must agree, fewer bits roughly."""
    for comparison in comparisons:
        if not (comparison.agrees if plan.precision == "fp32" else comparison.plausible):
            title = plan.model.info.title
            raise CrispsegError(f"{title} exported to {path} has different results and is removed; {comparison}")


def measured_loss(plan: ExportPlan, data: Calibration, file: AnyModel, max_drop: float | None, path: Path) -> Measured:
    """Return the scores of model and file; raise a CrispsegError if the file loses too much, or an unknown amount."""
    measured = measure(plan.model, file, data)
    for score, pair in {"mIoU": measured.miou, "boundary F": measured.boundary_f}.items():
        if max_drop is not None and not pair.loss <= max_drop:
            lost = f"{pair.loss:.2f} points of {score}, and max_drop is {max_drop:g}; use another precision"
            raise CrispsegError(f"{path} is not written: {plan.model.info.title} in {plan.precision} loses {lost}")
    return measured
