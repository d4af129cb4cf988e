"""The packaged recipes have the papers' numbers, say what they are, and start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import yaml
from commands import Capture, output_of
from dataset_trees import cityscapes_pair, make_voc2012
from safetensors.torch import save_file
from training_runs import rows

from crispseg import create_model
from crispseg.cli.main import main
from crispseg.cli.train import parse_training
from crispseg.inference.protocols import PROTOCOLS
from crispseg.io.images import write_image
from crispseg.training.initialization import starting_model
from tests.recipes.recipe_files import DOCS, RECIPES

DEIT = "deit_base_distilled_patch16_384"
Tree = dict[str, Any]

SHARED: Tree = {  # SFNet §3.3 and §4.1, and what the others have in common with it
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "decay_norms_and_biases": True,
    "schedule": "poly",
    "power": 0.9,
    "warmup": 0,
    "hard_fraction": 0.1,
    "auxiliary_weight": 0.4,
    "class_weights": None,
    "backbone_lr_factor": 1.0,
    "freeze_backbone": False,
    "precision": "fp32",
    "loss": {"cross_entropy": 1.0},
    "init_from": None,
}
AUGMENT: Tree = {"flip": 0.5, "turn": False, "photometric": False, "longer_side": None, "shorter_side": None}
AUGMENT |= {"max_share": 1.0, "repeat": 1}
CITYSCAPES, CAMVID = {"name": "cityscapes", "train_on": "train"}, {"name": "camvid", "masks": "colors"}


def recipe(data: Tree, name: str, backbone: str, crop: int, scale: float, model: Tree, **changes: Any) -> Tree:
    """The numbers of a recipe that has what is shared but for the changes."""
    own = {"name": name, "backbone": backbone, "pretrained": True, "in_chans": 3, "refine": None, **model}
    augment = AUGMENT | {"crop": [crop, crop], "scale": [scale, 2.0]} | changes.pop("augment", {})
    return SHARED | {"data": data, "model": own, "augment": augment, **changes}


def sfnet(data: Tree, backbone: str, crop: int, lr: float = 0.01, **changes: Any) -> Tree:
    """SFNet §4.1, §7 and §8."""
    model = {"fuse": "fam", "context": "ppm", "merge": "concat", **changes.pop("model", {})}
    return recipe(data, "sfnet", backbone, crop, 0.75, model, lr=lr, auxiliary_weight=0.4, **changes)


def ddsm(data: Tree, crop: int) -> Tree:
    """DDSM §3, which does not give the epochs."""
    model = {"width": 256, "context": "ppm", "fuse_levels": [3, 4, 5], "pixels": 25, "channels": 9}
    model |= {"affinity": "both", "reduced": 64, "merge": "concat"}
    changes = {"schedule": "poly_epoch", "hard_fraction": 1.0, "auxiliary_weight": 0.0, "iterations": None}
    return recipe(data, "ddsm_upernet", "resnet101", crop, 0.75, model, lr=0.01, **changes)


def agln(data: Tree, epochs: int, lr: float, **changes: Any) -> Tree:
    """AGLN §IV-A5 and §IV-B3, which give neither crop nor scale."""
    model = {"width": 256, "connection": "dense", "descriptors": 128, "pooling": "attention", "refinement": "both"}
    model |= {"learn_alpha": True, "residual": True, "learn_beta": True, **changes.pop("model", {})}
    changes |= {"weight_decay": 1e-4, "hard_fraction": 1.0, "auxiliary_weight": 0.0, "iterations": None}
    return recipe(data, "agln", "resnet101_deep", 480, 0.5, model, epochs=epochs, lr=lr, **changes)


def unept(data: Tree, crop: int, iterations: int, longer: int, shorter: int) -> Tree:
    """UN-EPT §3.2, §4.1 and §4.2, which does not give PASCAL-Context's iterations.

    Scales are relative to sides of the released settings, for Cityscapes of MMSegmentation's.
    """
    model = {"refine": "boundary", "refine_steps": 2, "refine_path": "straight", "width": 256}
    model |= {"levels": 3, "points": 16, "queries": "dynamic"}
    augment = {"photometric": "mmseg", "max_share": 0.75, "longer_side": longer, "shorter_side": shorter}
    changes = {"optimizer": "adamw", "lr": 1e-4, "backbone_lr_factor": 0.1, "weight_decay": 1e-4, "schedule": "step"}
    changes |= {"lr_drops": [2 / 3], "hard_fraction": 1.0, "auxiliary_weight": 0.0, "boundary_distance": 5}
    changes |= {"boundary_weights": {"unrefined": 1.0, "refined": 1.5, "boundary": 3.0, "direction": 0.7}}
    changes |= {"direction_mask": "true", "clip": None, "iterations": iterations, "augment": augment}
    return recipe(data, "unept", "resnet50", crop, 0.5, model, **changes)


NUMBERS = {
    "sfnet/cityscapes": sfnet(CITYSCAPES, "resnet18_deep", 1024, iterations=50_000),
    "sfnet/mapillary": sfnet(
        {"name": "mapillary", "train_on": "trainval"},
        "resnet18_deep",
        1024,
        iterations=50_000,
        augment={"longer_side": 2048},
    ),
    "sfnet/cityscapes_from_mapillary": sfnet(
        CITYSCAPES,
        "resnet18_deep",
        1024,
        iterations=50_000,
        init_from="runs/mapillary",
        model={"pretrained": False},
    ),
    "sfnet/pascal_context": sfnet({"name": "pascal_context", "classes": 60}, "resnet50_deep", 512, 0.001, epochs=120),
    "sfnet/ade20k": sfnet({"name": "ade20k"}, "resnet50_deep", 512, epochs=120),
    "sfnet/camvid": sfnet(CAMVID, "resnet18_deep", 640, 0.001, epochs=120),
    "ddsm/cityscapes": ddsm(CITYSCAPES, 1024),
    "ddsm/camvid": ddsm(CAMVID, 720),
    "agln/pascal_context": agln({"name": "pascal_context", "classes": 59}, 240, 0.001),
    "agln/ade20k": agln({"name": "ade20k"}, 240, 0.001),
    "agln/voc2012_aug": agln({"name": "voc2012", "train_on": "aug"}, 120, 0.0005),
    "agln/voc2012": agln(
        {"name": "voc2012", "train_on": "train"}, 120, 0.0005, init_from="runs/voc2012_aug", model={"pretrained": False}
    ),
    "unept/ade20k": unept({"name": "ade20k"}, 480, 160_000, 2048, 512),
    "unept/pascal_context": unept({"name": "pascal_context", "classes": 60}, 480, 160_000, 520, 520),
    "unept/cityscapes": unept(CITYSCAPES, 768, 80_000, 2048, 1024),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_the_paper(name: str, tmp_path: Path, capsys: Capture) -> None:
    argv = ["train", RECIPES / f"{name}.yaml", f"--data.root={tmp_path}", "--print_config"]
    tree, expected = yaml.safe_load(output_of(capsys, *argv)), NUMBERS[name]
    assert tree["data"] == {**expected["data"], "root": str(tmp_path)}
    assert {key: tree["model"][key] for key in expected["model"]} == expected["model"]
    assert {key: tree[key] for key in expected if key not in ("data", "model")} == {
        key: value for key, value in expected.items() if key not in ("data", "model")
    }
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16


@pytest.mark.parametrize("name", NUMBERS)
def test_a_recipe_says_what_it_is(name: str) -> None:
    listed = DOCS.read_text(encoding="utf-8")
    assert f"`{name}.yaml`" in listed
    comment = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").split("\npreset: paper\nmodel:")[0]
    assert all(line.startswith("#") and len(line) <= 120 for line in comment.splitlines())
    command = f"crispseg train {name.rpartition('/')[2]}.yaml --data.root "
    for phrase in ("Not run.", command, "Left open by the paper:", "batch of 16"):
        assert phrase in comment
    if "--protocol" in comment:
        protocol = f"{name.partition('/')[0]}-ms"
        assert protocol in PROTOCOLS
        assert all(f"crispseg evaluate --protocol {protocol}" in text for text in (comment, listed))


def test_every_recipe_is_known() -> None:
    assert {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml")} == {*NUMBERS}


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_weights_that_are_not_published_are_asked_for(name: str, tmp_path: Path, refuses: Any) -> None:
    """Not after the download of a data set, and not by training from random weights."""
    config = parse_training([str(RECIPES / f"sfnet/{name}.yaml"), f"--data.root={tmp_path}"])
    with refuses("no published weights", "resnet18_deep", "path"):
        config.model.build(len(config.data.label_set()), auxiliary=True)


@pytest.mark.parametrize(
    ("name", "backbone", "classes", "millions"),
    [
        ("sfnet/cityscapes", "resnet18_deep", 19, 12.87),
        ("sfnet/camvid", "df2", 11, None),
        ("ddsm/cityscapes", "resnet101", 19, 50.29),
        ("agln/pascal_context", "resnet101_deep", 59, 61.90),
        ("unept/cityscapes", "resnet50c", 19, None),
    ],
)
def test_models_build(name: str, backbone: str, classes: int, millions: float | None, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", f"--model.backbone={backbone}", "--model.pretrained=false"]
    config = parse_training([str(RECIPES / f"{name}.yaml"), *flags])
    with torch.device("meta"):  # nothing is computed
        model = config.model.build(len(config.data.label_set()), auxiliary=False)
    assert model.info.num_classes == classes and model.info.backbone == backbone
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_pretrained_gives_a_vit_the_weights_of_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is done with them but the download, on a small DeiT."""
    name = "deit_tiny_distilled_patch16_224"
    published = timm.create_model(name).state_dict()
    save_file(published, tmp_path / "published.safetensors")
    asked: list[str] = []

    def download(name: str) -> Path:
        asked.append(name)
        return tmp_path / "published.safetensors"

    monkeypatch.setattr("crispseg.backbones.published.hub_file", download)
    flags = [f"--data.root={tmp_path}", f"--model.backbone={name}", "--model.width=16"]
    config = parse_training([str(RECIPES / "unept/ade20k.yaml"), *flags])
    assert timm.get_pretrained_cfg(DEIT).url.endswith("deit_base_distilled_patch16_384-d0272ac0.pth")  # as the code's
    own = config.model.build(len(config.data.label_set()), auxiliary=False).backbone.net.model.state_dict()
    assert asked == [name]
    assert {"pos_embed", "dist_token", "blocks.11.mlp.fc2.weight"} <= own.keys()
    assert all(torch.equal(tensor, published[key]) for key, tensor in own.items())


# Training -----------------------------------------------------------------------------------------------------------

TINY = ["--model.backbone=test_efficientnet", "--model.width=16", "--augment.crop=[64,64]", "--batch_size=1"]
TINY += ["--workers=0", "--loggers=[]"]


@pytest.mark.parametrize(("name", "model"), [("sfnet/camvid", "sfnet"), ("ddsm/camvid", "ddsm_upernet")])
def test_a_recipe_trains(name: str, model: str, tmp_path: Path) -> None:
    """CamVid's, with everything that takes long overridden by flags, from a saved model as those of other data sets."""
    root = tmp_path / "camvid"
    mask = np.zeros((72, 96, 3), np.uint8)
    mask[:, :48], mask[:, 48:80] = (128, 128, 128), (128, 0, 192)  # Sky, LaneMkgsDriv
    for split in ("train", "val"):
        write_image(root / split / "a.png", mask)
        write_image(root / f"{split}_labels" / "a_L.png", mask)
    start = create_model(model, num_classes=3, backbone="test_efficientnet", width=16)
    start.save_pretrained(tmp_path / "start")
    flags = [*TINY, "--epochs=1", f"--data.root={root}", f"--init_from={tmp_path / 'start'}"]
    assert main(["train", str(RECIPES / f"{name}.yaml"), *flags, f"--out={tmp_path / 'run'}"]) == 0
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_agln_trains_in_two_steps(tmp_path: Path) -> None:
    """§IV-B3: the augmented set of PASCAL VOC, then its own, from all weights of the first step."""
    root, first = tmp_path / "VOC2012", tmp_path / "first"
    make_voc2012(root, height=72, width=96)
    flags = [*TINY, "--model.descriptors=4", f"--data.root={root}", "--epochs=1"]
    steps = [str(RECIPES / f"agln/{name}.yaml") for name in ("voc2012_aug", "voc2012")]
    assert main(["train", steps[0], *flags, "--model.pretrained=false", f"--out={first}"]) == 0
    config = parse_training([steps[1], *flags, f"--init_from={first}"])
    assert starting_model(config, config.data.label_set())[1] == "all weights were copied"


def test_a_recipe_of_unept_trains(tmp_path: Path) -> None:
    """Cityscapes', with everything that takes long overridden by flags, and all of its augmentation."""
    root = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        cityscapes_pair(root, split, f"{city}/{city}_000000_000019", [7] * 40 + [26] * 56, height=64, width=96)
    flags = [*TINY, "--model.pretrained=false", "--model.points=4", "--iterations=3", "--val_every=1"]
    flags += ["--augment.longer_side=128", "--augment.shorter_side=80", f"--data.root={root}"]
    assert main(["train", str(RECIPES / "unept/cityscapes.yaml"), *flags, f"--out={tmp_path / 'run'}"]) == 0
    assert {int(row["step"]): float(row["lr"]) for row in rows(tmp_path / "run")} == {3: 1e-5}
    trained = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["recipe"]["augment"]
    assert (trained["photometric"], trained["max_share"], trained["scale"]) == ("mmseg", 0.75, [0.5, 2.0])
