"""What certificates say, and what is exported in fewer bits."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.base import NUM_CLASSES, SQUARES

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.export.certificate import CertificateRow, Compared, ExportLimits, resident_growth
from crispseg.export.pipeline import export_model
from crispseg.export.quantization import SCOPES, in_float, saturates
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


ROW = CertificateRow((64, 96), 4, 98.5, Compared(20, 30), Compared(21, 31), Compared(60, 58.5), Compared(70, 70.4))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (ExportLimits(labels=98.4, miou=1.6, boundary_f=0, latency=1.6, memory=2.1), []),
        (ExportLimits(labels=98.6), ["98.50 % of the labels agree at 64×96, less than limit.labels 98.6"]),
        (ExportLimits(miou=1.4), ["1.50 points are lost at 64×96, over limit.miou 1.4"]),
        (ExportLimits(latency=1.4), ["the time at 64×96 is 1.50 of the model's, over limit.latency 1.4"]),
        (ExportLimits(memory=1.9), ["the memory is 2.00 of the model's, over limit.memory 1.9"]),
    ],
)
def test_limits(limits: ExportLimits, said: list[str]) -> None:
    assert limits.broken((ROW,), Compared(100, 200)) == said


def test_a_limit_that_cannot_be_checked_is_broken() -> None:
    """No score where the truth has one class and no boundary; no memory where the system does not tell it."""
    row = replace(ROW, miou=Compared(60, math.nan), boundary_f=Compared(math.nan, 0))
    said = ExportLimits(miou=0.4, boundary_f=100, memory=2).broken((row,), None)
    assert [line.partition(" cannot be checked")[0] for line in said] == [
        "limit.miou 0.4",
        "limit.boundary_f 100",
        "limit.memory 2",
    ]
    assert ExportLimits().broken((row,), None) == []


def test_memory_is_what_a_process_grows_by() -> None:
    grown = resident_growth(lambda: np.ones(2**25, np.uint8).sum())
    assert grown is None or 0.9 * 2**25 < grown < 2**26  # the kernel counts in steps


@pytest.mark.slow
def test_a_file_that_breaks_a_limit_is_kept_aside(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And 8 bits are tried again with more in float; they learn from what the run was trained on."""
    pytest.importorskip("onnxruntime")
    (tmp_path / "n.onnx").write_text("earlier")
    flags = ["--format", "onnx", "--precision", "int8", "--calibration_images", "2", "--rounds", "1"]
    command = ["export", str(tiny_run.folder), *flags, "--out", str(tmp_path / "n.onnx")]
    assert main([*command, "--limit.labels", "100"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "limit.labels 100" in line and str(tmp_path / "n.refused.onnx") in line
    assert {path.name for path in tmp_path.iterdir()} == {"n.onnx", "n.refused.onnx", "n.refused.onnx.json"}
    assert (tmp_path / "n.onnx").read_text() == "earlier"
    record = json.loads((tmp_path / "n.refused.onnx.json").read_text())
    assert (record["precision"], record["kept"], record["data"]) == ("int8", "fine", "folder")
    assert record["broken"] and record["limits"]["labels"] == 100
    assert [row["size"] for row in record["rows"]] == [[32, 48], [64, 96], [96, 144]]
    assert {row["images"] for row in record["rows"]} == {2}
    assert all(row["miou"].keys() == {"model", "file"} for row in record["rows"])


def test_data_of_other_classes_are_refused(tmp_path: Path, tiny_run: Run, refuses: Any) -> None:
    model = from_pretrained(tiny_run.folder)
    with refuses(f"the model has {model.num_classes} classes, the data {NUM_CLASSES}"):
        export_model(model, tmp_path / "n.onnx", "onnx", precision="int8", data=SQUARES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("sse2 avx2", True), ("avx2 avx_vnni", False), ("avx2 avx512f avx512_vnni", False), ("asimddp", False)],
)
def test_processors_whose_products_of_8_bits_overflow(flags: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    assert saturates(tmp_path / "cpuinfo") is expected
    assert not saturates(tmp_path / "missing")
