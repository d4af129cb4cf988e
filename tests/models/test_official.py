from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contract.formula import image
from contract.test_official import assert_computed, official
from torch import Tensor

from crispseg.cli.main import main
from crispseg.models.official import convert_official

State = dict[str, Tensor]


# name in tests/contract/frozen, backbone, width, gate of SFNet-Lite
RELEASED = [
    ("sfnet_resnet50_deep", "resnet50_deep", 256, None),
    ("sfnet_df1", "df1", 64, None),
    ("sfnet_df2", "df2", 64, None),
    ("sfnet_stdc1", "stdc1", 64, None),
    ("sfnet_lite_features", "resnet18_deep", 128, "features"),
    ("sfnet_lite_stdc2", "stdc2", 128, "pooled"),
]


@pytest.mark.parametrize(("name", "backbone", "width", "gate"), RELEASED)
def test_a_converted_model_computes_what_the_release_computes(
    name: str, backbone: str, width: int, gate: str | None, tmp_path: Path
) -> None:
    expected, state = official(name)
    half = {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
    heads = {"head.dsn.0.0.weight": torch.ones(8, 8, 3, 3), "fc.weight": torch.ones(1000, 512)}
    if backbone.startswith("stdc"):  # their classifier, and each stage once more under a name of its own
        names = ("conv_last.conv", "conv_last.bn", "bn", "fc", "linear", *(f"x{n}.0.0.conv" for n in (2, 4, 8, 16, 32)))
        heads = {"head.dsn.0.weight": torch.ones(8), **{f"backbone.{name}.weight": torch.ones(8) for name in names}}
    checkpoint = {f"module.{key}": value for key, value in {**half, **heads}.items()}
    torch.save({"state_dict": checkpoint, "epoch": 3, "command": "train"}, tmp_path / "official.pth")
    model = convert_official(tmp_path / "official.pth")
    assert (model.info.name, model.info.backbone) == ("sfnet" if gate is None else "sfnet_lite", backbone)
    assert (model.info.num_classes, model.info.options["width"], model.info.options.get("gate")) == (7, width, gate)
    assert model.info.options["released_dilation"] == backbone.startswith("resnet") and not model.training
    with torch.no_grad():
        assert_computed({"logits": model(image(expected["size"].tolist()))}, expected)


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
    return official("sfnet_df1")[1]


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


def test_data_with_other_classes_are_refused(df1: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(df1, tmp_path / "official.pth")
    assert main(["convert", str(tmp_path / "official.pth"), "--out", str(tmp_path / "model"), "--data", "camvid"]) == 2
    assert "has 7 classes, not 11" in capsys.readouterr().err
    assert not (tmp_path / "model/config.json").exists()
