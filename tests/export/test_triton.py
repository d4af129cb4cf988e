"""`config.pbtxt` of exported files, read by the schema of Triton Inference Server."""

import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from exports import exported

from crispseg import create_model
from crispseg.export.formats import FILE_FORMATS
from crispseg.export.pipeline import export_model
from crispseg.export.plan import ExportPlan, describe
from crispseg.export.triton import triton_settings
from crispseg.inference.runtime import AnyModel
from crispseg.models import SegmentationModel

text_format = pytest.importorskip("google.protobuf.text_format")


@pytest.fixture(scope="module")
def schema() -> Any:
    """The messages of Triton's settings; tritonclient.grpc itself would need gRPC."""
    client = pytest.importorskip("tritonclient")
    path = Path(client.__path__[0]) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("output", "value_range"), [("logits", None), ("labels", "image"), ("labels", (7.0, 4000.0))])
def test_the_settings_are_those_of_the_file(output: Any, value_range: Any, schema: Any, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(exported(tmp_path / "a.onnx", output=output))
    model = create_model("fpn", num_classes=4, backbone="test_efficientnet", width=8)
    model.info = replace(model.info, value_range=value_range)
    settings = triton_settings(Path('a "b" ü.onnx'), ExportPlan(model, output=output))
    config = text_format.Parse(settings, schema.ModelConfig())
    assert (config.backend, config.default_model_filename) == ("onnxruntime", 'a "b" ü.onnx')
    assert config.max_batch_size > 1 and config.HasField("dynamic_batching")
    about = json.loads(describe(model.info))  # of the file
    preparation = json.loads(config.parameters["crispseg"].string_value)
    assert preparation == {key: about.get(key) for key in ("mean", "std", "value_range")}
    kinds = {"tensor(float)": schema.TYPE_FP32, "tensor(uint8)": schema.TYPE_UINT8}
    for written, ends in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        (entry,), (end,) = written, ends
        assert (entry.name, entry.data_type) == (end.name, kinds[end.type])
        # without the batch; a size that is a name in the file is -1
        assert list(entry.dims) == [size if isinstance(size, int) else -1 for size in end.shape[1:]]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SegmentationModel:
    """A model whose file is written in no time."""
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8, in_chans=4).eval()
    model.info = replace(model.info, class_names=("a", "b", "c"))

    def write(plan: ExportPlan, path: Path) -> AnyModel:
        path.write_bytes(b"of a model")
        return plan.model

    monkeypatch.setitem(FILE_FORMATS, "onnx", replace(FILE_FORMATS["onnx"], write=write))
    monkeypatch.setattr("crispseg.export.plan.CHECKED", ((1, 32, 57),))
    return model


def test_they_are_written_next_to_the_file(tmp_path: Path, schema: Any, model: SegmentationModel) -> None:
    export_model(model, tmp_path / "plain/mine.onnx", "onnx")
    assert not (tmp_path / "plain/config.pbtxt").exists()
    export_model(model, tmp_path / "mine.onnx", "onnx", triton=True)
    config = text_format.Parse((tmp_path / "config.pbtxt").read_text(), schema.ModelConfig())
    assert (config.default_model_filename, [*config.input[0].dims]) == ("mine.onnx", [4, -1, -1])
    assert [*config.output[0].dims] == [3, -1, -1]


def test_edited_settings_are_kept(tmp_path: Path, model: SegmentationModel, refuses: Any) -> None:
    settings = tmp_path / "config.pbtxt"
    for _ in range(2):  # unchanged ones are no reason to refuse
        export_model(model, tmp_path / "mine.onnx", "onnx", triton=True)
    edited = settings.read_text().replace("max_batch_size: 8", "max_batch_size: 2")
    settings.write_text(edited)
    (tmp_path / "mine.onnx").unlink()
    with refuses("config.pbtxt", "leave out triton"):
        export_model(model, tmp_path / "mine.onnx", "onnx", triton=True)
    assert settings.read_text() == edited and not (tmp_path / "mine.onnx").exists()
    export_model(model, tmp_path / "mine.onnx", "onnx")
    assert settings.read_text() == edited
