from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.formula import assert_close, image
from contract.test_official import official
from torch import Tensor

from crispseg.cli.main import main
from crispseg.models.official import convert_official
from tests.models.released_sfnet import Released

State = dict[str, Tensor]


@pytest.mark.parametrize(("name", "gate"), [("sfnet", None), ("sfnet_lite", "pooled")])
def test_the_reference_of_these_tests_computes_what_the_official_code_did(name: str, gate: str | None) -> None:
    """tests/contract/test_official.py has converted models that do."""
    expected, state = official(name)
    logits = Released("resnet18_deep", state, gate=gate).logits(image(expected["size"].tolist()))
    assert_close(logits.numpy().ravel()[expected["logits.at"]], expected["logits"])


# Synthetic checkpoints of all networks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backbone", "gate"),
    [
        *((name, None) for name in ("resnet50_deep", "df1", "df2", "stdc1")),
        *(("resnet18_deep", "features"), ("stdc2", "pooled")),
    ],
)
def test_a_converted_model_computes_what_the_release_computes(backbone: str, gate: str | None, tmp_path: Path) -> None:
    released = Released(backbone, num_classes=7, gate=gate)
    half = {key: value.half() if value.is_floating_point() else value for key, value in released.state.items()}
    released.state = {key: value.float() for key, value in half.items()}
    heads = {"head.dsn.0.0.weight": torch.ones(8, 8, 3, 3), "fc.weight": torch.ones(1000, 512)}
    if backbone.startswith("stdc"):  # their classifier, and each stage once more under a name of its own
        names = ("conv_last.conv", "conv_last.bn", "bn", "fc", "linear", *(f"x{n}.0.0.conv" for n in (2, 4, 8, 16, 32)))
        heads = {"head.dsn.0.weight": torch.ones(8), **{f"backbone.{name}.weight": torch.ones(8) for name in names}}
    state = {f"module.{key}": value for key, value in {**half, **heads}.items()}
    torch.save({"state_dict": state, "epoch": 3, "command": "train"}, tmp_path / "official.pth")

    model = convert_official(tmp_path / "official.pth")
    name = "sfnet" if gate is None else "sfnet_lite"
    assert (model.info.name, model.info.backbone, model.info.num_classes) == (name, backbone, 7)
    assert (model.info.options["width"], model.info.options.get("gate")) == (released.width, gate)
    assert model.info.options["released_dilation"] == backbone.startswith("resnet")
    assert not model.training
    images = torch.randn(1, 3, 65, 97)
    expected = released.logits(images)
    assert expected.std((2, 3)).min() > 1e-3 * expected.abs().max(), "constant logits would prove little"
    with torch.no_grad():
        torch.testing.assert_close(model(images), expected, rtol=0, atol=1e-4 * expected.abs().max().item())


@pytest.mark.parametrize("numpy", ["1", "2"])
def test_a_checkpoint_as_the_official_training_saves_it(numpy: str, df1: State, tmp_path: Path) -> None:
    """Its evaluation puts the mean IoU, a number of NumPy, beside the weights."""
    path = tmp_path / "official.pth"
    checkpoint = {
        "state_dict": {f"module.{key}": value for key, value in df1.items()},
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "mean_iu": np.float64(0.7),
        "command": "train.py --arch network.sfnet_resnet.DeepR18_SF_deeply",
    }
    torch.save(checkpoint, path, _use_new_zipfile_serialization=numpy == "2")
    if numpy == "1":
        older = path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
        assert older != path.read_bytes()
        path.write_bytes(older)
    images = torch.randn(1, 3, 33, 57)
    torch.save(df1, tmp_path / "plain.pth")
    assert torch.equal(convert_official(path)(images), convert_official(tmp_path / "plain.pth")(images))


@pytest.fixture(scope="module")
def df1() -> State:
    torch.manual_seed(1)
    return Released("df1").state


# Files that do not fit ----------------------------------------------------------------------------------------------

CLASSIFIER = "head.conv_last.1.weight"
DF1_ONLY = "backbone.stage5.0.conv1.weight"
LATERAL_BIAS = "head.fpn_in.0.0.bias"


@pytest.mark.parametrize(
    ("drop", "add", "phrases"),
    [
        (["head.fpn_in.1.1.weight"], {}, ["on df1: 1 keys are", "first head.fpn_in.1.1.weight"]),
        ([], {"surprise": torch.ones(1)}, ["1 keys are unknown", "first surprise"]),
        ([], {"head.flow_align_module.down_h.weight": torch.ones(1)}, ["does not match an SFNet-Lite on df1"]),
        ([], {LATERAL_BIAS: torch.ones(3)}, ["1 keys are", "of another shape", f"first {LATERAL_BIAS}"]),
        ([CLASSIFIER], {}, ["not a checkpoint of an official SFNet", CLASSIFIER]),
        ([DF1_ONLY], {}, ["not a checkpoint", "0 basic blocks in layer3", DF1_ONLY]),
        ([DF1_ONLY], {f"layer3.{block}.conv1.weight": torch.ones(1) for block in range(3)}, ["has 3 basic blocks"]),
        ([DF1_ONLY], {"backbone.stage4_2.0.conv1.weight": torch.ones(1)}, ["does not match an SFNet on df2"]),
    ],
)
def test_a_file_that_does_not_fit_says_which_keys(
    drop: list[str], add: State, phrases: list[str], df1: State, tmp_path: Path, refuses: Any
) -> None:
    state = {key: value for key, value in {**df1, **add}.items() if key not in drop}
    torch.save(state, tmp_path / "changed.pth")
    with refuses(str(tmp_path / "changed.pth"), *phrases):
        convert_official(tmp_path / "changed.pth")


# Class names --------------------------------------------------------------------------------------------------------


def test_data_with_other_classes_are_refused(df1: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(df1, tmp_path / "official.pth")
    assert main(["convert", str(tmp_path / "official.pth"), "--out", str(tmp_path / "model"), "--data", "camvid"]) == 2
    assert "has 19 classes, not 11" in capsys.readouterr().err
    assert not (tmp_path / "model/config.json").exists()
