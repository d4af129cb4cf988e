"""The recipes that are packaged hold the papers' numbers, and each of them can start."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import make_voc2012
from recipe_files import DOCS, RECIPES, print_config, rows, scored_flags

from crispseg import create_model, fuses
from crispseg.cli.main import main
from crispseg.cli.train import parse_training
from crispseg.decoders import TopDown, UpsampleAdd
from crispseg.inference.protocols import PROTOCOLS
from crispseg.io.images import write_image
from crispseg.models.agln import ContextFusionBlock
from crispseg.models.deeplabv3plus import DeepLabDecoder
from crispseg.models.registry import resolved_options
from crispseg.training.initialization import starting_model

SFNET, DDSM, AGLN = RECIPES / "sfnet", RECIPES / "ddsm", RECIPES / "agln"
UNEPT = ("ade20k", "pascal_context", "cityscapes")  # whose numbers are in test_unept_recipes.py

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
    "freeze_backbone": False,
    "precision": "fp32",
    "loss": {"cross_entropy": 1.0},
}
AUGMENT = {"flip": 0.5, "turn": False, "photometric": False, "longer_side": None, "repeat": 1}
AUGMENT |= {"shorter_side": None, "max_share": 1.0}

# The rows of SFNet's Tables 1 and 2 but the recipe's own: mIoU, model, what differs from its defaults. What each of
# these options builds is tested in models/test_sfnet_options.py.
SFNET_TABLES: list[tuple[float, str, dict[str, Any]]] = [
    (71.5, "fcn", {}),
    (72.6, "fcn", {"output_stride": 8}),
    (74.8, "sfnet", {"context": "conv", "fuse": "add"}),
    (77.2, "sfnet", {"context": "conv"}),
    (76.6, "sfnet", {"fuse": "add"}),
    (76.9, "sfnet", {"fuse_levels": [3]}),
    (77.0, "sfnet", {"fuse_levels": [4]}),
    (77.5, "sfnet", {"fuse_levels": [5]}),
    (77.8, "sfnet", {"fuse_levels": [4, 5]}),
    (76.8, "sfnet", {"context": "nonlocal"}),
    (77.6, "sfnet", {"context": "aspp"}),
    (77.5, "sfnet", {"context": "denseaspp"}),
    (77.9, "sfnet", {"flow_upsampling": "deconvolution"}),
    (78.2, "sfnet", {"flow_upsampling": "nearest"}),
    (77.8, "sfnet", {"flow_kernel": 1}),
    (78.1, "sfnet", {"flow_kernel": 5}),
    (78.0, "sfnet", {"flow_kernel": 7}),
    (77.2, "sfnet", {"flow_net": "correlation", "fuse_levels": [5]}),
    (76.9, "sfnet", {"fuse": "dcn", "fuse_levels": [5]}),
    (77.2, "sfnet", {"fuse": "dcn"}),
]
SFNET_BACKBONES = {  # Table 1d: mIoU without FAM, with it, what published weights are called
    "resnet50_deep": (76.8, 79.2, True),
    "resnet101_deep": (77.6, 79.8, True),
    "shufflenetv2_x1_0": (69.8, 72.1, True),
    "df1": (72.1, 74.3, "df1.pth"),
    "df2": (73.2, 75.8, "df2.pth"),
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

# data and its options, epochs, lr: AGLN §IV-A5 and §IV-B3, which give neither crop nor scale.
AGLN_NUMBERS: dict[str, tuple[dict[str, Any], int, float]] = {
    "pascal_context": ({"name": "pascal_context", "classes": 59}, 240, 0.001),
    "ade20k": ({"name": "ade20k"}, 240, 0.001),
    "voc2012_aug": ({"name": "voc2012", "train_on": "aug"}, 120, 0.0005),
    "voc2012": ({"name": "voc2012", "train_on": "train"}, 120, 0.0005),
}
AGLN_SHARED = SHARED | {"weight_decay": 0.0001, "hard_fraction": 1.0, "auxiliary_weight": 0.0}

# What Tables IV to VII of AGLN tell of each row, by its mIoU: sets of descriptors at each step, the finest first, N,
# attention pooling, channel resampling, spatial gating, learned α, learned β.
STRAIGHT, DENSE = (1, 1, 1), (3, 2, 1)
ABLATIONS: dict[float, tuple[tuple[int, ...], int, bool, bool, bool, bool, bool] | None] = {
    46.91: None,
    48.17: (STRAIGHT, 1, False, False, False, True, True),
    47.93: (STRAIGHT, 1, True, False, False, True, True),
    50.98: (STRAIGHT, 64, True, False, False, True, True),
    51.24: (STRAIGHT, 128, True, False, False, True, True),
    50.88: (STRAIGHT, 256, True, False, False, True, True),
    51.50: (STRAIGHT, 128, True, True, False, True, True),
    51.58: (STRAIGHT, 128, True, False, True, True, True),
    51.98: (STRAIGHT, 128, True, True, True, True, True),
    51.20: (STRAIGHT, 128, True, True, True, False, True),
    51.68: (STRAIGHT, 128, True, True, True, True, False),
    50.93: (STRAIGHT, 128, True, True, True, False, False),
    52.45: (DENSE, 128, True, True, True, True, True),
}

# Table VIII, by recipe: mIoU → model.
TABLE_8 = {
    "pascal_context": {52.82: "fpn", 51.38: "fcn", 56.21: "agln_lite"},
    "ade20k": {42.58: "fpn", 41.40: "fcn", 44.04: "agln_lite"},
    "voc2012": {81.26: "fpn", 73.57: "fcn", 84.38: "agln_lite"},
}

PAPERS = (("sfnet", NUMBERS), ("ddsm", DDSM_NUMBERS), ("agln", AGLN_NUMBERS), ("unept", UNEPT))
ALL = [f"{paper}/{name}" for paper, names in PAPERS for name in names]


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
    assert [tree["model"][key] for key in ("fuse", "context", "merge")] == ["fam", "ppm", "concat"]
    longer_side = 2048 if name == "mapillary" else None
    assert tree["augment"] == AUGMENT | {"crop": [crop, crop], "scale": [0.75, 2.0], "longer_side": longer_side}
    assert tree["iterations"] == iterations and tree["lr"] == lr
    assert epochs is None or tree["epochs"] == epochs
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16
    assert {key: tree[key] for key in SHARED} == SHARED
    from_mapillary = name == "cityscapes_from_mapillary"
    assert tree["init_from"] == ("runs/mapillary" if from_mapillary else None)
    assert tree["model"]["pretrained"] is not from_mapillary  # never random weights by oversight


@pytest.mark.parametrize("name", DDSM_NUMBERS)
def test_numbers_are_those_of_ddsm(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, crop = DDSM_NUMBERS[name]
    tree = print_config(DDSM / f"{name}.yaml", f"--data.root={tmp_path}", capsys=capsys)
    assert tree["data"] == {**data, "root": str(tmp_path)}
    model = {
        "name": "ddsm_upernet",
        "backbone": "resnet101",
        "pretrained": True,
        "in_chans": 3,
        "refine": None,
        "width": 256,
        "context": "ppm",
        "fuse_levels": [3, 4, 5],
        "pixels": 25,
        "channels": 9,
        "affinity": "both",
        "reduced": 64,
        "merge": "concat",
    }
    assert {key: tree["model"][key] for key in model} == model
    assert tree["augment"] == AUGMENT | {"crop": [crop, crop], "scale": [0.75, 2.0]}
    assert {key: tree[key] for key in DDSM_SHARED} == DDSM_SHARED
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16
    assert tree["iterations"] is None and tree["init_from"] is None


@pytest.mark.parametrize("name", AGLN_NUMBERS)
def test_numbers_are_those_of_agln(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, epochs, lr = AGLN_NUMBERS[name]
    tree = print_config(AGLN / f"{name}.yaml", f"--data.root={tmp_path}", capsys=capsys)
    assert tree["data"] == {**data, "root": str(tmp_path)}
    finetunes = name == "voc2012"
    assert tree["init_from"] == ("runs/voc2012_aug" if finetunes else None)
    model = {
        "name": "agln",
        "backbone": "resnet101_deep",
        "pretrained": not finetunes,
        "in_chans": 3,
        "refine": None,
        "width": 256,
        "connection": "dense",
        "descriptors": 128,
        "pooling": "attention",
        "refinement": "both",
        "learn_alpha": True,
        "residual": True,
        "learn_beta": True,
    }
    assert {key: tree["model"][key] for key in model} == model
    assert tree["augment"] == AUGMENT | {"crop": [480, 480], "scale": [0.5, 2.0]}
    assert {key: tree[key] for key in AGLN_SHARED} == AGLN_SHARED
    assert (tree["epochs"], tree["iterations"], tree["lr"]) == (epochs, None, lr)
    assert tree["batch_size"] * tree["devices"] * tree["accumulate"] == 16


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_says_what_it_is(recipe: str) -> None:
    name = recipe.rpartition("/")[2]
    comment = (RECIPES / f"{recipe}.yaml").read_text(encoding="utf-8").split("\npreset: paper\nmodel:")[0]
    assert all(line.startswith("#") and len(line) <= 120 for line in comment.splitlines())
    for phrase in ("Not run.", f"crispseg train {name}.yaml --data.root ", "Left open by the paper:", "batch of 16"):
        assert phrase in comment


@pytest.mark.parametrize(
    "recipe",
    [
        *("sfnet/cityscapes", "sfnet/pascal_context", "sfnet/ade20k", "ddsm/cityscapes"),
        *("agln/pascal_context", "agln/ade20k", "agln/voc2012"),
        *("unept/ade20k", "unept/pascal_context", "unept/cityscapes"),
    ],
)
def test_scores_at_several_scales_name_their_protocol(recipe: str) -> None:
    protocol = f"{recipe.split('/')[0]}-ms"
    assert protocol in PROTOCOLS
    for file in (RECIPES / f"{recipe}.yaml", DOCS):
        assert f"crispseg evaluate --protocol {protocol}" in file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cityscapes", "camvid"])
def test_weights_that_are_not_published_are_asked_for(name: str, tmp_path: Path, refuses: Any) -> None:
    """Not after the download of a data set, and not by training from random weights."""
    config = parse_training([str(SFNET / f"{name}.yaml"), f"--data.root={tmp_path}"])
    with refuses("no published weights", "resnet18_deep", "path"):
        config.model.build(len(config.data.label_set()), auxiliary=True)


@pytest.mark.parametrize(
    ("recipe", "backbone", "classes", "millions"),
    [
        ("sfnet/cityscapes", "resnet18_deep", 19, 12.87),
        ("sfnet/camvid", "df2", 11, None),
        ("ddsm/cityscapes", "resnet101", 19, 50.29),
        ("agln/pascal_context", "resnet101_deep", 59, 61.90),
        ("unept/cityscapes", "resnet50c", 19, None),
    ],
)
def test_models_build(recipe: str, backbone: str, classes: int, millions: float | None, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", f"--model.backbone={backbone}", "--model.pretrained=false"]
    config = parse_training([str(RECIPES / f"{recipe}.yaml"), *flags])
    with torch.device("meta"):  # nothing is computed
        model = config.model.build(len(config.data.label_set()), auxiliary=False)
    assert model.info.num_classes == classes and model.info.backbone == backbone
    if millions:
        assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_rows_of_sfnet_s_tables_1_and_2_are_all_there(tmp_path: Path) -> None:
    expected = [(score, name, "resnet18_deep", True, changed) for score, name, changed in SFNET_TABLES]
    for backbone, (without, score, pretrained) in SFNET_BACKBONES.items():
        expected.append((without, "sfnet", backbone, pretrained, {"fuse": "add"}))
        expected.append((score, "sfnet", backbone, pretrained, {}))
    found = []
    for score, flags in scored_flags(SFNET / "cityscapes.yaml"):
        argv = [str(SFNET / "cityscapes.yaml"), f"--data.root={tmp_path}", *flags]
        model = parse_training(argv).model
        defaults = resolved_options(model.name, {})
        changed = {
            key: value for key, value in resolved_options(model.name, model.options).items() if value != defaults[key]
        }
        found.append((score, model.name, model.backbone, model.pretrained, changed))
        with torch.device("meta"):  # nothing is computed
            dataclasses.replace(model, backbone="test_efficientnet", pretrained=False).build(3, auxiliary=True)
    assert found == expected
    listed = DOCS.read_text(encoding="utf-8")
    assert all(str(score) in listed for pair in SFNET_BACKBONES.values() for score in pair[:2])


def test_rows_of_table_1_are_all_there() -> None:
    assert rows(DDSM / "cityscapes.yaml").keys() == TABLE_1.keys()
    assert all(f"{score:.2f}" in DOCS.read_text(encoding="utf-8") for score in (79.65, 78.57))


@pytest.mark.parametrize("score", TABLE_1)
def test_flags_of_table_1_build_its_networks(score: float, tmp_path: Path) -> None:
    host, part, pixels, channels = TABLE_1[score]
    flags = [f"--data.root={tmp_path}", *rows(DDSM / "cityscapes.yaml")[score]]
    config = parse_training([str(DDSM / "cityscapes.yaml"), *flags])
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


def test_rows_of_tables_4_to_8_are_all_there() -> None:
    for name, table in TABLE_8.items():
        own = ABLATIONS if name == "pascal_context" else {}
        assert rows(AGLN / f"{name}.yaml").keys() == table.keys() | own.keys()
    assert all(score in DOCS.read_text(encoding="utf-8") for score in ("56.23", "45.38", "84.9", "52.45"))


@pytest.mark.parametrize("score", ABLATIONS)
def test_flags_of_tables_4_to_7_build_their_networks(score: float, tmp_path: Path) -> None:
    flags = [f"--data.root={tmp_path}", *rows(AGLN / "pascal_context.yaml")[score]]
    config = parse_training([str(AGLN / "pascal_context.yaml"), *flags])
    assert (config.model.backbone, config.model.pretrained) == ("resnet101_deep", True)
    small = dataclasses.replace(config.model, backbone="test_efficientnet", pretrained=False)
    decoder: Any = small.build(len(config.data.label_set()), auxiliary=config.auxiliary_weight > 0).decoder
    row = ABLATIONS[score]
    if row is None:
        assert config.model.name == "fpn" and all(isinstance(step, UpsampleAdd) for step in decoder.fuses)
        return
    sets, descriptors, attention, channel, spatial, learn_alpha, learn_beta = row
    assert tuple(len(step.blocks) for step in decoder.fuses) == sets
    assert len(decoder.gathers) == max(sets)
    for gather in decoder.gathers:
        assert (gather.theta is not None) is attention
        assert gather.theta is None or gather.theta.out_channels == descriptors
    for block in (block for block in decoder.modules() if isinstance(block, ContextFusionBlock)):
        assert (block.lrm.resamples, block.lrm.gates) == (channel, spatial)
        assert block.sdm.varphi is None if descriptors == 1 else block.sdm.varphi.out_channels == descriptors
        learned = dict(block.named_parameters())
        assert ("sdm.alpha" in learned, "beta" in learned) == (learn_alpha, learn_beta)


@pytest.mark.parametrize("recipe", TABLE_8)
def test_flags_of_table_8_name_its_networks(recipe: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for score, model in TABLE_8[recipe].items():
        flags = [f"--data.root={tmp_path}", *rows(AGLN / f"{recipe}.yaml")[score]]
        tree = print_config(AGLN / f"{recipe}.yaml", *flags, capsys=capsys)["model"]
        assert (tree["name"], tree["backbone"]) == (model, "resnet101_deep")
        assert tree.get("output_stride") == (8 if model == "fcn" else None)
        assert tree.get("connection") == ("dense" if model == "agln_lite" else None)


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


def test_agln_trains_in_two_steps(tmp_path: Path) -> None:
    """§IV-B3: the augmented set of PASCAL VOC, then its own, from all weights of the first step."""
    root, first = tmp_path / "VOC2012", tmp_path / "first"
    make_voc2012(root, height=72, width=96)
    flags = ["--model.backbone=test_efficientnet", "--model.width=16", "--model.descriptors=4", f"--data.root={root}"]
    flags += ["--augment.crop=[64,64]", "--epochs=1", "--batch_size=1", "--workers=0", "--loggers=[]"]
    assert main(["train", str(AGLN / "voc2012_aug.yaml"), *flags, "--model.pretrained=false", f"--out={first}"]) == 0
    config = parse_training([str(AGLN / "voc2012.yaml"), *flags, f"--init_from={first}"])
    assert starting_model(config, config.data.label_set())[1] == "all weights were copied"
