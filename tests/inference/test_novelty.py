"""Images unlike the training images: the score, its limit, and what predict and label next do with it."""

import csv
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Capture
from PIL import Image

from crispseg import Segmenter, create_model, from_pretrained
from crispseg.cli.main import main
from crispseg.inference.ensemble import Ensemble
from crispseg.inference.segmenter import as_batch
from crispseg.models import SegmentationModel
from crispseg.models.novelty import Novelty, mean_features


def grey(number: int, darkest: int = 0) -> np.ndarray:
    """An image of noise, which is dark in training."""
    return np.random.default_rng(number).integers(darkest, darkest + 40, (64, 80, 3), np.uint8)


bright = partial(grey, darkest=200)


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    torch.manual_seed(0)
    model = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8).eval()
    batches = [as_batch(grey(number), model.info, torch.device("cpu")) for number in range(60)]
    features = torch.cat([mean_features(model.backbone, batch) for batch in batches])
    model.novelty = Novelty.fit(features[:40], features[40:])
    return model


@pytest.fixture
def saved(model: SegmentationModel, tmp_path: Path) -> str:
    model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def write(folder: Path, **images: np.ndarray) -> None:
    folder.mkdir()
    for name, image in images.items():
        Image.fromarray(image).save(folder / f"{name}.png")


def rows_of(out: Path) -> dict[str, bool]:
    with (out / "novelty.csv").open() as file:
        return {row["image"]: float(row["novelty"]) > 1 for row in csv.DictReader(file)}


def test_distances_are_those_of_a_covariance() -> None:
    factors = torch.randn(200, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0, 5, 3, 2, 1])
    offsets = (factors - factors.mean(0)).double()
    inverse = torch.linalg.inv(offsets.T @ offsets / 200)
    expected = (((offsets @ inverse) * offsets).sum(1) / 5).sqrt().float()
    torch.testing.assert_close(Novelty.of(factors).scores(factors), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "channels"), [("fpn", 384), ("deeplabv3plus", 64), ("fcn", 512), ("unept", 512)])
def test_every_network_has_features(name: str, channels: int) -> None:
    """FCN and UN-EPT with one level have no level but the last."""
    options = {"levels": 1} if name == "unept" else {}
    model = create_model(name, num_classes=3, backbone="resnet18", **options).eval()
    features = mean_features(model.backbone, torch.randn(1, 3, 64, 96))
    assert features.shape == (1, channels) and features.isfinite().all()


@pytest.mark.parametrize("val", [20, 150])
def test_few_images_like_the_training_images_are_above_the_limit(val: int) -> None:
    features = torch.randn(2000, 30, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.1, 3, 30)
    novelty = Novelty.fit(features[:100], features[100 : 100 + val])
    assert novelty is not None and Novelty.fit(features[:9], features) is Novelty.fit(features, features[:0]) is None
    assert (novelty.scores(features[300:]) > 1).float().mean() < 0.05
    assert (novelty.scores(features[300:] + 3) > 1).float().mean() > 0.95


def test_a_saved_model_keeps_it(saved: str, model: SegmentationModel, tmp_path: Path) -> None:
    image = bright(0)
    score = Segmenter(model)(image).novelty()
    assert score is not None and score > 1 and (Segmenter(model)(grey(99)).novelty() or 9) < 1
    assert Segmenter(saved)(image).novelty() == pytest.approx(score, rel=1e-4)
    assert Segmenter(Ensemble({"a": model, "b": model}).eval())(image).novelty() == pytest.approx(score, rel=1e-4)
    half = tmp_path / "half"
    model.save_pretrained(half, dtype=torch.float16)
    assert Segmenter(half)(image).novelty() == pytest.approx(score, rel=0.05)
    earlier = from_pretrained(saved)
    earlier.novelty = None
    earlier.save_pretrained(tmp_path / "earlier")
    assert Segmenter(tmp_path / "earlier")(image).novelty() is None


@pytest.mark.parametrize(("refuse", "broken", "status"), [(0, 0, 0), (1, 0, 4), (1, 1, 2), (0, 1, 2)])
def test_predict_names_other_images_and_refuses_them(
    refuse: int, broken: int, status: int, saved: str, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "in", a=grey(70), b=bright(1), c=bright(2))
    if broken:
        (tmp_path / "in" / "d.png").write_bytes(b"no image")
    flags = ["--refuse"] * refuse
    assert main(["predict", saved, str(tmp_path / "in"), "--out", str(tmp_path / "out"), *flags]) == status
    assert "2 of " in (said := capsys.readouterr().out) and "b.png, c.png" in said
    assert rows_of(tmp_path / "out") == {"a.png": False, "b.png": True, "c.png": True}
    assert (tmp_path / "out" / "a.png").exists() and (tmp_path / "out" / "b_overlay.png").exists() != bool(refuse)


@pytest.mark.parametrize("is_lost", [False, True])
def test_resumed_predictions_have_the_novelty_of_all_images(
    is_lost: bool, saved: str, tmp_path: Path, capsys: Capture
) -> None:
    write(tmp_path / "in", a=grey(70), b=bright(1))
    run = ["predict", saved, str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--resume"]
    assert main(run) == 0
    before = (tmp_path / "out" / "novelty.csv").read_text()
    if is_lost:  # the process was killed
        (tmp_path / "out" / "novelty.csv").unlink()
    assert main(run) == 0 and (tmp_path / "out" / "novelty.csv").read_text() == before
    Image.fromarray(bright(2)).save(tmp_path / "in" / "c.png")
    assert main(run) == 0 and rows_of(tmp_path / "out") == {"a.png": False, "b.png": True, "c.png": True}
    assert "2 of 3 images are unlike" in capsys.readouterr().out


def test_the_novelty_of_another_model_is_not_recalled(saved: str, model: SegmentationModel, tmp_path: Path) -> None:
    write(tmp_path / "in", a=grey(70), b=bright(1))
    assert main(["predict", saved, str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 0
    assert model.novelty is not None
    other = from_pretrained(saved)
    other.novelty = model.novelty._replace(scale=1e-6 * model.novelty.scale)
    other.save_pretrained(tmp_path / "other")
    run = ["predict", str(tmp_path / "other"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*run, "--shard", "1/1"]) == main([*run, "--resume"]) == 0
    assert rows_of(tmp_path / "out") == {"a.png": False, "b.png": False}


@pytest.mark.parametrize("options", [["--resume"], ["--format", "labelme"]])
def test_refused_images_keep_no_earlier_results(options: list[str], saved: str, tmp_path: Path) -> None:
    write(tmp_path / "in", a=grey(70), b=bright(1))
    run = ["predict", saved, str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main([*run, "--confidence"]) == 0
    assert main([*run, "--refuse", *options]) == 4
    assert {path.stem for path in (tmp_path / "out").rglob("*.*")} - {"novelty"} == {"a", "a_overlay"}


def test_without_a_score_nothing_is_said_and_nothing_can_be_refused(
    saved: str, tmp_path: Path, capsys: Capture
) -> None:
    plain = create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8).eval()
    plain.save_pretrained(tmp_path / "plain")
    write(tmp_path / "in", a=grey(0))
    (tmp_path / "broken.png").write_bytes(b"no image")
    assert main(["predict", saved, str(tmp_path / "broken.png"), "--out", str(tmp_path / "out")]) == 2
    run = ["predict", str(tmp_path / "plain"), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    assert main(run) == 0 and "unlike" not in capsys.readouterr().out
    assert not (tmp_path / "out" / "novelty.csv").exists()
    assert main([*run, "--refuse"]) == 2
    assert "plain" in capsys.readouterr().err
