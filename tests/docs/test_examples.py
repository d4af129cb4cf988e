"""The scripts of examples/."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from crispseg.io.images import read_image, write_image
from tests.inspection.models import inspected, lively, scene

pytest.importorskip("segmentation_models_pytorch")

ROOT = Path(__file__).resolve().parents[2]
TAPS = {"fam": "flow (2, 2, 16, 24)", "ddsm": "spatial.affinity.sampler.offset (2, 50, 16, 24)"}


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_runs(capsys: pytest.CaptureFixture[str]) -> None:
    loaded("smp_fpn").main()
    printed = capsys.readouterr().out
    for fuse, tap in TAPS.items():
        assert re.search(rf"{fuse}: loss \d+\.\d\d, logits \(2, 5, 64, 96\)", printed)
        largest = re.search(rf"decoder\.p2\.fuse\.{re.escape(tap)}, up to (\S+)", printed)
        assert largest and float(largest[1]) > 0, "nothing is displaced"


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
