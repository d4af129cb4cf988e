"""What examples/ shows, and docs/extending.md says of it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import record

pytest.importorskip("segmentation_models_pytorch")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples/smp_fpn.py"
IMAGES, CLASSES = (2, 3, 64, 96), 5
FINEST = (16, 24)  # of the decoder's blocks

TAPS = {
    "fam": {"flow": (2, 2, *FINEST), "warped": (2, 64, *FINEST)},
    "ddsm": {"spatial.affinity.sampler.offset": (2, 2 * 25, *FINEST), "x_Sout": (2, 64, *FINEST)},
}


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("smp_fpn", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    printed = capsys.readouterr().out
    for fuse, taps in TAPS.items():
        tap, shape = next(iter(taps.items()))
        assert re.search(rf"{fuse}: loss \d+\.\d\d, logits \(2, 5, 64, 96\)", printed)
        largest = re.search(rf"decoder\.p2\.fuse\.{re.escape(f'{tap} {shape}')}, up to (\S+)", printed)
        assert largest and float(largest[1]) > 0, "nothing is displaced"


@pytest.mark.parametrize("fuse", TAPS)
def test_all_parameters_of_the_parts_get_gradients(example: Any, fuse: str) -> None:
    model = example.fpn(fuse)
    parts = {name: part for name, part in model.decoder.named_children() if isinstance(part, example.FusedBlock)}
    assert list(parts) == ["p4", "p3", "p2"]
    with record(model) as seen:
        logits = model(torch.randn(IMAGES))
    assert logits.shape == (2, CLASSES, 64, 96)
    for tap, shape in TAPS[fuse].items():
        assert seen[f"decoder.p2.fuse.{tap}"].shape == shape
    (logits * torch.randn_like(logits)).sum().backward()
    without = [
        f"{name}.{key}"
        for name, part in parts.items()
        for key, parameter in part.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without


@pytest.mark.parametrize("fuse", TAPS)
def test_with_equal_weights_the_outputs_are_not_those_of_smp(example: Any, fuse: str) -> None:
    fused, plain = example.fpn(fuse).eval(), example.fpn().eval()
    unmatched = plain.load_state_dict(fused.state_dict(), strict=False)
    assert not unmatched.missing_keys
    assert all(".fuse." in key for key in unmatched.unexpected_keys)
    images = torch.randn(IMAGES)
    with torch.no_grad():
        ours, theirs = fused(images), plain(images)
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() > 0.01 * theirs.std()
        # and differ by nothing else: with smp's own interpolation and addition, they are equal
        for name in ("p4", "p3", "p2"):
            setattr(fused.decoder, name, getattr(plain.decoder, name))
        torch.testing.assert_close(fused(images), theirs)


def test_the_documentation_shows_its_core() -> None:
    documentation = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(class FusedBlock.*?)```", documentation, re.DOTALL)
    assert block and block[1] in EXAMPLE.read_text(encoding="utf-8")
