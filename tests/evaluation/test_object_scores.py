"""Scores of single objects, beside a naive count, from instances of the data or from their masks."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import save
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from training_runs import of_many_opinions

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.data import Folder
from crispseg.evaluation import ObjectQuality, ObjectScores
from crispseg.evaluation.bootstrap import score_gains
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.object_scores import PERCENT, matches
from crispseg.inference.objects import ObjectRule
from crispseg.models import SegmentationModel

RULE = ObjectRule(1, border=2, min_size=0)
DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs/quality.md"

Ids = NDArray[np.int32]


def blobs(seed: int, moved: int = 0, shape: tuple[int, int] = (24, 30)) -> Ids:
    """Some boxes that may touch, numbered with gaps; others of them are moved by up to some pixels."""
    random = np.random.default_rng(seed)
    ids = np.zeros(shape, np.int32)
    for number in range(1, 9):
        top, left, height, width = random.integers((0, 0, 3, 3), (*shape, 10, 10))
        down, right = np.random.default_rng((seed, number, moved)).integers(0, moved + 1, 2)
        ids[top + down : top + down + height, left + right : left + right + width] = 3 * number
    return ids


def naive(pairs: list[tuple[Ids, Ids]]) -> dict[str, float]:
    """F1 and average precision from the IoU of every pair of objects, as the challenge words them."""
    at_half, precisions = np.zeros(3), []
    for predicted, wanted in pairs:
        sets = [[set(np.flatnonzero(ids == label)) for label in np.unique(ids) if label] for ids in (predicted, wanted)]
        ious = [[len(pixels & other) / len(pixels | other) for other in sets[1]] for pixels in sets[0]]
        own = []
        for percent in range(50, 100, 5):
            hits = sum(iou > percent / 100 for row in ious for iou in row)
            wrong, missed = len(sets[0]) - hits, len(sets[1]) - hits
            own.append(hits / (hits + wrong + missed) if hits + wrong + missed else math.nan)
            if percent == 50:
                at_half += (hits, wrong, missed)
        precisions.append(own)
    hits, wrong, missed = at_half
    total = 2 * hits + wrong + missed
    counted = [np.mean(own) for own in precisions if own[0] == own[0]]
    return {
        "object_f1": 100 * 2 * hits / total if total else math.nan,
        "object_ap": 100 * float(np.mean(counted)) if counted else math.nan,
    }


def quality(pairs: list[tuple[Ids, Ids]]) -> ObjectQuality:
    rows = np.array([matches(*pair) for pair in pairs])
    return ObjectScores(3, RULE).scored(np.arange(len(pairs)), rows)


@settings(max_examples=60)
@given(seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3), moved=st.integers(0, 3), empty=st.booleans())
def test_it_is_the_naive_count(seeds: list[int], moved: int, empty: bool) -> None:
    pairs = [(blobs(seed, moved), blobs(seed)) for seed in seeds]
    none = np.zeros((5, 6), np.int32)
    pairs += [(none, none), (none, blobs(1)[:5, :6])] if empty else []
    result = quality(pairs)
    for name, value in naive(pairs).items():
        assert result.measures()[name] == pytest.approx(value)
    if not moved and not empty:
        assert result.measures()["object_f1"] == result.measures()["object_ap"] == 100


def test_objects_of_labels_and_of_instances() -> None:
    truth = np.zeros((1, 12, 20), np.int64)
    truth[0, 2:8, 1:7], truth[0, 2:8, 7], truth[0, 2:8, 8:14] = 1, 2, 1
    instances = np.zeros(truth.shape, np.int32)
    instances[0, 2:8, 1:8], instances[0, 2:8, 8:14] = 7, 9  # the border belongs to the left one, as growing has it
    given_labels, labels, numbers = torch.from_numpy(truth), torch.from_numpy(truth.copy()), torch.from_numpy(instances)
    labels[labels == 2] = 1  # one object in place of two
    by_masks, by_instances, joined = (ObjectScores(3, RULE) for _ in range(3))
    by_masks.update(given_labels, given_labels, [0])
    by_instances.update(given_labels, given_labels, [0], numbers)
    joined.update(labels, labels, [0], numbers)
    assert all(part.compute()["object_f1"] == part.compute()["object_ap"] == 100 for part in (by_masks, by_instances))
    assert joined.scores().truth.tolist() == [2] and joined.scores().predicted.tolist() == [1]
    gain = score_gains(by_instances.scores(), joined.scores(), 0)["object_f1"].value
    assert gain == pytest.approx(100 * 2 / 3 - 100)  # the joined one has an IoU of 42 / 78 with the left one

    ignored = given_labels.clone()
    ignored[:, :, 8:] = 255
    left = ObjectScores(3, RULE)
    left.update(given_labels, ignored, [0], numbers)
    assert (left.scores().truth.tolist(), left.scores().predicted.tolist()) == ([1], [1])
    assert left.compute()["object_f1"] == 100


# In an evaluation


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return of_many_opinions(3)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Images of noise; instances that the masks do not tell apart."""
    for index, name in enumerate(("a", "sub/b", "c")):
        noise = np.random.default_rng(index).integers(0, 256, (6, 8, 3), np.uint8)
        ids = blobs(index, shape=(48, 64)).astype(np.uint16)
        ids[ids == 3] = 300
        save(tmp_path / f"images/{name}.png", noise.repeat(8, axis=0).repeat(8, axis=1))
        save(tmp_path / f"masks/{name}.png", np.minimum(ids, 1).astype(np.uint8))
        save(tmp_path / f"instances/{name}.png", ids)
    return tmp_path


def test_evaluate_takes_the_instances_of_the_data(model: SegmentationModel, root: Path) -> None:
    data = Folder(root=root, instances=root / "instances", num_classes=3).dataset("all")
    segmenter, pairs = Segmenter(model, "cpu"), []
    seen = RULE.find(segmenter.labels(data[0].image))
    seen[seen == 2] = 1  # of two that are predicted, one
    save(root / "instances/a.png", seen.astype(np.uint16))
    objects = ObjectScores(3, RULE)
    evaluate(model, data, device="cpu", workers=0, objects=objects)
    for sample in data:
        with Image.open(root / f"instances/{sample.name}.png") as picture:
            wanted = np.array(picture).astype(np.int32)
        np.testing.assert_array_equal(data.with_channels(3).instances(sample.name), wanted)
        pairs.append((RULE.find(segmenter.labels(sample.image)), wanted))
    scores = objects.scores()
    assert len(pairs) == 3 and scores.hits[0, 0] >= scores.truth[0] - 1 > 1
    for name, value in naive(pairs).items():
        assert scores.measures()[name] == pytest.approx(value)
    assert scores.ids.tolist() == [0, 1, 2] and scores.truth.min() >= 3 and scores.predicted.min() > 3


def test_command(model: SegmentationModel, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model.save_pretrained(root / "model")
    data = ["--data=folder", f"--data.root={root}", "--data.classes=[background, nucleus, border]", "--split=all"]
    data += [f"--data.instances={root / 'instances'}"]
    argv = ["evaluate", str(root / "model"), *data, "--workers=0", "--device=cpu", "--bootstrap=40"]
    argv += ["--objects=nucleus", "--objects_border=border", "--objects_min_size=0", f"--json={root / 'scores.json'}"]
    assert main([*argv, f"--html={root / 'page.html'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    objects = ObjectScores(3, ObjectRule(1, border=2, min_size=0))
    source = Folder(root=root, num_classes=3, instances=root / "instances")
    evaluate(model, source.dataset("all"), device="cpu", workers=0, objects=objects)
    counts, without_fragments = objects.scores(), ObjectScores(3, ObjectRule(1, border=2))
    evaluate(model, source.dataset("all"), device="cpu", workers=0, objects=without_fragments)
    assert without_fragments.scores().predicted.sum() < counts.predicted.sum()
    assert any(line.startswith(f"{counts.truth.sum()} objects of class nucleus") for line in lines)
    (f1,), (ap,) = (
        [line for line in lines if name in line] for name in ("object F1, IoU 0.5", "object AP, IoU 0.5 to 0.95")
    )
    scores = counts.measures()
    assert f" {scores['object_f1']:.1f} " in f1 and f" {scores['object_ap']:.1f} " in ap and " [" in f1
    written = json.loads((root / "scores.json").read_text())
    assert written["object_f1"] == pytest.approx(scores["object_f1"], abs=1e-4)
    assert list(written["object_ap_of_thresholds"]) == [f"{percent / 100:g}" for percent in PERCENT]
    assert written["object_ap_of_thresholds"]["0.5"] == pytest.approx(
        counts.measures()["object_ap_of_thresholds"][0], abs=1e-4
    )
    documented = set(re.findall(r"`(\w+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    assert documented >= {*written, *written["intervals"]}
    assert "object F1, IoU 0.5" in (root / "page.html").read_text(encoding="utf-8")


def test_faults_of_instances(model: SegmentationModel, root: Path, refuses: Any) -> None:
    data = Folder(root=root, instances=root / "instances", num_classes=3)

    def score() -> None:
        evaluate(model, data.dataset("all"), device="cpu", workers=0, objects=ObjectScores(3, RULE))

    save(root / "instances/sub/b.png", np.zeros((5, 6), np.uint16))
    with refuses("instances of sub/b are 5x6", "its image is 48x64"):
        score()
    save(root / "instances/sub/b.png", np.arange(48 * 64 * 3).reshape(48, 64, 3).astype(np.uint8))
    with refuses(f"{root}/instances/sub/b.png: an RGB mask", "give an instance mask"):
        score()
    (root / "instances/sub/b.png").unlink()
    with refuses(f"data.instances {root}/instances has no file for 1 of 3 images: sub/b", "file of the same name"):
        score()
    with refuses(f"{root}/nowhere is missing"):
        Folder(root=root, instances=root / "nowhere", num_classes=3).dataset("all").instances("a")
