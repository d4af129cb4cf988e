"""What is evaluated is what is shipped."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from training_runs import varied

from crispseg import Segmenter
from crispseg.data.dataset import Sample, SegmentationDataset
from crispseg.evaluation.evaluate import evaluate
from crispseg.inference import PROTOCOLS, Protocol
from crispseg.io.images import read_mask, write_image
from crispseg.labels import IGNORE, LabelSet

CLASSES = 4
SIZES = ((40, 56), (20, 24), (65, 33))


class Noise(SegmentationDataset):
    """Images of several sizes, one smaller than networks take, with some ignored pixels."""

    labels = LabelSet.numbered(CLASSES)

    def __len__(self) -> int:
        return len(SIZES)

    def __getitem__(self, index: int) -> Sample:
        random = np.random.default_rng(index)
        labels = random.integers(0, CLASSES, SIZES[index]).astype(np.uint8)
        labels[:3] = IGNORE
        return Sample(random.integers(0, 256, (*SIZES[index], 3), np.uint8), labels, f"noise{index}")


@pytest.mark.parametrize(("refine", "protocol"), [(None, "whole"), ("boundary", "windows")])
def test_evaluate_scores_what_predict_writes(refine: Any, protocol: str, tmp_path: Path) -> None:
    model = varied("unept" if refine else "fpn", CLASSES, width=8, refine=refine)
    seen = PROTOCOLS["whole"] if protocol == "whole" else Protocol(window=32, flip=True)
    model.save_pretrained(tmp_path / "model")
    scores = evaluate(model, Noise(), workers=0, protocol=seen)
    segmenter = Segmenter(tmp_path / "model", protocol=seen)
    matrix: NDArray[np.int64] = np.zeros((CLASSES, CLASSES), np.int64)
    for index in range(len(SIZES)):
        sample = Noise()[index]
        path = tmp_path / f"{sample.name}.png"
        write_image(path, sample.image)
        written = read_mask(segmenter(path).save(tmp_path / "predictions")[0])
        counted = sample.labels != IGNORE
        np.add.at(matrix, (sample.labels[counted], written[counted]), 1)
    assert (matrix.sum(0) > 0).sum() > 1, "one class everywhere shows nothing"
    np.testing.assert_array_equal(np.asarray(scores.confusion), matrix)
