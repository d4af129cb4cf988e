"""What certificates say, and what is exported in fewer bits."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.base import NUM_CLASSES, SQUARES

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.compat import openvino_core
from crispseg.export import pipeline, quantization
from crispseg.export.certificate import Compared, Measured
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import SCOPES, in_float, quantize_onnx, quantize_openvino
from crispseg.training import Run


@pytest.mark.parametrize("gathers", [False, True])
def test_sampling_flows_and_the_classifier_stay_in_float(gathers: bool) -> None:
    onnx = pytest.importorskip("onnx")

    def node(kind: str, inputs: str, output: str, scope: str = "decoder") -> Any:
        made = onnx.helper.make_node(kind, inputs.split(), [output], name=output)
        made.metadata_props.append(onnx.StringStringEntryProto(key=SCOPES, value=f"['', '{scope}']"))
        return made

    nodes = [
        node("Conv", "images w", "stem", "backbone"),
        node("Relu", "stem", "feature", "backbone"),
        node("Conv", "feature w", "coarse", "backbone"),
        node("Shape", "feature", "size"),
        node("Conv", "feature w", "flow"),
        node("Add", "flow size", "grid"),
        node("GridSample", "feature grid", "warped"),
        node("Add", "warped coarse", "both"),
        node("Conv", "both w", "merged"),
        node("Conv", "merged w", "classes"),
        node("Resize", "classes", "logits"),
    ]
    if gathers:  # by the index of a row for each point
        nodes[6:7] = [
            node("Reshape", "grid points", "index"),
            node("Reshape", "feature rows", "row"),
            node("Gather", "row index", "warped"),
        ]
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "graph", [], [output])
    of_flow = {"flow", "grid", "index"} if gathers else {"flow", "grid"}
    assert set(in_float(graph, decoder=False)) == {*of_flow, "classes", "logits"}
    assert set(in_float(graph, decoder=True)) == {node.name for node in nodes} - {"stem", "feature", "coarse"}


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """Three products by a matrix of 1 / 64 as an ONNX file."""
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("nncf")
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 64]) for name in ("images", "logits")
    ]
    weights = onnx.numpy_helper.from_array(np.full((64, 64), 1 / 64, np.float32), "weights")
    names = ["images", "first", "second", "third", "logits"]
    nodes = [
        onnx.helper.make_node("MatMul", [before, "weights"], [after], name=after) for before, after in pairwise(names)
    ]
    graph = onnx.helper.make_graph(nodes, "network", ends[:1], ends[1:], [weights])
    path = tmp_path / "products.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    return path


BRIGHT = np.ones((16, 64), np.float32)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_sums_of_large_products_do_not_overflow(format: str, products: Path, tmp_path: Path) -> None:
    """On any processor; those without VNNI add two products in 16 bits."""
    target = tmp_path / "int8.onnx"
    if format == "onnx":
        onnxruntime = pytest.importorskip("onnxruntime")
        quantize_onnx(products, target, [BRIGHT], decoder=False)
        logits = onnxruntime.InferenceSession(target).run(None, {"images": BRIGHT})[0]
    else:
        model = quantize_openvino(products, [BRIGHT], decoder=False)
        logits = openvino_core().compile_model(model, "CPU")([BRIGHT])[0]
    assert np.abs(logits - 1).max() < 0.05


@pytest.mark.parametrize(("overflow", "largest"), [(True, 64), (False, 127)])
def test_weights_have_seven_bits_where_sums_overflow(
    overflow: bool, largest: int, products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx, target = pytest.importorskip("onnx"), tmp_path / "int8.onnx"
    monkeypatch.setattr(quantization, "sums_overflow", lambda: overflow)
    quantize_onnx(products, target, [BRIGHT], decoder=False)
    arrays = [onnx.numpy_helper.to_array(each) for each in onnx.load(target).graph.initializer]
    nodes = quantize_openvino(products, [BRIGHT], decoder=False).get_ops()
    arrays += [node.data for node in nodes if node.get_type_name() == "Constant"]
    weights = [array.astype(int) for array in arrays if array.dtype == np.int8 and array.ndim == 2]
    assert len(weights) == 2 and all(abs(np.abs(each).max() - largest) <= 1 for each in weights)


@pytest.mark.slow
def test_a_file_that_loses_too_much_is_not_written(tiny_run: Run, tmp_path: Path) -> None:
    """Eight bits learn from what the run was trained on."""
    pytest.importorskip("onnxruntime")
    flags = ["--format", "onnx", "--precision", "int8", "--calibration_images", "2"]
    command = ["export", str(tiny_run.folder), *flags, "--out", str(tmp_path / "n.onnx")]
    (tmp_path / "n.onnx").write_text("earlier")
    with pytest.MonkeyPatch.context() as patch:
        measured = Measured(4, 98.5, Compared(60, 58.5), Compared(70, 70.4))
        patch.setattr(pipeline, "measure", lambda *_: measured)
        assert main([*command, "--max_drop", "1.4"]) == 2
    assert [path.read_text() for path in tmp_path.iterdir()] == ["earlier"]
    assert main([*command, "--max_drop", "100"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"n.onnx", "n.onnx.json"}
    record = json.loads((tmp_path / "n.onnx.json").read_text())
    assert (record["precision"], record["data"], record["measured"]["images"]) == ("int8", "folder", 2)
    assert record["measured"]["labels"] > 10 and record["measured"]["miou"].keys() == {"model", "file"}


def test_data_of_other_classes_are_refused(tmp_path: Path, tiny_run: Run, refuses: Any) -> None:
    model = from_pretrained(tiny_run.folder)
    with refuses(f"the model has {model.num_classes} classes, the data {NUM_CLASSES}"):
        export_model(model, tmp_path / "n.onnx", "onnx", precision="int8", data=SQUARES)
    assert not list(tmp_path.iterdir())
