"""Changing what a trained model computes, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Refuses
from drawn import as_flags, drawn
from torch import Tensor, nn

import crispseg
from crispseg import SegmentationModel, create_model
from crispseg.cli.main import main
from crispseg.evaluation.bootstrap import Estimate, mean_of_present, score_gains
from crispseg.evaluation.boundary import BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.scores import SegmentationScores
from crispseg.inspection import ablate, ablations_of
from crispseg.inspection.ablation import scale, shuffle
from crispseg.nn import BatchNorm2d
from crispseg.nn.record import Tap, taps

VAL = drawn(train=1, val=4, test=1, height=64, width=96).dataset("val")


def model_of(name: str, **options: Any) -> SegmentationModel:
    """A model in which every part counts, and which tells pixels apart: as created, some parts start from zero."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=12, backbone="test_efficientnet", **options)
    for parameter in model.parameters():
        if parameter.ndim < 2:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    for module in model.modules():
        if isinstance(module, BatchNorm2d):
            module.momentum = None  # statistics are those of the images below
        for predictor in ("predict_flow", "predict", "sampling_offsets", "attention_weights", "predict_offset"):
            if hasattr(module, predictor):
                nn.init.normal_(getattr(module, predictor).weight)
    with torch.no_grad():
        for _ in range(2):
            model.train()(torch.randn(4, 3, 64, 96))
    return model.eval()


SYSTEMS: dict[str, dict[str, Any]] = {
    "crisp": {"width": 16},
    "sfnet": {"width": 16},
    "sfnet_lite": {"width": 16},
    "ddsm_upernet": {"width": 16, "reduced": 16, "pixels": 9},
    "agln": {"width": 16, "descriptors": 4},
    "unept": {"width": 32, "points": 4, "refine": "boundary"},
    "fpn": {"width": 16, "refine": "boundary"},
    "upernet": {"width": 16, "fuse": "dcn"},
}


@pytest.fixture(scope="module")
def models() -> dict[str, SegmentationModel]:
    return {name: model_of(name, **options) for name, options in SYSTEMS.items()}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


# Altering -----------------------------------------------------------------------------------------------------------


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Tap()

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = 2 * self.inner(x)
        return doubled


def test_alter_changes_in_the_block_only() -> None:
    module, x = Doubling(), torch.ones(3)
    with crispseg.alter(module, {"inner": lambda x: x + 1}), crispseg.record(module) as seen:
        assert module(x).tolist() == [4, 4, 4]
        assert seen["inner"].tolist() == [2, 2, 2]
    assert module(x).tolist() == [2, 2, 2]


def test_a_change_keeps_type_and_shape_and_the_path_must_be_known(refuses: Refuses) -> None:
    module = Doubling()
    with crispseg.alter(module, {"inner": lambda x: x.double() + 1}):
        assert module(torch.ones(3, dtype=torch.float16)).dtype == torch.float16
    with refuses("iner", "did you mean 'inner'"), crispseg.alter(module, {"iner": scale(1)}):
        pass
    with refuses("inner", "(3,)", "(1,)"), crispseg.alter(module, {"inner": lambda x: x[:1]}):
        module(torch.ones(3))
    assert module(torch.ones(3)).tolist() == [2, 2, 2]


def test_shuffle_moves_whole_vectors() -> None:
    x = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    moved = shuffle((-2, -1))(x)
    assert not torch.equal(moved, x)
    before, after = (each.flatten(2).permute(2, 0, 1).flatten(1) for each in (x, moved))  # (pixels, 2 · 3)
    assert sorted(before.tolist()) == sorted(after.tolist())
    assert torch.equal(moved, shuffle((-2, -1))(x))
    queries = torch.arange(24.0).view(2, 4, 3)
    shuffled = shuffle((1,))(queries)
    assert sorted(shuffled[0].tolist()) == queries[0].tolist() and shuffled[0].tolist() != queries[0].tolist()


# Ablations ----------------------------------------------------------------------------------------------------------

EXPECTED = {
    **dict.fromkeys(
        ("crisp", "sfnet"),
        {"flow × 0", "flow × 0.5", "flow × 2", "flow shuffled"}
        | {f"flow × 0 in decoder.fuses.{index}" for index in range(3)},
    ),
    "sfnet_lite": {"flow × 0", "flow × 0.5", "flow × 2", "flow shuffled", "gate uniform"},
    "ddsm_upernet": {"offsets × 0", "offsets × 2", "offsets shuffled", "weights uniform"}
    | {"spatial part off", "channel part off"},
    "agln": {"M × 0", "M uniform", "M shuffled", "no local refinement", "no encoder features"},
    "unept": {"offsets × 0", "offsets × 2", "offsets shuffled", "weights uniform", "queries shuffled"}
    | {"no refinement", "direction shuffled"},
    "fpn": {"no refinement", "direction shuffled"},
    "upernet": {"offsets × 0", "offsets × 2", "offsets shuffled"},
}


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_ablation_changes_the_logits(name: str, models: dict[str, SegmentationModel], images: Tensor) -> None:
    model = models[name]
    found = ablations_of(model)
    assert set(found) == EXPECTED[name]
    with torch.inference_mode():
        intact = model(images)
        for ablation in found.values():
            with crispseg.alter(model, ablation.of(list(taps(model)))):
                assert not torch.allclose(model(images), intact, atol=1e-4), ablation.name
        assert torch.equal(model(images), intact)


def shuffled(x: Tensor) -> Tensor:
    """What a change keeps of maps whose positions it permutes, of all images alike: vectors in any order."""
    vectors = x.flatten(2).permute(2, 0, 1).flatten(1)  # (positions, N · C)
    return torch.stack(sorted(vectors.unbind(), key=lambda vector: vector.tolist()))


def alike(dims: int | tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda x: x.mean(dims, keepdim=True).expand(x.shape)


# Name → endings of paths, what is made of their values there, and by what both are compared.
DONE: dict[str, list[tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]]] = {
    "flow × 0": [("flow", torch.zeros_like, Tensor.clone)],
    "flow × 0.5": [("flow", lambda x: x / 2, Tensor.clone)],
    "flow × 2": [("flow", lambda x: x + x, Tensor.clone)],
    "flow shuffled": [("flow", Tensor.clone, shuffled)],
    "offsets × 0": [("spatial.affinity.sampler.offset", torch.zeros_like, Tensor.clone)],
    "offsets × 2": [("spatial.affinity.sampler.offset", lambda x: x + x, Tensor.clone)],
    "offsets shuffled": [("spatial.affinity.sampler.offset", Tensor.clone, shuffled)],
    "weights uniform": [
        (f"spatial.affinity.{name}", alike(1), Tensor.clone) for name in ("weights", "sampler.modulation")
    ],
    "spatial part off": [("x_Sout", torch.zeros_like, Tensor.clone)],
    "channel part off": [("x_Cout", torch.zeros_like, Tensor.clone)],
    "M × 0": [("sdm.M", torch.zeros_like, Tensor.clone)],
    "M uniform": [("sdm.M", alike((2, 3)), Tensor.clone)],
    "M shuffled": [("sdm.M", Tensor.clone, shuffled)],
    "no encoder features": [("lrm.G", torch.zeros_like, Tensor.clone)],
    "queries shuffled": [("context_queries", Tensor.clone, shuffled)],
    "direction shuffled": [("refiner.direction", Tensor.clone, shuffled)],
}
OF_GATED = {
    **{name: [*done, ("fine_flow", *done[0][1:])] for name, done in DONE.items() if name.startswith("flow")},
    "gate uniform": [("gate", alike((2, 3)), Tensor.clone)],
}
OF_ATTENTION = {
    "offsets × 0": [("attention.offsets", torch.zeros_like, Tensor.clone)],
    "offsets × 2": [("attention.offsets", lambda x: x + x, Tensor.clone)],
    "offsets shuffled": [("attention.offsets", Tensor.clone, lambda x: shuffled(x.movedim(1, -1)))],
    "weights uniform": [("attention.weights", alike((3, 4)), Tensor.clone)],
}


@pytest.mark.parametrize("name", ["crisp", "sfnet", "sfnet_lite", "ddsm_upernet", "agln", "unept"])
def test_each_ablation_does_what_it_says(name: str, models: dict[str, SegmentationModel], images: Tensor) -> None:
    """To the quantities that it names, and to no other."""
    model = models[name]
    told = DONE | {"unept": OF_ATTENTION, "sfnet_lite": OF_GATED}.get(name, {})
    for ablation in ablations_of(model).values():
        if ablation.name not in told:
            continue
        with (
            torch.inference_mode(),
            crispseg.record(model) as before,
            crispseg.alter(model, ablation.of(list(taps(model)))),
            crispseg.record(model) as after,
        ):
            model(images)
        changed = {path for path in before if not torch.equal(before[path], after[path])}
        endings = [ending for ending, *_ in told[ablation.name]]
        assert changed == {path for path in before if f".{path}".endswith(tuple(f".{ending}" for ending in endings))}
        for ending, made, compared in told[ablation.name]:
            for path in changed:
                if f".{path}".endswith(f".{ending}"):
                    torch.testing.assert_close(compared(after[path]), compared(made(before[path])))


def test_a_model_without_such_a_quantity(refuses: Refuses) -> None:
    with refuses("fpn", "no flow"):
        ablations_of(create_model("fpn", num_classes=2, backbone="test_efficientnet", width=16))


def test_no_refinement_is_exact(models: dict[str, SegmentationModel], images: Tensor) -> None:
    for name in ("unept", "fpn"):
        model = models[name]
        changes = ablations_of(model)["no refinement"].of(list(taps(model)))
        with torch.inference_mode(), crispseg.alter(model, changes):
            outputs = model.outputs(images)
            assert torch.equal(outputs.logits, outputs.unrefined)  # type: ignore[arg-type]


def test_no_local_refinement_lets_all_through(models: dict[str, SegmentationModel], images: Tensor) -> None:
    model = models["agln"]
    changes = ablations_of(model)["no local refinement"].of(list(taps(model)))
    with torch.inference_mode(), crispseg.alter(model, changes), crispseg.record(model) as seen:
        model(images)
    refined = [path for path in seen if path.endswith("lrm.G")]
    assert len(refined) > 1 and all(torch.equal(seen[path], seen[f"{path[:-1]}B"]) for path in refined)


def test_flow_of_one_reproduces_the_evaluation_exactly(models: dict[str, SegmentationModel]) -> None:
    model = models["sfnet"]
    intact = evaluate(model, VAL, device="cpu", workers=0)
    changes = {path: scale(1) for path in taps(model) if path.endswith("flow")}
    with crispseg.alter(model, changes):
        again = evaluate(model, VAL, device="cpu", workers=0)
    first, second, *_ = ablate(model, VAL, ["flow × 0"], device="cpu", workers=0)
    for scores in (again, first.scores):
        assert (scores.confusion == intact.confusion).all()
    assert first.name == "intact" and second.name == "flow × 0"
    assert (second.scores.confusion != intact.confusion).any()


# Paired gains -------------------------------------------------------------------------------------------------------


def labels(seed: int, images: int = 6, wrong: float = 0.3) -> tuple[Tensor, Tensor]:
    """Prediction and truth of images with 4 classes, `wrong` of the pixels wrong."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(4, (images, 3, 4), generator=torch.Generator().manual_seed(0))
    truth = truth.repeat_interleave(4, 1).repeat_interleave(4, 2)  # (N, 12, 16)
    noise = torch.randint(4, truth.shape, generator=generator)
    return torch.where(torch.rand(truth.shape, generator=generator) < wrong, noise, truth), truth


def test_gains_are_those_of_resampled_splits() -> None:
    pairs = [labels(1, wrong=0.4), labels(2, wrong=0.3)]
    metrics = [SegmentationScores(4, per_image=True) for _ in pairs]
    boundaries = [BoundaryScores(4, [1, 2]) for _ in pairs]
    for metric, boundary, pair in zip(metrics, boundaries, pairs, strict=True):
        metric.update(*pair, ids=range(6))
        boundary.update(*pair, ids=range(6))
    first, second = (metric.scores() for metric in metrics)
    gains = score_gains(first, second, resamples=200, seed=3)

    drawn = np.random.default_rng(3).integers(6, size=(200, 6))
    differences = []
    for images in drawn:
        values = []
        for prediction, truth in pairs:
            scores = SegmentationScores(4)
            scores.update(prediction[images], truth[images])
            values.append(scores.scores().miou)
        differences.append(values[1] - values[0])
    assert gains["miou"].value == pytest.approx(second.miou - first.miou)
    assert gains["miou"].interval == pytest.approx(np.percentile(differences, [2.5, 97.5]))
    assert gains["iou"].value == pytest.approx(second.iou - first.iou)
    own = second.images.miou - first.images.miou
    assert gains["image_miou"].value == pytest.approx(own.mean())
    assert gains["image_miou"].interval == pytest.approx(np.percentile(own[drawn].mean(1), [2.5, 97.5]))
    assert np.ptp(gains["miou"].interval) < 2 * np.ptp(second.estimates(200)["miou"].interval)

    before, after = (boundary.scores() for boundary in boundaries)
    f = score_gains(before, after, resamples=50)
    assert f["boundary_f"].value == pytest.approx([after.mean[1] - before.mean[1], after.mean[2] - before.mean[2]])
    assert f["boundary_f_of_classes"].value.shape == (2, 4)
    assert f["boundary_f_of_classes"].at(1).interval.shape == (2, 4)
    means = [
        [mean_of_present(mean_of_present(each.per_image[images], 0)) for each in (before, after)]
        for images in np.random.default_rng(0).integers(6, size=(50, 6))
    ]
    expected = np.percentile([after - before for before, after in means], [2.5, 97.5], axis=0)
    np.testing.assert_allclose(f["boundary_f"].interval, expected, atol=1e-10)


@pytest.mark.parametrize(("interval", "clear"), [((1, 2), True), ((-2, -1), True), ((-1, 2), False)])
def test_a_gain_is_clear_if_its_interval_leaves_out_0(interval: tuple[float, float], clear: bool) -> None:
    assert bool(Estimate(np.array(1.0), np.array(interval, float), gain=True).is_clear) is clear


def test_gains_need_the_same_images(refuses: Refuses) -> None:
    prediction, truth = labels(1)
    other = torch.where(truth == 3, 0, truth)
    for kind in (SegmentationScores, BoundaryScores):
        found = []
        for true, ids in ((truth, range(6)), (truth, range(1, 7)), (other, range(6))):
            metric = kind(4, per_image=True) if kind is SegmentationScores else BoundaryScores(4, [1])
            metric.update(prediction, true, ids=ids)
            found.append(metric.scores())
        with refuses("not of the same images"):
            score_gains(found[0], found[1])
        if kind is SegmentationScores:
            with refuses("the same truth"):
                score_gains(found[0], found[2])
    whole = SegmentationScores(4)
    whole.update(prediction, truth)
    with refuses("gains need the counts of each image", "per_image=True"):
        score_gains(whole.scores(), whole.scores())


# Command ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(models: dict[str, SegmentationModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sfnet"
    models["sfnet"].save_pretrained(folder)
    return folder


DATA = [*as_flags(drawn(val=4, height=64, width=96)), "--workers=0"]


def test_command(
    saved: Path, models: dict[str, SegmentationModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    only = ["--only", "flow × 0", "flow shuffled", "flow × 0"]  # one of them twice by mistake
    assert main(["ablate", str(saved), *DATA, *only, *files]) == 0
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["intact", "flow × 0", "flow shuffled"]
    intact, zero, _ = summary["models"]
    assert intact["miou"] == pytest.approx(evaluate(models["sfnet"], VAL, device="cpu", workers=0).miou, abs=1e-4)
    change = zero["change"]["miou"]
    assert change["value"] == pytest.approx(zero["miou"] - intact["miou"], abs=2e-4)
    assert change["interval"][0] <= change["value"] <= change["interval"][1]
    for score in ("iou", "class_boundary_f"):
        road = zero["change"][score]["road"]
        assert road["value"] == pytest.approx(zero[score]["road"] - intact[score]["road"], abs=2e-4)
        assert road["interval"][0] <= road["value"] <= road["interval"][1]
    assert intact["class_boundary_f"] != intact["iou"]
    of_classes = [value for value in intact["class_boundary_f"].values() if value is not None]
    assert intact["boundary_f"]["3"] == pytest.approx(sum(of_classes) / len(of_classes), abs=2e-4)
    page = (tmp_path / "a.html").read_text()
    assert "Boundary F 3 px of each class, and changes" in page
    for text in (f"{zero['miou']:.1f}", "flow shuffled"):
        assert text in shown and text in page


def test_command_refuses(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, phrases in (
        ([str(saved), *DATA, "--only", "flow×0"], ["flow×0", "flow × 0"]),
        ([str(saved), *DATA, "--bootstrap=-1"], ["bootstrap", "-1"]),
        ([str(saved), *DATA, f"--html={tmp_path / 'a.txt'}"], ["a.txt", ".html"]),
        ([str(saved)], ["data"]),
        ([], ["RUN"]),
    ):
        assert main(["ablate", *words]) == 2
        captured = capsys.readouterr()
        assert all(phrase in captured.err for phrase in phrases), captured.err
        assert not captured.out
