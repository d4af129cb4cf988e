"""Exported files in the place of models."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from training_runs import of_many_opinions

from crispseg import SegmentationModel, Segmenter
from crispseg.cli.main import main
from crispseg.export import export
from crispseg.inference import exported
from crispseg.inference.exported import ExportedModel, open_network
from crispseg.inference.programs import _is_arithmetic
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page

NAMES = ("sky", "road", "person", "car")
COLORS = ((1, 2, 3), (200, 0, 0), (0, 200, 0), (0, 0, 200))


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    model = of_many_opinions(len(NAMES))
    model.info = replace(model.info, class_names=NAMES, palette=COLORS)
    return model


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8).repeat(13, 0).repeat(11, 1)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def file(model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose logits are the model's, without an export."""
    path = tmp_path / "fake.pt2"
    path.write_text("exported")
    metadata = export.describe(model.info, precision="fp32", bytes_per_pixel=1234.5)
    monkeypatch.setitem(exported.OPENERS, "torch", lambda _path: (model.forward, metadata))
    return path


def test_a_file_is_a_model_to_segment_with(model: SegmentationModel, file: Path, photo: Path) -> None:
    ours, theirs = Segmenter(model, "cpu"), Segmenter(file)
    expected, found = ours(photo), theirs(photo)
    assert (found.label_set, found.name, found.path) == (expected.label_set, expected.name, expected.path)
    assert (found.labels == expected.labels).mean() > 0.999 and len(np.unique(found.labels)) > 1
    np.testing.assert_allclose(found.probabilities(), expected.probabilities(), atol=1e-4)
    small = np.asarray(Image.open(photo))[:20, :40]
    assert (theirs(small).labels == ours(small).labels).mean() > 0.999
    tiled, flipped = (Segmenter(file, **options) for options in ({"tile": 128}, {"protocol": "ddsm-ms"}))
    assert tiled(photo).labels.shape == flipped(photo).labels.shape == expected.labels.shape
    assert theirs._tiling.bytes_per_pixel == 1234.5


def test_a_file_is_inspected_without_what_lies_inside(file: Path, photo: Path) -> None:
    seen = inspect_image(open_network(file), photo, device="cpu")
    assert seen.taps == {} and (seen.labels == Segmenter(file)(photo).labels).all()
    assert "photo" in inspection_page(seen)


def test_commands_take_files(
    file: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(["predict", str(file), str(photo), "--out", str(out), "--device", "cpu"]) == 0
    assert (np.asarray(Image.open(out / "photo.png")) == Segmenter(file)(photo).labels).all()
    data = ["--data", "scenes", "--data.val", "2", "--data.height", "64", "--data.width", "96"]
    scenes = len(evaluation_classes())
    network = of_many_opinions(scenes)
    metadata = export.describe(network.info)
    monkeypatch.setitem(exported.OPENERS, "torch", lambda _path: (network.forward, metadata))
    assert main(["evaluate", str(file), *data, "--workers", "0", "--bootstrap", "0"]) == 0
    assert "fpn on test_efficientnet, scenes val, 2 images" in capsys.readouterr().out
    flags = ["--size", "64", "64", "--repeats", "1", "--warmup", "0", "--device", "cpu"]
    assert main(["benchmark", "fpn:test_efficientnet{width: 8}", str(file), *flags, "--json", "-"]) == 0
    rows = json.loads(capsys.readouterr().out)["models"]
    assert rows[1]["model"] == str(file) and rows[1]["num_classes"] == scenes
    assert rows[1]["multiply_adds"] == pytest.approx(rows[0]["multiply_adds"], rel=0.2)


def evaluation_classes() -> tuple[str, ...]:
    from training_runs import SCENES

    return SCENES.label_set().names


# The real ones --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(model: SegmentationModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """By format; of one graph."""
    folder, program = tmp_path_factory.mktemp("exported"), export.trace(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "trace", lambda _model, **_options: program)
        found = {format: folder / f"model{kind.suffix}" for format, kind in export.KINDS.items()}
        for format, path in found.items():
            export.write(model, path, format, "fp32")
    yield found


@pytest.mark.slow
@pytest.mark.parametrize("format", export.KINDS)
def test_every_format_gives_the_same_segmentation(
    format: str, files: dict[str, Path], model: SegmentationModel, photo: Path
) -> None:
    expected, found = Segmenter(model, "cpu")(photo), Segmenter(files[format])(photo)
    assert found.label_set == expected.label_set and found.label_set.names == NAMES
    assert (found.labels == expected.labels).mean() > 0.999
    np.testing.assert_allclose(found.probabilities(), expected.probabilities(), atol=1e-4)
    if format == "onnx":
        other = Segmenter(files[format], backend="openvino")(photo)
        assert (other.labels == expected.labels).mean() > 0.999


# Mistakes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "phrases"),
    [
        ("fake.pt2", {"backend": "onnx"}, ["unknown backend 'onnx'", "onnxruntime"]),
        ("fake.pt2", {"backend": "openvino"}, ["fake.pt2 is run by torch, not by openvino", "--format openvino"]),
        ("fake.pt2", {"bf16": True}, ["fake.pt2 has its own precision", "--precision bf16"]),
        ("none.onnx", {}, ["none.onnx does not exist", "crispseg export"]),
        ("damaged.onnx", {}, ["damaged.onnx is no file of crispseg export", "export it again"]),
        ("damaged.xml", {}, ["damaged.xml is no file of crispseg export", "export it again"]),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], phrases: list[str], file: Path, refuses: Any) -> None:
    for damaged in ("damaged.onnx", "damaged.xml"):
        (file.parent / damaged).write_text("no network")
    with refuses(*phrases):
        Segmenter(file.parent / name, **options)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_file_of_another_tool_is_refused(backend: str, tmp_path: Path, refuses: Any) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip(backend)
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 3]) for name in ("images", "logits")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["images"], ["logits"])], "g", ends[:1], ends[1:])
    opsets = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "other.onnx")
    with refuses("other.onnx says nothing of a model", "crispseg export"):
        open_network(tmp_path / "other.onnx", backend)


def test_what_a_file_cannot_do_is_refused(model: SegmentationModel, refuses: Any) -> None:
    metadata = export.describe(replace(model.info, options={**model.info.options, "refine": "boundary"}))
    network = ExportedModel(model.forward, metadata, Path("a.onnx"))
    with refuses("a.onnx runs on the CPU, not on 'cuda'"):
        network.check_use(torch.device("cuda"), bf16=False, whole=True)
    with refuses("a.onnx refines its logits"):
        network.check_use(torch.device("cpu"), bf16=False, whole=False)
    with refuses("a.onnx is no saved crispseg model"):
        ExportedModel(model.forward, json.dumps({"format_version": 1}), Path("a.onnx"))


def test_packages_that_are_missing_are_named(file: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    monkeypatch.setattr(exported.importlib.util, "find_spec", lambda _name: None)
    with refuses("needs openvino", "pip install 'crispseg[openvino]'"):
        open_network(file.with_suffix(".xml"))


class Program:
    """Makes a file where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "sound.pt2"
    size = {2: torch.export.Dim("height", min=8, max=99)}
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, stride=2, padding=1), torch.nn.Upsample(scale_factor=2))
    torch.export.save(
        torch.export.export(net, (torch.zeros(1, 3, 8, 8),), dynamic_shapes=(size,)),
        path,
        extra_files={f"{exported.METADATA}.json": "{}"},
    )
    return path


def changed(program: Path, path: Path, part: str, change: Callable[[bytes], bytes], added: str | None = None) -> Path:
    """The file with a part of it changed, and another one added."""
    with zipfile.ZipFile(program) as sound, zipfile.ZipFile(path, "w") as other:
        for entry in sound.infolist():
            content = sound.read(entry)
            other.writestr(
                entry.filename.replace("sound", path.stem),
                change(content) if entry.filename.endswith(part) else content,
            )
        if added:
            other.writestr(f"{path.stem}/{added}", b"")
    return path


def test_an_object_in_a_torch_export_file_is_not_unpickled(program: Path, tmp_path: Path, refuses: Any) -> None:
    run, metadata = exported.open_torch(program)
    assert run(torch.ones(1, 3, 10, 8)).shape == (1, 2, 10, 8) and metadata == "{}"
    torch.save(Program(tmp_path / "mark"), buffer := io.BytesIO())
    evil = changed(program, tmp_path / "evil.pt2", "sample_inputs/model.pt", lambda _: buffer.getvalue())
    with refuses("evil.pt2", "more than tensors", "export the model anew"):
        exported.open_torch(evil)
    assert not (tmp_path / "mark").exists() and "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        (b"torch.ops.aten.conv2d.default", b"torch.os.system", "the operator 'torch.os.system'"),
        (b"torch.ops.aten.conv2d.default", b"_operator.attrgetter", "the operator '_operator.attrgetter'"),
        (b'"guards_code": []', b'"guards_code": ["__import__(\'os\')"]', "guards"),
        (b'"expr_str": "', b"\"expr_str\": \"__import__('os').system('x') or ", "the expression '__import__"),
        (b"", b"", "a part 'evil/data/aotinductor/model/run.so'"),
    ],
)
def test_what_might_run_code_in_a_torch_export_file_is_refused(
    old: bytes, new: bytes, what: str, program: Path, tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(content: bytes) -> bytes:
        assert old in content
        return content.replace(old, new)

    added = None if old else "data/aotinductor/model/run.so"
    evil = changed(program, tmp_path / "evil.pt2", "models/model.json", change, added)
    monkeypatch.setattr("torch.export.load", lambda *_, **__: pytest.fail("it is read"))
    with refuses("evil.pt2", what, "might run code"):
        exported.open_torch(evil)


@pytest.mark.parametrize(
    ("expression", "sound"),
    [
        ("Add(FloorDiv(Add(Symbol('s14', positive=True, integer=True), Integer(-1)), Integer(16)), Integer(1))", True),
        ("s77", True),
        ("-Integer(1)", True),
        ("Symbol('a b')", False),
        ("Symbol('s1').name", False),
        ("open('x')", False),
        ("Add('x', 1)", False),
        ("(lambda: 1)()", False),
        ("[s1]", False),
        ("Max", False),
        ("", False),
        (None, False),
    ],
)
def test_expressions_of_sizes(expression: str | None, sound: bool) -> None:
    assert _is_arithmetic(expression) == sound


SIGNALLED = """
import signal, subprocess, sys
from pathlib import Path
import numpy as np
from onnx import TensorProto, helper, numpy_helper, save
from crispseg.inference.exported import open_openvino, openvino_core
from crispseg.export.quantization import quantize_openvino

size = ["batch", 3, "height", "width"]
ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name in ("images", "logits")]
weights = numpy_helper.from_array(np.ones((3, 3, 1, 1), np.float32), "weights")
convolution = helper.make_node("Conv", ["images", "weights"], ["logits"])
graph = helper.make_graph([convolution], "network", ends[:1], ends[1:], [weights])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
helper.set_model_props(model, {"crispseg": "{}"})
path = Path(sys.argv[1])
save(model, path)
bright = np.ones((1, 3, 8, 8), np.float32)
quantised = quantize_openvino(path, [*([bright / 10] * 9), bright], "sampling")
print(any(operator.get_type_name() == "FakeQuantize" for operator in quantised.get_ops()))
logits = openvino_core().compile_model(quantised, "CPU")([bright])[0]
print(np.abs(logits - 3).max() < 0.05)  # what is brighter than most is not clipped
first = open_openvino(path)
second = open_openvino(path)
del first
del second
signal.signal(signal.SIGCHLD, lambda *_: print("a child has ended"))
subprocess.run(["true"])
"""
"""A program that begins with 8 bits, opens a file twice, closes both in that order, and waits for a child."""


@pytest.mark.slow
def test_signals_after_openvino(tmp_path: Path) -> None:
    """PyTorch's loaders handle the signal of a child that ends; see `openvino_core`."""
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path / "network.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    # a library may have started one too, which ends meanwhile
    assert (done.returncode, set(done.stdout.splitlines())) == (0, {"True", "a child has ended"}), done.stderr
