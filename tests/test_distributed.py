from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from crispseg import create_model
from crispseg.cli.main import main
from crispseg.data import Scenes, eval_transform
from crispseg.data.loading import eval_loader
from crispseg.training.task import SyncedNorms


def test_synchronised_norms_keep_their_activations() -> None:
    model = create_model("sfnet", num_classes=3, backbone="tf_efficientnet_lite0", width=8).eval()
    images = torch.randn(1, 3, 64, 64)
    before = model(images)
    assert any(isinstance(module, BatchNormAct2d) for module in model.modules())
    synced = SyncedNorms().apply(model)
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) > 50
    torch.testing.assert_close(synced(images), before)


@pytest.mark.parametrize("devices", [2, 3])
def test_each_sample_counts_once_whatever_the_number_of_devices(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Scenes(train=1, val=5, test=1, height=64, width=96).dataset("val")
    transform = eval_transform((0.5,) * 3, (0.5,) * 3)
    shares = []
    for rank in range(devices):
        monkeypatch.setattr("crispseg.data.loading._rank", lambda rank=rank: rank)
        shares.append(list(eval_loader(data, transform, 0, devices)))
        assert len(shares[-1]) == -(-5 // devices)
    batches = [batch for together in zip(*shares, strict=True) for batch in together]
    assert [bool((labels != 255).any()) for _, labels in batches] == [True] * 5 + [False] * (len(batches) - 5)
    for index in range(5):
        assert torch.equal(batches[index][0][0], transform(data[index])[0])


@pytest.mark.slow
def test_two_processes_score_as_one(tmp_path: Path) -> None:
    settings = (
        "--preset paper --model fpn --model.backbone test_efficientnet --model.width 8 --data.height 64 "
        "--data.width 96 --data.train 8 --data.val 5 --data.test 1 --augment.crop [64,96] --augment.repeat 1 "
        "--epochs 1 --batch_size 4 --workers 0 --loggers [] --accelerator cpu --devices 2"
    )
    command = [sys.executable, "-m", "crispseg", "train", *settings.split(), "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("train: 8 images") == done.stderr.count("best mIoU on val") == 1  # one process speaks
    assert main(["evaluate", str(tmp_path / "run"), "--json", str(tmp_path / "scores.json"), "--workers", "0"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["miou"]) == pytest.approx(scores["miou"], abs=1e-3)
    assert float(row["pixel_accuracy"]) == pytest.approx(scores["pixel_accuracy"], abs=1e-3)
