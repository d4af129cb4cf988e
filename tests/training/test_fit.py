import dataclasses
import importlib.util
import io
import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor
from training_runs import DRAWN, MODEL, equal, files, moved, quietly, rows, state, tiny, untrained

from crispseg import from_pretrained
from crispseg.data import Augment, check_split, class_weights
from crispseg.errors import Interrupted
from crispseg.evaluation.evaluate import evaluate
from crispseg.labels import LabelSet
from crispseg.training import ModelConfig, Run, TrainConfig, train
from crispseg.training import callbacks as class_weight_schedule
from crispseg.training.config import config_to_dict
from crispseg.training.initial_weights import starting_model
from crispseg.training.losses import CrossEntropy
from crispseg.training.task import SegmentationTask
from crispseg.training.training_data import class_weights_of

pytestmark = pytest.mark.usefixtures("without_pictures")


def test_a_run_holds_these_files(tiny_run: Run) -> None:
    assert files(tiny_run.folder) == {
        *("config.yaml", "train.txt", "metrics.csv", "checkpoints/best.ckpt", "checkpoints/last.ckpt"),
        *("model/config.json", "model/model.safetensors", "model/README.md", "val.png", "data.png", "data.digest"),
        "report.html",
    }


def test_metrics_have_a_row_for_each_evaluation(tiny_run: Run) -> None:
    names = DRAWN.label_set().names
    table = rows(tiny_run.folder)
    assert list(table[0]) == [
        *("epoch", "step", "seconds", "lr", "train_loss", "miou", "pixel_accuracy"),
        *(f"iou/{name}" for name in names),
    ]
    assert [(row["epoch"], row["step"]) for row in table] == [("1", "2"), ("2", "4")]
    for row, lr in zip(table, (0.01 * 0.5**0.9, 0.0), strict=True):
        assert float(row["lr"]) == pytest.approx(lr, rel=1e-2)
        assert 0.5 < float(row["train_loss"]) < 20
        assert 0 <= float(row["miou"]) <= float(row["pixel_accuracy"]) <= 100
        iou = [float(row[f"iou/{name}"]) for name in names if row[f"iou/{name}"]]
        assert float(row["miou"]) == pytest.approx(sum(iou) / len(iou), abs=1e-3)
    assert 0 < float(table[0]["seconds"]) <= float(table[1]["seconds"])


def test_the_saved_model_knows_everything(tiny_run: Run) -> None:
    loaded = from_pretrained(tiny_run.folder)
    assert equal(loaded.state_dict(), state(tiny_run.model))
    info = loaded.info
    assert (info.class_names, info.palette) == (DRAWN.label_set().names, DRAWN.label_set().palette)
    assert (info.mean, info.std) == (loaded.backbone.mean, loaded.backbone.std)
    assert info.recipe == config_to_dict(tiny(tiny_run.folder))
    assert info.metrics == {"val_miou": round(tiny_run.miou, 2)}
    assert info.ignore_label == 255


def test_accumulated_batches_are_one_step_and_the_last_epoch_is_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses: list[float] = []
    step = SegmentationTask.training_step

    def spy(task: SegmentationTask, batch: Any, index: int) -> Tensor:
        loss = step(task, batch, index)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(SegmentationTask, "training_step", spy)
    settings = {"epochs": 3, "batch_size": 2, "accumulate": 3, "val_every": 2}  # 4 batches an epoch: 3 and 1
    table = rows(quietly(tiny(tmp_path / "run", **settings)).folder)
    assert [(row["epoch"], row["step"]) for row in table] == [("2", "4"), ("3", "6")]
    assert float(table[0]["lr"]) == pytest.approx(0.01 * (1 / 3) ** 0.9, rel=1e-2)
    means = [np.mean(losses[:8]), np.mean(losses[8:])]
    np.testing.assert_allclose([float(row["train_loss"]) for row in table], means, atol=1e-3)


def test_gradients_are_clipped_and_a_frozen_backbone_stays_as_it_is(tmp_path: Path) -> None:
    settings = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "epochs": 1}
    config = tiny(tmp_path / "run", clip=1e-3, freeze_backbone=True, **settings)
    run, start = quietly(config), untrained(config)
    assert 0 < moved(run, config) <= 2 * 1e-3 * 1.01  # two steps
    assert equal(run.model.backbone.state_dict(), start.backbone.state_dict())  # batch-norm statistics too
    assert not equal(run.model.decoder.state_dict(), start.decoder.state_dict())


def test_ema_is_evaluated_and_saved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 8, "schedule": "constant", "lr": 0.1}  # a step an epoch
    averaged = quietly(tiny(tmp_path / "ema", ema=0.5, **settings))
    last = torch.load(averaged.folder / "checkpoints/last.ckpt", weights_only=True)
    key = "model.classifier.weight"
    assert not torch.equal(last["state_dict"][key], last["current_model_state"][key])
    best = torch.load(averaged.folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, parameter in averaged.model.named_parameters():
        torch.testing.assert_close(parameter, best[f"model.{name}"])
    assert evaluate(averaged.model, DRAWN.dataset("val"), workers=0).miou == pytest.approx(averaged.miou, abs=0.05)


def test_class_weights(tmp_path: Path, refuses: Any) -> None:
    report = check_split(DRAWN.dataset("train"), "train")
    assert class_weights_of(tiny(tmp_path), report) is None
    balanced = class_weights_of(tiny(tmp_path, class_weights="balanced"), report)
    assert balanced is not None and np.array_equal(balanced.numpy(), class_weights(report))
    given = class_weights_of(tiny(tmp_path, class_weights=[0.5] * 12), report)
    assert given is not None and given.tolist() == [0.5] * 12
    with refuses("class_weights", "3", "12"):
        class_weights_of(tiny(tmp_path, class_weights=[1.0, 2.0, 3.0]), report)


def test_softened_weights_become_milder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """During the first half of a run: the first one has two steps, and becomes one of six."""
    seen: list[Tensor] = []
    forward = CrossEntropy.forward

    def spy(loss: CrossEntropy, logits: Tensor, labels: Tensor) -> Tensor:
        assert loss.class_weights is not None
        seen.append(loss.class_weights.clone())
        return forward(loss, logits, labels)

    monkeypatch.setattr(CrossEntropy, "forward", spy)
    monkeypatch.setattr(class_weight_schedule, "SCHEDULE_STEPS", (1, 500))
    monkeypatch.setattr(class_weight_schedule, "SCHEDULE_SHARE", 1 / 2)
    settings: dict[str, Any] = {"class_weights": "softened", "auxiliary_weight": 0.0}
    quietly(tiny(tmp_path / "run", epochs=1, **settings))
    quietly(tiny(tmp_path / "run", epochs=3, **settings), resume=True)
    shares = np.array(check_split(DRAWN.dataset("train"), "train").shares)
    for weights, exponent in zip(seen, (1 / 2, 1 / 3, 4 / 9, 1 / 3, 1 / 3, 1 / 3), strict=True):
        expected = np.where(shares > 0, (shares.max() / np.maximum(shares, 1e-4)) ** exponent, 0)
        np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert len({weights[shares > 0].max().item() for weights in seen}) == 3  # it is about something


def test_bf16_and_tensorboard(tmp_path: Path) -> None:
    folder = quietly(tiny(tmp_path / "run", epochs=1, precision="bf16", loggers=None)).folder
    assert math.isfinite(float(rows(folder)[0]["train_loss"]))
    if importlib.util.find_spec("tensorboard"):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder / "tensorboard")).Reload()
        assert {"train/loss_step", "val/miou"} <= {*events.Tags()["scalars"]}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"workers": 10**9}, "workers is 1000000000"),
        ({"devices": 10**9}, "devices is 1000000000"),
        ({"lr": math.nan}, "lr is nan"),
        ({"lr_drops": [0.5, 1.0]}, "lr_drops is 1.0"),
        ({"class_weights": [1.0, -1.0]}, "class_weights is -1.0"),
        ({"class_weights": "balanced", "loss": "dice"}, "class_weights apply to cross_entropy"),
        ({"loss": {"dicee": 1.0}}, "loss is {'dicee': 1.0}"),
        ({"minutes": 1, "epochs": 2}, "minutes is 1, next to epochs"),
        ({"augment": Augment(crop=None)}, "augment.scale"),
        ({"augment": Augment(crop=(16, 96))}, "augment.crop is [16, 96]"),
        (
            {"model": dataclasses.replace(MODEL, in_chans=4), "augment": Augment(photometric=True)},
            "augment.photometric does not support 4 channels",
        ),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, Any], named: str, refuses: Any) -> None:
    with refuses(named):
        TrainConfig(DRAWN, **changes)


def test_init_from_takes_all_weights_but_the_classifier_of_other_classes(tiny_run: Run, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", init_from=str(tiny_run.folder / "model"))
    model, note = starting_model(config, DRAWN.label_set())
    assert equal(state(model), state(tiny_run.model)) and "all weights" in note
    names = DRAWN.label_set().names
    for classes in (("road", "building", "sky"), names[::-1]):  # another order is another task too
        model, note = starting_model(config, LabelSet(classes, tuple((index, 0, 0) for index in range(len(classes)))))
        assert "classifier" in note and model.info.class_names == classes
        start = state(tiny_run.model)
        same = {key for key, value in state(model).items() if torch.equal(value, start[key])}
        assert {key for key in start if not key.startswith("classifier.")} <= same
        assert "classifier.weight" not in same


@pytest.mark.parametrize("change", [{"name": "sfnet"}, {"in_chans": 1}])
def test_init_from_another_network_is_refused(change: Any, tiny_run: Run, tmp_path: Path, refuses: Any) -> None:
    config = tiny(tmp_path / "run", init_from=str(tiny_run.folder), model=dataclasses.replace(MODEL, **change))
    with refuses("init_from", str(tiny_run.folder), "fpn on test_efficientnet", "width 16"):
        starting_model(config, DRAWN.label_set())


def test_a_loss_that_explodes_says_what_to_change(tmp_path: Path, refuses: Any) -> None:
    with refuses("loss", "nan", "lr 1e+30"):
        quietly(tiny(tmp_path / "run", lr=1e30, schedule="constant"))
    assert not (tmp_path / "run/model").exists()


@pytest.mark.parametrize("stop", [0, 3])
def test_an_interrupted_run_says_what_was_kept(stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(task: SegmentationTask, *_: Any) -> Tensor:
        if task.global_step == stop:
            raise KeyboardInterrupt
        return training_step(task, *_)

    training_step = SegmentationTask.training_step
    monkeypatch.setattr(SegmentationTask, "training_step", interrupt)
    kept = ".*step 2 .*" if stop else ""
    again = f"resume the run: crispseg train --resume={tmp_path}/run$"
    with pytest.raises(Interrupted, match=f"step {stop}; {kept}{again}") as caught:
        quietly(tiny(tmp_path / "run", ema=0.5))
    assert caught.value.number == signal.SIGINT
    if stop:  # the model is there already, with the averaged weights that were evaluated
        best = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
        saved = from_pretrained(tmp_path / "run")
        assert all(torch.equal(value, best[f"model.{key}"]) for key, value in saved.state_dict().items())
        assert saved.info.metrics == {"val_miou": round(float(rows(tmp_path / "run")[0]["miou"]), 2)}


def test_a_network_that_does_not_fit_into_memory(tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crispseg.models.base.MAX_WIDTH", 10**9)  # as on a machine of little memory
    wide = ModelConfig("fpn", "test_efficientnet", False, options={"width": 10**9})
    with refuses("fpn", "test_efficientnet", "memory"):
        starting_model(tiny(tmp_path, model=wide), DRAWN.label_set())


def test_memory_that_does_not_suffice_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Any
) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(SegmentationTask, "training_step", full)
    with refuses("batch_size"):
        quietly(tiny(tmp_path / "run"))


def test_pictures_and_pages_that_fail_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("the font has\nno such letter")

    for name in ("training_data.draw_data", "fit.draw_panels", "fit.write_report"):
        monkeypatch.setattr(f"crispseg.training.{name}", fail)
    console = Console(file=io.StringIO())
    run = train(tiny(tmp_path / "run", epochs=1), console=console)
    lines = [line for line in console.file.getvalue().splitlines() if "the font has no such letter" in line]
    assert len(lines) == 3 and all(name in " ".join(lines) for name in ("data.png", "val.png", "report.html"))
    assert from_pretrained(run.folder).info == run.model.info
