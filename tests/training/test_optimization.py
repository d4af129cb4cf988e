from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from training_runs import DRAWN

from crispseg import SegmentationModel, create_model
from crispseg.training import TrainConfig
from crispseg.training.optimization import build_optimizer, has_bf16, learning_rate_factor


@pytest.fixture
def model() -> SegmentationModel:
    return create_model("sfnet", num_classes=5, backbone="test_efficientnet", width=8, auxiliary=True)


def settings_of(optimizer: torch.optim.Optimizer) -> dict[int, tuple[float, float]]:
    """(learning rate, weight decay) of every parameter, each of which must occur once."""
    settings: dict[int, tuple[float, float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert id(parameter) not in settings
            settings[id(parameter)] = (group["lr"], group["weight_decay"])
    return settings


@pytest.mark.parametrize("optimizer", ["muon", "adamw", "sgd"])
@pytest.mark.parametrize("decay_all", [True, False])
def test_every_parameter_has_its_settings(model: SegmentationModel, optimizer: Any, decay_all: bool) -> None:
    config = TrainConfig(
        DRAWN, optimizer=optimizer, lr=0.2, backbone_lr_factor=0.1, weight_decay=0.05, decay_norms_and_biases=decay_all
    )
    settings = settings_of(build_optimizer(model, config))
    norms_and_biases = {
        id(parameter)
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, nn.BatchNorm2d) or name == "bias"
    }
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    assert norms_and_biases & backbone and norms_and_biases - backbone
    expected = {
        id(parameter): (
            pytest.approx(0.02) if id(parameter) in backbone else 0.2,
            0.05 if decay_all or id(parameter) not in norms_and_biases else 0.0,
        )
        for parameter in model.parameters()
    }
    assert settings == expected


def scheduled(schedule: Any, **changes: Any) -> TrainConfig:
    return TrainConfig(DRAWN, schedule=schedule, **{"warmup": 0} | changes)


def of(total: int) -> Callable[[int], float]:
    """The share of so many steps that lies behind."""
    return lambda step: step / total


def test_poly_and_cosine_decay_at_every_step_poly_epoch_at_every_epoch_and_constant_never() -> None:
    cosine = learning_rate_factor(scheduled("cosine"), of(8), 3)
    assert [cosine(step) for step in (0, 2, 4, 6, 8, 9)] == pytest.approx([1, 0.853553, 0.5, 0.146447, 0, 0], abs=1e-6)
    schedules: Any = ("poly", "poly_epoch", "constant")
    poly, of_epoch, constant = (
        learning_rate_factor(scheduled(schedule, power=0.9), of(100), 10) for schedule in schedules
    )
    for step, start in ((0, 0), (1, 0), (9, 0), (10, 10), (37, 30), (99, 90)):
        assert poly(step) == pytest.approx((1 - step / 100) ** 0.9)
        assert of_epoch(step) == pytest.approx((1 - start / 100) ** 0.9)
        assert constant(step) == constant(step + 50) == 1.0


@pytest.mark.parametrize(
    ("drops", "total", "expected"),
    [
        (None, 9, [1.0] * 6 + [0.1] * 3),
        (None, 10, [1.0] * 7 + [0.1] * 3),
        ([0.5, 0.75], 8, [1.0] * 4 + [0.1] * 2 + [0.01] * 2),
        ([0.75, 0.5], 8, [1.0] * 4 + [0.1] * 2 + [0.01] * 2),
        ([0.1], 1, [1.0]),
    ],
)
def test_step_drops_at_shares_of_all_steps(drops: list[float] | None, total: int, expected: list[float]) -> None:
    config = scheduled("step") if drops is None else scheduled("step", lr_drops=drops)
    factor = learning_rate_factor(config, of(total), 10)
    assert [factor(step) for step in range(total)] == pytest.approx(expected)
    assert factor(total + 1) == pytest.approx(0.1 ** len(config.lr_drops))


@pytest.mark.parametrize("schedule", ["poly", "poly_epoch", "cosine", "step", "constant"])
def test_warmup_rises_linearly_and_then_is_gone(schedule: Any) -> None:
    warm = learning_rate_factor(scheduled(schedule, warmup=20), of(100), 10)
    plain = learning_rate_factor(scheduled(schedule), of(100), 10)
    for step in range(20):
        assert warm(step) == pytest.approx((step + 1) / 20 * plain(step))
    for step in range(20, 100):
        assert warm(step) == plain(step)


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_vnni", False),
        ("flags\t\t: fpu avx512f avx512_bf16", True),
        ("flags\t\t: amx_bf16 fpu", True),
        ("Features\t: fp asimd", False),
        ("Features\t: fp asimd bf16", True),
    ],
)
def test_processors_with_bf16(line: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n")
    config = TrainConfig(DRAWN, device="cpu")
    assert has_bf16(config, tmp_path / "cpuinfo") is has and not has_bf16(config, tmp_path / "elsewhere")
