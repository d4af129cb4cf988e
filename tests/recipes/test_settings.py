"""The recipes hold the papers' settings, and can start."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_trees import cityscapes_pair

from crispseg import create_model
from crispseg.cli.main import main
from crispseg.cli.train import Train
from crispseg.config.yaml_files import RECIPES
from crispseg.io.images import write_image
from crispseg.training.config import config_to_dict
from crispseg.training.settings import training_config

pytestmark = pytest.mark.usefixtures("without_pictures")

COMMON = {"warmup": 0, "class_weights": None, "freeze_backbone": False, "precision": "fp32"}
COMMON |= {"decay_norms_and_biases": True, "loss": {"cross_entropy": 1.0}}
CITY, SCALES, WIDE = {"name": "cityscapes", "train_on": "train"}, [0.75, 2.0], [0.5, 2.0]
SGD = COMMON | {"optimizer": "sgd", "momentum": 0.9, "schedule": "poly", "power": 0.9, "backbone_lr_factor": 1.0}
PAPERS: dict[str, dict[str, Any]] = {
    # §3.3 and §4.1
    "sfnet": SGD | {"weight_decay": 0.0005, "hard_fraction": 0.1, "lr": 0.01},
    # §3
    "ddsm": SGD | {"weight_decay": 0.0005, "schedule": "poly_epoch", "hard_fraction": 1.0, "lr": 0.01},
    # §IV-A5
    "agln": SGD | {"weight_decay": 0.0001, "hard_fraction": 1.0, "auxiliary_weight": 0.0, "lr": 0.001},
    # §3.2 and §4.2
    "unept": COMMON
    | {"optimizer": "adamw", "weight_decay": 1e-4, "lr": 1e-4, "backbone_lr_factor": 0.1, "schedule": "step"}
    | {"lr_drops": [2 / 3], "hard_fraction": 1.0, "auxiliary_weight": 0.0, "boundary_distance": 5}
    | {"boundary_weights": {"unrefined": 1.0, "refined": 1.5, "boundary": 3.0, "direction": 0.7}},
}
# data, crop, range of scales, (iterations, epochs), and what differs from the paper's common settings
RECIPE_SETTINGS: dict[str, tuple[dict[str, Any], int, list[float], tuple[int | None, int | None], dict[str, Any]]] = {
    "sfnet/cityscapes": (CITY, 1024, SCALES, (50_000, None), {}),
    "sfnet/mapillary": ({"name": "mapillary", "train_on": "trainval"}, 1024, SCALES, (50_000, None), {}),
    "sfnet/cityscapes_from_mapillary": (CITY, 1024, SCALES, (50_000, None), {"init_from": "runs/mapillary"}),
    "sfnet/pascal_context": ({"name": "pascal_context", "classes": 60}, 512, SCALES, (None, 120), {"lr": 0.001}),
    "sfnet/ade20k": ({"name": "ade20k"}, 512, SCALES, (None, 120), {}),
    "sfnet/camvid": ({"name": "camvid", "masks": "colors"}, 640, SCALES, (None, 120), {"lr": 0.001}),
    "ddsm/cityscapes": (CITY, 1024, SCALES, (None, 270), {}),
    "ddsm/camvid": ({"name": "camvid", "masks": "colors"}, 720, SCALES, (None, 120), {}),
    "agln/pascal_context": ({"name": "pascal_context", "classes": 59}, 480, WIDE, (None, 240), {}),
    "agln/pascal_context_released": (
        *({"name": "pascal_context", "classes": 59}, 480, WIDE, (None, 240)),
        {"lr": 0.01, "backbone_lr_factor": 0.1},
    ),
    "agln/ade20k": ({"name": "ade20k"}, 480, WIDE, (None, 240), {}),
    "agln/voc2012_aug": ({"name": "voc2012", "train_on": "aug"}, 480, WIDE, (None, 120), {"lr": 0.0005}),
    "agln/voc2012": (
        *({"name": "voc2012", "train_on": "train"}, 480, WIDE, (None, 120)),
        {"lr": 0.0005, "init_from": "runs/voc2012_aug"},
    ),
    "unept/ade20k": ({"name": "ade20k"}, 480, WIDE, (160_000, None), {}),
    "unept/pascal_context": ({"name": "pascal_context", "classes": 60}, 480, WIDE, (160_000, None), {}),
    "unept/cityscapes": (CITY, 768, WIDE, (80_000, None), {}),
}
TINY = ["--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,64]", "--batch_size=1"]
TINY += ["--workers=0", "--loggers=[]"]


@pytest.mark.parametrize("recipe", RECIPE_SETTINGS)
def test_settings_are_those_of_the_paper(recipe: str, tmp_path: Path) -> None:
    data, crop, scale, (iterations, epochs), own = RECIPE_SETTINGS[recipe]
    tree = config_to_dict(Train.parsed([f"{recipe}.yaml", f"--data.root={tmp_path}"]).config())
    assert tree["data"] == {"merge": {}, "drop": [], **data, "root": str(tmp_path)}
    augment = {"crop": [crop, crop], "scale": scale, "flip": 0.5, "turn": False, "repeat": 1}
    assert {key: tree["augment"][key] for key in augment} == augment
    expected = PAPERS[recipe.split("/")[0]] | own
    assert {key: tree[key] for key in expected} == expected
    assert tree["iterations"] == iterations and (epochs is None or tree["epochs"] == epochs)
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16
    assert tree["model"]["pretrained"] is ("init_from" not in own)  # never random weights by accident


def test_there_are_no_other_recipes() -> None:
    recipes = {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml")}
    listed = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert recipes == {*RECIPE_SETTINGS} and all(f"`{recipe}.yaml`" in listed for recipe in recipes)


def test_weights_that_are_not_published_are_asked_for(tmp_path: Path, refuses: Any) -> None:
    config = Train.parsed(["sfnet/cityscapes.yaml", f"--data.root={tmp_path}"]).config()
    with refuses("no published weights", "resnet18_deep", "path"):
        config.model.build(len(config.data.label_set()), auxiliary=True)


@pytest.mark.parametrize(
    ("recipe", "model"),
    [("sfnet/camvid", "sfnet"), pytest.param("ddsm/camvid", "ddsm_upernet", marks=pytest.mark.slow)],
)
def test_a_recipe_trains_from_a_saved_model(recipe: str, model: str, tmp_path: Path) -> None:
    root = tmp_path / "camvid"
    mask = np.zeros((72, 96, 3), np.uint8)
    mask[:, :48], mask[:, 48:80] = (128, 128, 128), (128, 0, 192)  # Sky, LaneMkgsDriv
    for split in ("train", "val"):
        write_image(root / "701_StillsRaw_full" / f"{split}.png", mask)
        write_image(root / "LabeledApproved_full" / f"{split}_L.png", mask)
        (root / f"{split}.txt").write_text(f"{split}.png\n", encoding="utf-8")
    start = create_model(model, num_classes=3, backbone="test_efficientnet", width=16, design="paper")
    start.save_pretrained(tmp_path / "start")
    flags = [f"--data.root={root}", f"--init_from={tmp_path / 'start'}", f"--out={tmp_path / 'run'}", "--epochs=1"]
    assert main(["train", f"{recipe}.yaml", *TINY, *flags]) == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_unept_trains_with_its_augmentation(tmp_path: Path) -> None:
    root = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        cityscapes_pair(root, split, f"{city}/{city}_000000_000019", [7] * 40 + [26] * 56, height=64, width=96)
    flags = ["--model.pretrained=false", "--model.points=4", "--augment.longer_side=128", "--augment.shorter_side=80"]
    flags += ["--iterations=3", "--val_every=1", f"--data.root={root}", f"--out={tmp_path / 'run'}"]
    assert main(["train", "unept/cityscapes.yaml", *TINY, *flags]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        assert {int(row["step"]): float(row["lr"]) for row in csv.DictReader(file)} == {3: 1e-5}  # × 0.1 at 2/3
    trained = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["recipe"]["augment"]
    assert (trained["photometric"], trained["max_share"]) == ("mmseg", 0.75)


def test_a_key_belongs_to_the_model_that_a_later_tree_names() -> None:
    """Also the entries of a mapping keep their order."""
    first = {"data": "nuclei", "model": {"width": 24}, "loss": {"dice": 1.0}, "loss.cross_entropy": 2.0}
    config = training_config(first, {"model.name": "fpn", "minutes": 1})
    assert (config.model.name, config.model.options["width"], config.minutes) == ("fpn", 24, 1)
    assert list(config.losses) == ["dice", "cross_entropy"]
    assert training_config(first, {"model": "fpn"}, {"model": "fcn"}).model.options.get("width") is None
