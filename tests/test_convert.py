from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from crispseg import create_model, from_pretrained, record
from crispseg.cli.main import main
from crispseg.convert import convert_official


def test_an_official_checkpoint_gives_what_the_official_code_gave(shared: Path, tmp_path: Path) -> None:
    assert main(["convert", str(shared / "parity/sfsegnets_resnet18.pth"), "--out", str(tmp_path / "model")]) == 0
    expected = load_file(shared / "parity/sfsegnets_resnet18.safetensors")
    for model in (convert_official(shared / "parity/sfsegnets_resnet18.pth"), from_pretrained(tmp_path / "model")):
        with torch.no_grad(), record(model) as seen:
            logits = model(expected["images"])
        torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-4)
        torch.testing.assert_close(seen["decoder.coarsest"], expected["ppm"], rtol=0, atol=1e-4)
        for level in range(3):
            warped = seen[f"decoder.fuses.{level}.warped"]
            torch.testing.assert_close(warped, expected[f"fam.{level}"], rtol=0, atol=1e-4)


def test_a_model_in_the_way_is_kept(shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["convert", str(shared / "parity/sfsegnets_resnet18.pth"), "--out", str(tmp_path)]
    create_model("fpn", num_classes=3, backbone="test_efficientnet", width=8).save_pretrained(tmp_path)
    assert main(argv) == 2
    assert "holds a model already" in capsys.readouterr().err
    assert from_pretrained(tmp_path).info.name == "fpn"


@pytest.mark.parametrize(
    ("change", "phrases"),
    [
        (lambda state: state.pop("module.head.fpn_in.1.1.weight"), ["1 keys missing", "decoder.laterals.1.1.weight"]),
        (lambda state: state.update({"module.surprise": torch.ones(1)}), ["1 keys unknown", "surprise"]),
        (
            lambda state: state.update({"module.head.fpn_in.0.0.weight": torch.ones(1)}),
            ["1 keys of another shape", "decoder.laterals.0.0.weight"],
        ),
        (lambda state: state.pop("module.head.conv_last.1.weight"), ["no checkpoint", "head.conv_last.1.weight"]),
        (lambda state: state.update({"module.layer3.7.conv1.weight": torch.ones(1)}), ["3 basic blocks in layer3"]),
    ],
)
def test_a_file_that_does_not_fit_says_which_keys(
    change: Any, phrases: list[str], shared: Path, tmp_path: Path, refuses: Any
) -> None:
    state = torch.load(shared / "parity/sfsegnets_resnet18.pth", weights_only=True)["state_dict"]
    change(state)
    torch.save(state, tmp_path / "changed.pth")
    with refuses(str(tmp_path / "changed.pth"), *phrases):
        convert_official(tmp_path / "changed.pth")


def test_training_only_heads_are_dropped(shared: Path, tmp_path: Path) -> None:
    state = torch.load(shared / "parity/sfsegnets_resnet18.pth", weights_only=True)
    state["state_dict"]["module.head.dsn.0.0.weight"] = torch.ones(128, 128, 3, 3)
    torch.save(state, tmp_path / "with_heads.pth")
    convert_official(tmp_path / "with_heads.pth")


def test_dilation_is_for_resnets(refuses: Any) -> None:
    with refuses("released_dilation", "resnet18_deep"):
        create_model("sfnet", num_classes=3, backbone="test_efficientnet", released_dilation=True)
