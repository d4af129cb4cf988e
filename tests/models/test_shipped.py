"""Bundled trained models: found by name, kept in float16. Those of the tests take their place."""

import shutil
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import crispseg
from crispseg import Segmenter, from_pretrained
from crispseg.benchmarking.benchmark import Conditions, find_network
from crispseg.cli.train import Train
from crispseg.config.settings import fields_of
from crispseg.data import DATA_SOURCES
from crispseg.evaluation.recorded import data_to_score, named_data
from crispseg.models import saving
from crispseg.models.saving import read_info
from crispseg.training import Run
from crispseg.training.config import config_to_dict

MOST_BYTES = 8_000_000


@pytest.fixture
def nuclei(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model `nuclei` inside crispseg, and an empty folder to be in."""
    monkeypatch.setattr(saving, "SHIPPED", tmp_path / "shipped")
    folder = tmp_path / "shipped/nuclei"
    tiny_run.model.save_pretrained(folder, dtype=torch.float16)
    (tmp_path / "shipped/README.md").write_text("no model")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_float16_takes_half_the_room_and_loads_as_float32(tiny_run: Run, nuclei: Path) -> None:
    usual = tiny_run.folder / "model/model.safetensors"
    assert (nuclei / "model.safetensors").stat().st_size < 0.6 * usual.stat().st_size
    loaded = from_pretrained(nuclei).state_dict()
    for key, value in tiny_run.model.state_dict().items():
        assert torch.equal(loaded[key], value.half().float() if value.is_floating_point() else value)


def test_what_no_float16_can_hold_is_refused(tiny_run: Run, tmp_path: Path, refuses: Any) -> None:
    model = from_pretrained(tiny_run.folder)
    with refuses("push_to_hub cannot convert weights"):
        model.save_pretrained(tmp_path / "a", dtype=torch.float16, push_to_hub=True)
    with torch.no_grad():
        model.classifier.bias[0] = 1e5
    for dtype in (torch.float16, torch.int8):
        with refuses(f"the weights cannot be saved as {dtype}", "torch.bfloat16"):
            model.save_pretrained(tmp_path / "a", dtype=dtype)
    assert not list((tmp_path / "a").iterdir())
    model.save_pretrained(tmp_path / "a", dtype=torch.bfloat16)
    assert from_pretrained(tmp_path / "a").classifier.bias[0] == torch.tensor(1e5).bfloat16()


def test_a_name_is_enough(nuclei: Path, refuses: Any) -> None:
    assert saving.shipped_models() == ["nuclei"]
    labels = Segmenter("nuclei", "cpu")(np.zeros((40, 50, 3), np.uint8)).labels
    assert labels.shape == (40, 50)
    model, same = crispseg.SegmentationModel.from_pretrained("nuclei"), from_pretrained(nuclei)
    assert model.info == same.info and torch.equal(model.classifier.weight, same.classifier.weight)
    assert find_network("nuclei", Conditions()).info.num_classes == model.info.num_classes
    with refuses("nuclie is not a model folder", "did you mean 'nuclei'"):
        from_pretrained("nuclie")


def needs_root(model: str) -> bool:
    """Whether the recorded data of a bundled model cannot be built without a root."""
    source = DATA_SOURCES[read_info(model).recipe["data"]["name"]]
    return "root" in fields_of(source) and fields_of(source)["root"].default is MISSING


ROOTED = [name for name in saving.shipped_models() if needs_root(name)]


@pytest.mark.parametrize("name", ROOTED)
def test_bundled_models_whose_data_need_a_root(name: str, tmp_path: Path, refuses: Any) -> None:
    assert "root" not in named_data(name)[0]
    with refuses("data.root is missing"):
        data_to_score(name, {})
    with refuses(str(tmp_path)):  # which is empty
        data_to_score(name, {"root": str(tmp_path)})[0].dataset("val")


def save_other(folder: Path) -> Path:
    """A saved model with two classes, which the shipped one of these tests has not."""
    crispseg.create_model("fpn", num_classes=2, backbone="test_efficientnet", width=8).save_pretrained(folder)
    return folder


def test_a_folder_with_a_saved_model_goes_before_the_name(nuclei: Path) -> None:
    for place in ("nuclei", "nuclei/model"):  # a saved model, a run
        save_other(Path(place))
        for source in ("nuclei", "./nuclei", Path("nuclei")):
            assert from_pretrained(source).info.num_classes == 2
        shutil.rmtree("nuclei")


@pytest.mark.parametrize("holds", [(), ("photo.png",), ("config.json",), ("config.yaml",)])
def test_a_folder_without_one_does_not(holds: tuple[str, ...], nuclei: Path, refuses: Any) -> None:
    Path("nuclei").mkdir()
    for file in holds:
        Path("nuclei", file).write_text("{}")
    assert from_pretrained("nuclei").info == from_pretrained(nuclei).info
    for folder in ("./nuclei", Path("nuclei"), str(Path("nuclei").absolute())):
        with refuses("nuclei", "has no "):
            from_pretrained(folder)


def test_training_starts_from_it(nuclei: Path, tiny_run: Run, tmp_path: Path) -> None:
    config = Train.parsed(["--data=nuclei", "--init_from=nuclei", "--model=fpn"]).config()
    assert (config.model.backbone, config.model.options["width"]) == ("test_efficientnet", 16)  # as there
    Path("nuclei").mkdir()
    assert config_to_dict(config)["init_from"] == "nuclei"
    save_other(Path("nuclei"))
    assert config_to_dict(config)["init_from"] == str(Path("nuclei").absolute())
