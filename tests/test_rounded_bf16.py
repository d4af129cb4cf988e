"""benchmarks/rounded_bf16.py in a process of its own, since it stays once it is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[1] / "benchmarks" / "rounded_bf16.py"

CODE = """
import runpy, sys
import torch
import torch.utils._python_dispatch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(6, 24, 3, groups=3), nn.ReLU(), nn.Conv2d(24, 7, 1), nn.Flatten(), nn.Linear(7 * 36, 5))
images = torch.randn(2, 6, 8, 8)

def gradients():
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = net(images)
    out.float().square().sum().backward()
    return [out.detach().float(), *(parameter.grad.clone() for parameter in net.parameters())]

def predicted():
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        return net(images)

products = []

class Watch(torch.utils._python_dispatch.TorchDispatchMode):  # what is called below the plugin
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        products.extend(arg.dtype for arg in args[:2] if "conv" in str(func) or "mm" in str(func))
        return func(*args, **(kwargs or {}))

expected, before = gradients(), predicted()
Watch().__enter__()
runpy.run_path(sys.argv[1])
found = gradients()
for one, other in zip(expected, found, strict=True):
    assert one.abs().max() > 0
    torch.testing.assert_close(one, other, rtol=2**-6, atol=2**-6 * one.abs().max().item())
products.clear()
after = predicted()
assert products and set(products) <= {torch.float32}, products
assert after.dtype == torch.bfloat16
torch.testing.assert_close(before, after, rtol=2**-6, atol=2**-6 * before.abs().max().item())
assert net[0](images).dtype == torch.float32  # what is not bfloat16 is left alone
exact = torch.tensor([[1.0, 2.0**-8]]).bfloat16() @ torch.tensor([[1.0], [1.0]]).bfloat16()
assert exact.dtype == torch.bfloat16 and exact.item() == 1.0  # the float32 sum, rounded to even
print("same")
"""


def test_products_are_those_of_bf16_to_a_rounding() -> None:
    done = subprocess.run([sys.executable, "-c", CODE, str(PLUGIN)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "same", done.stderr
