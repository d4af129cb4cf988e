import json
import re
from pathlib import Path

import pytest
from commands import Capture
from drawn import as_flags
from PIL import Image
from training_runs import DRAWN

from crispseg import from_pretrained
from crispseg.cli.main import main
from crispseg.evaluation.evaluate import evaluate

TINY = [
    *("--model.backbone=test_efficientnet", "--model.width=16"),
    *("--augment.crop=[64,96]", "--batch_size=4", "--model.pretrained=false", "--workers=0", "--loggers=[]"),
    *("--epochs=1", "--precision=fp32", "--warmup=0", "--lr=0.02"),
]
FEW = as_flags(DRAWN)


def test_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", *TINY, *FEW]) == 0
    shown = capsys.readouterr().out
    run = tmp_path / "runs/quickstart"
    for name in ("config.yaml", "metrics.csv", "scores.json", "panels.png", "checkpoints/best.ckpt"):
        assert (run / name).is_file(), name
    assert {path.name for path in (run / "model").iterdir()} == {"config.json", "model.safetensors", "README.md"}

    # Scores of images that neither training nor the choice of the best weights has seen, before and after.
    scores = json.loads((run / "scores.json").read_text())
    model = from_pretrained(run)
    after = evaluate(model, DRAWN.dataset("test"), workers=0)
    assert scores["after"]["confusion"] == after.confusion.tolist()
    assert scores["before"]["confusion"] != after.confusion.tolist()
    assert model.info.metrics["unseen_miou"] == pytest.approx(after.miou, abs=0.01)
    assert "val_miou" in model.info.metrics
    assert "before" in shown and "after" in shown
    row = next(line for line in shown.splitlines() if re.match("│ mIoU", line))
    assert all(f"{scores[when]['miou']:.1f}" in row for when in ("before", "after"))
    assert "crispseg predict runs/quickstart" in shown

    with Image.open(run / "panels.png") as panels:
        assert panels.width > 5 * 96 and panels.height > 4 * 64

    for name in ("scores.json", "panels.png"):  # nor would one replace what it did not write
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        assert main(["quickstart", *TINY, *FEW, "--out", str(tmp_path / name)]) == 2
        assert f"already contains {name}" in capsys.readouterr().err

    # A second one would not touch the first, nor does it write into a folder that is named.
    assert main(["quickstart", *TINY, *FEW, "--print_config"]) == 0
    assert "out: runs/quickstart-2\n" in capsys.readouterr().out
    assert main(["quickstart", *TINY, *FEW, "--out", str(run)]) == 2
    assert "already contains" in capsys.readouterr().err
