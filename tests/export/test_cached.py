"""Saved models that run in another runtime by a cached file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exports import exported
from PIL import Image

from crispseg import Segmenter, create_model
from crispseg.cli.main import main
from crispseg.export import cached
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.models import SegmentationModel

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CRISPSEG_CACHE", str(tmp_path / "cache"))
    model = create_model("fpn", num_classes=4, backbone="test_efficientnet", width=8)
    model.save_pretrained(tmp_path / "streets")
    return tmp_path / "streets"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What is exported, of a network that is small."""
    paths: list[Path] = []

    def write(model: SegmentationModel, path: Path, *_: Any, **__: Any) -> None:
        exported(path, replace(model.info, in_chans=3))
        paths.append(path)

    monkeypatch.setattr(cached, "export_model", write)
    return paths


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_model_is_exported_once(
    backend: Any, folder: Path, written: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert isinstance(open_model(folder, backend), ExportedModel)
    (path,) = written
    assert path.parent.name == "cache" and path.name.startswith("streets-") and path.suffix in (".onnx", ".xml")
    assert capsys.readouterr().err.count("writing") == 1
    path.write_bytes(path.read_bytes().replace(b"weights", b"weightz"))
    open_model(folder, backend)
    assert len(written) == 2  # a damaged file
    if backend == "openvino":
        path.with_suffix(".bin").unlink()
        open_model(folder, backend)
        assert len(written) == 3
    create_model("fpn", num_classes=4, backbone="test_efficientnet", width=16).save_pretrained(folder)
    open_model(folder, backend)
    assert len({*written}) == 2  # another model


@pytest.mark.slow
def test_the_file_is_the_model_in_its_precision(folder: Path, tmp_path: Path) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    expected = Segmenter(folder, "cpu")(photo).probabilities()
    for precision, most in ("fp32", 1e-4), ("bf16", 0.1):
        maps = Segmenter(folder, backend="openvino", precision=precision)(photo).probabilities()  # type: ignore[arg-type]
        np.testing.assert_allclose(maps, expected, atol=most)
    command = ["predict", str(folder), str(tmp_path / "photo.png"), "--out", str(tmp_path / "out")]
    assert main([*command, "--backend", "openvino", "--precision", "bf16"]) == 0
    assert (tmp_path / "out/photo.png").is_file()


def test_mistakes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any) -> None:
    with refuses("there is no onnx in bf16"):
        Segmenter(folder, backend="onnxruntime", precision="bf16")
    with refuses("backend is 'executorch'", "streets needs torch or onnxruntime or openvino"):
        Segmenter(folder, backend="executorch")
    with refuses("runs on the CPU"):
        Segmenter(exported(tmp_path / "small.onnx"), precision="bf16")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CRISPSEG_CACHE", str(tmp_path / "file"))
    with refuses("cannot write to the folder", str(tmp_path / "file"), "CRISPSEG_CACHE"):
        Segmenter(folder, backend="openvino")
