"""Models that run faster: batch norms merged into convolutions; and padding in whole numbers."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, StdConv2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.modules.batchnorm import _BatchNorm

from crispseg import Segmenter, create_model
from crispseg.inference.acceleration import fold_batch_norms
from crispseg.nn import BatchNorm2d


def batch_norms(model: nn.Module) -> int:
    return sum(isinstance(module, _BatchNorm) for module in model.modules())


def trained(model: nn.Module) -> nn.Module:
    """With statistics and weights that are not 0 and 1."""
    torch.manual_seed(0)
    for norm in model.modules():
        if isinstance(norm, _BatchNorm) and norm.running_mean is not None and norm.running_var is not None:
            norm.running_mean.normal_(0, 0.3)
            norm.running_var.uniform_(0.5, 1.5)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias, 0, 0.3)
    return model.eval()


def assert_equal(model: nn.Module, folded: nn.Module, images: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(folded(images), model(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "of_backbone"),
    [("test_resnet", 15), ("test_efficientnet", 12), ("mobilenetv3_small_050", 34), ("test_convnext", 0)],
)
def test_every_batch_norm_of_a_model_is_folded(backbone: str, of_backbone: int) -> None:
    model = trained(create_model("sfnet", num_classes=5, backbone=backbone, width=16))
    assert batch_norms(model) == of_backbone + 12
    before = {key: value.clone() for key, value in model.state_dict().items()}
    folded = fold_batch_norms(model, torch.randn(1, 3, 64, 64))
    assert batch_norms(folded) == 0
    assert_equal(model, folded, torch.randn(2, 3, 71, 50))
    assert batch_norms(model) == of_backbone + 12
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(4, 8, 3, bias=False), nn.BatchNorm2d(8)),
        (nn.Conv2d(4, 8, 3, padding=1), BatchNorm2d(8)),
        (nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)),
        (nn.Conv2d(4, 8, 3, groups=4, bias=False), nn.BatchNorm2d(8, affine=False)),
        (nn.Conv2d(4, 8, 1), nn.SyncBatchNorm(8)),
        (nn.Conv2d(4, 8, 1), BatchNormAct2d(8, act_layer=nn.SiLU)),
        (nn.Conv2d(4, 8, 1), convert_sync_batchnorm(BatchNormAct2d(8))),
    ],
)
def test_kinds_of_convolution_and_batch_norm(layers: tuple[nn.Module, ...]) -> None:
    model = trained(nn.Sequential(*layers))
    folded = fold_batch_norms(model, torch.randn(1, 4, 8, 8))
    assert batch_norms(folded) == 0
    assert_equal(model, folded, torch.randn(2, 4, 9, 7))


class Twice(nn.Module):
    """A batch norm after a convolution, in ways that forbid to merge the two."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.conv, self.norm, self.other = way, nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)
        if way == "own statistics":
            self.norm = nn.BatchNorm2d(3, track_running_stats=False)
        if way == "standardised":
            self.conv = StdConv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Any:
        conv, norm, other = self.conv, self.norm, self.other
        if self.way == "norm first":
            return conv(norm(x))
        y = conv(x)
        ways: dict[str, Callable[[], Any]] = {
            "read by a module": lambda: norm(y) + other(y),
            "read by a function": lambda: norm(y) + F.relu(y),
            "changed in place": lambda: norm(y.relu_()),
            "returned": lambda: (y, norm(y)),
            "convolution twice": lambda: norm(conv(y)),
            "norm twice": lambda: norm(y) + norm(other(x)),
        }
        return ways.get(self.way, lambda: norm(y))()


@pytest.mark.parametrize(
    "way",
    [
        *("read by a module", "read by a function", "changed in place", "returned", "convolution twice"),
        *("norm twice", "norm first", "own statistics", "standardised"),
    ],
)
def test_left_alone_where_merging_would_be_wrong(way: str) -> None:
    model = trained(Twice(way))
    folded = fold_batch_norms(model, torch.randn(1, 3, 8, 8))
    assert batch_norms(folded) == 1
    assert_equal(model, folded, torch.randn(1, 3, 6, 6))


@pytest.mark.slow
def test_compiled_for_images_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """One graph, traced without a compiler for C++; TensorFlow's padding has the sizes that are hardest to trace."""
    counter: Any = CompileCounterWithBackend("eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    torch.compiler.reset()
    torch.manual_seed(0)
    model = create_model("crisp", num_classes=3, backbone="tf_mobilenetv3_small_minimal_100", width=8)
    eager, ready = Segmenter(model, "cpu"), Segmenter(model, "cpu", compile=True)
    for size in ((192, 256), (200, 180), (224, 224), (300, 150), (177, 260)):
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        torch.testing.assert_close(ready.logits(image), eager.logits(image), rtol=1e-4, atol=1e-4)
    assert counter.frame_count == 1
    torch.compiler.reset()
