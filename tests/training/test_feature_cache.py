"""Runs on cached features, against the same runs on images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_runs import equal, quietly, rows, state, tiny, untrained, without_time

from crispseg.training import ModelConfig, TrainConfig


def frozen(out: Path, name: str = "fpn", backbone: str = "test_vit", **changes: Any) -> TrainConfig:
    model = ModelConfig(name, backbone, False, options={"width": 16})
    return tiny(out, model=model, **{"freeze_backbone": True, **changes})


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (("crisp", "test_efficientnet"), {"ema": 0.9}),
        pytest.param(("crisp", "test_vit"), {"precision": "bf16", "workers": 1}, marks=pytest.mark.slow),
    ],
)
def test_cached_features_change_nothing(model: tuple[str, str], changes: dict[str, Any], tmp_path: Path) -> None:
    """Random crops, flips and colours included: each of the two epochs has its version."""
    config = frozen(tmp_path / "cached", *model, cache_features=True, **changes)
    cached, plain = quietly(config), quietly(frozen(tmp_path / "plain", *model, **changes))
    assert without_time(cached.folder) == without_time(plain.folder)
    assert equal(state(cached.model), state(plain.model))
    body, start = cached.model.backbone.body, untrained(config)
    assert equal(body.state_dict(), start.backbone.body.state_dict())
    assert not equal(state(cached.model.classifier), state(start.classifier))


@pytest.mark.slow
def test_epochs_use_the_versions_in_turn(tmp_path: Path) -> None:
    """Without learning and with one batch per epoch, the loss depends on the crops only."""
    settings: dict[str, Any] = {"cache_features": True, "cache_versions": 2, "epochs": 4}
    settings |= {"lr": 0.0, "auxiliary_weight": 0.0, "batch_size": 8}
    losses = [float(row["train_loss"]) for row in rows(quietly(frozen(tmp_path / "run", **settings)).folder)]
    assert losses[:2] == pytest.approx(losses[2:], abs=2e-3)
    assert losses[0] != pytest.approx(losses[1], abs=1e-2)


def test_what_cannot_be_cached_is_refused(tmp_path: Path, refuses: Any) -> None:
    with refuses("cache_features", "freeze_backbone is early", "true"):
        frozen(tmp_path, cache_features=True, freeze_backbone="early")
    with refuses("cache_features", "devices"):
        frozen(tmp_path, cache_features=True, devices=2)
    with refuses("cache_features", "unept", "images"):
        quietly(frozen(tmp_path / "unept", "unept", "test_efficientnet", cache_features=True))


def test_a_limit_or_a_full_disk_is_an_error_before_the_features_are_computed(
    tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refuses("cache_features", "GB", "cache_limit is 1e-06", "cache_versions"):
        quietly(frozen(tmp_path / "limit", cache_features=True, cache_limit=1e-6))
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1}))
    with refuses("cache_features", "free in", "out"):
        quietly(frozen(tmp_path / "full", cache_features=True))
    assert not [*tmp_path.glob("*/.crispseg-*")]
