"""What a run takes from its data and its machine, and by what it tells whether images have an up."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import Masks
from drawn import drawn
from hypothesis import given
from hypothesis import strategies as st
from training_runs import DRAWN, MODEL, tiny

from crispseg import create_model
from crispseg.data import Augment, SplitReport, check_split, softened_weights
from crispseg.labels import LabelSet
from crispseg.training import ModelConfig, TrainConfig
from crispseg.training.initial_weights import starting_model
from crispseg.training.training_data import BATCH, CROP, MINUTES, STEP, resolved

CLASSES = 3


def report(shorter_side: int = 256, counts: tuple[int, ...] = (5, 3, 2), images: int = 9) -> SplitReport:
    quarters = np.zeros((images, len(counts), 2, 2), int)
    quarters[..., 0, 0] = counts
    return SplitReport(
        "train", LabelSet.numbered(len(counts)), quarters, ignored=0, sizes=((shorter_side, 2 * shorter_side),) * images
    )


@pytest.mark.parametrize(("shorter_side", "side"), [(20, 32), (32, 32), (90, 64), (256, None), (5000, None)])
def test_crops_are_as_large_as_images_allow(shorter_side: int, side: int | None) -> None:
    crop = resolved(TrainConfig(DRAWN), report(shorter_side)).augment.crop
    assert isinstance(crop, tuple) and crop[0] == crop[1]
    if side is not None:
        assert crop[0] == side
    else:
        assert crop[0] % STEP == 0 and 0 <= min(shorter_side, CROP) - crop[0] < STEP


@pytest.mark.parametrize(
    ("images", "in_chans", "changed"), [(36, 3, "mmseg"), (36, 1, "mmseg"), (36, 4, False), (500, 3, False)]
)
def test_colours_of_few_images_are_changed(images: int, in_chans: int, changed: str | bool) -> None:
    config = TrainConfig(DRAWN, model=ModelConfig(in_chans=in_chans))
    assert resolved(config, report(images=images)).augment.photometric == changed


@pytest.mark.parametrize("crop", [(32, 32), (CROP, CROP), (CROP, 2 * CROP), (768, 768), (4096, 4096), None])
def test_batches_hold_no_more_than_memory_does(crop: tuple[int, int] | None) -> None:
    whole = report(600)
    size = resolved(TrainConfig(DRAWN, augment=Augment(crop, (1, 1))), whole).batch_size
    area = math.prod(crop or whole.largest)
    assert isinstance(size, int) and 1 <= size <= BATCH
    assert size == 1 or size * area <= BATCH * CROP**2
    assert size == BATCH or (size + 1) * area > BATCH * CROP**2


def test_what_is_said_stays() -> None:
    augment = Augment(crop=(96, 64), turn=True, photometric=True)
    said = TrainConfig(DRAWN, augment=augment, batch_size=3, epochs=2, precision="fp32", class_weights="balanced")
    assert resolved(said, report()) == said


def test_a_run_that_is_told_no_length_has_one() -> None:
    assert resolved(TrainConfig(DRAWN), report()).minutes == MINUTES == 30
    assert resolved(TrainConfig(DRAWN, epochs=2), report()).minutes is None
    assert resolved(TrainConfig(DRAWN, minutes=1.5), report()).minutes == 1.5


def test_class_weights_are_for_rare_classes_in_cross_entropy() -> None:
    rare, frequent = report(counts=(80, 0, 19, 1)), report(counts=(80, 0, 17, 3))
    assert resolved(TrainConfig(DRAWN, loss={"cross_entropy": 1.0, "dice": 1.0}), rare).class_weights == "softened"
    assert resolved(TrainConfig(DRAWN), frequent).class_weights is None
    assert resolved(TrainConfig(DRAWN, loss="dice"), rare).class_weights is None


@given(st.lists(st.integers(0, 10**7), min_size=2, max_size=6).filter(any))
def test_softened_weights_are_roots_of_rarity(counts: list[int]) -> None:
    most = max(counts) / sum(counts)
    expected = [math.sqrt(most / max(count / sum(counts), 1e-4)) if count else 0.0 for count in counts]
    weights = softened_weights(report(counts=tuple(counts)))
    assert weights.dtype == np.float32
    np.testing.assert_allclose(weights, expected, rtol=1e-5)
    assert weights[np.argmax(counts)] == 1 and weights.max() <= 100


def test_streets_have_an_up() -> None:
    summary = check_split(drawn(train=20, height=64, width=96).dataset("train"), "train")
    assert summary.lopsided[0] > 0.8
    assert resolved(TrainConfig(DRAWN), summary).augment.turn is False


@pytest.mark.parametrize("images", [4, 200])
def test_what_lies_anywhere_has_no_up(images: int) -> None:
    random = np.random.default_rng(0)
    masks = [np.zeros((64, 64), np.uint8) for _ in range(images)]
    for mask in masks:
        for label in (1, 2, 1, 2, 1, 2):
            top, left = random.integers(-8, 56, 2).clip(0)
            mask[top : top + 16, left : left + 16] = label
    assert resolved(TrainConfig(DRAWN), check_split(Masks(CLASSES, *masks), "train")).augment.turn is True


@pytest.mark.parametrize(
    ("name", "freeze", "start", "fixed"),
    [
        ("fpn", "auto", False, "nothing"),
        ("fpn", "auto", True, "early"),
        ("fpn", "early", False, "early"),
        ("fpn", False, True, "nothing"),
        ("fpn", True, False, "all"),
        ("fcn", "auto", True, "nothing"),  # its one feature is made of the whole backbone
    ],
)
def test_early_stages_that_were_trained_stay(name: str, freeze: Any, start: bool, fixed: str, tmp_path: Path) -> None:
    labels, model = DRAWN.label_set(), ModelConfig(name, MODEL.backbone, False, options={"width": 8})
    if start:
        create_model(name, num_classes=len(labels), backbone=MODEL.backbone, width=8).save_pretrained(tmp_path)
    config = tiny(tmp_path, model=model, freeze_backbone=freeze, init_from=str(tmp_path) if start else None)
    backbone = starting_model(config, labels)[0].backbone
    trained = [parameter.requires_grad for parameter in backbone.parameters()]
    assert {"nothing": all(trained), "early": any(trained) and not all(trained), "all": not any(trained)}[fixed]
