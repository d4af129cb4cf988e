import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch

import crispseg.models.base
from crispseg import SegmentationModel, create_model, from_pretrained
from crispseg.models.info import FORMAT_VERSION

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


def test_all_that_the_model_knows_is_saved_and_on_its_card(tmp_path: Path) -> None:
    model = build(fuse="add", auxiliary=True)
    known: dict[str, Any] = {"class_names": NAMES, "palette": PALETTE, "recipe": {"epochs": 10, "crop": [320, 416]}}
    model.info = replace(model.info, **known, metrics={"miou": 0.625, "per_class": [0.5, 0.75]})
    model.save_pretrained(tmp_path / "model")
    assert {path.name for path in tmp_path.rglob("*")} == {"model", "config.json", "model.safetensors", "README.md"}
    loaded = from_pretrained(tmp_path / "model")
    assert loaded.info == model.info
    assert loaded.info.label_set().names == NAMES
    assert "auxiliary" not in loaded.info.options
    card = (tmp_path / "model/README.md").read_text()
    for phrase in ("# sfnet on test_efficientnet", "`sky`, `road`, `person`", "`miou`: 0.625"):
        assert phrase in card
    assert "{{" not in card and "per_class" not in card


def test_an_interrupted_save_leaves_the_earlier_one(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_state: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half of")
        raise KeyboardInterrupt

    before = {path: path.read_bytes() for path in saved.iterdir()}
    monkeypatch.setattr(crispseg.models.saving, "write_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(num_classes=2).save_pretrained(saved)
    assert {path: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == ["model"]


def test_the_config_of_another_program_is_kept(saved: Path, tmp_path: Path, refuses: Any) -> None:
    build().save_pretrained(saved)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with refuses(str(tmp_path / "config.json"), "choose another folder"):
        build().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", saved.name}


def test_a_missing_folder_is_refused(refuses: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in ("missing", "some/deep/folder", "/missing/model", "name with space/x"):
        with refuses(f"{source} is not a model folder", "hub id"):
            from_pretrained(source)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with refuses("'nobody/nothing' is neither a folder nor an available hub model"):
        from_pretrained("nobody/nothing")


def test_class_names_of_a_model(refuses: Any) -> None:
    model = create_model("fpn", num_classes=2, backbone="test_efficientnet", class_names=["background", "road"])
    assert model.info.class_names == ("background", "road")
    assert replace(model.info, class_names=["a", "b"]).label_set().names == ("a", "b")
    for names in (["a"], 5, [1, 2]):
        with refuses("class_names"):
            replace(model.info, class_names=names)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(name: str, saved: Path, refuses: Any) -> None:
    (saved / name).unlink()
    with refuses(str(saved), f"has no {name}", "give a finished run"):
        from_pretrained(saved)


@pytest.mark.parametrize("content", [b"{}", b'{"format_version": 1}', b"", b"[]", b"\xff\xfe\x00"])
def test_a_damaged_config_is_refused(content: bytes, saved: Path, refuses: Any) -> None:
    (saved / "config.json").write_bytes(content)
    with refuses(str(saved / "config.json"), "is not a saved crispseg model"):
        from_pretrained(saved)


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"format_version": FORMAT_VERSION + 1, "something_new": True}, f"{FORMAT_VERSION + 1}, newer than"),
        ({"surprise": 1}, "surprise"),
        ({"name": "sfnett"}, "did you mean 'sfnet'?"),
        ({"backbone": "test_efficientnett"}, "did you mean 'test_efficientnet'?"),
        ({"options": {"width": 8, "fuse": "sam"}}, "unknown fuse part 'sam'"),
        *(({"options": {"width": width}}, "does not match its config.json") for width in (10**9, 10**12)),  # no memory
        ({"options": {"width": 8, "fuze": "fam"}}, "'fuze' is not an option of sfnet"),
        ({"options": {"pretrained": "/etc/passwd"}}, "'pretrained' is not an option of sfnet"),
        ({"num_classes": 0}, "number of class names is 0"),
        ({"class_names": ["sky", "road"], "palette": [[0, 0, 0], [1, 1, 1]]}, "is not a saved crispseg model"),
        ({"mean": []}, "is not a saved crispseg model"),
        ({"mean": [1e38, 0.5, 0.5]}, "is not a saved crispseg model"),
        ({"std": [1e-300, 0.2, 0.2]}, "is not a saved crispseg model"),
    ],
)
def test_a_wrong_config_is_refused(changes: dict[str, Any], phrase: str, saved: Path, refuses: Any) -> None:
    path = saved / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with refuses(phrase):
        from_pretrained(saved)


@pytest.mark.parametrize("options", [{"num_classes": 4}, {"name": "fpn"}])
def test_weights_of_another_model_are_refused(
    options: dict[str, Any], saved: Path, tmp_path: Path, refuses: Any
) -> None:
    build(**options).save_pretrained(tmp_path / "other")
    (tmp_path / "other/model.safetensors").replace(saved / "model.safetensors")
    with refuses(str(saved / "model.safetensors"), "does not match its config.json", "save the model again"):
        from_pretrained(saved)
