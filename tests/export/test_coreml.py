"""Core ML packages: their programs are those of the model, at one size, and macOS is needed for a run."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

import crispseg
from crispseg.cli.export import show
from crispseg.cli.main import main
from crispseg.export import export_model
from crispseg.export.certificate import Certificate
from crispseg.inference.device import runs_coreml

REASON = "coremltools is not installed: pip install 'crispseg[coreml]'"
pytestmark = [pytest.mark.slow, pytest.mark.skipif(find_spec("coremltools") is None, reason=REASON)]

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model() -> crispseg.SegmentationModel:
    torch.manual_seed(0)
    labels = {"class_names": ("sky", "street", "tree")}
    return crispseg.create_model("crisp", num_classes=3, backbone="test_efficientnet", width=16, **labels).eval()


@pytest.fixture(scope="module")
def package(model: crispseg.SegmentationModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    path = folder / "crisp.mlpackage"
    path.mkdir()
    for name in ("Manifest.json", "earlier"):  # an earlier package is replaced
        (path / name).touch()
    assert main(["export", str(folder), "--out", str(path), "--size", *map(str, SIZE)]) == 0
    assert not (path / "earlier").exists()
    return path


def test_the_program_is_that_of_the_model(package: Path) -> None:
    import coremltools  # takes seconds, which other tests would wait for

    model = coremltools.models.MLModel(str(package), skip_model_load=True)
    spec = model.get_spec()
    (images,), (logits,) = spec.description.input, spec.description.output
    assert (images.name, [*images.type.multiArrayType.shape]) == ("images", [1, 3, *SIZE])
    assert (logits.name, [*logits.type.multiArrayType.shape]) == ("logits", [1, 3, *SIZE])
    (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    assert {operation.type for operation in block.operations} >= {"conv", "resample", "upsample_bilinear"}
    about = json.loads(model.user_defined_metadata["crispseg"])
    assert about["class_names"] == ["sky", "street", "tree"] and about["size"] == [*SIZE]
    content = b"".join(file.read_bytes() for file in package.rglob("*") if file.is_file())
    assert str(Path(crispseg.__file__).parent).encode() not in content


@pytest.mark.parametrize("name", ["fpn", "sfnet_lite"])
def test_models_can_be_exported(name: str, tmp_path: Path) -> None:
    """Elsewhere than on macOS, nothing runs the programs."""
    model = crispseg.create_model(name, num_classes=3, backbone="test_efficientnet", width=16).eval()
    export_model(model, tmp_path / "a.mlpackage", "coreml", size=SIZE, output="labels")
    assert (tmp_path / "a.mlpackage/Manifest.json").is_file()


@pytest.mark.skipif(runs_coreml(), reason="macOS runs Core ML")
def test_elsewhere_it_is_not_compared(package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(package.with_name("crisp.mlpackage.json").read_text())["comparisons"] == []
    show(Certificate("crisp", "coreml", "fp32", None, None, (), 0))
    assert "macOS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "size is None"),
        ({"size": (16, 64)}, "at least 32"),
        ({"size": (100_000, 100_000)}, "at most 134,217,728 pixels"),
        ({"precision": "int8"}, "int8"),
        ({"size": SIZE, "sampling": "gather"}, "grid_sample"),
    ],
)
def test_what_cannot_be_exported(options: Any, message: str, model: Any, tmp_path: Path, refuses: Any) -> None:
    with refuses(message):
        export_model(model, tmp_path / "a.mlpackage", "coreml", **options)
    assert not (tmp_path / "a.mlpackage").exists()


def test_another_folder_is_kept(model: crispseg.SegmentationModel, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "a.mlpackage").mkdir()
    (tmp_path / "a.mlpackage/mine.txt").write_text("kept")
    with refuses("a folder has this name"):
        export_model(model, tmp_path / "a.mlpackage", "coreml", size=SIZE)
    assert (tmp_path / "a.mlpackage/mine.txt").exists()


def test_crispseg_does_not_run_it(package: Path, refuses: Any) -> None:
    with refuses("is for Core ML"):
        crispseg.Segmenter(package)
