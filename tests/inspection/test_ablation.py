"""Changing what a trained model computes, and what that costs."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Capture, error_of, output_of
from conftest import Refuses
from drawn import as_flags, drawn
from numpy.typing import NDArray
from torch import Tensor, nn

import crispseg
from crispseg import SegmentationModel
from crispseg.evaluation.evaluate import evaluate
from crispseg.inspection import ablations_of
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


def alike(dims: int | tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    return lambda x: x.mean(dims, keepdim=True).expand(x.shape)


Made = Callable[[Tensor], Tensor]
EVEN: Made = alike((2, 3))
SPATIAL = "spatial.affinity"
POOLING: dict[str, dict[str, Made]] = {"no pooling": {"pooled": torch.zeros_like}}
KINDS = "", "self_", "cross_"
REFINEMENT: dict[str, dict[str, Made]] = {"no refinement": {"refiner.boundary": lambda x: torch.full_like(x, -100)}}
DONE: dict[str, dict[str, dict[str, Made]]] = {
    "crisp": {"flow × 0": {"flow": torch.zeros_like}},
    "sfnet": {"flow × 0": {"flow": torch.zeros_like}, **POOLING},
    "sfnet_lite": {
        "flow × 0": {"flow": torch.zeros_like, "fine_flow": torch.zeros_like},
        "gate uniform": {"gate": EVEN},
        **POOLING,
    },
    "ddsm_upernet": {
        "offsets × 0": {f"{SPATIAL}.sampler.offset": torch.zeros_like},
        "weights uniform": {f"{SPATIAL}.{tap}": alike(1) for tap in ("weights", "sampler.modulation")},
        "spatial part off": {"x_Sout": torch.zeros_like},
        "channel part off": {"x_Cout": torch.zeros_like},
        **POOLING,
    },
    "agln": {
        "M × 0": {"sdm.M": torch.zeros_like},
        "M uniform": {"sdm.M": EVEN},
        "no encoder features": {"lrm.G": torch.zeros_like},
        "no refined features": {"lrm.R": torch.zeros_like},
        "blocks off": {"sdm.M": torch.zeros_like, "lrm.R": torch.zeros_like},
    },
    "unept": {
        "offsets × 0": {f"{kind}attention.offsets": torch.zeros_like for kind in KINDS},
        "weights uniform": {f"{kind}attention.weights": alike((3, 4)) for kind in KINDS},
        "no encoder attention": {"encoder.0.attention.weights": torch.zeros_like}
        | {"encoder.1.attention.weights": torch.zeros_like},
        "no attention": {f"{kind}attention.weights": torch.zeros_like for kind in KINDS},
        "queries uniform": {"context_queries": EVEN},
        "no spatial branch": {"context_queries": torch.zeros_like, **REFINEMENT["no refinement"]},
        **REFINEMENT,
    },
    "fpn": REFINEMENT,
    "upernet": {"offsets × 0": {"offset": torch.zeros_like}, **POOLING},
}
"""System → ablation → ending of paths → what is made of the values there."""


@pytest.mark.parametrize("name", DONE)
def test_each_ablation_does_what_it_says(name: str, images: Tensor) -> None:
    """To the quantities that it names, and to no other; and the logits change."""
    model = model_of(name)
    ablations = ablations_of(model)
    assert ablations.keys() == DONE[name].keys()
    with torch.inference_mode():
        intact = model(images)
    for title, ablation in ablations.items():
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
        for ending, made in endings.items():
            for path in (path for path in changed if f".{path}".endswith(ending)):
                torch.testing.assert_close(after[path], made(before[path]))
    with torch.inference_mode():
        assert torch.equal(model(images), intact)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sfnet_lite"
    model_of("sfnet_lite").save_pretrained(folder)
    return folder


FLAGS = [*as_flags(DATA), "--workers=0"]


def labels_with(*zero: str) -> NDArray[np.uint8]:
    """Labels of all val images by the saved model without these quantities."""
    model = model_of("sfnet_lite")
    with crispseg.alter(model, {f"decoder.fuse.{name}": torch.zeros_like for name in zero}):
        segmenter = crispseg.Segmenter(model, "cpu")
        return np.stack([segmenter.labels(VAL[index].image) for index in range(len(VAL))])


def test_command(saved: Path, tmp_path: Path, capsys: Capture) -> None:
    files = [f"--json={tmp_path / 'a.json'}", f"--html={tmp_path / 'a.html'}"]
    only = ["--only", "flow × 0", "gate uniform", "flow × 0"]  # one of them twice by mistake
    shown = output_of(capsys, "ablate", saved, *FLAGS, *only, *files)
    summary = json.loads((tmp_path / "a.json").read_text())
    assert [model["name"] for model in summary["models"]] == ["intact", "flow × 0", "gate uniform"]
    intact, zero, _ = summary["models"]
    expected = evaluate(model_of("sfnet_lite"), VAL, device="cpu", workers=0)
    assert intact["miou"] == pytest.approx(expected.miou, abs=1e-4)
    changed = np.not_equal(labels_with(), labels_with("flow", "fine_flow")).mean()
    assert intact["relabelled"] == 0 and zero["relabelled"] == pytest.approx(100 * changed, abs=1e-3)
    change = zero["change"]
    assert change["miou"] == pytest.approx(zero["miou"] - intact["miou"], abs=2e-4)
    assert change["intervals"]["miou"][0] <= change["miou"] <= change["intervals"]["miou"][1]
    values = [entry["boundary_f_of_classes"]["3"]["road"] for entry in (intact, zero, change)]
    assert values[2] == pytest.approx(values[1] - values[0], abs=2e-4)
    page = (tmp_path / "a.html").read_text()
    for text in (f"{zero['miou']:.1f}", "gate uniform"):
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
