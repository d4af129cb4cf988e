"""Every model on a CUDA device: forward, backward, `Segmenter` and export give what they give on the CPU."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from crispseg import Segmenter, create_model, list_models
from crispseg.export.certificate import smooth_images
from crispseg.export.pipeline import export_model
from crispseg.inference.segmenter import smooth_outputs
from crispseg.models import SegmentationModel

CUDA = torch.device("cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.parametrize("name", list_models()),
]


def small(name: str) -> SegmentationModel:
    torch.manual_seed(0)
    return create_model(name, num_classes=3, backbone="resnet18").eval()


def test_forward(name: str) -> None:
    model, images = small(name), smooth_images((2, 96, 128), 3)
    there = copy.deepcopy(model).to(CUDA)
    with torch.inference_mode():
        for logits, expected in zip(smooth_outputs(there, images.to(CUDA)), smooth_outputs(model, images), strict=True):
            assert (logits.cpu() - expected).abs().max() < 0.02 * expected.abs().max()  # TF32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_backward(name: str, dtype: torch.dtype) -> None:
    model = small(name).train().to(CUDA, memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        outputs = model.outputs(smooth_images((2, 96, 128), 3).to(CUDA))
    maps = [output for output in outputs if isinstance(output, torch.Tensor)]  # only `unept` has boundary and direction
    torch.stack([output.float().square().mean() for output in maps]).sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


def test_segmenter(name: str) -> None:
    model = small(name)
    image = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    labels = Segmenter(model, "cpu").labels(image)
    for precision, least in (("fp32", 0.98), ("bf16", 0.9)):
        assert (Segmenter(model, CUDA, precision=precision).labels(image) == labels).mean() > least


def test_export(name: str, tmp_path: Path) -> None:
    """From a model on the device; the file runs on the CPU."""
    export_model(small(name).to(CUDA), tmp_path / "model.pt2", "torch_export")
