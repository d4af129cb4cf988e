import json
import math
import re
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from drawn import as_flags, drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.morphology import skeletonize

from crispseg import SegmentationModel, create_model
from crispseg.cli.main import main
from crispseg.evaluation import ThinQuality, ThinScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.summary import Evaluation
from crispseg.evaluation.thin import BOUNDS, WIDTHS, widths


def naive_widths(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """As docs/metrics.md says: discs that the thing fills, and what is near to one; by loops over pixels."""
    height, width = mask.shape
    far = 20
    padded = np.pad(mask, far, mode="edge")
    band = np.zeros(mask.shape, np.int64)
    for index, diameter in enumerate(BOUNDS, 1):
        middle = (diameter - 1) / 2
        square = range(diameter)
        disc = [(y, x) for y, x in product(square, square) if math.hypot(y - middle, x - middle) <= diameter / 2]
        filled = np.zeros_like(padded)
        for top, left in product(range(far + height), range(far + width)):
            if all(padded[top + y, left + x] for y, x in disc):
                for y, x in disc:
                    filled[top + y, left + x] = True
        places = np.argwhere(filled) - far
        for y, x in np.argwhere(mask):
            if len(places) and np.hypot(*(places - (y, x)).T).min() <= diameter / 4:
                band[y, x] = index
    return band


def naive(prediction: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """`(C, W, 3)`: found, true and wrongly predicted pixels."""
    counts = np.zeros((classes, len(WIDTHS), 3), np.int64)
    for index in range(classes):
        true, predicted = truth == index, prediction == index
        band = naive_widths(true if true.any() else predicted)
        for y, x in product(*map(range, truth.shape)):
            if true[y, x]:
                counts[index, band[y, x], 1] += 1
                counts[index, band[y, x], 0] += predicted[y, x]
            elif predicted[y, x]:
                wide = band[y, x]
                if true.any():
                    wide = min((math.hypot(y - v, x - u), band[v, u]) for v, u in np.argwhere(true))[1]
                counts[index, wide, 2] += 1
    return counts


def scored(
    prediction: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, lines: int | None = None
) -> ThinQuality:
    metric = ThinScores(classes, [] if lines is None else [("line", lines)])
    metric.update(torch.from_numpy(prediction)[None], torch.from_numpy(truth)[None])
    return metric.scores()


def things(seed: int, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Bars of all widths over each other, and a prediction that is moved and has stray pixels; some are ignored."""
    random = np.random.default_rng(seed)
    truth = np.zeros((height, width), np.uint8)
    for _ in range(4):
        top, left = random.integers(0, height), random.integers(0, width)
        down, right = random.integers(1, 16, 2)
        truth[top : top + down, left : left + right] = random.integers(0, 3)
    prediction = np.roll(truth, random.integers(-2, 3, 2), (0, 1))
    stray = random.random(truth.shape) < 0.02
    prediction[stray] = random.integers(0, 3, stray.sum())
    truth[random.random(truth.shape) < 0.01] = 255
    prediction[truth == 255] = 255
    return prediction, truth


@settings(max_examples=6)
@given(seed=st.integers(0, 2**32), height=st.integers(1, 20), width=st.integers(1, 20))
def test_widths_are_those_of_loops(seed: int, height: int, width: int) -> None:
    prediction, truth = things(seed, height, width)
    quality = scored(prediction, truth, 3)
    if (truth != 255).any():
        np.testing.assert_array_equal(quality.pixels[0], naive(prediction, truth, 3))


@pytest.mark.parametrize(("thickness", "band"), [(1, 0), (3, 0), (4, 1), (6, 1), (7, 2), (12, 2), (13, 3), (40, 3)])
@pytest.mark.parametrize("at", [0, 20])
def test_a_bar_is_as_wide_as_it_is_across(thickness: int, band: int, at: int) -> None:
    """Also at the edge of the image, where it ends."""
    bar = np.zeros((60, 70), np.bool_)
    bar[:, at + 5 : at + 5 + thickness] = True
    np.testing.assert_array_equal(widths(bar)[bar], band)


def test_ious_and_recalls_are_of_pixels_of_one_width() -> None:
    truth, prediction = np.zeros((2, 40, 40), np.uint8)
    truth[:, 10:12] = 1  # 80 pixels, 2 wide
    prediction[:20, 10:14] = 1  # half of them, and 40 wrong ones beside
    measures = scored(prediction, truth, 2).measures()
    assert measures["recall_of_widths_and_classes"][0, 1] == 50
    assert measures["iou_of_widths_and_classes"][0, 1] == pytest.approx(100 * 40 / 120)
    assert np.isnan(measures["iou_of_widths_and_classes"][1, 1])
    assert measures["iou_of_widths"][0] == pytest.approx(100 * 40 / 120)  # the background is nowhere so thin


def test_classes_that_are_not_in_the_truth_count_where_it_has_that_width_elsewhere() -> None:
    metric = ThinScores(2)
    truth, prediction = np.zeros((2, 2, 40, 40), np.uint8)
    truth[0, :, 10:12] = prediction[0, :, 10:12] = 1
    prediction[1, :20, 10:12] = 1
    metric.update(torch.from_numpy(prediction), torch.from_numpy(truth), [0, 1])
    measures = metric.scores().measures()
    assert measures["iou_of_widths_and_classes"][0, 1] == pytest.approx(100 * 80 / 120)
    assert metric.scores().weighted(np.array([[1.0, 0.0]]))["iou_of_widths_and_classes"][0, 0, 1] == 100


def naive_cl_dice(predictions: NDArray[np.uint8], truths: NDArray[np.uint8], index: int) -> float:
    """Eq. 1 and 2 by loops over images and pixels; the skeletons are the library's."""
    every = []
    for prediction, truth in zip(predictions, truths, strict=True):
        masks = prediction == index, truth == index
        if not masks[0].any() and not masks[1].any():
            continue
        shares = []
        for mask, other in (masks, masks[::-1]):
            line = [tuple(place) for place in np.argwhere(skeletonize(mask))]
            shares.append(sum(bool(other[place]) for place in line) / len(line) if line else 0.0)
        every.append(2 * shares[0] * shares[1] / sum(shares) if sum(shares) else 0.0)
    return 100 * sum(every) / len(every)


def test_cl_dice_is_that_of_loops_on_curved_thick_and_broken_lines() -> None:
    truths, predictions = np.zeros((2, 4, 60, 80), np.uint8)
    for image, thickness in enumerate((1, 3, 6)):
        cv2.ellipse(truths[image], (40, 30), (30, 20), 0, 20, 300, 1, thickness)
        cv2.ellipse(predictions[image], (41, 31), (30, 20), 0, 60, 330, 1, max(thickness - 1, 1))
        truths[image, :, 36:40] = predictions[image, :, 36:40] = 255  # the line is broken
    predictions[2] = 0  # not found at all; the last image has no line
    metric = ThinScores(2, [("line", 1)])
    metric.update(torch.from_numpy(predictions), torch.from_numpy(truths), range(4))
    expected = naive_cl_dice(predictions, truths, 1)
    assert 10 < expected < 60
    assert metric.scores().measures()["cl_dice"] == pytest.approx(expected)


@pytest.mark.parametrize("lines", [(), [("pole", 1)]])
def test_several_images_are_summed_and_resampled(lines: list[tuple[str, int]]) -> None:
    whole, parts = ThinScores(3, lines), ThinScores(3, lines)
    pairs = [things(seed, 30, 40) for seed in range(4)]
    predictions, truths = (torch.from_numpy(np.stack(maps)) for maps in zip(*pairs, strict=True))
    whole.update(predictions, truths, range(4))
    for index in (2, 0, 3, 1):
        parts.update(predictions[index : index + 1], truths[index : index + 1], [index])
    quality = whole.scores()
    np.testing.assert_array_equal(quality.pixels, parts.scores().pixels)
    once = quality.weighted(np.ones((1, 4)))
    for name, value in quality.measures().items():
        np.testing.assert_allclose(once[name][0], value)
        assert quality.estimates(50)[name].interval.shape == (2, *np.shape(value))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for seed in range(2):
        torch.manual_seed(seed)
        model = create_model("fpn", num_classes=12, backbone="test_efficientnet", width=16)
        with torch.no_grad():
            model.train()(torch.randn(4, 3, 64, 96))
        model.save_pretrained(folder / f"m{seed}")
    return [str(folder / f"m{seed}") for seed in range(2)]


DATA = [*as_flags(drawn(val=3, height=64, width=96)), "--workers=0", "--device=cpu"]


def test_evaluate_and_compare_tell_of_thin_things(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = drawn(val=3, height=64, width=96)
    thin = ThinScores(12, [("pole", source.label_set().index("pole"))])
    model, data = SegmentationModel.from_pretrained(runs[0]), source.dataset("val")
    scores, expected = evaluate(model, data, device="cpu", workers=0, thin=thin), thin.scores().measures()
    summary = Evaluation(data.labels, scores, thin=thin.scores()).summary
    shown = [(name, key, *index) for name, key, index in summary if key in expected]
    assert len(shown) == 2 * len(WIDTHS) + 1
    assert expected["recall_of_widths"][0] > 0

    assert main(["evaluate", runs[0], *DATA, "--thin", "pole", f"--json={tmp_path / 'one.json'}"]) == 0
    printed = capsys.readouterr().out
    written = json.loads((tmp_path / "one.json").read_text())
    assert list(written["iou_of_widths"]) == list(written["intervals"]["recall_of_widths"]) == list(WIDTHS)
    assert list(written["recall_of_widths_and_classes"]["1 to 3"]) == list(source.label_set().names)
    assert list(written["cl_dice_of_classes"]) == ["pole"]
    for name, key, at in shown:
        value = list(written[key].values())[at]
        assert value == pytest.approx(expected[key][at], abs=0.05), name  # one pixel may be another
        match = re.search(rf"{name} +│ +([\d.]+) ", printed)
        assert match and float(match[1]) == pytest.approx(value, abs=0.051), name

    assert main(["compare", *runs, *DATA, "--thin", "pole", f"--json={tmp_path / 'two.json'}"]) == 0
    base, other = json.loads((tmp_path / "two.json").read_text())["models"]
    for _, key, at in shown:
        first, second, change = (list(entry[key].values())[at] for entry in (base, other, other["change"]))
        assert first == pytest.approx(expected[key][at], abs=0.05)
        assert change == pytest.approx(second - first, abs=2e-4)
