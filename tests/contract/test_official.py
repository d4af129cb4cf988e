"""Checkpoints in the format of SFNet's official release give what the official code gave.

`frozen/official_*.npz` hold samples of what that code computed, with weights by formula; `keys` says for each key of a
checkpoint its shape, the key that goes into the formula and a factor, if any. models/test_released.py has more of them.
Those of models/test_official.py, with weights rounded to float16, were computed by functions on a checkpoint's tensors
alone, which gave the same as the official code on the two networks here.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import crispseg
from contract.formula import assert_close, frozen, image, run, weights

OUTPUTS = {
    "sfnet": {"ppm": "decoder.coarsest", **{f"fam.{level}": f"decoder.fuses.{level}.warped" for level in range(3)}},
    "sfnet_lite": {"ppm": "decoder.coarsest"},
}
"""What the official code calls an output, and `crispseg.record`."""


def official(name: str) -> tuple[Any, dict[str, Tensor]]:
    """What the official code computed, and the state dict with which it did."""
    expected = frozen(f"official_{name}.npz")
    keys = json.loads(str(expected["keys"]))
    state = weights({formula: shape for shape, formula, *_ in keys.values()})
    return expected, {key: state[formula] * math.prod(factor) for key, (_, formula, *factor) in keys.items()}


def assert_computed(outputs: dict[str, Tensor], expected: Any) -> None:
    """These outputs are those that the official code computed."""
    for key, values in outputs.items():
        assert list(values.shape) == expected[f"{key}.shape"].tolist()
        assert_close(np.asarray(values).ravel()[expected[f"{key}.at"]], expected[key])


@pytest.mark.parametrize("name", [pytest.param("sfnet"), pytest.param("sfnet_lite", marks=pytest.mark.slow)])
def test_weights_by_formula(name: str, tmp_path: Path) -> None:
    expected, state = official(name)
    checkpoint = {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    torch.save(checkpoint, tmp_path / "official.pth")
    assert run("convert", tmp_path / "official.pth", "--out", tmp_path / "model")[0] == 0
    model = crispseg.from_pretrained(tmp_path / "model")
    assert (model.info.name, model.info.backbone, model.info.num_classes) == (name, "resnet18_deep", 19)
    with torch.no_grad(), crispseg.record(model) as seen:
        outputs = {"logits": model(image(expected["size"].tolist()))}
    assert_computed(outputs | {official: seen[ours] for official, ours in OUTPUTS[name].items()}, expected)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": torch.ones(3)}}, tmp_path / "other.pth")
    assert run("convert", tmp_path / "other.pth", "--out", tmp_path / "model")[0] == 2
    assert not (tmp_path / "model/config.json").exists()
