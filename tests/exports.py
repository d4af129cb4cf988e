"""Exported files of one convolution, made in no time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispseg.compat import openvino_core
from crispseg.export.formats import save_openvino
from crispseg.export.plan import Output, describe
from crispseg.export.quantization import Input
from crispseg.inference.runtime import UNSEALED, seal
from crispseg.models import ModelInfo

INFO = ModelInfo("fpn", 4, "test_efficientnet", 3, mean=(0.5,) * 3, std=(0.5,) * 3)


def exported(
    path: Path,
    info: ModelInfo = INFO,
    sealed: bool = True,
    seed: int = 0,
    output: Output = "logits",
    input: Input = "float",
) -> Path:
    """Write a file of 3 channels and 4 classes, `.onnx` or `.xml`, with these metadata; a range of pixels is fixed."""
    onnx = pytest.importorskip("onnx")
    size = ["batch", 3, "height", "width"]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, size) for name in ("images", "logits")]
    ends[1].type.tensor_type.shape.dim[1].dim_value = 4
    values = np.random.default_rng(seed).normal(size=(4, 3, 25, 25)).astype(np.float32)
    weights = onnx.numpy_helper.from_array(values, "weights")
    convolution = onnx.helper.make_node("Conv", ["images", "weights"], ["logits"], pads=[12] * 4)
    nodes = [convolution]
    if input == "uint8":
        convolution.input[0] = "normalised"
        nodes = [*normalisation(onnx.helper.make_node, onnx.helper.make_tensor, info), convolution]
        kind = onnx.TensorProto.UINT16 if info.value_range else onnx.TensorProto.UINT8
        ends[0] = onnx.helper.make_tensor_value_info("images", kind, ["batch", "height", "width", 3])
    if output == "labels":
        nodes += [
            onnx.helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
            onnx.helper.make_node("Cast", ["ids"], ["labels"], to=onnx.TensorProto.UINT8),
        ]
        ends[1] = onnx.helper.make_tensor_value_info("labels", onnx.TensorProto.UINT8, [size[0], *size[2:]])
    graph = onnx.helper.make_graph(nodes, "network", ends[:1], ends[1:], [weights])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    metadata = describe(info, input, output, precision="fp32", **({"sha256": UNSEALED} if sealed else {}))
    onnx.helper.set_model_props(model, {"crispseg": metadata})
    onnx.save(model, path.with_suffix(".onnx"))
    if path.suffix == ".xml":
        pytest.importorskip("openvino")
        save_openvino(openvino_core().read_model(path.with_suffix(".onnx")), path, metadata)
    seal(path)
    return path


def normalisation(node: Any, tensor: Any, info: ModelInfo) -> Iterator[Any]:
    """Yield nodes from pixels `(N, H, W, 3)` to normalised images; a value range has two numbers."""
    low, high = info.value_range or (0.0, 255.0)
    numbers = {"low": low, "step": (high - low) / 255, "black": 0.0, "white": 255.0}
    numbers |= {"mean": 255 * info.mean[0], "std": 255 * info.std[0]}
    for name, value in numbers.items():
        yield node("Constant", [], [name], value=tensor(name, 1, [], [value]))
    steps: list[tuple[str, list[str], dict[str, Any]]] = [
        ("Cast", [], {"to": 1}),
        ("Sub", ["low"], {}),
        ("Div", ["step"], {}),
        ("Clip", ["black", "white"], {}),
        ("Round", [], {}),
        ("Transpose", [], {"perm": [0, 3, 1, 2]}),
        ("Sub", ["mean"], {}),
        ("Div", ["std"], {}),
    ]
    values = ["images", *(f"{index} {kind}" for index, (kind, _, _) in enumerate(steps[1:])), "normalised"]
    for (kind, inputs, attributes), before, after in zip(steps, values[:-1], values[1:], strict=True):
        yield node(kind, [before, *inputs], [after], **attributes)
