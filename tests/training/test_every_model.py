"""Every model goes all the way from a folder of images and masks: it trains, is scored and predicts."""

from pathlib import Path

import numpy as np
import pytest
from commands import Capture, output_of

from crispseg import list_models
from crispseg.io.images import write_image

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_pictures")]

SHORT = ["--iterations=2", "--augment.crop=[64,64]", "--batch_size=2", "--workers=0", "--loggers=[]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen images of a square, enough to compare other images with them."""
    root = tmp_path_factory.mktemp("squares")
    random = np.random.default_rng(0)
    for number in range(16):
        mask = np.zeros((70, 90), np.uint8)
        top, left = random.integers(5, 45, 2)
        mask[top : top + 20, left : left + 30] = 1
        write_image(root / f"masks/{number}.png", mask)
        noise = random.integers(40, size=(70, 90, 3), dtype=np.uint8)
        write_image(root / f"images/{number}.png", mask[..., None] * 90 + noise)
    return root


@pytest.mark.parametrize("options", [*list_models(), "unept --model.levels=1"])
def test_all_the_way(options: str, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    network = [*f"--model={options}".split(), "--model.backbone=test_efficientnet", "--model.pretrained=false"]
    output_of(capsys, "train", folder, *network, *SHORT, f"--out={tmp_path / 'run'}")
    assert "mIoU" in output_of(capsys, "evaluate", tmp_path / "run")
    output_of(capsys, "predict", tmp_path / "run", folder / "images", f"--out={tmp_path / 'out'}")
    assert len((tmp_path / "out/novelty.csv").read_text().splitlines()) == 17
