import pytest
import torch
from torch import Tensor, nn

from crispseg.training.depthwise import FastDepthwise

CONVS = {
    "3×3": nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
    "5×5": nn.Conv2d(8, 8, 5, padding=2, groups=8),
    "two kernels for each channel": nn.Conv2d(8, 16, 5, 2, padding=2, groups=8, bias=False),
    "7×7": nn.Conv2d(8, 8, 7, 2, padding=3, groups=8),
    "one row": nn.Conv2d(8, 8, (1, 11), padding=(0, 5), groups=8, bias=False),
    "dilated": nn.Conv2d(8, 8, 3, padding=4, dilation=4, groups=8),
    "dilated, not square": nn.Conv2d(8, 8, (5, 3), 2, dilation=2, groups=8, bias=False),
    "4×4": nn.Conv2d(8, 8, 4, 3, padding=1, groups=8, bias=False),
}


def gradients(conv: nn.Module, images: Tensor, truth: Tensor | None = None) -> tuple[Tensor, ...]:
    """The result, and the gradients of images and weights, of a quadratic loss."""
    images = images.clone().requires_grad_()
    output = conv(images).float()
    loss = (output * (output if truth is None else truth).detach()).sum()
    return output.detach(), *torch.autograd.grad(loss, [images, *conv.parameters()])


@pytest.mark.parametrize("name", CONVS)
def test_gradients_agree_with_float32(name: str) -> None:
    conv, images = CONVS[name], torch.randn(2, 8, 23, 20, generator=torch.Generator().manual_seed(0))
    exact = gradients(conv, images)
    with torch.autocast("cpu", torch.bfloat16), FastDepthwise():
        rough = gradients(conv, images, exact[0])
    assert len(rough) == len(exact)
    for ours, reference in zip(rough, exact, strict=True):
        assert ours.dtype == reference.dtype
        assert (ours - reference).norm() < 0.01 * reference.norm()
