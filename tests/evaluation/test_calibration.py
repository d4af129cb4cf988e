"""Calibration: the fitted temperature, the error of confidences, and the ways to calibrated probabilities."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import Masks
from torchmetrics.classification import MulticlassCalibrationError

from crispseg import create_model, from_pretrained
from crispseg.cli.main import main
from crispseg.evaluation.calibration import (
    SAMPLED_PIXELS,
    Reliability,
    drawn_pixels,
    fitted_temperature,
    temperature_of,
)
from crispseg.export.pipeline import export_model
from crispseg.inference import Segmenter
from crispseg.inference.ensemble import Ensemble
from crispseg.inference.runtime import open_model
from crispseg.labels import IGNORE
from crispseg.models import SegmentationModel
from crispseg.training import Run


def too_large(factor: float, side: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits `(5, H, W)` that are `factor` times too large, and labels `(H, W)` drawn by the right ones."""
    random = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5, side, side, generator=random)
    labels = torch.multinomial(logits.flatten(1).T.softmax(1), 1, generator=random).view(side, side)
    return factor * logits, labels


def tiny(temperature: float, seed: int = 0, **options: Any) -> SegmentationModel:
    torch.manual_seed(seed)
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8, **options).eval()
    model.classifier.weight.data *= 100  # so that confidences differ
    model.info = replace(model.info, temperature=temperature)
    return model


IMAGE = np.random.default_rng(0).integers(0, 256, (150, 170, 3), np.uint8)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.7, 3.0])
def test_the_temperature_of_drawn_labels_is_found(factor: float) -> None:
    logits, labels = too_large(factor)
    labels[:20] = IGNORE
    logits[:, :20] *= 9  # must not count
    pixels, truth = drawn_pixels(logits, labels, SAMPLED_PIXELS)
    assert len(truth) == SAMPLED_PIXELS and temperature_of(pixels, truth) == pytest.approx(factor, rel=0.04)
    assert temperature_of(*drawn_pixels(logits[:, :20], labels[:20], SAMPLED_PIXELS)) == 1  # without labels


def test_images_in_tiles_are_not_segmented_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter, sizes = Segmenter(tiny(1.0), tile=128), list[tuple[int, ...]]()

    def logits(image: np.ndarray) -> torch.Tensor:
        sizes.append(image.shape[:2])
        return torch.zeros(3, *image.shape[:2])

    monkeypatch.setattr(segmenter, "logits", logits)
    fitted_temperature(segmenter, Masks(3, np.zeros((300, 100), np.uint8)))
    fitted_temperature(segmenter, Masks(3, np.zeros((90, 100), np.uint8)))
    assert sizes == [(128, 100), (90, 100)]


def test_the_error_is_that_of_torchmetrics() -> None:
    logits, labels = too_large(1.5)
    confidence, predicted = logits.softmax(0).max(0)
    labels[100:120] = IGNORE
    reliability, reference = Reliability(), MulticlassCalibrationError(5, n_bins=15, norm="l1", ignore_index=IGNORE)
    for rows in (slice(150), slice(150, None)):
        reliability.add(confidence[rows].numpy(), predicted[rows].numpy(), labels[rows].numpy())
        reference.update(logits.softmax(0)[None, :, rows], labels[None, rows])
    assert reliability.error / 100 == pytest.approx(float(reference.compute()), abs=1e-6)
    assert sum(reliability.bins["pixels"]) == pytest.approx(100, abs=0.01)


@pytest.mark.parametrize("options", [{}, {"tile": 128}, {"protocol": "unept-ms"}, {"precision": "bf16"}])
@pytest.mark.parametrize("refine", [None, "boundary"])
def test_labels_stay_and_probabilities_follow_the_temperature(options: dict[str, Any], refine: str | None) -> None:
    plain, soft = (Segmenter(tiny(temperature, refine=refine), **options)(IMAGE) for temperature in (1.0, 3.0))
    np.testing.assert_array_equal(plain.labels, soft.labels)
    assert plain.confidence().mean() > soft.confidence().mean() + 1
    if "tile" not in options:
        expected = plain.probabilities() ** (1 / 3)
        np.testing.assert_allclose(soft.probabilities(), expected / expected.sum(0), atol=1e-5)


def test_folds_average_probabilities_of_their_own_temperature() -> None:
    members = {"a": tiny(3.0), "b": tiny(0.5, seed=1)}
    ensemble = Segmenter(Ensemble(members).eval())
    mean = sum(Segmenter(member)(IMAGE).probabilities() for member in members.values()) / 2
    np.testing.assert_allclose(ensemble(IMAGE).probabilities(), mean, atol=1e-5)
    labels, confidences = ensemble.labels_and_confidences(IMAGE)
    np.testing.assert_array_equal(labels, ensemble(IMAGE).labels)
    np.testing.assert_allclose(confidences, mean.max(0), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("format", "output"), [("onnx", "probabilities"), ("openvino", "logits")])
def test_files_agree_with_the_segmenter(format: Any, output: Any, tmp_path: Path) -> None:
    model, path = tiny(3.0), tmp_path / ("model.onnx" if format == "onnx" else "model.xml")
    export_model(model, path, format, output=output)
    file, own = Segmenter(path)(IMAGE), Segmenter(model)(IMAGE)
    np.testing.assert_allclose(file.probabilities(), own.probabilities(), atol=1e-5)
    direct = open_model(path).of_input(Segmenter(model)._batch(IMAGE))[0]
    expected = own.probabilities() if output == "probabilities" else Segmenter(model).logits(IMAGE)
    np.testing.assert_allclose(direct, expected, atol=1e-5 if output == "probabilities" else 1e-2)


def test_training_fits_it_and_evaluate_reports_the_error(tiny_run: Run, tmp_path: Path) -> None:
    assert from_pretrained(tiny_run.folder).info.temperature == tiny_run.model.info.temperature != 1
    assert main(["evaluate", str(tiny_run.folder), "--json", f"{tmp_path}/a.json", "--html", f"{tmp_path}/a.html"]) == 0
    scores = json.loads((tmp_path / "a.json").read_text())
    assert 0 <= scores["calibration_error"] <= 100
    assert {len(values) for values in scores["reliability"].values()} == {15}
    assert "correct by confidence" in (tmp_path / "a.html").read_text()
