"""Changes to other libraries are needed: a test that fails names a change in `compat.py` to remove."""

import inspect

import pytest
import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim
from torch.fx.experimental import _config as tracing
from torch.utils.data._utils import signal_handling

from crispseg.compat import features_of_any_size, whole_number_padding


def test_padding_of_timm_fixes_the_size() -> None:
    class Padding(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return padding.pad_same(images, [3, 3], [2, 2])

    height = Dim("height", min=32)
    shapes = {"images": {2: height}}
    images = torch.zeros(1, 3, 97, 130)
    with whole_number_padding():
        assert "math.ceil" not in inspect.getsource(padding.get_same_padding)
        torch.export.export(Padding(), (images,), dynamic_shapes=shapes, strict=False)
    assert "math.ceil" in inspect.getsource(padding.get_same_padding)


def test_traced_sizes_of_one_pixel_are_refused() -> None:
    assert tracing.backed_size_oblivious is False  # type: ignore[attr-defined]
    with features_of_any_size():
        assert tracing.backed_size_oblivious is True  # type: ignore[attr-defined]


def test_onnx_has_attention_of_four_axes_only() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x)

    with pytest.raises(torch.onnx.OnnxExporterError, match="scaled_dot_product_attention"):
        torch.onnx.export(Attention().eval(), (torch.zeros(1, 3, 2, 4, 8),), dynamo=True, verbose=False)


def test_pytorch_raises_errors_of_ended_workers_by_a_handler() -> None:
    assert "_SIGCHLD_handler_set" in inspect.getsource(signal_handling._set_SIGCHLD_handler)
