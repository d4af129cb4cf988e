"""The scripts of examples/."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import Refuses, unknown_again
from other_programs import program, run

from crispseg import create_model
from crispseg.config.registry import load_plugins
from crispseg.io.images import read_image, write_image
from tests.inspection.models import inspected, lively, scene

ROOT = Path(__file__).resolve().parents[2]
TAPS = {"fam": "flow (2, 2, 16, 24)", "ddsm": "spatial.affinity.sampler.offset (2, 50, 16, 24)"}


def loaded(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_parts_in_a_model_of_another_library(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("segmentation_models_pytorch")
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


def test_frames_of_a_file(tmp_path: Path, refuses: Refuses) -> None:
    pytest.importorskip("tkinter")
    frames = loaded("camera").frames
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (48, 32))
    for number in range(9):
        writer.write(np.full((32, 48, 3), (10 * number, 100, 200), np.uint8))  # BGR
    writer.release()
    images = list(frames(str(tmp_path / "a.avi")))
    assert len(images) == 9
    for number, frame in enumerate(images):
        assert np.abs(frame.mean((0, 1)) - (200, 100, 10 * number)).max() < 4  # RGB
    with refuses("missing.avi cannot be opened"):
        list(frames(str(tmp_path / "missing.avi")))


@pytest.mark.parametrize("name", ["longformer", "reformer", "sparse"])
def test_attention_of_other_papers_learns(name: str) -> None:
    pytest.importorskip("transformers")
    torch.manual_seed(0)
    with unknown_again():
        load_plugins([str(ROOT / "examples/unept_encoders.py")])
        model = create_model(f"unept_{name}", num_classes=5, backbone="test_efficientnet", width=32, points=4)
    logits = model.train()(torch.randn(2, 3, 65, 97))
    assert logits.shape == (2, 5, 65, 97)
    logits.square().mean().backward()
    for layer in model.decoder.encoder:
        learned = [parameter for parameter in layer.parameters() if parameter.requires_grad]
        assert len(learned) > 10 and all(parameter.grad is not None for parameter in learned)


@pytest.mark.tools
def test_cvat() -> None:
    python = program("CRISPSEG_CVAT_PYTHON", "Python with crispseg's packages and cvat-cli")
    run(python, Path(__file__).with_name("with_cvat.py"))
