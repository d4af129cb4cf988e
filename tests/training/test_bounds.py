"""What asks for more than the machine has is refused before memory is taken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import DRAWN, MODEL, tiny

from crispseg import from_pretrained
from crispseg.data import Augment
from crispseg.data.loading import sample_loader
from crispseg.training import ModelConfig, Run
from crispseg.training.fit import starting_model

HUGE = 10**9


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("workers", lambda: tiny(Path("x"), workers=HUGE)),
        ("devices", lambda: tiny(Path("x"), devices=HUGE)),
        ("workers", lambda: sample_loader(DRAWN.dataset("val"), HUGE)),
        ("augment.repeat", lambda: Augment(repeat=HUGE)),
        ("augment.longer_side", lambda: Augment(longer_side=HUGE)),
    ],
)
def test_a_number_that_no_machine_takes(key: str, settings: Any, refuses: Any) -> None:
    with refuses(f"{key} is {HUGE}"):
        settings()


def test_a_network_that_does_not_fit_into_memory(tmp_path: Path, refuses: Any) -> None:
    wide = ModelConfig("fpn", "test_efficientnet", False, options={"width": HUGE})
    before = torch.get_rng_state()
    with refuses("fpn", "test_efficientnet", "memory"):
        starting_model(tiny(tmp_path, model=wide), DRAWN.label_set())
    starting_model(tiny(tmp_path, model=MODEL), DRAWN.label_set())
    assert not torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "phrase"),
    [
        ({"width": 10**6}, "does not fit its config.json"),
        ({"width": 10**12}, "does not fit its config.json"),
        ({"pretrained": "/etc/passwd"}, "'pretrained' is no option of fpn"),
        ({"num_classes": 3}, "'num_classes' is no option of fpn"),
        ({"name": "sfnet"}, "'name' is no option of fpn"),
    ],
)
def test_a_saved_model_says_how_to_build_it_and_nothing_else(
    options: dict[str, Any], phrase: str, tiny_run: Run, tmp_path: Path, refuses: Any
) -> None:
    folder = Path(shutil.copytree(tiny_run.folder / "model", tmp_path / "model"))
    tree = json.loads((folder / "config.json").read_text())
    tree["options"] |= options
    (folder / "config.json").write_text(json.dumps(tree))
    with refuses(str(folder), phrase):
        from_pretrained(folder)
