"""The example that draws the papers' figures: which ones a model gives, and that it writes them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from crispseg.io.images import read_image, write_image
from tests.inspection.models import inspected, lively, scene

FIGURES = {
    "sfnet": ["sfnet_figure_5"],
    "ddsm_upernet": ["ddsm_figure_4"],
    "agln": ["agln_figure_3"],
    "unept": ["unept_figure_4", "unept_sampling"],
    "fpn": [],
}


@pytest.fixture(scope="module")
def example() -> Any:
    path = Path(__file__).resolve().parents[2] / "examples/paper_figures.py"
    spec = importlib.util.spec_from_file_location("paper_figures", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_each_system(example: Any, name: str) -> None:
    assert list(example.figures(inspected(name))) == FIGURES[name]


def test_it_writes_them(example: Any, tmp_path: Path) -> None:
    lively("sfnet").save_pretrained(tmp_path / "model")
    write_image(tmp_path / "street.png", scene()[0])
    example.main(str(tmp_path / "model"), str(tmp_path / "street.png"), str(tmp_path / "out"))
    assert read_image(tmp_path / "out/street_sfnet_figure_5.png").std() > 10
