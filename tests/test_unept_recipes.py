"""UN-EPT's recipes hold the paper's numbers; what all recipes have in common is in test_recipes.py."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from dataset_trees import cityscapes_pair
from recipe_files import DOCS, RECIPES, print_config, rows
from safetensors.torch import save_file

from crispseg.cli.main import main
from crispseg.cli.train import parse_training
from crispseg.nn import DeformableAttention

UNEPT = RECIPES / "unept"
DEIT = "deit_base_distilled_patch16_384"

# data and its options, crop, iterations: §4.1 and §4.2, which does not give PASCAL-Context's iterations; and the sides
# to which scales are relative, of the released settings, for Cityscapes of MMSegmentation's.
NUMBERS: dict[str, tuple[dict[str, Any], int, int, tuple[int, int]]] = {
    "ade20k": ({"name": "ade20k"}, 480, 160_000, (2048, 512)),
    "pascal_context": ({"name": "pascal_context", "classes": 60}, 480, 160_000, (520, 520)),
    "cityscapes": ({"name": "cityscapes", "train_on": "train"}, 768, 80_000, (2048, 1024)),
}
MODEL = {  # §3.2 and §4.2
    "name": "unept",
    "backbone": "resnet50",
    "pretrained": True,
    "in_chans": 3,
    "refine": "boundary",
    "refine_steps": 2,
    "refine_path": "straight",
    "width": 256,
    "levels": 3,
    "points": 16,
    "queries": "dynamic",
}
SHARED = {  # §3.2 and §4.2
    "optimizer": "adamw",
    "lr": 1e-4,
    "backbone_lr_factor": 0.1,
    "weight_decay": 1e-4,
    "decay_norms_and_biases": True,
    "schedule": "step",
    "lr_drops": [2 / 3],
    "warmup": 0,
    "loss": {"cross_entropy": 1.0},
    "hard_fraction": 1.0,
    "class_weights": None,
    "auxiliary_weight": 0.0,
    "boundary_distance": 5,
    "boundary_weights": {"unrefined": 1.0, "refined": 1.5, "boundary": 3.0, "direction": 0.7},
    "direction_mask": "true",
    "clip": None,
    "freeze_backbone": False,
    "init_from": None,
    "precision": "fp32",
}

# What Tables 1, 5 and 6 tell of each row, by its mIoU: backbone, refinement, queries, L, N.
ROWS = {
    50.5: (DEIT, "boundary", "dynamic", 3, 16),
    42.3: ("resnet50", None, "naive", 1, 16),
    45.0: ("resnet50", None, "naive", 3, 16),
    37.5: ("resnet50", None, "dynamic", 1, 4),
    42.5: ("resnet50", None, "dynamic", 1, 16),
    42.9: ("resnet50", None, "dynamic", 1, 64),
    44.1: ("resnet50", None, "dynamic", 3, 4),
    46.1: ("resnet50", None, "dynamic", 3, 16),
    45.6: ("resnet50", None, "dynamic", 3, 64),
}
DEIT_SCORES = {"pascal_context": 55.2, "cityscapes": 82.9}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_those_of_unept(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, crop, iterations, (longer, shorter) = NUMBERS[name]
    tree = print_config(UNEPT / f"{name}.yaml", f"--data.root={tmp_path}", capsys=capsys)
    assert tree["data"] == {**data, "root": str(tmp_path)}
    assert {key: tree["model"][key] for key in MODEL} == MODEL
    augment = {"flip": 0.5, "turn": False, "photometric": "mmseg", "max_share": 0.75, "repeat": 1}
    augment |= {"longer_side": longer, "shorter_side": shorter}
    assert tree["augment"] == augment | {"crop": [crop, crop], "scale": [0.5, 2.0]}
    assert {key: tree[key] for key in SHARED} == SHARED
    assert tree["iterations"] == iterations
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16


def test_rows_of_unept_are_all_there() -> None:
    assert rows(UNEPT / "ade20k.yaml").keys() == ROWS.keys()
    for name, score in DEIT_SCORES.items():
        assert rows(UNEPT / f"{name}.yaml") == {score: ["--model.backbone", DEIT]}
    listed = DOCS.read_text(encoding="utf-8")
    assert all(score in listed for score in ("46.1", "50.5", "49.5", "55.2", "79.8", "82.9"))


@pytest.mark.parametrize("score", ROWS)
def test_flags_build_the_networks_of_unept(score: float, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", *rows(UNEPT / "ade20k.yaml")[score]]
    config = parse_training([str(UNEPT / "ade20k.yaml"), *flags])
    backbone, refine, queries, levels, points = ROWS[score]
    assert (config.model.backbone, config.model.pretrained, config.model.refine) == (backbone, True, refine)
    small = dataclasses.replace(
        config.model,
        backbone="test_vit" if backbone == DEIT else "test_efficientnet",
        pretrained=False,
        options=config.model.options | {"width": 16},
    )
    model: Any = small.build(len(config.data.label_set()), auxiliary=False)
    assert (model.refiner is not None) is (refine is not None)
    assert (model.decoder.learned is not None) is (queries == "naive")
    attentions = [part for part in model.modules() if isinstance(part, DeformableAttention)]
    across = [part for part in attentions if part.levels == levels]
    assert len(attentions) == 6 and len(across) == (6 if levels == 1 else 4)  # the decoder's own are on one level
    assert {part.points for part in attentions} == {points}


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
    config = parse_training([str(UNEPT / "ade20k.yaml"), *flags])
    assert timm.get_pretrained_cfg(DEIT).url.endswith("deit_base_distilled_patch16_384-d0272ac0.pth")  # as the code's
    own = config.model.build(len(config.data.label_set()), auxiliary=False).backbone.net.model.state_dict()
    assert asked == [name]
    assert {"pos_embed", "dist_token", "blocks.11.mlp.fc2.weight"} <= own.keys()
    assert all(torch.equal(tensor, published[key]) for key, tensor in own.items())


def test_a_recipe_of_unept_trains(tmp_path: Path) -> None:
    """Cityscapes', with everything that takes long overridden by flags, and all of its augmentation."""
    root = tmp_path / "cityscapes"
    for split, city in (("train", "aachen"), ("train", "ulm"), ("train", "bonn"), ("val", "lindau")):
        cityscapes_pair(root, split, f"{city}/{city}_000000_000019", [7] * 40 + [26] * 56, height=64, width=96)
    flags = ["--model.backbone=test_efficientnet", "--model.pretrained=false", "--model.width=16", "--model.points=4"]
    flags += ["--augment.crop=[64,64]", "--augment.longer_side=128", "--augment.shorter_side=80", "--iterations=3"]
    flags += ["--batch_size=1", "--val_every=1", "--workers=0"]
    flags += ["--loggers=[]", f"--data.root={root}", f"--out={tmp_path / 'run'}"]
    assert main(["train", str(UNEPT / "cityscapes.yaml"), *flags]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="", encoding="utf-8") as file:
        rates = {int(row["step"]): float(row["lr"]) for row in csv.DictReader(file)}
    assert rates == {3: 1e-5}
    trained = json.loads((tmp_path / "run" / "model" / "config.json").read_text())["recipe"]["augment"]
    assert (trained["photometric"], trained["max_share"], trained["scale"]) == ("mmseg", 0.75, [0.5, 2.0])
