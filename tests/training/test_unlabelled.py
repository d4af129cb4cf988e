"""Training with images that have no masks."""

from __future__ import annotations

import dataclasses
import io
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import error_of
from drawn import NAMES, draw
from PIL import Image
from rich.console import Console
from torch import Tensor
from training_runs import DRAWN, MODEL, equal, of_many_opinions, quietly, rows, state, tiny, without_time

import crispseg
from crispseg.cli.main import main
from crispseg.data import Augment
from crispseg.data.loading import Augmented
from crispseg.io.images import read_image
from crispseg.training import TrainConfig, train
from crispseg.training.losses import CrossEntropy
from crispseg.training.unlabelled import ConsistencyTask, Trust, boxes, usefulness
from crispseg.training.unlabelled_images import WithUnlabelled, unlabelled_files
from tests.training.test_resuming import killed, repeatable


def pictures(folder: Path, count: int, first: int = 100) -> Path:
    """Drawn images without masks."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.fromarray(draw(first + index, 64, 96)[0]).save(folder / f"new_{index}.png")
    return folder


def consistent(out: Path, unlabelled: Path | str, **changes: Any) -> TrainConfig:
    return tiny(out, **{"unlabelled": str(unlabelled), "auxiliary_weight": 0.0, **changes})


# The loss -----------------------------------------------------------------------------------------------------------


def naive(teacher: Tensor, student: Any, strong: Tensor, padding: Tensor, box: Tensor, trust: list[float]) -> float:
    """The loss of `ConsistencyTask`, pixel by pixel; `teacher` are probabilities `(N, C, H, W)`."""
    count, _, height, width = strong.shape
    images, sources = strong.clone(), {}
    for n, y, x in product(range(count), range(height), range(width)):
        sources[n, y, x] = (n + 1) % count if box[n, y, x] else n
        images[n, :, y, x] = strong[sources[n, y, x], :, y, x]
    found = student(images).log_softmax(1)
    loss = total = 0.0
    for (n, y, x), source in sources.items():
        if int(padding[source, y, x]):
            continue
        target = teacher[source, :, y, x].tolist()
        confidence = max(target)
        total += 1
        if confidence >= trust[target.index(confidence)]:
            terms = zip(target, found[n, :, y, x].tolist(), strict=True)
            loss -= confidence * sum(share * log for share, log in terms)
    return loss / total


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Tasks that are in no run; their teacher is a model that is not trained."""
    teacher = of_many_opinions(3)
    monkeypatch.setattr(ConsistencyTask, "summed", lambda _task, values: values.float())
    monkeypatch.setattr(ConsistencyTask, "predicted", lambda _task, images: teacher(images).detach().softmax(1))
    return teacher


def test_the_loss_is_that_of_a_naive_reference(alone: Any, tmp_path: Path) -> None:
    model = of_many_opinions(3)
    model.classifier.weight.data.mul_(3)
    task = ConsistencyTask(model, CrossEntropy(), consistent(tmp_path, "same"))
    weak, strong = torch.randn(2, 3, 3, 32, 40)
    padding = torch.zeros(3, 32, 40, dtype=torch.long)
    padding[0, :, 33:] = padding[2, 28:] = 255
    probabilities = task.predicted(weak)
    values, labels = probabilities.max(1)
    limits = values.quantile(torch.tensor([0.3, 0.5, 0.7]))
    task.trust.used = True
    task.trust.unlabelled = torch.stack([torch.ones(3), torch.zeros(3), limits])
    torch.manual_seed(5)
    found = task.consistency(weak, strong, padding)
    torch.manual_seed(5)
    box = boxes(3, 32, 40)
    assert 0 < box.float().mean() < 1
    with torch.no_grad():
        expected = naive(probabilities, model, strong, padding, box, limits.tolist())
    assert float(found.detach()) == pytest.approx(expected, rel=1e-4)
    found.backward()
    assert all(parameter.grad is None for parameter in alone.parameters())
    assert model.classifier.weight.grad is not None and float(model.classifier.weight.grad.abs().sum()) > 0
    seen = padding == 0
    counts = [float((seen & (labels == each)).sum()) for each in range(3)]
    trusted = [float((seen & (labels == each) & (values >= limits[each])).sum()) for each in range(3)]
    assert task.trust.unlabelled[0].tolist() == pytest.approx([0.99 + count for count in counts])
    assert task.trust.unlabelled[1].tolist() == pytest.approx(trusted)


def test_strong_views_leave_the_running_statistics(alone: Any, tmp_path: Path) -> None:
    model = of_many_opinions(3).train()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    task = ConsistencyTask(model, CrossEntropy(), consistent(tmp_path, "same"))
    task.consistency(*torch.randn(2, 2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.long))
    assert before and all(torch.equal(value, dict(model.named_buffers())[name]) for name, value in before.items())
    model(torch.randn(2, 3, 32, 32))
    assert not all(torch.equal(value, dict(model.named_buffers())[name]) for name, value in before.items())


def test_each_class_has_the_threshold_of_its_mean_confidence() -> None:
    trust = Trust(3)
    trust.used = True
    trust.add_unlabelled(torch.tensor([100.0, 10, 0]), torch.tensor([60.0, 5, 0]), torch.tensor([99.0, 6, 0]))
    assert trust.thresholds.tolist() == pytest.approx([0.95, 0.6, 0])  # at most 0.95; everything of an unseen class
    assert trust.trusted.tolist() == pytest.approx([0.6, 0.5, 0])
    trust.add_unlabelled(torch.tensor([0.0, 10, 1]), torch.tensor([0.0, 10, 1]), torch.tensor([0.0, 8, 0.7]))
    assert trust.thresholds.tolist() == pytest.approx([0.95, (0.99 * 6 + 8) / (0.99 * 10 + 10), 0.7])


def test_the_weight_is_that_of_what_the_teacher_knows() -> None:
    """0 for always the largest class or less, 1 for a perfect teacher; classes that do not occur count not."""
    assert float(usefulness(torch.tensor([[80.0, 0, 0], [20, 0, 0], [0, 0, 0]]))) == pytest.approx(0)
    assert float(usefulness(torch.tensor([[0.0, 80], [20, 0]]))) == 0
    assert float(usefulness(torch.tensor([[80.0, 0, 0], [0, 20, 0], [0, 0, 0]]))) == pytest.approx(1)
    miou = (70 / 80 + 20 / 30) / 2
    assert float(usefulness(torch.tensor([[70.0, 10], [0, 20]]))) == pytest.approx((miou - 0.4) / 0.6)
    assert float(usefulness(torch.zeros(3, 3))) == 0


def test_boxes_are_those_of_unimatch() -> None:
    shares = boxes(400, 50, 60).float().mean((1, 2))
    assert 0.4 < float((shares == 0).float().mean()) < 0.6
    inside = shares[shares > 0]
    assert 0.01 < float(inside.min()) < 0.05 and 0.35 < float(inside.max()) < 0.42


# The images ---------------------------------------------------------------------------------------------------------


def paired(tmp_path: Path, **changes: Any) -> WithUnlabelled:
    config = consistent(tmp_path / "out", pictures(tmp_path / "new", 5), **changes)
    info = crispseg.create_model("fpn", num_classes=12, backbone="test_efficientnet").info
    dataset = DRAWN.dataset("train")
    transform = crispseg.data.train_transform(config.augment, info.mean, info.std)
    files, _ = unlabelled_files(config, None)
    return WithUnlabelled(Augmented(dataset, transform, 0, [1] * len(dataset)), files, config, info)


def test_all_images_are_used_before_one_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, used = paired(tmp_path), []
    monkeypatch.setattr(
        "crispseg.training.unlabelled_images.read_image",
        lambda file, *more: used.append(file.name) or read_image(file, *more),  # type: ignore[func-returns-value]
    )
    for epoch, index in product(range(5), range(8)):
        samples[epoch, index]
    assert all(len({*used[start : start + 5]}) == 5 for start in range(0, 40, 5))
    assert len({tuple(used[start : start + 5]) for start in range(0, 40, 5)}) > 1


def test_both_views_show_the_same_place(tmp_path: Path) -> None:
    plain = Augment(crop=(64, 96), scale=(1, 1), flip=0.0, turn=False, photometric=False, repeat=1)
    samples = paired(tmp_path, augment=plain)
    (image, labels, views, padding), again = samples[0, 0], samples[0, 0]
    assert torch.equal(views, again[2]) and not torch.equal(views, samples[1, 0][2])
    weak, strong = views.chunk(2)
    info = crispseg.create_model("fpn", num_classes=12, backbone="test_efficientnet").info
    files = [read_image(file) for file in samples.files]
    eyes = [
        crispseg.data.eval_transform(info.mean, info.std)(crispseg.data.Sample(each, each[..., 0], ""))[0]
        for each in files
    ]
    assert any(torch.allclose(weak, each) for each in eyes)
    assert not torch.allclose(weak, strong)
    assert np.corrcoef(weak.mean(0).ravel(), strong.mean(0).ravel())[0, 1] > 0.8
    assert padding.eq(0).all() and image.shape == (3, 64, 96) and labels.shape == (64, 96)
    padded = paired(tmp_path, augment=Augment(crop=(96, 128), scale=(1, 1), turn=True, photometric=False, repeat=1))
    _, _, views, padding = padded[0, 0]
    assert int((padding == 0).sum()) == 64 * 96
    assert views[:, padding == 255].eq(0).all()


def test_images_of_the_splits_are_left_out(tmp_path: Path, refuses: Any) -> None:
    assert isinstance(DRAWN.root, str)
    place = pictures(tmp_path / "new", 3)
    for split in ("train", "val", "test"):
        shutil.copy(Path(DRAWN.root) / f"images/{split}/{split}_0001.png", place / f"copy_of_{split}.png")
    shutil.copy(Path(DRAWN.root) / "masks/val/val_0000.png", place)
    files, notes = unlabelled_files(consistent(tmp_path / "out", place), None)
    assert [file.name for file in files] == ["new_0.png", "new_1.png", "new_2.png"]
    assert "3 images" in notes[0]
    for split, note in zip(("train", "val", "test"), notes[1:], strict=True):
        assert f"because {split} has them: 1 image" in note
    with refuses("unlabelled", "all its images are in train, val or test"):
        unlabelled_files(consistent(tmp_path / "out", f"{DRAWN.root}/images/val"), None)


def test_what_cannot_be_used_is_refused_before_training(tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "empty").mkdir()
    place = pictures(tmp_path / "new", 1)
    Image.fromarray(np.full((40, 40), 900, np.uint16)).save(place / "deep.png")
    damaged = pictures(tmp_path / "damaged", 2)
    (damaged / "new_1.png").write_bytes((damaged / "new_1.png").read_bytes()[:-40])
    for folder, phrases in (
        ("nowhere", ["nowhere is missing", "give a folder"]),
        ("empty", ["empty, which has no images", "give a folder of images"]),
        ("same", ["unlabelled is same", "no images without masks", "give a folder"]),
        ("new", ["1 of 2 images", "deep.png has 16 bits, unlike the labelled images"]),
        ("damaged", ["1 of 2 images", "new_1.png"]),
    ):
        with refuses(*phrases):
            quietly(consistent(tmp_path / "out", folder if folder == "same" else tmp_path / folder))
        assert not (tmp_path / "out/metrics.csv").exists()
    with refuses("unlabelled", "cache_features is true"):
        consistent(tmp_path / "out", "same", cache_features=True, freeze_backbone=True)
    with refuses("unlabelled", "augment.crop is null"):
        consistent(tmp_path / "out", "same", augment=Augment(crop=None, scale=(1, 1)))
    bands = dataclasses.replace(tiny(tmp_path / "out").model, in_chans=4)
    with refuses("1 of 1 image", "3 channel(s), not 4"):
        unlabelled_files(consistent(tmp_path / "out", pictures(tmp_path / "rgb", 1), model=bands), None)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlabelled images are used from the first step, with a weight that grows."""
    for name, value in (("WAIT", 1), ("USEFUL", 0.0), ("MEASURED", 1), ("DOUBT", 1e6)):
        monkeypatch.setattr(f"crispseg.training.unlabelled.{name}", value)
    weight = "crispseg.training.unlabelled.usefulness"
    monkeypatch.setattr(weight, lambda matrix: matrix.sum() / (matrix.sum() + 1e5))


# Runs ---------------------------------------------------------------------------------------------------------------


def with_teacher(out: Path, place: Path, **changes: Any) -> TrainConfig:
    return repeatable(out, unlabelled=str(place), model=MODEL, checkpoint_every=1, **changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    precision: str, at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = pictures(tmp_path / "new", 5)
    whole = quietly(with_teacher(tmp_path / "whole", place, precision=precision))
    config = with_teacher(tmp_path / "killed", place, precision=precision)
    killed(config, 6, monkeypatch)
    resumed = quietly(config, resume=True)
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(resumed.folder) == without_time(whole.folder)
    assert 0 < float(rows(whole.folder)[-1]["unlabelled_weight"]) < 1


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("unept", {}),
        ("sfnet", {"auxiliary_weight": 0.4, "class_weights": "softened", "hard_fraction": 0.5, "accumulate": 2}),
        ("crisp", {"loss": {"dice": 1.0}, "batch_size": 1}),
    ],
)
def test_unlabelled_images_change_any_model(name: str, changes: dict[str, Any], at_once: None, tmp_path: Path) -> None:
    options = {"width": 8, "points": 4} if name == "unept" else {"width": 8}
    model = crispseg.training.ModelConfig(name, "test_efficientnet", False, options=options)
    changes = {"model": model, "epochs": 1, "deterministic": True, **changes}
    one = quietly(consistent(tmp_path / "one", pictures(tmp_path / "new", 5), **changes))
    other = quietly(consistent(tmp_path / "other", pictures(tmp_path / "others", 5, 200), **changes))
    assert not equal(state(one.model), state(other.model))


def test_images_that_the_teacher_doubts_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run then equals one without them, also in its batches."""
    for name, value in (("WAIT", 1), ("USEFUL", 0.0), ("MEASURED", 1), ("DOUBT", 0.0)):
        monkeypatch.setattr(f"crispseg.training.unlabelled.{name}", value)
    plain = quietly(repeatable(tmp_path / "plain", ema=0.999, workers=1))
    output = io.StringIO()
    config = repeatable(tmp_path / "run", unlabelled=str(pictures(tmp_path / "new", 3)), workers=1)
    run = train(config, console=Console(file=output, width=200))
    assert equal(state(run.model), state(plain.model))
    assert "not used: the model doubts" in output.getvalue() and "unlabelled images were not used" in output.getvalue()
    assert {row["unlabelled_weight"] for row in rows(run.folder)} == {"0.0000"}
    read, samples = [], paired(tmp_path / "more")
    monkeypatch.setattr("crispseg.training.unlabelled_images.read_image", lambda *all: read.append(all))
    samples.reading.fill_(False)
    *_, views, padding = samples[0, 0]
    assert not read and views.shape == (6, 64, 96) and views.eq(0).all() and padding.eq(255).all()


@pytest.mark.parametrize(
    ("weight", "measured", "confidence", "used"),
    [(0.5, 5, 0.75, True), (0.5, 4, 0.75, None), (0.05, 9, 0.75, None), (0.5, 5, 0.73, False), (0.5, 5, 0.9, True)],
)
def test_what_decides(weight: float, measured: int, confidence: float, used: bool | None) -> None:
    """Labelled crops have a doubt of 0.2."""
    trust = Trust(2)
    trust.weight, trust.measured = weight, measured
    trust.labelled = torch.tensor([100.0, 80])
    trust.unlabelled = torch.tensor([[60.0, 40], [0, 0], [60 * confidence + 0.01, 40 * confidence]])
    trust.decide()
    assert trust.used is used


def test_from_the_command_line_and_from_python(
    at_once: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`same` uses the images without a mask."""
    for index in range(12):
        image, labels = draw(index, 64, 96)
        for kind, pixels in (("images", image), ("masks", labels))[: 2 if index < 6 else 1]:
            (tmp_path / kind).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    words = ["--model=fpn", "--model.backbone=test_efficientnet", "--model.pretrained=false", "--model.width=16"]
    words += ["--iterations=12", "--batch_size=2", "--augment.crop=64", "--workers=0", "--loggers=[]", "--lr=0.02"]
    capsys.readouterr()
    assert main(["train", str(tmp_path), "--unlabelled", "same", *words, "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().err
    assert "unlabelled: 6 images" in shown and "unlabelled images: trusted pixels" in shown
    row = rows(tmp_path / "run")[-1]
    assert {"unlabelled_weight", *(f"trusted/{name}" for name in NAMES)} <= row.keys()
    missing = tmp_path / "none"
    assert "none is missing" in error_of(capsys, "train", tmp_path, "--unlabelled", missing, "--out", tmp_path / "no")
    settings: dict[str, Any] = {"model": "fpn", "backbone": "test_efficientnet", "pretrained": False, "workers": 0}
    settings |= {"augment": {"crop": 64}, "iterations": 2, "batch_size": 2, "loggers": [], "out": tmp_path / "python"}
    run = crispseg.train(tmp_path, unlabelled=pictures(tmp_path / "new", 2), **settings)
    assert float(rows(run.folder)[-1]["unlabelled_weight"]) > 0
