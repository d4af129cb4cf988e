"""Changing what a trained model computes, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from commands import Capture, error_of, output_of
from conftest import Refuses
from drawn import as_flags, drawn
from torch import Tensor, nn

import crispseg
from crispseg import SegmentationModel
from crispseg.evaluation.evaluate import evaluate
from crispseg.inspection import ablate, ablations_of
from crispseg.inspection.ablation import shuffle
from crispseg.nn.record import Tap, taps
from tests.inspection.models import lively

DATA = drawn(val=4)
VAL = DATA.dataset("val")
OPTIONS = {"fpn": {"refine": "boundary"}, "upernet": {"fuse": "dcn"}}


@cache
def model_of(name: str) -> SegmentationModel:
    return lively(name, **OPTIONS.get(name, {}))


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Tap()

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = 2 * self.inner(x)
        return doubled


def test_alter_changes_in_the_block_only_and_keeps_the_type(refuses: Refuses) -> None:
    module, x = Doubling(), torch.ones(3)
    with crispseg.alter(module, {"inner": lambda x: x.double() + 1}), crispseg.record(module) as seen:
        assert module(x).tolist() == [4, 4, 4] and module(x.half()).dtype == torch.float16
        assert seen["inner"].tolist() == [2, 2, 2]
    with refuses("iner", "did you mean 'inner'"), crispseg.alter(module, {"iner": torch.clone}):
        pass
    assert module(x).tolist() == [2, 2, 2]


@pytest.mark.parametrize(("shape", "dims", "position"), [((2, 3, 4, 5), (-2, -1), 2), ((2, 4, 3), (1,), 1)])
def test_shuffle_moves_whole_vectors(shape: tuple[int, ...], dims: tuple[int, ...], position: int) -> None:
    x = torch.arange(float(torch.Size(shape).numel())).view(shape)
    moved = shuffle(dims)(x)
    assert not torch.equal(moved, x) and torch.equal(moved, shuffle(dims)(x))
    before, after = (each.flatten(position, dims[-1]).movedim(position, 0).flatten(1) for each in (x, moved))
    assert sorted(before.tolist()) == sorted(after.tolist())


def positions(x: Tensor) -> Tensor:
    """What a change keeps of maps whose positions it permutes, of all images alike: vectors in any order."""
    vectors = x.flatten(2).permute(2, 0, 1).flatten(1)  # (positions, N · C)
    return torch.stack(sorted(vectors.unbind(), key=lambda vector: vector.tolist()))


def alike(dims: int | tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda x: x.mean(dims, keepdim=True).expand(x.shape)


Made = Callable[[Tensor], Tensor]
ZERO: tuple[Made, Made] = torch.zeros_like, Tensor.clone
MOVED: tuple[Made, Made] = Tensor.clone, positions
EVEN: tuple[Made, Made] = alike((2, 3)), Tensor.clone
OFF: tuple[Made, Made] = lambda x: torch.full_like(x, -100), Tensor.clone
FLOW = {"flow × 0": ZERO, "flow shuffled": MOVED}
OFFSETS = {"offsets × 0": ZERO, "offsets shuffled": MOVED}
REFINEMENT = {"no refinement": {"refiner.boundary": OFF}, "direction shuffled": {"refiner.direction": MOVED}}
SPATIAL = "spatial.affinity"
DONE: dict[str, dict[str, dict[str, tuple[Made, Made]]]] = {
    "crisp": {name: {"flow": made} for name, made in FLOW.items()},
    "sfnet": {name: {"flow": made} for name, made in FLOW.items()},
    "sfnet_lite": {
        **{name: {"flow": made, "fine_flow": made} for name, made in FLOW.items()},
        "gate uniform": {"gate": EVEN},
    },
    "ddsm_upernet": {
        **{name: {f"{SPATIAL}.sampler.offset": made} for name, made in OFFSETS.items()},
        "weights uniform": {f"{SPATIAL}.{tap}": (alike(1), Tensor.clone) for tap in ("weights", "sampler.modulation")},
        "spatial part off": {"x_Sout": ZERO},
        "channel part off": {"x_Cout": ZERO},
    },
    "agln": {
        "M × 0": {"sdm.M": ZERO},
        "M uniform": {"sdm.M": EVEN},
        "M shuffled": {"sdm.M": MOVED},
        "no encoder features": {"lrm.G": ZERO},
    },
    "unept": {
        **{name: {"attention.offsets": made} for name, made in OFFSETS.items()},
        "offsets shuffled": {"attention.offsets": (Tensor.clone, lambda x: positions(x.movedim(1, -1)))},
        "weights uniform": {"attention.weights": (alike((3, 4)), Tensor.clone)},
        "queries shuffled": {"context_queries": MOVED},
        **REFINEMENT,
    },
    "fpn": {**REFINEMENT},
    "upernet": {name: {"offset": made} for name, made in OFFSETS.items()},
}
"""System → ablation → ending of paths → what is made of the values there, and by what both are compared."""


@pytest.mark.parametrize("name", DONE)
def test_each_ablation_does_what_it_says(name: str, images: Tensor) -> None:
    """To the quantities that it names, and to no other; and the logits change."""
    model = model_of(name)
    found = ablations_of(model)
    assert found.keys() == DONE[name].keys()
    with torch.inference_mode():
        intact = model(images)
    for title, ablation in found.items():
        with (
            torch.inference_mode(),
            crispseg.record(model) as before,
            crispseg.alter(model, ablation.of(list(taps(model)))),
            crispseg.record(model) as after,
        ):
            assert not torch.equal(model(images), intact), title
        changed = {path for path in before if not torch.equal(before[path], after[path])}
        endings = {f".{ending}": how for ending, how in DONE[name][title].items()}
        assert changed == {path for path in before if f".{path}".endswith(tuple(endings))}
        for ending, (made, compared) in endings.items():
            for path in (path for path in changed if f".{path}".endswith(ending)):
                torch.testing.assert_close(compared(after[path]), compared(made(before[path])))
    with torch.inference_mode():
        assert torch.equal(model(images), intact)


def test_a_model_without_such_a_quantity(refuses: Refuses) -> None:
    with refuses("deeplabv3plus", "no flow"):
        ablations_of(lively("deeplabv3plus"))


@pytest.mark.parametrize("name", ["unept", "fpn"])
def test_no_refinement_is_exact(name: str, images: Tensor) -> None:
    model = model_of(name)
    changes = ablations_of(model)["no refinement"].of(list(taps(model)))
    with torch.inference_mode(), crispseg.alter(model, changes):
        outputs = model.outputs(images)
        assert torch.equal(outputs.logits, outputs.unrefined)  # type: ignore[arg-type]


def test_flow_of_one_reproduces_the_evaluation_exactly() -> None:
    model = model_of("sfnet")
    intact = evaluate(model, VAL, device="cpu", workers=0)
    with crispseg.alter(model, {path: torch.clone for path in taps(model) if path.endswith("flow")}):
        again = evaluate(model, VAL, device="cpu", workers=0)
    first, second, *_ = ablate(model, VAL, ["flow × 0"], device="cpu", workers=0)
    for scores in (again, first.scores):
        assert (scores.confusion == intact.confusion).all()
    assert first.name == "intact" and second.name == "flow × 0"
    assert (second.scores.confusion != intact.confusion).any()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sfnet"
    model_of("sfnet").save_pretrained(folder)
    return folder


FLAGS = [*as_flags(DATA), "--workers=0"]


def test_command(saved: Path, tmp_path: Path, capsys: Capture) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    only = ["--only", "flow × 0", "flow shuffled", "flow × 0"]  # one of them twice by mistake
    shown = output_of(capsys, "ablate", saved, *FLAGS, *only, *files)
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["intact", "flow × 0", "flow shuffled"]
    intact, zero, _ = summary["models"]
    assert intact["miou"] == pytest.approx(evaluate(model_of("sfnet"), VAL, device="cpu", workers=0).miou, abs=1e-4)
    change = zero["change"]
    assert change["miou"] == pytest.approx(zero["miou"] - intact["miou"], abs=2e-4)
    assert change["intervals"]["miou"][0] <= change["miou"] <= change["intervals"]["miou"][1]
    values = [each["boundary_f_of_classes"]["3"]["road"] for each in (intact, zero, change)]
    assert values[2] == pytest.approx(values[1] - values[0], abs=2e-4)
    page = (tmp_path / "a.html").read_text()
    for text in (f"{zero['miou']:.1f}", "flow shuffled"):
        assert text in shown and text in page


def test_command_refuses(saved: Path, tmp_path: Path, capsys: Capture) -> None:
    for words, phrases in (
        ([saved, *FLAGS, "--only", "flow×0"], ["flow×0", "flow × 0"]),
        ([saved, *FLAGS, "--bootstrap=-1"], ["bootstrap", "-1"]),
        ([saved, *FLAGS, f"--html={tmp_path / 'a.txt'}"], ["a.txt", ".html"]),
        ([saved], ["data"]),
        ([], ["RUN"]),
    ):
        error = error_of(capsys, "ablate", *words)
        assert all(phrase in error for phrase in phrases), error
