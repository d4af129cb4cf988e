"""The flags beside the scores of the papers' tables, in the comments of recipes, build the tables' networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from crispseg import fuses
from crispseg.cli.train import parse_training
from crispseg.decoders import TopDown, UpsampleAdd
from crispseg.models.agln import ContextFusionBlock
from crispseg.models.deeplabv3plus import DeepLabDecoder
from crispseg.models.registry import resolved_options
from crispseg.nn import DeformableAttention
from crispseg.training import TrainConfig
from tests.recipes.recipe_files import DOCS, RECIPES, rows, scored_flags


def parsed(recipe: str, flags: list[str]) -> TrainConfig:
    return parse_training([str(RECIPES / f"{recipe}.yaml"), "--data.root=x", *flags])


def small_network(config: TrainConfig, **changes: Any) -> Any:
    """The network of a recipe on the smallest backbone."""
    small = dataclasses.replace(config.model, **{"backbone": "test_efficientnet", "pretrained": False} | changes)
    return small.build(len(config.data.label_set()), auxiliary=config.auxiliary_weight > 0)


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

DEIT = "deit_base_distilled_patch16_384"

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


def test_the_documentation_names_the_scores() -> None:
    listed = DOCS.read_text(encoding="utf-8")
    scores = [str(score) for pair in SFNET_BACKBONES.values() for score in pair[:2]]
    scores += ["79.65", "78.57", "56.23", "45.38", "84.9", "52.45", "46.1", "50.5", "49.5", "55.2", "79.8", "82.9"]
    assert all(score in listed for score in scores)


def test_rows_of_sfnet_s_tables_1_and_2_are_all_there() -> None:
    expected = [(score, name, "resnet18_deep", True, changed) for score, name, changed in SFNET_TABLES]
    for backbone, (without, score, pretrained) in SFNET_BACKBONES.items():
        expected.append((without, "sfnet", backbone, pretrained, {"fuse": "add"}))
        expected.append((score, "sfnet", backbone, pretrained, {}))
    found = []
    for score, flags in scored_flags("sfnet/cityscapes"):
        config = parsed("sfnet/cityscapes", flags)
        model = config.model
        defaults, options = resolved_options(model.name, {}), resolved_options(model.name, model.options)
        changed = {key: value for key, value in options.items() if value != defaults[key]}
        found.append((score, model.name, model.backbone, model.pretrained, changed))
        with torch.device("meta"):  # nothing is computed
            small_network(config)
    assert found == expected


def test_rows_are_all_there() -> None:
    assert rows("ddsm/cityscapes").keys() == TABLE_1.keys()
    for name, table in TABLE_8.items():
        own = ABLATIONS if name == "pascal_context" else {}
        assert rows(f"agln/{name}").keys() == table.keys() | own.keys()
    assert rows("unept/ade20k").keys() == ROWS.keys()
    for name, score in DEIT_SCORES.items():
        assert rows(f"unept/{name}") == {score: ["--model.backbone", DEIT]}


@pytest.mark.parametrize("score", TABLE_1)
def test_flags_of_ddsm_s_table_1(score: float) -> None:
    host, part, pixels, channels = TABLE_1[score]
    config = parsed("ddsm/cityscapes", rows("ddsm/cityscapes")[score])
    assert (config.model.backbone, config.model.pretrained) == ("resnet101", True)
    decoder = small_network(config).decoder
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


@pytest.mark.parametrize("score", ABLATIONS)
def test_flags_of_agln_s_tables_4_to_7(score: float) -> None:
    config = parsed("agln/pascal_context", rows("agln/pascal_context")[score])
    assert (config.model.backbone, config.model.pretrained) == ("resnet101_deep", True)
    decoder, row = small_network(config).decoder, ABLATIONS[score]
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
def test_flags_of_agln_s_table_8(recipe: str) -> None:
    for score, name in TABLE_8[recipe].items():
        model = parsed(f"agln/{recipe}", rows(f"agln/{recipe}")[score]).model
        options = resolved_options(model.name, model.options)
        assert (model.name, model.backbone) == (name, "resnet101_deep")
        assert options.get("output_stride") == (8 if name == "fcn" else None)
        assert options.get("connection") == ("dense" if name == "agln_lite" else None)


@pytest.mark.parametrize("score", ROWS)
def test_flags_of_unept_s_tables(score: float) -> None:
    config = parsed("unept/ade20k", rows("unept/ade20k")[score])
    backbone, refine, queries, levels, points = ROWS[score]
    assert (config.model.backbone, config.model.pretrained, config.model.refine) == (backbone, True, refine)
    small = "test_vit" if backbone == DEIT else "test_efficientnet"
    model = small_network(config, backbone=small, options=config.model.options | {"width": 16})
    assert (model.refiner is not None) is (refine is not None)
    assert (model.decoder.learned is not None) is (queries == "naive")
    attentions = [part for part in model.modules() if isinstance(part, DeformableAttention)]
    across = [part for part in attentions if part.levels == levels]
    assert len(attentions) == 6 and len(across) == (6 if levels == 1 else 4)  # the decoder's own are on one level
    assert {part.points for part in attentions} == {points}
