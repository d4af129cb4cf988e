"""Scores beside those of the cityscapesscripts package, on files as Cityscapes has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import save
from numpy.typing import NDArray

from crispseg.data import Cityscapes
from crispseg.evaluation import Scores, SegmentationScores
from crispseg.inference.servers import SERVERS

evaluator = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")

ROAD, SKY, TRAIN = 0, 10, 16
VALUES = [*SERVERS["cityscapes"].classes().values()]


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What their evaluator says of the masks and predictions in two folders; it looks for the predictions itself."""
    quiet = {"quiet": True, "JSONOutput": False, "evalInstLevelScore": False, "predictionWalk": None}
    for name, value in quiet.items():
        monkeypatch.setattr(evaluator.args, name, value)

    def evaluated(truths: Path, predictions: Path) -> dict[str, Any]:
        monkeypatch.setattr(evaluator.args, "predictionPath", str(predictions))
        masks = [str(path) for path in sorted(truths.rglob("*_gtFine_labelIds.png"))]
        files = [evaluator.getPrediction(evaluator.args, mask) for mask in masks]
        result: dict[str, Any] = evaluator.evaluateImgLists(files, masks, evaluator.args)
        return result

    return evaluated


def compare(scores: Scores, result: dict[str, Any]) -> None:
    """Mean, classes and pixels to 1e-6, the counts exactly."""
    from cityscapesscripts.helpers.labels import labels

    classes = sorted((label for label in labels if not label.ignoreInEval), key=lambda label: label.trainId)
    ids = [label.id for label in classes]
    assert len(ids) == 19
    assert scores.miou == pytest.approx(100 * result["averageScoreClasses"], abs=1e-6)
    iou = [100 * result["classScores"][label.name] for label in classes]
    np.testing.assert_allclose(scores.iou, iou, rtol=0, atol=1e-6)
    # Its evalPixelAccuracy counts pixels of ignored classes, and calls a function that numpy 2.4 has no longer. These
    # are the pixels of its matrix.
    confusion = np.array(result["confMatrix"], np.int64)[ids]
    right = sum(confusion[row, label] for row, label in enumerate(ids))
    assert scores.pixel_accuracy == pytest.approx(100 * right / confusion.sum(), abs=1e-6)
    np.testing.assert_array_equal(confusion[:, ids], scores.confusion)


def street(random: np.random.Generator, shape: tuple[int, int] = (64, 128)) -> NDArray[np.uint8]:
    """Values of a mask: blocks of classes, the sky in none, and every value that is ignored in single pixels."""
    ids = [value for index, value in enumerate(VALUES) if index not in (SKY, TRAIN)]
    blocks = np.kron(random.choice(ids, (shape[0] // 8, shape[1] // 8)), np.ones((8, 8), np.int64))
    void = sorted(set(range(34)) - set(VALUES))
    return np.where(random.random(shape) < 0.1, random.choice(void, shape), blocks).astype(np.uint8)


def tree(root: Path, images: int) -> Cityscapes:
    random = np.random.default_rng(0)
    for index in range(images):
        name = f"val/ulm/ulm_{index:06}_000019"
        save(root / "leftImg8bit" / f"{name}_leftImg8bit.png", random.integers(0, 256, (64, 128, 3), np.uint8))
        save(root / "gtFine" / f"{name}_gtFine_labelIds.png", street(random))
    return Cityscapes(root)


def test_counts_of_generated_predictions(tmp_path: Path, theirs: Any) -> None:
    """The sky is predicted only, a train in neither, and a wall never predicted."""
    data = tree(tmp_path, 4).dataset("val")
    random, metric = np.random.default_rng(1), SegmentationScores(19)
    for index, (_, truth, _) in enumerate(data):
        wrong = (random.random(truth.shape) < 0.4) | (truth == 255)
        prediction = np.where(wrong, random.integers(19, size=truth.shape), truth).astype(np.uint8)
        prediction[np.isin(prediction, (3, TRAIN))] = ROAD
        SERVERS["cityscapes"].save(tmp_path / "out", Path(f"ulm_{index:06}_000019_leftImg8bit.png"), prediction)
        metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None].long(), [index])
    scores = metric.scores()
    compare(scores, theirs(tmp_path / "gtFine", tmp_path / "out"))
    assert np.flatnonzero(np.isnan(scores.iou)).tolist() == [TRAIN] and scores.iou[SKY] == scores.iou[3] == 0
    assert 30 < scores.miou < scores.pixel_accuracy < 70
