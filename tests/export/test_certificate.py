"""What certificates say, and what is exported in fewer bits."""

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
from crispseg.export import pipeline
from crispseg.export.certificate import Compared, Measured
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import quantize_onnx, quantize_openvino
from crispseg.training import Run


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
