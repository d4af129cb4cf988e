"""The scripts of examples/."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from crispseg import record
from crispseg.io.images import read_image, write_image
from tests.inspection.models import inspected, lively, scene

pytest.importorskip("segmentation_models_pytorch")

ROOT = Path(__file__).resolve().parents[2]
IMAGES, CLASSES = (2, 3, 64, 96), 5
FINEST = (16, 24)  # of the decoder's blocks

TAPS = {
    "fam": {"flow": (2, 2, *FINEST), "warped": (2, 64, *FINEST)},
    "ddsm": {"spatial.affinity.sampler.offset": (2, 2 * 25, *FINEST), "x_Sout": (2, 64, *FINEST)},
}


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example() -> Any:
    return loaded("smp_fpn")


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
    named = [(f"{name}.{key}", value) for name, part in parts.items() for key, value in part.named_parameters()]
    assert not [name for name, value in named if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize("fuse", TAPS)
def test_with_equal_weights_the_outputs_are_not_those_of_smp(example: Any, fuse: str) -> None:
    fused, plain = example.fpn(fuse).eval(), example.fpn().eval()
    unmatched = plain.load_state_dict(fused.state_dict(), strict=False)
    assert not unmatched.missing_keys
    assert all(".fuse." in key for key in unmatched.unexpected_keys)
    images = torch.randn(IMAGES)
    with torch.no_grad():
        ours, theirs = fused(images), plain(images)
        assert (ours - theirs).abs().max() > 0.01 * theirs.std()
        # and differ by nothing else: with smp's own interpolation and addition, they are equal
        for name in ("p4", "p3", "p2"):
            setattr(fused.decoder, name, getattr(plain.decoder, name))
        torch.testing.assert_close(fused(images), theirs)


def test_figures_of_the_papers(tmp_path: Path) -> None:
    example = loaded("paper_figures")
    for name, figures in {
        "sfnet": ["sfnet_figure_5"],
        "ddsm_upernet": ["ddsm_figure_4"],
        "agln": ["agln_figure_3"],
        "unept": ["unept_figure_4", "unept_sampling"],
        "fpn": [],
    }.items():
        assert list(example.figures(inspected(name))) == figures
    lively("sfnet").save_pretrained(tmp_path / "model")
    write_image(tmp_path / "street.png", scene()[0])
    example.main(str(tmp_path / "model"), str(tmp_path / "street.png"), str(tmp_path / "out"))
    assert read_image(tmp_path / "out/street_sfnet_figure_5.png").std() > 10
