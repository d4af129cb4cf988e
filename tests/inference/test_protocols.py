import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import as_flags, drawn
from torch import Tensor, nn
from training_runs import varied

from crispseg import SegmentationModel, Segmenter
from crispseg.cli.main import main
from crispseg.evaluation.evaluate import evaluate
from crispseg.inference.protocols import (
    PROTOCOLS,
    WHOLE,
    Protocol,
    average_views,
    one_view,
    unrefined_logits,
    window_starts,
)
from crispseg.models.refinement import shift


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    return varied("fpn", 12, width=8)


@pytest.fixture(scope="module")
def refining() -> SegmentationModel:
    return varied("fpn", 12, width=8, refine="boundary")


class Toy(nn.Module):
    """Two 3×3 convolutions: translation-equivariant but for the zeros around, which reach two pixels far."""

    REACH = 2

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3, padding=1))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        logits: Tensor = self.layers(images)
        return logits


def predict_logits(model: SegmentationModel, images: Tensor, protocol: Protocol) -> Tensor:
    """Refined logits at the size of the images."""
    logits, offsets = unrefined_logits(model, images, protocol)
    logits = model.resized(logits, images.shape[-2:])
    return logits if offsets is None else shift(logits, offsets)


@torch.no_grad()
def test_random_views_follow_from_seed_and_image() -> None:
    protocol = Protocol(scales=(0.5, 2.0), flip=True, random_views=40, seed=1, average="probabilities")
    first, second = torch.randn(2, 1, 3, 33, 47)
    views = protocol.views_of(first)
    assert views == protocol.views_of(first.clone()) and len(views) == protocol.random_views == 40
    assert views != protocol.views_of(second) and views != dataclasses.replace(protocol, seed=2).views_of(first)
    assert min(scale for scale, _ in views) < 0.7 and max(scale for scale, _ in views) > 1.8
    assert all(0.5 <= scale <= 2 for scale, _ in views) and 10 < sum(flipped for _, flipped in views) < 30
    toy = Toy()
    expected = torch.zeros(1, 4, 33, 47)
    for scale, flipped in views:
        view = F.interpolate(first, (round(33 * scale), round(47 * scale)), mode="bilinear", antialias=scale < 1)
        logits = toy(view.flip(-1)).flip(-1) if flipped else toy(view)
        expected += F.interpolate(logits, (33, 47), mode="bilinear").softmax(1) / 40
    torch.testing.assert_close(average_views(toy, first, protocol).exp(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("size", "stride"), [((70, 90), 24), ((64, 100), 36), ((37, 151), 17)])
@torch.no_grad()
def test_windows_of_an_equivariant_model_give_the_logits_of_the_whole_image(size: tuple[int, int], stride: int) -> None:
    toy, images = Toy(), torch.randn(2, 3, *size)
    protocol = Protocol(window=36, stride=stride)
    whole, windows = toy(images), one_view(toy, images, protocol)
    # Away from the borders that windows have inside the image, all windows agree with the whole image.
    away = torch.ones(size, dtype=torch.bool)
    for axis, length in enumerate(size):
        for start in window_starts(length, min(36, length), stride):
            for border in {start, start + min(36, length)} - {0, length}:
                near = torch.arange(max(border - Toy.REACH, 0), min(border + Toy.REACH, length))
                away.index_fill_(axis, near, False)
    assert away.float().mean() > 0.4
    torch.testing.assert_close(windows[..., away], whole[..., away], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(windows, whole, atol=1e-3)  # and at the borders they do not
    pixelwise = nn.Conv2d(3, 4, 1)
    torch.testing.assert_close(one_view(pixelwise, images, protocol), pixelwise(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"average": "logits"}, {"average": "probabilities"}, {"window": 32, "stride": 24}])
@torch.no_grad()
def test_views_are_averaged_as_by_hand(options: dict[str, Any]) -> None:
    """Scales and their mirror images, with windows that slide over each."""
    toy, images = Toy(), torch.randn(1, 3, 40, 56)
    protocol = Protocol(scales=(0.8, 1.0, 1.5), flip=True, **options)
    before, of_probabilities = images.clone(), protocol.average == "probabilities"
    result = average_views(toy, images, protocol)
    single = dataclasses.replace(protocol, scales=(1.0,), flip=False, average="logits")
    views = []
    for size in ((32, 45), (40, 56), (60, 84)):
        view = F.interpolate(images, size, mode="bilinear", antialias=size[0] < 40) if size[0] != 40 else images
        for logits in (one_view(toy, view, single), one_view(toy, view.flip(3), single).flip(3)):
            logits = F.interpolate(logits, (40, 56), mode="bilinear") if size[0] != 40 else logits
            views.append(logits.softmax(1) if of_probabilities else logits)
    mean = torch.stack(views).mean(0)
    torch.testing.assert_close(result.softmax(1) if of_probabilities else result, mean, rtol=1e-4, atol=1e-6)
    assert torch.equal(images, before)
    other = average_views(toy, images, dataclasses.replace(protocol, flip=False))
    assert not torch.allclose(other, result, atol=1e-3)


@torch.no_grad()
def test_a_mean_of_probabilities_survives_certain_views() -> None:
    logits = average_views(lambda images: images * 500, torch.randn(1, 3, 32, 32), PROTOCOLS["unept-ms"])
    assert logits.isfinite().all()
    torch.testing.assert_close(logits.softmax(1).sum(1), torch.ones(1, 32, 32))


@pytest.mark.parametrize("name", PROTOCOLS)
@torch.no_grad()
def test_every_preset_runs(name: str, model: SegmentationModel) -> None:
    images = torch.randn(1, 3, 40, 56)  # at scale 0.5 smaller than a model takes
    logits = predict_logits(model, images, PROTOCOLS[name])
    assert logits.shape == (1, 12, 40, 56) and logits.isfinite().all()
    assert torch.equal(logits, model(images)) == (name == "whole")


@torch.no_grad()
def test_the_average_is_refined_once(refining: SegmentationModel) -> None:
    images = torch.randn(1, 3, 48, 64)
    offsets = refining.offsets(images)
    assert offsets is not None and 0.05 < (offsets != 0).any(1).float().mean() < 0.95
    torch.testing.assert_close(predict_logits(refining, images, WHOLE), refining(images))
    protocol = Protocol(flip=True)
    plain = [refining.outputs(view).unrefined for view in (images, images.flip(3))]
    assert plain[0] is not None and plain[1] is not None
    expected = shift((plain[0] + plain[1].flip(3)) / 2, offsets)
    torch.testing.assert_close(predict_logits(refining, images, protocol), expected, rtol=1e-4, atol=1e-5)
    # One window as large as the image is the image; smaller ones give offsets too.
    torch.testing.assert_close(predict_logits(refining, images, Protocol(window=64)), refining(images))
    assert predict_logits(refining, images, Protocol(window=32)).shape == (1, 12, 48, 64)


@pytest.mark.parametrize("kind", ["model", "refining"])
def test_segmenter_predicts_by_the_protocol(kind: str, request: pytest.FixtureRequest) -> None:
    model = request.getfixturevalue(kind)
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    protocol = Protocol(scales=(0.75, 1.25), flip=True, window=32, average="probabilities")
    result = Segmenter(model, "cpu", protocol=protocol)(image)
    mean, std = (255 * torch.tensor(values).view(-1, 1, 1) for values in (model.info.mean, model.info.std))
    with torch.no_grad():
        logits = predict_logits(model, ((torch.from_numpy(image).permute(2, 0, 1) - mean) / std)[None], protocol)
    np.testing.assert_allclose(result.probabilities(), logits[0].softmax(0), atol=1e-4)
    assert (result.labels == logits[0].argmax(0).numpy()).mean() > 0.99
    np.testing.assert_allclose(
        Segmenter(model, "cpu", protocol=protocol).logits(image).softmax(0), logits[0].softmax(0), atol=1e-4
    )
    whole = Segmenter(model, "cpu")
    np.testing.assert_allclose(whole.logits(image).softmax(0), whole(image).probabilities(), atol=1e-4)


@pytest.mark.parametrize(
    "values",
    [
        *({"scales": scales} for scales in ((), (0.5, 0.0), (1.0, float("nan")), (9.0,))),
        *({"stride": 16}, {"stride": 0, "window": 64}, {"stride": 65, "window": 64}),
        *({"window": 16}, {"average": "votes"}),
    ],
)
def test_values_that_make_no_protocol(values: dict[str, Any], refuses: Any) -> None:
    with refuses(next(iter(values))):
        Protocol(**values)


@pytest.mark.parametrize("sides", [{"shorter_side": 48}, {"longer_side": 72}, {"longer_side": 72, "shorter_side": 96}])
@torch.no_grad()
def test_scales_are_relative_to_the_sides(sides: dict[str, int], refining: SegmentationModel) -> None:
    """An image of 96×64 is brought to 72×48; what is refined is so by the image at its own size."""
    images = torch.randn(1, 3, 64, 96)
    logits = predict_logits(refining, images, Protocol(scales=(0.75, 1.5), **sides))
    torch.testing.assert_close(logits, predict_logits(refining, images, Protocol(scales=(0.5625, 1.125))))
    same = predict_logits(refining, images, Protocol(scales=(1.0, 0.5), longer_side=96))
    torch.testing.assert_close(same, predict_logits(refining, images, Protocol(scales=(1.0, 0.5))))
    assert str(Protocol(shorter_side=512)) == "shorter_side 512"


def test_evaluate_from_the_command_line(
    tmp_path: Path, model: SegmentationModel, capsys: pytest.CaptureFixture[str]
) -> None:
    model.save_pretrained(tmp_path / "model")
    data, scores = drawn(val=2, height=64, width=96), tmp_path / "scores.json"
    command = ["evaluate", str(tmp_path / "model"), *as_flags(data), "--workers=0", "--protocol=sfnet-slide"]
    flags = ["--window=32", "--flip=false", "--scales", "1", "2", f"--json={scores}"]
    assert main([*command, *flags]) == 0
    shown = capsys.readouterr().out
    expected = Protocol(scales=(1.0, 2.0), window=32)
    assert f"({expected})" in shown
    written = json.loads(scores.read_text())
    assert written["protocol"] == str(expected) == "scales [1.0, 2.0], window 32"
    by_python = evaluate(model, data.dataset("val"), device="cpu", workers=0, protocol=expected)
    whole = evaluate(model, data.dataset("val"), device="cpu", workers=0, protocol="whole")
    assert written["confusion"] == by_python.confusion.tolist() != whole.confusion.tolist()
    capsys.readouterr()
    assert main([*command, "--stride=900"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "stride is 900" in line
