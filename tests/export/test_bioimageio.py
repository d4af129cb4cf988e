"""Packages of BioImage.IO: their description, their TorchScript alone, and all of them in BioImage.IO's own program."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from crispseg import SegmentationModel, Segmenter, create_model
from crispseg.data import Folder
from crispseg.errors import CrispsegWarning
from crispseg.export import export_model, formats
from crispseg.export.bioimageio import TEST_INPUT, TEST_OUTPUT, input_tensor, write_tensors
from crispseg.export.certificate import TOLERANCE, smooth_images
from crispseg.export.plan import OF_LOGITS, ExportPlan
from crispseg.export.torchscript import write_torchscript
from crispseg.io.arrays import Normalize
from crispseg.io.images import read_image

PROGRAM = Path(__file__).with_name("bioimageio_program.py")
BUNDLED, OTHERS = ("nuclei", "aerial"), ("sfnet", "ddsm_upernet", "agln", "unept")
LARGEST = 800  # side of an image, so that the tests take minutes

ALONE = """
import sys
import torch

sys.modules["crispseg"] = None
network = torch.jit.load(sys.argv[1])
torch.save([network(images) for images in torch.load(sys.argv[2])], sys.argv[3])
"""


def named(name: str) -> SegmentationModel:
    if name in BUNDLED:
        return SegmentationModel.from_pretrained(name)
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="test_efficientnet", width=8).eval()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["crisp", *OTHERS])
def test_torchscript_needs_no_crispseg_and_takes_all_sizes(name: str, tmp_path: Path) -> None:
    model = named(name)
    plan = ExportPlan(model, sampling="gather", output="probabilities")
    write_torchscript(plan, plan.trace(), tmp_path / "model.pt")
    images = [smooth_images(size, 3) for size in ((1, 32, 57), (2, 130, 97), (1, 256, 200))]
    torch.save(images, tmp_path / "images.pt")
    files = [tmp_path / "model.pt", tmp_path / "images.pt", tmp_path / "found.pt"]
    subprocess.run([sys.executable, "-c", ALONE, *files], check=True, timeout=300, cwd=tmp_path)
    for found, image in zip(torch.load(tmp_path / "found.pt"), images, strict=True):
        with torch.inference_mode():
            torch.testing.assert_close(found, model(image).softmax(1), rtol=0, atol=TOLERANCE)


@pytest.mark.slow
def test_without_torchscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package names the reason; card, licence and picture are those of the model's folder."""
    spec = pytest.importorskip("bioimageio.spec")

    def fails(*_: Any) -> None:
        raise RuntimeError("no operator\nof that name")

    monkeypatch.setattr(formats, "write_torchscript", fails)
    model = named("fpn")
    model.folder = SegmentationModel.from_pretrained("nuclei").folder
    with pytest.warns(CrispsegWarning, match="fpn on test_efficientnet .* without TorchScript: no operator"):
        export_model(model, tmp_path / "fpn.zip", "bioimageio")
    package = spec.load_description(tmp_path / "fpn.zip")
    assert package.weights.torchscript is None and "no operator" in package.weights.onnx.comment
    assert (
        str(package.license) == "Apache-2.0"
        and "Data Science Bowl" in package.documentation.get_reader().read().decode()
    )
    assert package.covers and package.outputs[0].axes[1].channel_names == [*model.info.label_set().names]


@pytest.mark.parametrize("value_range", [None, (100.0, 4000.0)])
def test_steps_are_the_normalisation(value_range: tuple[float, float] | None, tmp_path: Path) -> None:
    model = named("fpn")
    info = replace(model.info, value_range=value_range, mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.3), temperature=4)
    model.info = info
    low, high = value_range or (0, 255)
    pixels = torch.rand(3, 5, 7) * 255
    clip, fixed = (step["kwargs"] for step in input_tensor(ExportPlan(model), tmp_path)["preprocessing"])
    values = (low + pixels * (high - low) / 255).clamp(clip["min"], clip["max"])
    mean, std = (torch.tensor(fixed[key])[:, None, None] for key in ("mean", "std"))
    torch.testing.assert_close((values - mean) / std, Normalize(info.mean, info.std)(pixels), rtol=1e-4, atol=1e-4)
    plan = ExportPlan(model, output="probabilities")
    write_tensors(plan, tmp_path)
    images = (torch.from_numpy(np.load(tmp_path / TEST_INPUT)) - mean) / std
    with torch.inference_mode():
        probabilities = OF_LOGITS[plan.output](model(images), info.temperature)
    torch.testing.assert_close(torch.from_numpy(np.load(tmp_path / TEST_OUTPUT)), probabilities, rtol=0, atol=TOLERANCE)


def images_for(name: str, shared: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield ten val images of a bundled model, or three drawn ones, `(H, W, 3)`."""
    if name not in BUNDLED:
        for index, size in enumerate(((97, 131), (150, 64), (33, 200))):
            yield np.random.default_rng(index).integers(0, 256, (*size, 3), np.uint8)
        return
    folder = shared / "data" / name
    masks = {"instances": folder / "instances"} if name == "nuclei" else {"masks": folder / "masks"}
    for pair in Folder(images=folder / "images", **masks).pairs("val")[:10]:
        yield read_image(pair.image)[:LARGEST, :LARGEST]


@pytest.mark.tools
@pytest.mark.parametrize("name", [*BUNDLED, *OTHERS])
def test_in_the_program_of_bioimageio(name: str, shared: Path, tmp_path: Path) -> None:
    python = os.environ.get("CRISPSEG_BIOIMAGEIO_PYTHON")
    if not python:
        pytest.skip("CRISPSEG_BIOIMAGEIO_PYTHON names no Python with bioimageio.core, PyTorch and ONNX Runtime")
    pytest.importorskip("bioimageio.spec")
    model = named(name)
    export_model(model, tmp_path / "package.zip", "bioimageio")
    images = [*images_for(name, shared)]
    np.savez(tmp_path / "images.npz", *[image.transpose(2, 0, 1).astype(np.float32) for image in images])
    command = [python, PROGRAM, tmp_path / "package.zip", tmp_path / "images.npz", tmp_path / "labels.npz"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    labels, segmenter = np.load(tmp_path / "labels.npz"), Segmenter(model, "cpu")
    expected = [segmenter.labels(image) for image in images]
    pixels = sum(array.size for array in expected)
    for weights in ("onnx", "torchscript"):
        found = [labels[f"{weights}/arr_{index}"] for index in range(len(images))]
        same = sum((one == other).sum() for one, other in zip(found, expected, strict=True))
        assert same / pixels >= 0.999
        print(name, weights, len(images), same / pixels)
