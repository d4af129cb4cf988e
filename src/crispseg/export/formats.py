"""Models as ONNX, OpenVINO and torch.export files for any size or one, and ExecuTorch and Core ML files for one."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.fx.experimental._config as tracing
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from crispseg.export.certificate import reference, smooth_images
from crispseg.export.quantization import Calibration, quantize_onnx, quantize_openvino
from crispseg.inference.acceleration import fold_batch_norms, whole_number_padding
from crispseg.inference.device import runs_coreml
from crispseg.inference.runtime import METADATA, UNSEALED, AnyModel, ExportedModel, open_model, openvino_core, seal
from crispseg.inference.segmenter import smooth_outputs
from crispseg.inference.tiling import peak_bytes
from crispseg.io.value_range import OF_IMAGE
from crispseg.models import ModelInfo, SegmentationModel
from crispseg.models.info import FORMAT_VERSION, MIN_SIDE
from crispseg.nn.points import Sampling, sampling_by

Format: TypeAlias = Literal["onnx", "openvino", "torch_export", "executorch", "coreml"]
Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
Output: TypeAlias = Literal["logits", "labels"]

OPSET = 19
EXAMPLE = (2, 97, 130)
"""Number of images, height and width of the traced input; no two sizes in it or its features are equal by chance."""


class FileFormat(NamedTuple):
    """Suffix and required packages of a format."""

    suffix: str
    needs: tuple[str, ...] = ()


FILE_FORMATS: dict[str, FileFormat] = {
    "onnx": FileFormat(".onnx", ("onnx", "onnxscript", "onnxruntime")),
    "openvino": FileFormat(".xml", ("onnx", "onnxscript", "openvino", "nncf")),
    "torch_export": FileFormat(".pt2"),
    "executorch": FileFormat(".pte", ("executorch",)),
    "coreml": FileFormat(".mlpackage", ("coremltools",)),
}
ONE_SIZE = ("executorch", "coreml")  # formats of files for images of one size
NOT_POSSIBLE = {
    ("onnx", "bf16"): "ONNX Runtime has no bfloat16 convolution on a CPU; use openvino or torch_export, or int8",
    ("executorch", "bf16"): "XNNPACK, its library for CPUs, has no bfloat16 convolution; use fp32",
    ("executorch", "int8"): "8-bit convolutions are not exported to ExecuTorch yet; use fp32",
    ("coreml", "bf16"): "Core ML has no bfloat16; use fp32",
    ("coreml", "int8"): "8-bit convolutions are not exported to Core ML yet; use fp32",
    ("torch_export", "int8"): "PyTorch alone cannot quantise a graph; use openvino or onnx, or bf16",
}
"""Unsupported pairs of format and precision, with reasons."""


def write(
    model: SegmentationModel,
    path: Path,
    format: Format,
    precision: Precision,
    data: Calibration | None = None,
    sampling: Sampling = "grid_sample",
    output: Output = "logits",
    size: tuple[int, int] | None = None,
) -> AnyModel:
    """Write the file or files and replace earlier ones; arguments are those of `export_model`.

    The float32 ONNX file from which others are made stays next to the file, for later exports.

    Returns:
        Opened file; for torch.export, the written program; for Core ML, a model that runs on macOS only.
    """
    one: dict[str, Any] = {"size": size} if size else {}
    if format == "torch_export":
        metadata = _metadata(model, precision, output, **one)
        content = io.BytesIO()  # PyTorch's writer crashes on a full disk
        program = trace(model, precision == "bf16", sampling, output, size)
        torch.export.save(program, content, extra_files={f"{METADATA}.json": metadata})
        path.write_bytes(content.getbuffer())
        return ExportedModel(program.module().forward, metadata, path)
    if format == "coreml":
        as_int32 = {"labels": "int32 (N, H, W), class ids"} if output == "labels" else {}
        metadata = _metadata(model, precision, output, **one, **as_int32)
        return write_coreml(trace(model, sampling=sampling, output=output, size=size), path, metadata, output)
    metadata = _metadata(model, precision, output, sha256=UNSEALED, **one)
    if format == "executorch":
        write_executorch(trace(model, sampling=sampling, output=output, size=size), path, metadata)
        seal(path)
        return open_model(path)
    plain = path if (format, precision) == ("onnx", "fp32") else plain_file(path)
    if not plain.exists():
        write_onnx(trace(model, sampling=sampling, output=output, size=size), plain, metadata, output)
    if precision == "int8":
        assert data is not None
        # 8-bit sums of levels degrade boundaries, and OpenVINO 2026.4 has errors if only the flows are float.
        batches, decoder = data.batches(model.info), getattr(model.decoder, "linear", False)
        with _exporting():
            if format == "onnx":
                quantize_onnx(plain, path, batches, decoder)
            else:
                write_openvino(quantize_openvino(plain, batches, decoder), path, metadata)
    elif format == "openvino":
        write_openvino(openvino_core().read_model(plain), path, metadata)
    seal(path)
    return open_model(path)


def plain_file(path: Path) -> Path:
    """Return the path of the float32 ONNX file from which another file is made."""
    return path.with_name(f"{path.name}.float.onnx")


def _metadata(model: SegmentationModel, precision: Precision, output: Output, **more: Any) -> str:
    """Return metadata of the model, with its memory per pixel, which other runtimes cannot measure."""
    images = torch.zeros(1, model.info.in_chans, 256, 256)
    with torch.inference_mode():
        need = peak_bytes(lambda: reference(model)(images))
    return describe(model.info, output, precision=precision, bytes_per_pixel=need / images[0, 0].numel(), **more)


class InFile(nn.Module):
    """Model that convolves in bfloat16, like `Segmenter`, or computes class ids, as its file will do."""

    def __init__(self, model: nn.Module, bf16: bool, output: Output) -> None:
        super().__init__()
        self.model, self.bf16, self.output = model, bf16, output

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False) if self.bf16 else nullcontext():
            logits: Tensor = self.model(images)
        return logits.float() if self.output == "logits" else logits.argmax(1).to(torch.uint8)


def trace(
    model: SegmentationModel,
    bf16: bool = False,
    sampling: Sampling = "grid_sample",
    output: Output = "logits",
    size: tuple[int, int] | None = None,
) -> ExportedProgram:
    """Trace the forward pass of the folded model, for one image of this size or with symbolic batch and size."""
    plain = reference(model)
    plain.auxiliary_heads = None
    folded = fold_batch_norms(plain, smooth_images((1, 64, 64), model.info.in_chans), smooth_outputs)
    # In PyTorch a lower bound of 2 means "one or more", because it handles 0 and 1 separately and checks neither.
    dynamic = {"images": {0: Dim("batch", min=2), 2: Dim("height", min=MIN_SIDE), 3: Dim("width", min=MIN_SIDE)}}
    images = smooth_images((1, *size) if size else EXAMPLE, model.info.in_chans)
    with _exporting(), sampling_by(sampling):
        traced = InFile(folded, bf16, output)
        program = torch.export.export(traced, (images,), dynamic_shapes=None if size else dynamic, strict=False)
    for graph in (module.graph for module in program.graph_module.modules() if isinstance(module, GraphModule)):
        for node in graph.nodes:
            node.meta.pop("stack_trace", None)  # contains paths of this machine
    return program


def write_onnx(program: ExportedProgram, path: Path, metadata: str, output: Output = "logits") -> None:
    """Write a graph of `trace`."""
    names = None if "size" in json.loads(metadata) else {"images": {0: "batch", 2: "height", 3: "width"}}
    io: dict[str, Any] = {"input_names": ["images"], "output_names": [output], "dynamic_shapes": names}
    with _exporting():
        written = torch.onnx.export(program, (), dynamo=True, opset_version=OPSET, verbose=False, **io)
    assert written is not None
    written.model.metadata_props[METADATA] = metadata
    written.save(path, external_data=False)


def write_openvino(model: Any, path: Path, metadata: str) -> None:
    """Write an OpenVINO model, with its weights in a .bin next to it."""
    import openvino

    model.set_rt_info(metadata, [METADATA])
    openvino.serialize(model, path, path.with_suffix(".bin"))


def write_executorch(program: ExportedProgram, path: Path, metadata: str) -> None:
    """Write a graph of `trace` of one size, for XNNPACK on CPUs; a method returns the metadata."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with _exporting():
        lowered = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], constant_methods={METADATA: metadata}
        )
        path.write_bytes(lowered.to_executorch().buffer)


def write_coreml(program: ExportedProgram, path: Path, metadata: str, output: Output) -> ExportedModel:
    """Write a graph of `trace` of one size as an ML program, in float32, and return a model that runs it on macOS."""
    known = {torch.ops.aten.alias.default: torch.clone, torch.ops.aten.__and__.Tensor: torch.logical_and}
    with _exporting(), redirect_stderr(io.StringIO()):  # progress bars
        import coremltools

        written = coremltools.convert(
            program.run_decompositions(known),
            outputs=[coremltools.TensorType(name=output)],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,  # float16 would move points by up to a quarter of a pixel
            skip_model_load=True,
        )
        written.user_defined_metadata[METADATA] = metadata
        written.save(str(path))
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        model = coremltools.models.MLModel(str(path), skip_model_load=not runs_coreml())

    def run(images: Tensor) -> Tensor:
        result = torch.from_numpy(model.predict({"images": images.numpy()})[output])
        return result if output == "logits" else result.to(torch.uint8)

    return ExportedModel(run, metadata, path)


def describe(info: ModelInfo, output: Output = "logits", **more: Any) -> str:
    """Return the metadata of a file as JSON: `config.json` without the training recipe."""
    from crispseg import __version__

    labels = info.label_set()
    channels = "RGB" if info.in_chans == 3 else f"{info.in_chans} channels"
    deep = f"; 16-bit values are clipped to {info.value_range}, which is 0 to 1" if info.value_range else ""
    if info.value_range == "image":
        deep = f"; 0 and 1 are the percentiles {OF_IMAGE} of each image"
    sides = "N 1, H {}, W {}".format(*more["size"]) if "size" in more else f"H and W at least {MIN_SIDE}"
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "crispseg_version": __version__,
        **asdict(info),
        "class_names": labels.names,
        "palette": labels.palette,
        "images": f"float32 (N, {info.in_chans}, H, W), {sides}: ({channels} in 0 to 1 - mean) / std{deep}",
        "output": output,
        output: "uint8 (N, H, W), class ids"
        if output == "labels"
        else f"float32 (N, {info.num_classes}, H, W), the label of a pixel is the index of the largest",
        **more,
    }
    del record["recipe"]
    return json.dumps(record)


@contextmanager
def _exporting() -> Iterator[None]:
    """Configure PyTorch and timm for an export, without internal messages of the exporters."""
    silenced = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Otherwise the graph would refuse features of one pixel.
        patched = tracing.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
        with whole_number_padding(), patched, warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(silenced)
