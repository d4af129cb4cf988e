"""Packages of BioImage.IO: their description, their TorchScript alone, and all of them in BioImage.IO's own program."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from other_programs import program, run
from torch.export import ExportedProgram

from crispseg import SegmentationModel, Segmenter, create_model
from crispseg.data import Folder
from crispseg.errors import CrispsegWarning
from crispseg.export import export_model, formats
from crispseg.export.bioimageio import TEST_INPUT, TEST_OUTPUT, tensors
from crispseg.export.certificate import TOLERANCE
from crispseg.export.plan import ExportPlan
from crispseg.export.torchscript import write_torchscript
from crispseg.io.arrays import Normalize
from crispseg.io.images import read_image

PROGRAM = Path(__file__).with_name("bioimageio_program.py")
BUNDLED = {"nuclei": "instances", "aerial": "masks"}  # with the folder of their masks
TINY = ("sfnet", "ddsm_upernet", "agln", "unept")
LARGEST = 800  # side of an image, so that the tests take minutes


def named(name: str) -> SegmentationModel:
    if name in BUNDLED:
        return SegmentationModel.from_pretrained(name)
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="test_efficientnet", width=8).eval()


@pytest.mark.slow
def test_torchscript_or_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Card, licence and picture are those of the model's folder."""
    spec, model, save_onnx = pytest.importorskip("bioimageio.spec"), named("sfnet_lite"), formats.save_onnx
    monkeypatch.setattr(formats, "save_onnx", lambda *args: copy_of(save_onnx, *args, tmp_path / "kept.onnx"))
    model.folder = SegmentationModel.from_pretrained("nuclei").folder
    export_model(model, tmp_path / "whole.zip", "bioimageio")
    package = spec.load_description(tmp_path / "whole.zip")
    assert package.weights.onnx and package.weights.torchscript and package.cite
    assert str(package.license) == "Apache-2.0" and package.covers
    assert b"Data Science Bowl" in package.documentation.get_reader().read()
    assert package.outputs[0].axes[1].channel_names == [*model.info.label_set().names]
    monkeypatch.setattr(formats, "write_torchscript", lambda *_: 1 / 0)
    with pytest.warns(
        CrispsegWarning, match="sfnet_lite on test_efficientnet .* without TorchScript: division by zero"
    ):
        export_model(model, tmp_path / "half.zip", "bioimageio")
    package = spec.load_description(tmp_path / "half.zip")
    assert package.weights.torchscript is None and "division" in package.weights.onnx.comment


def copy_of(write: Callable[..., None], plan: ExportPlan, program: ExportedProgram, path: Path, kept: Path) -> None:
    """Write an ONNX file once, and then copy it."""
    if not kept.exists():
        write(plan, program, kept)
    shutil.copy(kept, path)


@pytest.mark.slow
def test_torchscript_of_attention(tmp_path: Path) -> None:
    """It computes what the model does at all sizes, or is refused."""
    plan = ExportPlan(named("unept"), output="probabilities")
    write_torchscript(plan, plan.trace(), tmp_path / "model.pt")
    images = torch.randn(1, 3, 70, 41)
    with torch.inference_mode():
        output, expected = torch.jit.load(tmp_path / "model.pt")(images), plan.model(images).softmax(1)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(output, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("channels", "limits"), [(3, None), (1, (100.0, 4000.0))])
def test_steps_are_the_normalisation(channels: int, limits: tuple[float, float] | None, tmp_path: Path) -> None:
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8, in_chans=channels).eval()
    mean, std = (0.2, 0.4, 0.6)[:channels], (0.1, 0.2, 0.3)[:channels]
    model.info = info = replace(model.info, value_range=limits, mean=mean, std=std, temperature=4)
    image, _ = tensors(ExportPlan(model, output="probabilities"), tmp_path)
    clip, fixed = (step["kwargs"] for step in image["preprocessing"])
    shift, scale = (torch.tensor(fixed[key])[:, None, None] for key in ("mean", "std"))
    low, high = limits or (0, 255)
    pixels = torch.rand(channels, 5, 7) * 255
    values = (low + pixels * (high - low) / 255).clamp(clip["min"], clip["max"])
    expected = Normalize(info.mean, info.std, channels)(pixels)
    torch.testing.assert_close((values - shift) / scale, expected, rtol=1e-4, atol=1e-4)
    images = (torch.from_numpy(np.load(tmp_path / TEST_INPUT)) - shift) / scale
    with torch.inference_mode():
        probabilities = (model(images) / info.temperature).softmax(1)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / TEST_OUTPUT)), probabilities, rtol=0, atol=TOLERANCE)


def images_for(name: str, shared: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield ten val images of a bundled model, or three drawn ones, `(H, W, 3)`."""
    if name in BUNDLED:
        folder, masks = shared / "data" / name, BUNDLED[name]
        for pair in Folder(images=folder / "images", **{masks: folder / masks}).pairs("val")[:10]:
            yield read_image(pair.image)[:LARGEST, :LARGEST]
    else:
        for index, size in enumerate(((97, 131), (150, 64), (33, 200))):
            yield np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.tools
@pytest.mark.parametrize("name", [*BUNDLED, *TINY])
def test_in_the_program_of_bioimageio(name: str, shared: Path, tmp_path: Path) -> None:
    python = program("CRISPSEG_BIOIMAGEIO_PYTHON", "Python with bioimageio.core, PyTorch and ONNX Runtime")
    model, images = named(name), [*images_for(name, shared)]
    export_model(model, tmp_path / "package.zip", "bioimageio")
    np.savez(tmp_path / "images.npz", *[image.transpose(2, 0, 1).astype(np.float32) for image in images])
    run(python, PROGRAM, tmp_path / "package.zip", tmp_path / "images.npz", tmp_path / "labels.npz")
    labels, segmenter = np.load(tmp_path / "labels.npz"), Segmenter(model, "cpu")
    expected = np.concatenate([segmenter.labels(image).ravel() for image in images])
    for weights in ("onnx", "torchscript"):
        output = np.concatenate([labels[f"{weights}/arr_{index}"].ravel() for index in range(len(images))])
        print(name, weights, len(images), same := (output == expected).mean())
        assert same >= 0.999
