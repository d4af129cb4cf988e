"""File formats, and one writer for each."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.export import ExportedProgram

from crispseg.compat import openvino_core
from crispseg.errors import CrispsegWarning, one_line
from crispseg.export.bioimageio import write_package
from crispseg.export.deepness import plugin_metadata
from crispseg.export.plan import ExportPlan, Output, Sampling, exporting
from crispseg.export.quantization import quantize_onnx, quantize_openvino
from crispseg.export.torchscript import write_torchscript
from crispseg.inference.device import runs_coreml
from crispseg.inference.runtime import METADATA, UNSEALED, AnyModel, ExportedModel, open_model, seal

Format: TypeAlias = Literal["onnx", "openvino", "torch_export", "executorch", "coreml", "deepness", "bioimageio"]

OPSET = 19


# Writers replace earlier files, and return the opened file ------------------------------------------------------------


def write_onnx(plan: ExportPlan, path: Path) -> AnyModel:
    """Write an ONNX file, quantised by ONNX Runtime for int8."""
    if plan.precision == "int8":
        assert plan.data is not None
        with exporting():
            quantize_onnx(
                onnx_source(plan, path), path, plan.data.batches(plan.model.info, plan.input), decoder_in_float(plan)
            )
    else:
        save_onnx(plan, plan.trace(), path)
    seal(path)
    return open_model(path)


def write_openvino(plan: ExportPlan, path: Path) -> AnyModel:
    """Write an OpenVINO file, quantised by NNCF for int8."""
    source = onnx_source(plan, path)
    if plan.precision == "int8":
        assert plan.data is not None
        with exporting():
            network = quantize_openvino(source, plan.data.batches(plan.model.info, plan.input), decoder_in_float(plan))
    else:
        network = openvino_core().read_model(source)
    save_openvino(network, path, plan.metadata(sha256=UNSEALED))
    seal(path)
    return open_model(path)


def write_torch_export(plan: ExportPlan, path: Path) -> ExportedModel:
    """Write a program of torch.export; return it as it was written."""
    program, metadata = plan.trace(bf16=plan.precision == "bf16"), plan.metadata()
    content = io.BytesIO()  # PyTorch's writer crashes on a full disk
    torch.export.save(program, content, extra_files={f"{METADATA}.json": metadata})
    path.write_bytes(content.getbuffer())
    return ExportedModel(program.module().forward, metadata, path)


def write_executorch(plan: ExportPlan, path: Path) -> AnyModel:
    """Write an ExecuTorch file for XNNPACK on CPUs; one of its methods returns the metadata."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program, methods = plan.trace(), {METADATA: plan.metadata(sha256=UNSEALED)}
    with exporting():
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()], constant_methods=methods)
        path.write_bytes(lowered.to_executorch().buffer)
    seal(path)
    return open_model(path)


def write_coreml(plan: ExportPlan, path: Path) -> ExportedModel:
    """Write an ML program in float32, and return a model that runs it, on macOS only."""
    known = {torch.ops.aten.alias.default: torch.clone, torch.ops.aten.__and__.Tensor: torch.logical_and}
    as_int32 = {"labels": "int32 (N, H, W), class ids"} if plan.output == "labels" else {}
    program, metadata = plan.trace(), plan.metadata(**as_int32)
    with exporting(), redirect_stderr(io.StringIO()):  # progress bars
        import coremltools

        written = coremltools.convert(
            program.run_decompositions(known),
            outputs=[coremltools.TensorType(name=plan.output)],
            minimum_deployment_target=coremltools.target.iOS16,
            compute_precision=coremltools.precision.FLOAT32,  # float16 would move points by up to a quarter of a pixel
            skip_model_load=True,
        )
        written.user_defined_metadata[METADATA] = metadata
        written.save(str(path))
        (path / "executorch_debug_handle_mapping.json").unlink(missing_ok=True)
        model = coremltools.models.MLModel(str(path), skip_model_load=not runs_coreml())

    def run(images: Tensor) -> Tensor:
        result = torch.from_numpy(model.predict({"images": images.numpy()})[plan.output])
        return result.to(torch.uint8) if plan.output == "labels" else result

    return ExportedModel(run, metadata, path)


def write_bioimageio(plan: ExportPlan, path: Path) -> AnyModel:
    """Write a package with ONNX weights and, if its compiler takes the graph, TorchScript; return the first."""
    program = plan.trace()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        onnx, script = Path(folder, "model.onnx"), Path(folder, "model.pt")
        save_onnx(plan, program, onnx)
        seal(onnx)
        weights: dict[str, dict[str, Any]] = {"onnx": {"source": onnx, "opset_version": OPSET}}
        try:
            write_torchscript(plan, program, script)
            version = torch.__version__.partition("+")[0]
            weights["torchscript"] = {"source": script, "pytorch_version": version, "parent": "onnx"}
        except Exception as error:  # the compiler raises almost anything
            weights["onnx"]["comment"] = reason = f"without TorchScript: {one_line(error):.200}"
            warnings.warn(f"{plan.model.info.title} is exported {reason}", CrispsegWarning, stacklevel=2)
        write_package(plan, weights, Path(folder), path)
        return open_model(onnx)


# Their common steps ---------------------------------------------------------------------------------------------------


def onnx_source(plan: ExportPlan, path: Path) -> Path:
    """Return the float32 ONNX file from which a file is made; it is written once, and stays next to the file."""
    source = float_file(path)
    if not source.exists():
        save_onnx(plan, plan.trace(), source)
    return source


def float_file(path: Path) -> Path:
    """Return the path of the float32 ONNX file from which another file is made."""
    return path.with_name(f"{path.name}.float.onnx")


def save_onnx(plan: ExportPlan, program: ExportedProgram, path: Path) -> None:
    """Write the traced graph of a plan as an ONNX file."""
    with exporting():
        written = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            dynamic_shapes={"images": plan.free_axes} if plan.free_axes else None,
            input_names=["images"],
            output_names=[plan.output],
        )
    assert written is not None
    written.model.metadata_props[METADATA] = plan.metadata(sha256=UNSEALED)
    for key, value in plugin_metadata(plan).items():
        written.model.metadata_props[key] = json.dumps(value)
    written.save(path, external_data=False)


def save_openvino(network: Any, path: Path, metadata: str) -> None:
    """Write an OpenVINO model, with its weights in a .bin next to it."""
    import openvino

    network.set_rt_info(metadata, [METADATA])
    openvino.serialize(network, path, path.with_suffix(".bin"))


def decoder_in_float(plan: ExportPlan) -> bool:
    """Return whether the decoder stays in float for int8.

    8-bit sums of levels degrade boundaries, and OpenVINO 2026.4 has errors if only the flows are float.
    """
    return plan.model.decoder.linear


# The formats ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileFormat:
    """Format of a file."""

    suffix: str
    write: Callable[[ExportPlan, Path], AnyModel]
    packages: tuple[str, ...] = ()
    """Required packages."""
    sampling: Sampling = "gather"
    """Default of an export."""
    output: Output = "logits"
    """Default of an export, and its only output unless that is logits."""
    one_size: bool = False
    """Whether a file accepts images of one size only."""
    of_maps: bool = False
    """Whether a file is for square tiles of maps of 8 bits, and records the size of their pixels."""
    unsupported: Mapping[str, str] = field(default_factory=dict)
    """Unsupported precisions, sampling, inputs and value ranges, with reasons."""


IN_FLOAT = {
    "bf16": "ONNX Runtime has no bfloat16 convolution on a CPU; use fp32",
    "int8": "it is for onnx and openvino; use fp32",
}
FILE_FORMATS: dict[Format, FileFormat] = {
    "onnx": FileFormat(
        suffix=".onnx",
        write=write_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
        unsupported={
            "bf16": "ONNX Runtime has no bfloat16 convolution on a CPU; use openvino or torch_export, or int8"
        },
    ),
    "openvino": FileFormat(
        suffix=".xml",
        write=write_openvino,
        packages=("onnx", "onnxscript", "openvino", "nncf"),
    ),
    "torch_export": FileFormat(
        suffix=".pt2",
        write=write_torch_export,
        sampling="grid_sample",
        unsupported={"int8": "PyTorch alone cannot quantise a graph; use openvino or onnx, or bf16"},
    ),
    "executorch": FileFormat(
        suffix=".pte",
        write=write_executorch,
        packages=("executorch",),
        one_size=True,
        unsupported={
            "bf16": "XNNPACK, its library for CPUs, has no bfloat16 convolution; use fp32",
            "int8": "8-bit convolutions are not exported to ExecuTorch yet; use fp32",
        },
    ),
    "coreml": FileFormat(
        suffix=".mlpackage",
        write=write_coreml,
        sampling="grid_sample",
        packages=("coremltools",),
        one_size=True,
        unsupported={
            "bf16": "Core ML has no bfloat16; use fp32",
            "gather": "coremltools cannot convert gathered rows; use grid_sample",
            "uint8": "Core ML's arrays have no 8 bits; use input float",
            "int8": "8-bit convolutions are not exported to Core ML yet; use fp32",
        },
    ),
    "deepness": FileFormat(
        suffix=".onnx",
        write=write_onnx,
        packages=("onnx", "onnxscript", "onnxruntime"),
        output="probabilities",
        one_size=True,
        of_maps=True,
        unsupported={**IN_FLOAT, "uint8": "the plug-in gives normalised images; leave out input"},
    ),
    "bioimageio": FileFormat(
        suffix=".zip",
        write=write_bioimageio,
        packages=("onnx", "onnxscript", "onnxruntime", "bioimageio.spec"),
        output="probabilities",
        unsupported={
            **IN_FLOAT,
            "uint8": "normalisation is a step of the package; leave out input",
            "image": "its steps have fixed values, not those of each image; use a model of another value_range",
        },
    ),
}
