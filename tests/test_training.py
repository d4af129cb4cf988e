from __future__ import annotations

import dataclasses
import importlib.util
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from rich.console import Console
from torch import Tensor
from training_runs import (
    BUILDING,
    MODEL,
    ROAD,
    SCENES,
    SKY,
    STILL,
    equal,
    files,
    moved,
    quietly,
    rows,
    state,
    tiny,
    untrained,
    without_time,
)

from crispseg import Segmenter, from_pretrained
from crispseg.data import Augment, Folder
from crispseg.evaluation.evaluate import evaluate
from crispseg.imaging import write_image
from crispseg.training import ModelConfig, Run, train
from crispseg.training.config import config_to_dict
from crispseg.training.task import SegmentationTask


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One finished run for all tests that only look at it."""
    return quietly(tiny(tmp_path_factory.mktemp("runs") / "plain"))


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Scenes with all but three classes ignored, as a folder of files."""
    root = tmp_path_factory.mktemp("folder")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    table = np.full(256, 255, np.uint8)
    table[[ROAD, BUILDING, SKY]] = range(3)
    for sample in SCENES.dataset("train"):
        write_image(root / "images" / f"{sample.name}.png", sample.image)
        write_image(root / "masks" / f"{sample.name}.png", table[sample.labels])
    return Folder(root / "images", root / "masks", classes=["road", "building", "sky"])


# A finished run -----------------------------------------------------------------------------------------------------


def test_a_run_holds_these_files(run: Run) -> None:
    assert files(run.folder) == {
        "config.yaml",
        "metrics.csv",
        "checkpoints/best.ckpt",
        "checkpoints/last.ckpt",
        "model/config.json",
        "model/model.safetensors",
        "model/README.md",
    }


def test_metrics_have_a_row_for_each_evaluation(run: Run) -> None:
    names = SCENES.label_set().names
    table = rows(run.folder)
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
        assert float(row["seconds"]) >= 0


def test_checkpoints_are_no_code(run: Run) -> None:
    for name in ("best", "last"):
        checkpoint = torch.load(run.folder / f"checkpoints/{name}.ckpt", weights_only=True)
        assert set(state(run.model)) <= {key.removeprefix("model.") for key in checkpoint["state_dict"]}
    assert checkpoint["optimizer_states"]  # of the last, from which training can continue


def test_config_repeats_the_run(run: Run) -> None:
    tree = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert tree == config_to_dict(tiny(run.folder))
    assert tree["data"] == {"name": "scenes", "train": 8, "val": 4, "test": 4, "height": 64, "width": 96, "seed": 0}


def test_the_saved_model_knows_everything(run: Run) -> None:
    loaded = from_pretrained(run.folder)
    assert equal(loaded.state_dict(), state(run.model))
    info = loaded.info
    assert (info.class_names, info.palette) == (SCENES.label_set().names, SCENES.label_set().palette)
    assert (info.mean, info.std) == (loaded.backbone.mean, loaded.backbone.std)
    assert info.recipe == config_to_dict(tiny(run.folder))
    assert info.metrics == {"val_miou": round(run.miou, 2)}
    assert info.ignore_label == 255


def test_the_best_evaluation_is_what_is_saved(run: Run) -> None:
    assert run.miou == pytest.approx(max(float(row["miou"]) for row in rows(run.folder)), abs=1e-3)
    assert evaluate(run.model, SCENES.dataset("val"), workers=0).miou == pytest.approx(run.miou, abs=0.05)


def test_a_run_predicts(run: Run) -> None:
    sample = SCENES.dataset("test")[0]
    result = Segmenter(run.folder)(sample.image)
    assert result.labels.shape == sample.labels.shape
    assert result.label_set.names == SCENES.label_set().names


@pytest.mark.slow
def test_training_learns(tmp_path: Path) -> None:
    settings = {"optimizer": "adamw", "lr": 0.01, "hard_fraction": 1.0, "auxiliary_weight": 0.0, "augment": STILL}
    config = tiny(tmp_path / "run", epochs=40, val_every=10, **settings)
    finished = quietly(config)
    table = rows(finished.folder)
    assert [row["epoch"] for row in table] == ["10", "20", "30", "40"]
    assert float(table[-1]["train_loss"]) < 0.8 * float(table[0]["train_loss"])
    seen = SCENES.dataset("train")
    before, after = (evaluate(model, seen, workers=0) for model in (untrained(config).eval(), finished.model))
    assert before.miou < 10
    assert after.miou > 20
    assert after.pixel_accuracy > 60


def test_the_same_seed_gives_the_same_run(run: Run, tmp_path: Path) -> None:
    again = quietly(tiny(tmp_path / "again", deterministic=True))
    assert without_time(again.folder) == without_time(run.folder)
    assert equal(state(again.model), state(run.model))


def test_another_seed_gives_another_run(run: Run, tmp_path: Path) -> None:
    other = quietly(tiny(tmp_path / "other", seed=1))
    assert without_time(other.folder) != without_time(run.folder)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="needs tensorboard")
def test_tensorboard_is_written_where_it_is_installed(tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", epochs=1, loggers=None))
    assert list((finished.folder / "tensorboard").glob("events.out.tfevents.*"))


# Options ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("iterations", "steps"), [(1, ["1"]), (2, ["2"]), (3, ["2", "3"])])
def test_iterations_count_optimizer_steps(iterations: int, steps: list[str], tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", iterations=iterations))
    checkpoint = torch.load(finished.folder / "checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == iterations
    assert [row["step"] for row in rows(finished.folder)] == steps


def test_the_last_epoch_is_evaluated(tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", epochs=2, val_every=3))
    assert [row["epoch"] for row in rows(finished.folder)] == ["2"]


def test_accumulated_batches_are_one_step(tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", batch_size=2, accumulate=3))  # 4 batches an epoch: 3 and 1
    table = rows(finished.folder)
    assert [row["step"] for row in table] == ["2", "4"]
    assert float(table[0]["lr"]) == pytest.approx(0.01 * 0.5**0.9, rel=1e-2)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    settings = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "epochs": 1}
    clipped, free = (tiny(tmp_path / str(clip), clip=clip, **settings) for clip in (1e-3, None))
    assert 0 < moved(quietly(clipped), clipped) <= 2 * 1e-3 * 1.01  # two steps
    assert moved(quietly(free), free) > 0.1


def test_ema_is_evaluated_and_saved(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"batch_size": 8, "schedule": "constant", "lr": 0.1, "epochs": 4}  # a step an epoch
    averaged = quietly(tiny(tmp_path / "ema", ema=0.5, **settings))
    last = torch.load(averaged.folder / "checkpoints/last.ckpt", weights_only=True)
    key = "model.classifier.weight"
    assert not torch.equal(last["state_dict"][key], last["current_model_state"][key])
    best = torch.load(averaged.folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, parameter in averaged.model.named_parameters():
        torch.testing.assert_close(parameter, best[f"model.{name}"])
    assert evaluate(averaged.model, SCENES.dataset("val"), workers=0).miou == pytest.approx(averaged.miou, abs=0.05)


def test_patience_ends_a_run(tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", epochs=40, patience=2, lr=0.0, augment=STILL, batch_size=8))
    miou = [float(row["miou"]) for row in rows(finished.folder)]
    assert len(miou) < 40
    assert len(miou) == int(np.argmax(miou)) + 1 + 2


def test_a_frozen_backbone_stays_as_it_is(run: Run, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", freeze_backbone=True, epochs=1)
    frozen, start = quietly(config).model, untrained(config)
    assert equal(frozen.backbone.state_dict(), start.backbone.state_dict())  # batch-norm statistics too
    assert not equal(frozen.decoder.state_dict(), start.decoder.state_dict())
    assert not equal(run.model.backbone.state_dict(), start.backbone.state_dict())


def test_class_weights_balance(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"epochs": 1, "hard_fraction": 1.0}
    plain = quietly(tiny(tmp_path / "plain", **settings))
    ones = quietly(tiny(tmp_path / "ones", class_weights=[1.0] * 12, **settings))
    balanced = quietly(tiny(tmp_path / "balanced", class_weights="balanced", **settings))
    plain_loss, ones_loss, balanced_loss = (
        float(rows(each.folder)[0]["train_loss"]) for each in (plain, ones, balanced)
    )
    assert ones_loss == pytest.approx(plain_loss, abs=1e-3)
    assert math.isfinite(balanced_loss)
    assert abs(balanced_loss - plain_loss) > 0.01


def test_class_weights_of_another_number_are_refused(tmp_path: Path, refuses: Any) -> None:
    with refuses("class_weights", "3 values for 12 classes"):
        quietly(tiny(tmp_path / "run", class_weights=[1.0, 2.0, 3.0]))


@pytest.mark.parametrize("changes", [{"precision": "bf16"}, {"auxiliary_weight": 0.0}, {"batch_size": 100}])
def test_other_settings_train_too(changes: dict[str, Any], tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", epochs=1, **changes))
    assert math.isfinite(float(rows(finished.folder)[0]["train_loss"]))


def test_grey_images(tmp_path: Path) -> None:
    finished = quietly(tiny(tmp_path / "run", epochs=1, model=dataclasses.replace(MODEL, in_chans=1)))
    assert Segmenter(finished.folder)(SCENES.dataset("val")[0].image).labels.shape == (64, 96)


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"epochs": 0}, ["epochs is 0", "at least 1"]),
        ({"iterations": 0}, ["iterations is 0", "at least 1"]),
        ({"batch_size": 0}, ["batch_size is 0"]),
        ({"workers": -1}, ["workers is -1", "at least 0"]),
        ({"lr": -0.1}, ["lr is -0.1", "negative"]),
        ({"hard_fraction": 0.0}, ["hard_fraction is 0.0", "above 0"]),
        ({"hard_fraction": 1.5}, ["hard_fraction is 1.5", "at most 1"]),
        ({"ema": 1.0}, ["ema is 1.0", "between 0 and 1"]),
        ({"clip": 0.0}, ["clip is 0.0", "positive"]),
        ({"lr_drops": []}, ["lr_drops is []", "such as [0.5, 0.75]"]),
        ({"lr_drops": [0.5, 1.0]}, ["lr_drops is [0.5, 1.0]", "below 1"]),
        ({"lr_drops": [0.0]}, ["lr_drops is [0.0]", "above 0"]),
        ({"lr_drops": [math.nan]}, ["lr_drops is [nan]"]),
        ({"augment": Augment(crop=(16, 96))}, ["augment.crop is [16, 96]", "at least 32"]),
    ],
)
def test_impossible_settings_are_refused(
    changes: dict[str, Any], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    with refuses(*phrases):
        tiny(tmp_path, **changes)


def test_bf16_on_a_processor_without_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr("crispseg.training.run.lacks_bf16", lambda: True)
    train(tiny(tmp_path / "run", epochs=1, precision="bf16"), console=console)
    assert "--precision fp32 is faster here" in console.file.getvalue()  # type: ignore[attr-defined]


# Weights of another run ---------------------------------------------------------------------------------------------


def test_init_from_the_same_classes_takes_all_weights(run: Run, tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", epochs=1, init_from=str(run.folder), lr=0.0, weight_decay=0.0)
    start = dict(run.model.named_parameters())
    for name, parameter in quietly(config).model.named_parameters():
        if not name.startswith("auxiliary_heads."):
            assert torch.equal(parameter, start[name]), name


def test_init_from_other_classes_starts_the_classifier_anew(run: Run, three_classes: Folder, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    config = tiny(
        tmp_path / "run", data=three_classes, epochs=1, init_from=str(run.folder / "model"), lr=0.0, weight_decay=0.0
    )
    model = train(config, console=console).model
    assert "the classifier starts anew" in console.file.getvalue()  # type: ignore[attr-defined]
    assert model.info.class_names == ("road", "building", "sky")
    assert model.classifier.weight.shape[0] == 3
    start = dict(run.model.named_parameters())
    taken = [name for name, _ in model.named_parameters() if not name.startswith(("auxiliary_heads.", "classifier."))]
    assert all(torch.equal(model.get_parameter(name), start[name]) for name in taken)
    # The same number of classes with other names is another task too.
    renamed = dataclasses.replace(three_classes, classes=["a", "b", "c"])
    again = quietly(tiny(tmp_path / "renamed", data=renamed, epochs=1, init_from=str(config.out), lr=0.0)).model
    assert not torch.equal(again.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize(
    "model",
    [
        dataclasses.replace(MODEL, options={"width": 8}),
        dataclasses.replace(MODEL, name="sfnet"),
        dataclasses.replace(MODEL, backbone="test_resnet"),
        dataclasses.replace(MODEL, in_chans=1),
    ],
)
def test_init_from_another_network_is_refused(run: Run, model: ModelConfig, tmp_path: Path, refuses: Any) -> None:
    with refuses("init_from", "does not fit", "tensors differ"):
        quietly(tiny(tmp_path / "run", init_from=str(run.folder), model=model))
    assert files(tmp_path) == set()


# What goes wrong ----------------------------------------------------------------------------------------------------


def test_a_loss_that_explodes_says_what_to_change(tmp_path: Path, refuses: Any) -> None:
    with refuses("the loss became", "step", "lr 1e+30", "lower lr", "warmup", "clip"):
        quietly(tiny(tmp_path / "run", lr=1e30, schedule="constant"))
    assert not (tmp_path / "run/model").exists()


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(task: SegmentationTask, *_: Any) -> Tensor:
        if task.global_step == stop:
            raise KeyboardInterrupt
        return training_step(task, *_)

    training_step = SegmentationTask.training_step
    monkeypatch.setattr(SegmentationTask, "training_step", interrupt)
    stop = 0
    with pytest.raises(KeyboardInterrupt, match="interrupted at step 0; no epoch was finished"):
        quietly(tiny(tmp_path / "early"))
    stop = 3
    with pytest.raises(KeyboardInterrupt, match=f"interrupted at step 3; .* --resume {tmp_path / 'late'}"):
        quietly(tiny(tmp_path / "late"))


def test_a_run_is_never_overwritten(run: Run, refuses: Any) -> None:
    before = {name: (run.folder / name).read_bytes() for name in files(run.folder)}
    with refuses(f"{run.folder} holds a run already", f"--resume {run.folder}", "--out"):
        quietly(tiny(run.folder))
    assert {name: (run.folder / name).read_bytes() for name in files(run.folder)} == before


def test_a_file_in_the_way_is_named(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "file").write_text("of the user")
    with refuses(str(tmp_path / "file"), "choose another folder"):
        quietly(tiny(tmp_path / "file/run"))
    assert (tmp_path / "file").read_text() == "of the user"


def test_train_loss_is_that_of_its_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses: list[float] = []
    step = SegmentationTask.training_step

    def spy(task: SegmentationTask, batch: Any, index: int) -> Tensor:
        loss = step(task, batch, index)
        losses.append(float(loss.detach()))
        return loss

    monkeypatch.setattr(SegmentationTask, "training_step", spy)
    folder = quietly(tiny(tmp_path / "run", epochs=3)).folder
    means = np.reshape(losses, (3, 2)).mean(1)
    np.testing.assert_allclose([float(row["train_loss"]) for row in rows(folder)], means, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"optimizer": "rmsprop"}, ["optimizer is 'rmsprop'", "sgd"]),
        ({"precision": "fp16"}, ["precision is 'fp16'"]),
        ({"schedule": "cosine"}, ["schedule is 'cosine'"]),
        ({"lr": math.nan}, ["lr is nan"]),
        ({"momentum": 2.0}, ["momentum is 2.0"]),
        ({"seed": -5}, ["seed is -5"]),
        ({"class_weights": [1.0, -1.0]}, ["class_weights"]),
        ({"augment": Augment(crop=None)}, ["augment.scale", "[1, 1]"]),
        ({"out": Path()}, ["current folder"]),
    ],
)
def test_settings_that_cannot_be_meant(
    changes: dict[str, Any], phrases: list[str], tmp_path: Path, refuses: Any
) -> None:
    with refuses(*phrases):
        quietly(tiny(**{"out": tmp_path / "run", **changes}))
