"""The recipes that are packaged hold the papers' numbers, and each of them can start."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crispseg import create_model
from crispseg.cli.main import main
from crispseg.cli.parsing import parse_training
from crispseg.imaging import write_image

SFNET = Path(str(resources.files("crispseg") / "recipes" / "sfnet"))
DOCS = Path(__file__).parents[1] / "docs" / "recipes.md"

# data and its options, backbone, crop, (iterations, epochs), lr: SFNet §4.1, §7 and §8.
NUMBERS: dict[str, tuple[dict[str, Any], str, int, tuple[int | None, int | None], float]] = {
    "cityscapes": ({"name": "cityscapes", "train_on": "train"}, "resnet18_deep", 1024, (50_000, None), 0.01),
    "mapillary": ({"name": "mapillary", "train_on": "trainval"}, "resnet18_deep", 1024, (50_000, None), 0.01),
    "cityscapes_from_mapillary": (
        {"name": "cityscapes", "train_on": "train"},
        "resnet18_deep",
        1024,
        (50_000, None),
        0.01,
    ),
    "pascal_context": ({"name": "pascal_context", "classes": 60}, "resnet50_deep", 512, (None, 120), 0.001),
    "ade20k": ({"name": "ade20k"}, "resnet50_deep", 512, (None, 120), 0.01),
    "camvid": ({"name": "camvid", "masks": "colors"}, "resnet18_deep", 640, (None, 120), 0.001),
}
SHARED = {  # §3.3, §4.1
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.0005,
    "decay_norms_and_biases": True,
    "schedule": "poly",
    "power": 0.9,
    "warmup": 0,
    "hard_fraction": 0.1,
    "class_weights": None,
    "backbone_lr_factor": 1.0,
    "precision": "fp32",
}


def print_config(recipe: Path, *argv: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `crispseg train RECIPE ... --print_config` prints."""
    assert main(["train", str(recipe), *argv, "--print_config"]) == 0
    tree: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return tree


def test_every_recipe_is_listed() -> None:
    assert {path.stem for path in SFNET.glob("*.yaml")} == NUMBERS.keys()
    listed = DOCS.read_text(encoding="utf-8")
    assert all(f"`sfnet/{name}.yaml`" in listed for name in NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_the_paper(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, backbone, crop, (iterations, epochs), lr = NUMBERS[name]
    tree = print_config(SFNET / f"{name}.yaml", f"--data.root={tmp_path}", capsys=capsys)
    assert tree["data"] == {**data, "root": str(tmp_path)}
    assert (tree["model"]["name"], tree["model"]["backbone"]) == ("sfnet", backbone)
    assert {key: tree["model"][key] for key in ("fuse", "context", "merge")} == {
        "fuse": "fam",
        "context": "ppm",
        "merge": "concat",
    }
    assert tree["augment"] == {
        "crop": [crop, crop],
        "scale": [0.75, 2.0],
        "flip": 0.5,
        "photometric": False,
        "longer_side": 2048 if name == "mapillary" else None,
    }
    assert tree["iterations"] == iterations and tree["lr"] == lr
    assert epochs is None or tree["epochs"] == epochs
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16
    assert {key: tree[key] for key in SHARED} == SHARED
    assert tree["loss"] == {"cross_entropy": 1.0}
    from_mapillary = name == "cityscapes_from_mapillary"
    assert tree["init_from"] == ("runs/mapillary" if from_mapillary else None)
    assert tree["model"]["pretrained"] is not from_mapillary  # never random weights by oversight


@pytest.mark.parametrize("name", NUMBERS)
def test_a_recipe_says_what_it_is(name: str) -> None:
    comment = (SFNET / f"{name}.yaml").read_text(encoding="utf-8").split("\nmodel:")[0]
    assert all(line.startswith("#") and len(line) <= 120 for line in comment.splitlines())
    for phrase in ("Not run.", f"crispseg train {name}.yaml --data.root ", "Left open by the paper:", "batch of 16"):
        assert phrase in comment


@pytest.mark.parametrize("name", ["cityscapes", "pascal_context", "ade20k"])
def test_scores_at_several_scales_are_not_promised(name: str) -> None:
    for file in (SFNET / f"{name}.yaml", DOCS):
        assert "crispseg scores at one scale without flip; expect less" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_weights_that_are_not_published_are_asked_for(name: str, tmp_path: Path, refuses: Any) -> None:
    """Not after the download of a data set, and not by training from random weights."""
    config = parse_training([str(SFNET / f"{name}.yaml"), f"--data.root={tmp_path}"], {}, prog="", description="")
    with refuses("no published weights", "resnet18_deep", "path"):
        config.model.build(len(config.data.label_set()), auxiliary=True)


@pytest.mark.parametrize(
    ("name", "backbone", "classes", "millions"),
    [("cityscapes", "resnet18_deep", 19, 12.87), ("ade20k", "resnet50_deep", 150, None), ("camvid", "df2", 11, None)],
)
def test_models_build(name: str, backbone: str, classes: int, millions: float | None, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", f"--model.backbone={backbone}", "--model.pretrained=false"]
    config = parse_training([str(SFNET / f"{name}.yaml"), *flags], {}, prog="", description="")
    model = config.model.build(len(config.data.label_set()), auxiliary=False)
    assert model.info.num_classes == classes and model.info.backbone == backbone
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_a_recipe_trains(tmp_path: Path) -> None:
    """CamVid's, with everything that takes long overridden by flags, from a saved model as the one from Mapillary."""
    root, tiny = tmp_path / "camvid", {"backbone": "test_efficientnet", "width": 16}
    mask = np.zeros((72, 96, 3), np.uint8)
    mask[:, :48], mask[:, 48:80] = (128, 128, 128), (128, 0, 192)  # Sky, LaneMkgsDriv
    for split in ("train", "val"):
        write_image(root / split / "a.png", mask)
        write_image(root / f"{split}_labels" / "a_L.png", mask)
    create_model("sfnet", num_classes=3, **tiny).save_pretrained(tmp_path / "start")
    flags = [f"--model.{key}={value}" for key, value in tiny.items()]
    flags += ["--augment.crop=[64,64]", "--epochs=1", "--batch_size=1", "--workers=0", "--loggers=[]"]
    flags += [f"--data.root={root}", f"--init_from={tmp_path / 'start'}", f"--out={tmp_path / 'run'}"]
    assert main(["train", str(SFNET / "camvid.yaml"), *flags]) == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()
