"""Checkpoints in the format of SFNet's official release give what the official code gave.

`frozen/official_*.npz` hold samples of what that code computed, with weights by formula; `keys` says for each key of a
checkpoint its shape and the key that goes into the formula.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import crispseg
from contract.formula import assert_close, frozen, image, run, weights

OUTPUTS = {
    "sfnet": {"ppm": "decoder.coarsest", **{f"fam.{level}": f"decoder.fuses.{level}.warped" for level in range(3)}},
    "sfnet_lite": {"ppm": "decoder.coarsest"},
}
"""What the official code calls an output, and `crispseg.record`."""
SHARED = {"sfnet": "sfsegnets_resnet18", "sfnet_lite": "sfnet_lite_resnet18"}
NAMES = [pytest.param("sfnet"), pytest.param("sfnet_lite", marks=pytest.mark.slow)]


def converted(checkpoint: Path, folder: Path, name: str) -> crispseg.SegmentationModel:
    """The saved model that the command makes."""
    assert run("convert", checkpoint, "--out", folder / "model")[0] == 0
    model = crispseg.from_pretrained(folder / "model")
    assert (model.info.name, model.info.backbone, model.info.num_classes) == (name, "resnet18_deep", 19)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_weights_by_formula(name: str, tmp_path: Path) -> None:
    expected = frozen(f"official_{name}.npz")
    keys = json.loads(str(expected["keys"]))
    state = weights({formula: shape for shape, formula in keys.values()})
    checkpoint = {f"module.{key}": state[formula] for key, (_, formula) in keys.items()}
    torch.save({"state_dict": checkpoint, "epoch": 3}, tmp_path / "official.pth")
    model = converted(tmp_path / "official.pth", tmp_path, name)
    with torch.no_grad(), crispseg.record(model) as seen:
        found = {"logits": model(image(expected["size"].tolist()))}
    found |= {official: seen[ours] for official, ours in OUTPUTS[name].items()}
    for key, values in found.items():
        assert list(values.shape) == expected[f"{key}.shape"].tolist()
        assert_close(np.asarray(values).ravel()[expected[f"{key}.at"]], expected[key])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sfnet", "sfnet_lite"])
def test_a_checkpoint_outside(name: str, shared: Path, tmp_path: Path) -> None:
    """Files of CRISPSEG_DATA, with random weights and all outputs."""
    model = converted(shared / f"parity/{SHARED[name]}.pth", tmp_path, name)
    expected = load_file(shared / f"parity/{SHARED[name]}.safetensors")
    with torch.no_grad(), crispseg.record(model) as seen:
        found = {"logits": model(expected["images"])}
    found |= {official: seen[ours] for official, ours in OUTPUTS[name].items()}
    for key, values in found.items():
        assert_close(values.numpy(), expected[key].numpy())


def test_a_file_that_is_none(tmp_path: Path) -> None:
    torch.save({"state_dict": {"conv.weight": torch.ones(3)}}, tmp_path / "other.pth")
    assert run("convert", tmp_path / "other.pth", "--out", tmp_path / "model")[0] == 2
    assert not (tmp_path / "model/config.json").exists()
