"""The recipes that are packaged hold the papers' numbers, and each of them can start."""

from __future__ import annotations

import dataclasses
import shlex
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from crispseg import create_model, fuses
from crispseg.cli.main import main
from crispseg.cli.parsing import parse_training
from crispseg.decoders import DeepLabDecoder, TopDown, UpsampleAdd
from crispseg.imaging import write_image

RECIPES = Path(str(resources.files("crispseg") / "recipes"))
SFNET, DDSM = RECIPES / "sfnet", RECIPES / "ddsm"
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
SHARED = {  # SFNet §3.3 and §4.1
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

# data and its options, crop: DDSM §3, which does not give the epochs.
DDSM_NUMBERS: dict[str, tuple[dict[str, Any], int]] = {
    "cityscapes": ({"name": "cityscapes", "train_on": "train"}, 1024),
    "camvid": ({"name": "camvid", "masks": "colors"}, 720),
}
DDSM_SHARED = SHARED | {"schedule": "poly_epoch", "hard_fraction": 1.0, "auxiliary_weight": 0.0, "lr": 0.01}

# What Table 1 of DDSM tells of each row, by its mIoU: host, fuse part, pixels, channels.
TABLE_1 = {
    78.39: ("upernet", "add", 0, 0),
    78.51: ("upernet", "dcn", 0, 0),
    79.25: ("upernet", "ddsm", 9, 0),
    78.99: ("upernet", "ddsm", 0, 9),
    79.65: ("upernet", "ddsm", 9, 9),
    77.76: ("deeplabv3plus", "concat", 0, 0),
    78.09: ("deeplabv3plus", "dcn", 0, 0),
    78.34: ("deeplabv3plus", "ddsm", 9, 0),
    78.22: ("deeplabv3plus", "ddsm", 0, 9),
    78.57: ("deeplabv3plus", "ddsm", 9, 9),
}

ALL = [f"{paper}/{name}" for paper, names in (("sfnet", NUMBERS), ("ddsm", DDSM_NUMBERS)) for name in names]


def print_config(recipe: Path, *argv: str, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `crispseg train RECIPE ... --print_config` prints."""
    assert main(["train", str(recipe), *argv, "--print_config"]) == 0
    tree: dict[str, Any] = yaml.safe_load(capsys.readouterr().out)
    return tree


def test_every_recipe_is_listed() -> None:
    assert {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml")} == {*ALL}
    listed = DOCS.read_text(encoding="utf-8")
    assert all(f"`{recipe}.yaml`" in listed for recipe in ALL)


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


@pytest.mark.parametrize("name", DDSM_NUMBERS)
def test_numbers_are_those_of_ddsm(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, crop = DDSM_NUMBERS[name]
    tree = print_config(DDSM / f"{name}.yaml", f"--data.root={tmp_path}", capsys=capsys)
    assert tree["data"] == {**data, "root": str(tmp_path)}
    assert tree["model"] == {
        "name": "ddsm_upernet",
        "backbone": "resnet101",
        "pretrained": True,
        "in_chans": 3,
        "width": 256,
        "context": "ppm",
        "fuse_levels": [3, 4, 5],
        "pixels": 25,
        "channels": 9,
        "affinity": "both",
        "reduced": 64,
        "merge": "concat",
    }
    assert tree["augment"] == {
        "crop": [crop, crop],
        "scale": [0.75, 2.0],
        "flip": 0.5,
        "photometric": False,
        "longer_side": None,
    }
    assert {key: tree[key] for key in DDSM_SHARED} == DDSM_SHARED
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16
    assert tree["iterations"] is None and tree["init_from"] is None
    assert tree["loss"] == {"cross_entropy": 1.0}


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_says_what_it_is(recipe: str) -> None:
    name = recipe.rpartition("/")[2]
    comment = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").split("\nmodel:")[0]
    assert all(line.startswith("#") and len(line) <= 120 for line in comment.splitlines())
    for phrase in ("Not run.", f"crispseg train {name}.yaml --data.root ", "Left open by the paper:", "batch of 16"):
        assert phrase in comment


@pytest.mark.parametrize("recipe", ["sfnet/cityscapes", "sfnet/pascal_context", "sfnet/ade20k", "ddsm/cityscapes"])
def test_scores_at_several_scales_are_not_promised(recipe: str) -> None:
    for file in (RECIPES / f"{recipe}.yaml", DOCS):
        assert "crispseg scores at one scale without flip; expect less" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_weights_that_are_not_published_are_asked_for(name: str, tmp_path: Path, refuses: Any) -> None:
    """Not after the download of a data set, and not by training from random weights."""
    config = parse_training([str(SFNET / f"{name}.yaml"), f"--data.root={tmp_path}"], {}, prog="", description="")
    with refuses("no published weights", "resnet18_deep", "path"):
        config.model.build(len(config.data.label_set()), auxiliary=True)


@pytest.mark.parametrize(
    ("recipe", "backbone", "classes", "millions"),
    [
        ("sfnet/cityscapes", "resnet18_deep", 19, 12.87),
        ("sfnet/ade20k", "resnet50_deep", 150, None),
        ("sfnet/camvid", "df2", 11, None),
        ("ddsm/cityscapes", "resnet101", 19, 50.29),
        ("ddsm/camvid", "resnet50", 11, None),
    ],
)
def test_models_build(recipe: str, backbone: str, classes: int, millions: float | None, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", f"--model.backbone={backbone}", "--model.pretrained=false"]
    config = parse_training([str(RECIPES / f"{recipe}.yaml"), *flags], {}, prog="", description="")
    model = config.model.build(len(config.data.label_set()), auxiliary=False)
    assert model.info.num_classes == classes and model.info.backbone == backbone
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def rows_of_table_1() -> dict[float, list[str]]:
    """mIoU → the flags beside it in the comment of DDSM's Cityscapes recipe."""
    lines = (DDSM / "cityscapes.yaml").read_text(encoding="utf-8").splitlines()
    rows = [shlex.split(line.removeprefix("#")) for line in lines if line.startswith("#   --model")]
    return {float(score): flags for *flags, score in rows}


def test_rows_of_table_1_are_all_there() -> None:
    assert rows_of_table_1().keys() == TABLE_1.keys()
    assert all(f"{score:.2f}" in DOCS.read_text(encoding="utf-8") for score in (79.65, 78.57))


@pytest.mark.parametrize("score", TABLE_1)
def test_flags_of_table_1_build_its_networks(score: float, tmp_path: Path) -> None:
    host, part, pixels, channels = TABLE_1[score]
    flags = [f"--data.root={tmp_path}", *rows_of_table_1()[score]]
    config = parse_training([str(DDSM / "cityscapes.yaml"), *flags], {}, prog="", description="")
    assert (config.model.backbone, config.model.pretrained) == ("resnet101", True)
    small = dataclasses.replace(config.model, backbone="test_efficientnet", pretrained=False)
    decoder: Any = small.build(len(config.data.label_set()), auxiliary=config.auxiliary_weight > 0).decoder
    if host == "upernet":
        assert isinstance(decoder, TopDown)
        two, top = decoder.fuses[:2], decoder.fuses[2]  # F3 to F2, F4 to F3; F5 to F4
        assert isinstance(top, UpsampleAdd)
    else:
        assert isinstance(decoder, DeepLabDecoder)
        two = [] if decoder.fuse is None else [decoder.fuse]
    assert all(type(step) is (UpsampleAdd if part == "add" else fuses[part]) for step in two)
    assert bool(two) is (part != "concat")
    for step in two if part == "ddsm" else ():
        affinities = (step.spatial, step.channel)
        sampled = [each.affinity.sampler.points if each is not None else 0 for each in affinities]
        assert sampled == [pixels, channels]


@pytest.mark.parametrize(("recipe", "model"), [("sfnet/camvid", "sfnet"), ("ddsm/camvid", "ddsm_upernet")])
def test_a_recipe_trains(recipe: str, model: str, tmp_path: Path) -> None:
    """CamVid's, with everything that takes long overridden by flags, from a saved model as those of other data sets."""
    root, tiny = tmp_path / "camvid", {"backbone": "test_efficientnet", "width": 16}
    mask = np.zeros((72, 96, 3), np.uint8)
    mask[:, :48], mask[:, 48:80] = (128, 128, 128), (128, 0, 192)  # Sky, LaneMkgsDriv
    for split in ("train", "val"):
        write_image(root / split / "a.png", mask)
        write_image(root / f"{split}_labels" / "a_L.png", mask)
    create_model(model, num_classes=3, **tiny).save_pretrained(tmp_path / "start")
    flags = [f"--model.{key}={value}" for key, value in tiny.items()]
    flags += ["--augment.crop=[64,64]", "--epochs=1", "--batch_size=1", "--workers=0", "--loggers=[]"]
    flags += [f"--data.root={root}", f"--init_from={tmp_path / 'start'}", f"--out={tmp_path / 'run'}"]
    assert main(["train", str(RECIPES / f"{recipe}.yaml"), *flags]) == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()
