"""What certificates say, and what is exported in fewer bits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from models.base import NUM_CLASSES, SQUARES

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.export.certificate import Compared, ExportLimits, Measured
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import SCOPES, in_float
from crispseg.training import Run


def test_sampling_flows_and_the_classifier_stay_in_float() -> None:
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
    output = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "graph", [], [output])
    assert set(in_float(graph, "sampling")) == {"flow", "grid", "classes", "logits"}
    assert set(in_float(graph, "decoder")) == {node.name for node in nodes} - {"stem", "feature", "coarse"}
    assert set(in_float(graph, "fine")) == {node.name for node in nodes} - {"coarse"}


# Limits -------------------------------------------------------------------------------------------------------------


SCORED = Measured(4, 98.5, Compared(20, 30), Compared(60, 58.5), Compared(70, 70.4))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ExportLimits(labels=98.4, miou=1.6, boundary_f=0), []),
        (ExportLimits(labels=98.6), ["98.50 % of the labels agree, less than limit.labels 98.6"]),
        (ExportLimits(miou=1.4), ["1.50 points are lost, over limit.miou 1.4"]),
    ],
)
def test_limits(limits: ExportLimits, said: list[str]) -> None:
    assert limits.broken(SCORED) == said


def test_a_limit_that_cannot_be_checked_is_broken() -> None:
    """The truth has one class and no boundary."""
    measured = replace(SCORED, miou=Compared(60, math.nan), boundary_f=Compared(math.nan, 0))
    assert len(ExportLimits(miou=0.4, boundary_f=100).broken(measured)) == 2
    assert ExportLimits().broken(measured) == []


@pytest.mark.slow
def test_a_file_that_breaks_a_limit_is_not_written(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And 8 bits are tried again with more in float; they learn from what the run was trained on."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "n.onnx").write_text("earlier")
    flags = ["--format", "onnx", "--precision", "int8", "--calibration_images", "2", "--rounds", "1"]
    command = ["export", str(tiny_run.folder), *flags, "--out", str(tmp_path / "n.onnx")]
    assert main([*command, "--limit.labels", "100"]) == 2
    assert "limit.labels 100" in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]
    assert (tmp_path / "n.onnx").read_text() == "earlier"
    assert main([*command, "--limit.labels", "10"]) == 0
    record = json.loads((tmp_path / "n.onnx.json").read_text())
    assert (record["precision"], record["kept"], record["data"]) == ("int8", "sampling", "folder")
    assert record["limits"]["labels"] == 10 and record["measured"]["images"] == 2
    assert record["measured"]["miou"].keys() == {"model", "file"}


def test_data_of_other_classes_are_refused(tmp_path: Path, tiny_run: Run, refuses: Any) -> None:
    model = from_pretrained(tiny_run.folder)
    with refuses(f"the model has {model.num_classes} classes, the data {NUM_CLASSES}"):
        export_model(model, tmp_path / "n.onnx", "onnx", precision="int8", data=SQUARES)
    assert not list(tmp_path.iterdir())
