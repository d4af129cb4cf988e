"""Distillation: a teacher's predictions for images that have no masks are learned."""

import dataclasses
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Capture, error_of
from dataset_trees import save
from drawn import NAMES, draw
from torch import Tensor
from training_runs import DRAWN, MODEL, equal, of_many_opinions, quietly, rows, state, tiny, without_time

import crispseg
from crispseg.cli.main import main
from crispseg.data import Augment
from crispseg.data.loading import Augmented
from crispseg.io.images import read_image
from crispseg.models import SegmentationModel
from crispseg.training import TrainConfig
from crispseg.training.distillation import DistillationTask, open_teacher
from crispseg.training.losses import CrossEntropy
from crispseg.training.unlabelled_images import WithUnlabelled, unlabelled_files
from tests.training.test_resuming import killed, repeatable

pytestmark = pytest.mark.usefixtures("without_pictures")


def pictures(folder: Path, count: int, first: int = 100) -> Path:
    """Drawn images without masks."""
    for index in range(count):
        save(folder / f"new_{index}.png", draw(first + index, 64, 96)[0])
    return folder


def taught(out: Path, unlabelled: Path | str, **changes: Any) -> TrainConfig:
    return tiny(out, **{"unlabelled": str(unlabelled), "auxiliary_weight": 0.0, **changes})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of the drawn classes that is not trained."""
    folder = tmp_path_factory.mktemp("teacher") / "model"
    model = of_many_opinions(len(NAMES))
    model.info = dataclasses.replace(model.info, class_names=tuple(NAMES), palette=DRAWN.label_set().palette)
    model.save_pretrained(folder)
    return folder


def test_the_loss_is_that_of_a_naive_reference(tmp_path: Path) -> None:
    model, teaching = of_many_opinions(3), of_many_opinions(3)
    asked = []

    def teacher(images: Tensor) -> Tensor:
        asked.append(images)
        return teaching(images)

    task = DistillationTask(model, CrossEntropy(), taught(tmp_path, "same", teacher="x"), teacher)
    weak, strong = torch.randn(2, 3, 3, 32, 40)
    seen = torch.ones(3, 32, 40, dtype=torch.bool)
    seen[0, :, 33:] = seen[2, 28:] = False
    loss = task.distillation(weak, strong, seen)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (model.info.mean, model.info.std))
    assert torch.allclose(asked[0], weak * std + mean, atol=1e-5)
    with torch.no_grad():
        given, own = teaching(asked[0]).softmax(1), model(strong).log_softmax(1)
    terms = [
        -sum(float(given[n, c, y, x] * own[n, c, y, x]) for c in range(3))
        for n, y, x in product(range(3), range(32), range(40))
        if seen[n, y, x]
    ]
    assert float(loss.detach()) == pytest.approx(np.mean(terms), rel=1e-4)
    loss.backward()
    assert all(parameter.grad is None for parameter in teaching.parameters())
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())
    assert not any("teach" in key for key in task.state_dict())


def test_a_teacher_has_its_own_normalisation(tmp_path: Path) -> None:
    in_chans = 4
    model = crispseg.create_model("fpn", num_classes=3, backbone="test_efficientnet", in_chans=in_chans).eval()
    model.info = dataclasses.replace(model.info, mean=(0.1,) * in_chans, std=(0.7,) * in_chans)
    model.save_pretrained(tmp_path / "model")
    images = torch.rand(2, in_chans, 40, 48)
    with torch.no_grad():
        expected = model((images - 0.1) / 0.7)
        logits = open_teacher(str(tmp_path / "model"), model.info)(images)
    assert torch.allclose(logits, expected, atol=1e-4)


def paired(tmp_path: Path, **changes: Any) -> WithUnlabelled:
    config = taught(tmp_path / "out", pictures(tmp_path / "new", 5), **changes)
    info = crispseg.create_model("fpn", num_classes=12, backbone="test_efficientnet").info
    dataset = DRAWN.dataset("train")
    transform = crispseg.data.train_transform(config.augment, info.mean, info.std)
    files, _ = unlabelled_files(config)
    return WithUnlabelled(Augmented(dataset, transform, 0, [1] * len(dataset)), files, config, info)


def test_both_views_show_the_same_place(tmp_path: Path) -> None:
    plain = Augment(crop=(64, 96), scale=(1, 1), flip=0.0, turn=False, photometric=False, repeat=1)
    samples = paired(tmp_path, augment=plain)
    (image, labels, views, padding), again = samples[0, 0], samples[0, 0]
    assert torch.equal(views, again[2]) and not torch.equal(views, samples[1, 0][2])
    weak, strong = views.chunk(2)
    info = crispseg.create_model("fpn", num_classes=12, backbone="test_efficientnet").info
    files = [read_image(file) for file in samples.files]
    eyes = [
        crispseg.data.eval_transform(info.mean, info.std)(crispseg.data.Sample(photo, photo[..., 0], ""))[0]
        for photo in files
    ]
    assert any(torch.allclose(weak, view) for view in eyes)
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
    files, notes = unlabelled_files(taught(tmp_path / "out", place))
    assert [file.name for file in files] == ["new_0.png", "new_1.png", "new_2.png"]
    assert "3 images" in notes[0]
    for split, note in zip(("train", "val", "test"), notes[1:], strict=True):
        assert f"because {split} has them: 1 image" in note
    with refuses("unlabelled", "not in train, val or test"):
        unlabelled_files(taught(tmp_path / "out", f"{DRAWN.root}/images/val"))


def test_what_cannot_be_used_is_refused_before_training(teacher: Path, tmp_path: Path, refuses: Any) -> None:
    (tmp_path / "empty").mkdir()
    place = pictures(tmp_path / "new", 1)
    save(place / "deep.png", np.full((40, 40), 900, np.uint16))
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
            place = "same" if folder == "same" else tmp_path / folder
            quietly(taught(tmp_path / "out", place, teacher=str(teacher)))
        assert not (tmp_path / "out/metrics.csv").exists()
    with refuses("unlabelled", "augment.crop is null"):
        taught(tmp_path / "out", "same", augment=Augment(crop=None, scale=(1, 1)))
    bands = dataclasses.replace(tiny(tmp_path / "out").model, in_chans=4)
    with refuses("1 of 1 image", "3 channel(s), not 4"):
        unlabelled_files(taught(tmp_path / "out", pictures(tmp_path / "rgb", 1), model=bands))
    ranged = dataclasses.replace(DRAWN, value_range=(0, 4095))  # which says nothing about the bits of files
    assert len(unlabelled_files(taught(tmp_path / "out", tmp_path / "rgb", data=ranged))[0]) == 1


def test_a_teacher_that_does_not_fit_is_refused(teacher: Path, tmp_path: Path, refuses: Any) -> None:
    place = pictures(tmp_path / "new", 2)
    with refuses("unlabelled", "give teacher"):
        quietly(taught(tmp_path / "out", place))
    with refuses("teacher", "give unlabelled"):
        tiny(tmp_path / "out", teacher=str(teacher))
    other = crispseg.create_model("fpn", num_classes=2, backbone="test_efficientnet", in_chans=4)
    other.save_pretrained(tmp_path / "other")
    with refuses("teacher", "4 channels, not 3"):
        quietly(taught(tmp_path / "out", place, teacher=str(tmp_path / "other")))
    crispseg.create_model("fpn", num_classes=2, backbone="test_efficientnet").save_pretrained(tmp_path / "two")
    with refuses("teacher", "same classes", *NAMES[:2]):
        quietly(taught(tmp_path / "out", place, teacher=str(tmp_path / "two")))
    with refuses("nowhere"):
        quietly(taught(tmp_path / "out", place, teacher=str(tmp_path / "nowhere")))
    assert not (tmp_path / "out/metrics.csv").exists()


@pytest.mark.slow
def test_a_resumed_run_equals_one_that_was_not_interrupted(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"unlabelled": str(pictures(tmp_path / "new", 5)), "teacher": str(teacher)}
    given |= {"model": MODEL, "checkpoint_every": 1, "precision": "bf16"}
    whole = quietly(repeatable(tmp_path / "whole", **given))
    config = repeatable(tmp_path / "killed", **given)
    killed(config, 6, monkeypatch)
    resumed = quietly(config, resume=True)
    assert equal(state(resumed.model), state(whole.model))
    assert without_time(resumed.folder) == without_time(whole.folder)


SMALL = ["--model.backbone=test_efficientnet", "--model.pretrained=false", "--batch_size=2", "--augment.crop=64"]
SMALL += ["--workers=0", "--loggers=[]"]


def test_the_command_uses_the_data_of_the_teacher(tmp_path: Path, capsys: Capture) -> None:
    """`same` uses the images without a mask."""
    for index in range(12):
        image, labels = draw(index, 64, 96)
        for kind, pixels in (("images", image), ("masks", labels))[: 2 if index < 6 else 1]:
            save(tmp_path / "data" / kind / f"{index}.png", pixels)
    (tmp_path / "data/classes.txt").write_text("\n".join(NAMES))
    run, out = tmp_path / "run", tmp_path / "out"
    words = [*SMALL, "--model.width=16", "--iterations=4", "--lr=0.02"]
    assert main(["train", str(tmp_path / "data"), "--model=fpn", *words, "--out", str(run)]) == 0
    capsys.readouterr()
    assert main(["distill", str(run), "--unlabelled", "same", *words, "--out", str(out)]) == 0
    assert "unlabelled: 6 images" in capsys.readouterr().err
    model = SegmentationModel.from_pretrained(out)
    assert model.info.name == "crisp_s" and model.info.class_names == tuple(NAMES) and len(rows(out)) > 0
    assert "none is missing" in error_of(capsys, "distill", run, "--unlabelled", tmp_path / "none", "--out", out / "no")
    assert "give unlabelled" in error_of(capsys, "distill", run, "--out", out / "no")
