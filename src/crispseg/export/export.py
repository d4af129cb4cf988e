"""Models as ONNX, OpenVINO and torch.export files that take batches and images of any size.

A file is put in place only after it ran beside the model, with a certificate of what came of it; see docs/export.md.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
import torch.fx.experimental._config as tracing
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from crispseg.errors import CrispsegError, did_you_mean, one_line
from crispseg.export.check import CHECKED, Certificate, Comparison, Limits, Trial, compare, reference
from crispseg.export.check import smooth_images as smooth_images
from crispseg.export.quantization import KEPT, Calibration, Kept, quantize_onnx, quantize_openvino
from crispseg.inference.compiling import whole_number_padding
from crispseg.inference.exported import METADATA, Precision, open_onnx, openvino_core
from crispseg.inference.folding import fold_batch_norms
from crispseg.inference.memory import peak_bytes
from crispseg.inference.protocols import MIN_SIDE
from crispseg.inference.segmenter import check_finite, smooth_outputs
from crispseg.io.files import put, staging
from crispseg.models import ModelInfo, SegmentationModel

__all__ = [
    "CHECKED",
    "Calibration",
    "Certificate",
    "Comparison",
    "Limits",
    "compare",
    "export_model",
    "open_onnx",
    "trace",
]

FORMAT_VERSION = 1
OPSET = 19
EXAMPLE = (2, 97, 130)
"""Images, height and width that a model is traced with: no two sizes in it or in its features are equal by chance."""

Format: TypeAlias = Literal["onnx", "openvino", "torch_export"]


class Kind(NamedTuple):
    """What there is to know about a format."""

    suffix: str
    needs: tuple[str, ...] = ()
    """Packages, beside those of crispseg itself."""
    extra: str = ""
    """The extra of crispseg that brings them."""


KINDS: dict[str, Kind] = {
    "onnx": Kind(".onnx", ("onnx", "onnxscript", "onnxruntime"), "export"),
    "openvino": Kind(".xml", ("onnx", "onnxscript", "openvino", "nncf"), "openvino"),
    "torch_export": Kind(".pt2"),
}
NOT_POSSIBLE = {
    ("onnx", "bf16"): "ONNX Runtime convolves in no bfloat16 on a CPU; take openvino or torch_export, or int8",
    ("torch_export", "int8"): "PyTorch alone quantises no graph; take openvino or onnx, or bf16",
}
"""Format and precision that do not go together, and why."""


def export_model(
    model: SegmentationModel,
    path: str | Path,
    format: Format,
    *,
    precision: Precision = "fp32",
    data: Calibration | None = None,
    limits: Limits | None = None,
    rounds: int = 5,
) -> Certificate:
    """Write a file: `images` (N, C, H, W), normalised float32 → `logits` (N, num_classes, H, W); and its certificate.

    Batch norms are folded into their convolutions. The model stays as it is. The certificate is `path` with `.json`
    behind it. In 8 bits, where a limit on labels or scores is broken, it is tried again with the decoder in float, from
    which it begins where levels are summed.

    Args:
        model: the model.
        path: ends in .onnx, .xml (its weights are in a .bin beside it) or .pt2, as the format has it.
        format: for ONNX Runtime, OpenVINO or torch.export.
        precision: fp32; bf16, in which sampling stays float32; or int8, which needs `data`.
        data: images by which 8 bits are chosen and the file is scored; without, it is compared on random blobs.
        limits: what the file must keep to.
        rounds: how often an image is timed.

    Returns:
        How the file compares with the model.

    Raises:
        CrispsegError: the suffix is another, or the file cannot be written; a package is missing; the model cannot be
            exported, or not in this precision; a file in float32 computes something else; or a limit is broken, and
            the file is kept aside as NAME.refused.SUFFIX.
    """
    path, limits = Path(path), limits or Limits()
    kind = _checked(model, path, format, precision, data, limits)
    check_finite(model)
    title = f"{model.info.name} on {model.info.backbone}"
    with staging(path) as folder:
        made = folder / path.name
        for kept in _ways(model) if precision == "int8" else KEPT[:1]:
            try:
                write(model, made, format, precision, data, kept)
                trial = Trial(model, made, data)
                comparisons = tuple(trial.comparisons())
            except Exception as error:  # the exporters, and what runs their files, raise almost anything
                reason = one_line(error)
                reason = reason if isinstance(error, CrispsegError) else f"{type(error).__name__}: {reason}"
                reason = reason.replace(str(made), path.name)
                raise CrispsegError(f"{title} cannot be exported to {path}: {reason:.300}") from error
            _check_agreement(comparisons, precision, f"{title} exported to {path}")
            rows = trial.rows(rounds)
            if not limits.broken_scores(rows):
                break
        plain_file(made).unlink(missing_ok=True)
        broken = tuple(limits.broken(rows, trial.memory))
        size = sum(file.stat().st_size for file in folder.iterdir())
        name = data.name if data else None
        left = kept if precision == "int8" else None
        found = Certificate(title, format, precision, left, name, rows, trial.memory, comparisons, size, limits, broken)
        if broken:
            path = path.with_name(f"{path.stem}.refused{kind.suffix}")
            for file in list(folder.iterdir()):
                file.rename(folder / f"{path.stem}{file.suffix}")
        text = json.dumps(found.as_json(), indent=2, ensure_ascii=False) + "\n"
        (folder / f"{path.name}.json").write_text(text, encoding="utf-8")
        put(folder, path)
    if broken:
        raise CrispsegError(f"{title} in {precision} is refused: {broken[0]}; the file is kept aside as {path}")
    return found


def _checked(
    model: SegmentationModel, path: Path, format: str, precision: str, data: Calibration | None, limits: Limits
) -> Kind:
    """What can be said before the work."""
    if format not in KINDS:
        raise CrispsegError(f"unknown format '{format}'{did_you_mean(format, KINDS)}")
    if precision not in get_args(Precision):
        raise CrispsegError(f"unknown precision '{precision}'{did_you_mean(precision, get_args(Precision))}")
    kind = KINDS[format]
    if path.suffix != kind.suffix:
        name = path.with_suffix(kind.suffix).name if path.name else f"model{kind.suffix}"
        raise CrispsegError(f"{path} does not end in {kind.suffix}; name it {name}")
    if reason := NOT_POSSIBLE.get((format, precision)):
        raise CrispsegError(f"there is no {format} in {precision}: {reason}")
    if missing := [name for name in kind.needs if importlib.util.find_spec(name) is None]:
        raise CrispsegError(f"{format} export needs {' and '.join(missing)}; pip install 'crispseg[{kind.extra}]'")
    if data is None and precision == "int8":
        raise CrispsegError("int8 needs images from which to learn its ranges; give --calibrate DATA")
    if data is None and (limits.miou, limits.boundary_f) != (None, None):
        raise CrispsegError("limits on mIoU and boundary F need labelled images; give --calibrate DATA")
    if data is not None and (classes := len(data.held_out.labels)) != model.num_classes:
        raise CrispsegError(
            f"the model has {model.num_classes} classes, the data {classes}; they must be the same to certify the file"
        )
    return kind


def _check_agreement(comparisons: Iterable[Comparison], precision: str, title: str) -> None:
    """In float32 a file computes the same; in others, numbers at least."""
    for comparison in comparisons:
        if not (comparison.agrees if precision == "fp32" else math.isfinite(comparison.difference)):
            raise CrispsegError(f"{title} computes something else and is removed; {comparison}")


def write(
    model: SegmentationModel,
    path: Path,
    format: Format,
    precision: Precision,
    data: Calibration | None = None,
    kept: Kept | None = None,
) -> None:
    """Write the file or files, over earlier ones; arguments as for `export_model`, and what 8 bits leave in float.

    Where it is not the file itself, the ONNX file in float32 that others are made of stays beside it, for a next time.
    """
    if format == "torch_export":
        write_torch(trace(model, bf16=precision == "bf16"), path, _metadata(model, precision))
        return
    plain = path if (format, precision) == ("onnx", "fp32") else plain_file(path)
    metadata = _metadata(model, precision)
    if not plain.exists():
        write_onnx(trace(model), plain, metadata)
    if precision == "int8":
        assert data is not None
        batches = data.batches(model.info)
        with _exporting():
            if format == "onnx":
                quantize_onnx(plain, path, batches, kept or _ways(model)[0])
            else:
                write_openvino(quantize_openvino(plain, batches, kept or _ways(model)[0]), path, metadata)
    elif format == "openvino":
        write_openvino(openvino_core().read_model(plain), path, metadata)


def _ways(model: SegmentationModel) -> tuple[Kept, ...]:
    """What may stay in float, from least to most: where levels are summed as they are, all of the decoder at least.

    These 1×1 convolutions cost little, 8 bits of the sum cost boundaries, and OpenVINO 2026.4 computes another thing
    where only its flows are in float.
    """
    return KEPT[1:] if getattr(model.decoder, "linear", False) else KEPT


def plain_file(path: Path) -> Path:
    """The ONNX file in float32 of which another file is made."""
    return path.with_name(f"{path.name}.float.onnx")


def _metadata(model: SegmentationModel, precision: Precision) -> str:
    """With what a pixel takes in memory, which cannot be counted where another library computes."""
    images = torch.zeros(1, model.info.in_chans, 256, 256)
    with torch.inference_mode():
        need = peak_bytes(lambda: reference(model)(images))
    return describe(model.info, precision=precision, bytes_per_pixel=need / images[0, 0].numel())


class _InBFloat16(nn.Module):
    """A model that convolves in bfloat16, as `Segmenter` does with `bf16`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            logits: Tensor = self.model(images)
        return logits.float()


def trace(model: SegmentationModel, bf16: bool = False) -> ExportedProgram:
    """The folded model's forward pass as a graph in which batch, height and width are symbols."""
    plain = reference(model)
    plain.auxiliary_heads = None
    folded = fold_batch_norms(plain, smooth_images((1, 64, 64), model.info.in_chans), smooth_outputs)
    # A lower bound of 2 is PyTorch's way to say "one or more": it treats 0 and 1 apart, and checks neither.
    dynamic = {"images": {0: Dim("batch", min=2), 2: Dim("height", min=MIN_SIDE), 3: Dim("width", min=MIN_SIDE)}}
    images = smooth_images(EXAMPLE, model.info.in_chans)
    with _exporting():
        traced = _InBFloat16(folded) if bf16 else folded
        program = torch.export.export(traced, (images,), dynamic_shapes=dynamic, strict=False)
    for graph in (module.graph for module in program.graph_module.modules() if isinstance(module, GraphModule)):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def write_onnx(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a graph of `trace`."""
    names = {"images": {0: "batch", 2: "height", 3: "width"}}
    io: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"], "dynamic_shapes": names}
    with _exporting():
        written = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False, **io)
    assert written is not None
    written.model.metadata_props[METADATA] = metadata
    written.save(path, external_data=False)


def write_openvino(model: Any, path: Path, metadata: str) -> None:
    """Write an OpenVINO model, its weights in a .bin beside it."""
    import openvino

    model.set_rt_info(metadata, [METADATA])
    openvino.serialize(model, path, path.with_suffix(".bin"))


def write_torch(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a graph of `trace`."""
    torch.export.save(program, path, extra_files={f"{METADATA}.json": metadata})


def describe(info: ModelInfo, **more: Any) -> str:
    """What is needed to use an exported file, as JSON: that of `config.json` without the recipe of the training."""
    from crispseg import __version__

    labels = info.label_set()
    channels = "RGB" if info.in_chans == 3 else f"{info.in_chans} channels"
    deep = f"; 16-bit values are clipped to {list(info.value_range)}, which is 0 to 1" if info.value_range else ""
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "crispseg_version": __version__,
        **asdict(info),
        "class_names": labels.names,
        "palette": labels.palette,
        "images": f"float32 (N, {info.in_chans}, H, W), H and W at least {MIN_SIDE}: "
        f"({channels} in 0 to 1 - mean) / std{deep}",
        "logits": f"float32 (N, {info.num_classes}, H, W), the label of a pixel is the index of the largest",
        **more,
    }
    del record["recipe"]
    return json.dumps(record)


@contextmanager
def _exporting() -> Iterator[None]:
    """PyTorch and timm as an export needs them, without chatter about the exporters' own insides."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Else the graph would refuse features of one pixel.
        patched = tracing.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
        with whole_number_padding(), patched, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(silenced)
