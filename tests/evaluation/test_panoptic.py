"""Panoptic quality beside torchmetrics' own, and COCO's panoptic files."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import photos
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stn
from numpy.typing import NDArray
from skimage.measure import regionprops
from torchmetrics.detection import PanopticQuality as Reference
from training_runs import of_many_opinions

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.data import Nuclei
from crispseg.errors import CrispsegError
from crispseg.evaluation.object_scores import ObjectScores, PanopticQuality
from crispseg.evaluation.scores import SegmentationScores
from crispseg.inference.objects import ObjectRule
from crispseg.io.images import read_image
from crispseg.prediction.job import PredictionJob
from crispseg.prediction.outputs import PanopticFiles

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs/quality.md"
NONE = 4  # class of pixels of no segment, which does not count
MILLIONTH = 1e-4  # in percent; torchmetrics divides in float32

Segmented = tuple[NDArray[Any], NDArray[Any]]  # class ids and object numbers of class 1, (H, W) each


def reference(pairs: list[tuple[Segmented, Segmented]], border: int | None) -> dict[str, float]:
    """Means of torchmetrics in percent."""
    metric = Reference({1}, {0, 2, 3, NONE}, True, return_sq_and_rq=True, return_per_class=True)
    for predicted, true in pairs:
        maps = []
        for labels, numbers in (predicted, true):
            classes = np.where(np.isin(labels, [1, border or 1]), NONE, labels)
            classes = np.where(true[0] == 255, 255, np.where(numbers > 0, 1, classes))
            maps.append(torch.from_numpy(np.stack([classes, numbers], axis=-1).astype(np.int64))[None])
        metric.update(*maps)
    present = metric.true_positives + metric.false_positives + metric.false_negatives > 0
    means = 100 * metric.compute()[:-1][present[:-1]].mean(0)
    return dict(zip(("pq", "sq", "rq"), means.tolist(), strict=True))


drawn = stn.arrays(np.uint8, (8, 10), elements=st.sampled_from([0, 0, 1, 1, 2, 3]), fill=st.just(1))


@settings(max_examples=100)
@given(truths=st.lists(drawn, min_size=1, max_size=3), other=drawn, ignored=st.booleans(), with_border=st.booleans())
def test_drawn_masks(
    truths: list[NDArray[np.uint8]], other: NDArray[np.uint8], ignored: bool, with_border: bool
) -> None:
    border = 2 if with_border else None
    rule = ObjectRule(1, border, min_size=0)
    scores, objects, pairs = SegmentationScores(4), ObjectScores(4, rule), []
    for index, truth in enumerate(truths):
        predicted = truth.copy()
        predicted[3:, :7] = other[3:, :7]
        true = truth.copy()
        true[:2] = 255 if ignored else true[:2]
        for metric in (scores, objects):
            metric.update(predicted[None], true[None], [index])
        predicted[true == 255] = 255
        pairs.append(((predicted, rule.find(predicted)), (true, rule.find(true))))
    quality = PanopticQuality.of(scores.scores(), objects.scores(), rule).measures()
    expected = reference(pairs, border)
    assert {name: quality[name] for name in expected} == pytest.approx(expected, abs=MILLIONTH)


@pytest.mark.slow
def test_nuclei(tmp_path: Path) -> None:
    """Of the bundled model, by the command; the truth is that of the numbered masks."""
    flags = ["--data=nuclei", "--split=val", "--bootstrap=40", "--panoptic", f"--json={tmp_path / 'scores.json'}"]
    assert main(["evaluate", "nuclei", *flags, "--objects=nucleus", "--objects_border=border"]) == 0
    scores = json.loads((tmp_path / "scores.json").read_text())
    segmenter, rule, pairs = Segmenter("nuclei", "cpu"), ObjectRule(1, 2), []
    val = Nuclei().dataset("val")
    for sample in map(val.__getitem__, range(len(val))):
        labels, numbers = segmenter.labels(sample.image), val.instances(sample.name)
        assert numbers is not None
        pairs.append(((labels, rule.find(labels)), (sample.labels, numbers)))
    expected = reference(pairs, border=2)
    assert len(pairs) > 5 and 50 < expected["pq"] < expected["rq"] < 100
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=MILLIONTH)
    assert scores["pq_of_classes"].keys() == {"background", "nucleus", "border"}
    documented = set(re.findall(r"`(\w+)`", DOCUMENTATION.read_text(encoding="utf-8")))
    assert documented >= {*scores, *scores["intervals"]}


def test_more_objects_than_numbers_are_refused(tmp_path: Path) -> None:
    model = of_many_opinions(3)
    job = PredictionJob(run="run", objects="class 1", format="panoptic")
    result = Segmenter(model, "cpu")(np.zeros((400, 400, 3), np.uint8))
    result.labels = (np.indices((400, 400)).sum(0) % 2).astype(np.uint8)
    with pytest.raises(CrispsegError, match="80000 objects"):
        PanopticFiles(job, Segmenter(model, "cpu"), tmp_path).write(result)
    assert not [*tmp_path.iterdir()]


def test_predicted_files(tmp_path: Path) -> None:
    model = of_many_opinions(3)
    model.save_pretrained(tmp_path / "model")
    folder, out = photos(tmp_path / "photos", "a.png", "sub/b.png"), tmp_path / "out"
    flags = ["--objects=class 1", "--objects_border=class 2", "--format=panoptic", f"--out={out}"]
    assert main(["predict", str(tmp_path / "model"), str(folder), *flags]) == 0
    coco = json.loads((out / "panoptic.json").read_text())
    assert [(category["id"], category["isthing"]) for category in coco["categories"]] == [(0, 0), (1, 1), (2, 0)]
    assert [image["file_name"] for image in coco["images"]] == ["a.png", "sub/b.png"]
    for image, annotation in zip(coco["images"], coco["annotations"], strict=True):
        labels = Segmenter(model, "cpu")(folder / image["file_name"]).labels
        numbers = ObjectRule(1, 2).find(labels)
        red, green, blue = np.moveaxis(read_image(out / annotation["file_name"]).astype(int), 2, 0)
        ids = red + 256 * green + 65536 * blue
        assert annotation["image_id"] == image["id"] and labels.shape == (image["height"], image["width"])
        assert len(annotation["segments_info"]) == numbers.max() + (labels == 0).any() > 2
        assert {segment["id"] for segment in annotation["segments_info"]} == {*np.unique(ids)} - {0}
        for segment in annotation["segments_info"]:
            pixels = ids == segment["id"]
            number = numbers[pixels][0]
            np.testing.assert_array_equal(pixels, (numbers == number) & ((number > 0) | (labels == 0)))
            (region,) = regionprops(pixels.astype(np.uint8))
            top, left, bottom, right = region.bbox
            assert (segment["category_id"], segment["area"]) == (int(number > 0), region.area)
            assert segment["bbox"] == [left, top, right - left, bottom - top]
