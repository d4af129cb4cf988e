from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from crispseg import create_model
from crispseg.training.optimization import float32_depthwise, has_bf16


def test_only_depthwise_convolutions_are_computed_in_float32() -> None:
    plain, grouped = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=2)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    seen: list[torch.dtype] = []
    for conv in (plain, grouped, depthwise):
        conv.register_forward_hook(lambda _m, _a, output: seen.append(output.dtype))
    net = nn.Sequential(plain, grouped, depthwise)
    with torch.autocast("cpu", torch.bfloat16), float32_depthwise(net):
        net(torch.randn(1, 8, 5, 5))
        assert torch.is_autocast_enabled("cpu")
    assert seen == [torch.bfloat16, torch.bfloat16, torch.float32]
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(1, 8, 5, 5))
    assert seen == [torch.bfloat16] * 3


def test_autocast_comes_back_after_an_error() -> None:
    net = nn.Conv2d(8, 8, 3, groups=8)
    with torch.autocast("cpu", torch.bfloat16), float32_depthwise(net):
        with pytest.raises(RuntimeError):
            net(torch.randn(1, 3, 5, 5))
        assert torch.is_autocast_enabled("cpu")


def test_training_through_it_reaches_every_parameter_and_agrees_with_float32() -> None:
    torch.manual_seed(0)
    model = create_model("sfnet", num_classes=3, backbone="test_efficientnet", width=8).eval()
    images = torch.randn(2, 3, 64, 64)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        model(images).float().square().mean().backward()
        return {
            name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
        }

    exact = gradients()
    with torch.autocast("cpu", torch.bfloat16), float32_depthwise(model):
        rough = gradients()
    assert rough.keys() == exact.keys() == {name for name, _ in model.named_parameters()}
    for name, gradient in rough.items():
        distance = (gradient - exact[name]).norm() / exact[name].norm().clamp(min=1e-6)
        assert distance < 0.5, name


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: amx_bf16 fpu", True),
        ("Features\t: fp asimd", False),
        ("Features\t: fp asimd bf16", True),
        ("model name\t: bf16", None),  # says nothing of what it can
    ],
)
def test_processors_with_bf16(line: str, has: bool | None, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    assert has_bf16(tmp_path / "cpuinfo") is has
    assert has_bf16(tmp_path / "elsewhere") is None
