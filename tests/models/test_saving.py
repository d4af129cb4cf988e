from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import crispseg.models.base
from crispseg import SegmentationModel, create_model, from_pretrained, list_models
from crispseg.models.info import FORMAT_VERSION

FILES = {"config.json", "model.safetensors", "README.md"}
NAMES = ("sky", "road", "person")
PALETTE = ((128, 128, 128), (128, 64, 128), (64, 64, 0))


def build(name: str = "sfnet", **options: Any) -> SegmentationModel:
    options = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8, **options}
    model = create_model(name, **options)
    with torch.no_grad():
        model.train()(torch.randn(2, model.info.in_chans, 64, 64))  # running statistics that only a saved file can know
    return model.eval()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    build().save_pretrained(folder)
    return folder


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A copy, to be damaged."""
    return Path(shutil.copytree(original, tmp_path / "model"))


# What is saved ------------------------------------------------------------------------------------------------------


def test_a_save_is_three_files_and_no_pickle(original: Path) -> None:
    assert {path.name for path in original.iterdir()} == FILES
    assert [path.name for path in original.parent.iterdir()] == ["model"]  # no temporary folder is left
    assert load_file(original / "model.safetensors").keys() == build().state_dict().keys()


def test_all_that_the_model_knows_is_saved(tmp_path: Path) -> None:
    model = build(fuse="add", auxiliary=True)
    model.info = replace(
        model.info,
        class_names=NAMES,
        palette=PALETTE,
        recipe={"epochs": 10, "crop": [320, 416]},
        metrics={"miou": 0.625, "per_class": [0.5, 0.75]},
    )
    model.save_pretrained(tmp_path / "model")
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.info == model.info
    assert loaded.info.label_set().names == NAMES
    config = json.loads((tmp_path / "model/config.json").read_text())
    assert config["format_version"] == FORMAT_VERSION
    assert config["options"]["fuse"] == "add"
    assert "auxiliary" not in config["options"]


def test_the_card_names_classes_and_metrics(tmp_path: Path) -> None:
    model = build()
    model.info = replace(model.info, class_names=NAMES, palette=PALETTE, metrics={"miou": 0.625, "per_class": [1]})
    model.save_pretrained(tmp_path / "model")
    card = (tmp_path / "model/README.md").read_text()
    for phrase in ("# sfnet on test_efficientnet", "`sky`, `road`, `person`", "`miou`: 0.625"):
        assert phrase in card
    assert "{{" not in card and "per_class" not in card


# A crash while saving -----------------------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*")}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_save_leaves_the_earlier_one(
    error: type[BaseException], saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_state: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half of")
        raise error(28, "disk full")

    before = contents(saved)
    monkeypatch.setattr(crispseg.models.saving, "write_state_dict", crash)
    with pytest.raises(error, match="disk full"):
        build(num_classes=2).save_pretrained(saved)
    assert contents(saved) == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


# Loading elsewhere --------------------------------------------------------------------------------------------------

FRESH = """
import socket, sys

def refuse(*args, **kwargs):
    raise AssertionError("loading used the network")

socket.socket.connect = socket.getaddrinfo = refuse
import torch
from crispseg import CrispsegError, from_pretrained
from safetensors.torch import load_file

folder = sys.argv[1]
data = load_file(f"{folder}/expected.safetensors")
for name in sys.argv[2:]:
    with torch.no_grad():
        logits = from_pretrained(f"{folder}/{name}")(data["images"])
    assert torch.equal(logits, data[name]), (logits - data[name]).abs().max()
try:
    from_pretrained("nobody/nothing")
except CrispsegError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_fresh_process_without_network_predicts_the_same(tmp_path: Path) -> None:
    images = torch.randn(2, 3, 65, 97)
    expected = {"images": images}
    for name in list_models():
        model = build(name)
        with torch.no_grad():
            expected[name] = model(images).contiguous()  # safetensors takes no other layout
        model.save_pretrained(tmp_path / name)
    save_file(expected, tmp_path / "expected.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path), *list_models()],
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "no-cache")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "'nobody/nothing' is neither a folder nor a model" in done.stdout
    assert len(done.stdout.splitlines()) == 1


# What cannot be loaded ----------------------------------------------------------------------------------------------


def test_a_missing_folder_is_refused(refuses: Any) -> None:
    for source in ("missing", "some/deep/folder", "/missing/model", "name with space/x"):
        with refuses(f"{source} is no folder of a model", "hub id"):
            from_pretrained(source)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, saved: Path, refuses: Any) -> None:
    (saved / name).unlink()
    with refuses(str(saved), f"holds no {name}", "give a finished run"):
        from_pretrained(saved)


@pytest.mark.parametrize("content", [b"{}", b'{"format_version": 1}', b"", b"[]", b"\xff\xfe\x00"])
def test_a_damaged_config_is_refused(content: bytes, saved: Path, refuses: Any) -> None:
    (saved / "config.json").write_bytes(content)
    with refuses(str(saved / "config.json"), "is no saved crispseg model"):
        from_pretrained(saved)


NO_MODEL = "is no saved crispseg model"


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"format_version": FORMAT_VERSION + 1, "something_new": True}, f"{FORMAT_VERSION + 1}, newer than"),
        ({"format_version": "1"}, NO_MODEL),
        ({"surprise": 1}, "surprise"),
        ({"name": "sfnett"}, "did you mean 'sfnet'?"),
        ({"backbone": "test_efficientnett"}, "did you mean 'test_efficientnet'?"),
        ({"options": {"width": 8, "fuse": "sam"}}, "unknown fuse part 'sam'"),
        ({"options": {"width": 8, "fuze": "fam"}}, "'fuze' is no option of sfnet"),
        ({"num_classes": 0}, "number of class names is 0"),
        ({"num_classes": "3"}, NO_MODEL),
        ({"class_names": ["sky", "road"], "palette": [[0, 0, 0], [1, 1, 1]]}, NO_MODEL),
        ({"mean": []}, NO_MODEL),
        ({"std": ["a", "b", "c"]}, NO_MODEL),
        ({"ignore_label": "none"}, NO_MODEL),
    ],
)
def test_a_wrong_config_is_refused(changes: dict[str, Any], phrase: str, saved: Path, refuses: Any) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with refuses(phrase):
        from_pretrained(saved)


@pytest.mark.parametrize("length", [0, 5, 200, -1])
def test_damaged_weights_are_refused(length: int, saved: Path, refuses: Any) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:length])
    with refuses(str(path), "damaged"):
        from_pretrained(saved)


@pytest.mark.parametrize("options", [{"num_classes": 4}, {"name": "fpn"}, {"width": 16}, {"in_chans": 1}])
def test_weights_of_another_model_are_refused(
    options: dict[str, Any], saved: Path, tmp_path: Path, refuses: Any
) -> None:
    build(**options).save_pretrained(tmp_path / "other")
    (tmp_path / "other/model.safetensors").replace(saved / "model.safetensors")
    with refuses(str(saved / "model.safetensors"), "does not fit its config.json", "save the model again"):
        from_pretrained(saved)
