"""AGLN and UN-EPT compute what their released code computed, with weights by formula (see contract/test_official.py).

AGLN with `block="released"` is the released network. UN-EPT is, after `as_released` has made the choices in which the
release differs; docs/papers/unept.md lists them. The release ran with its own PyTorch version of its CUDA operator.
"""

import math
import re
from functools import reduce

import pytest
import torch
from contract.formula import image
from contract.test_official import assert_computed, official
from torch import Tensor, nn

from crispseg import SegmentationModel, create_model, record

AGLN = r"""
backbone\.net\.model pretrained  decoder\.context\.conv head.e4conv  decoder\.laterals head.fpn_lateral
decoder\.smooths head.fpn_out  decoder\.merge\.conv head.conv5  classifier head.conv5.4  decoder\.gathers\.0 head.sab_d4
decoder\.gathers\.1 head.sab_d3  decoder\.gathers\.2 head.sab_d2  decoder\.fuses\.(\d)\.blocks\.0 head.cfb_d4.\1
decoder\.fuses\.(\d)\.blocks\.1 head.cfb_d3.\1  decoder\.fuses\.(\d)\.blocks\.2 head.cfb_d2.\1  sdm\.alpha alpha
lrm\.gamma gamma  theta conv_atten  varphi conv_de  project out_conv  (cfb.*)phi \1conv_fusion  (sab.*)phi \1conv_feat
"""
UNEPT = r"""
backbone\.net\.model\.bn1 backbone.stem.7  backbone\.net\.model\.conv1 backbone.stem  backbone\.net\.model backbone
classifier cls  decoder\.scales context_branch.level_embed  decoder\.laterals layers  refiner\.boundary_head mask_head
decoder\.(en|de)coder context_branch.\1coder.layers  cross_attention cross_attn  self_residual\.norm norm2
(\d)\.(cross_)?residual\.norm \1.norm1  (encoder.*)feed\.residual\.norm \1norm2  feed\.residual\.norm norm3
(encoder.*)\.attention\. \1.self_attn.  self_attention\.output self_attn.out  feed\.layers\.0 linear1
self_attention\.(.)\w+_proj self_attn.\1_proj  feed\.layers\.3 linear2  refiner\.direction_head dir_head
decoder\.spatial\.0 spatial_branch.convblock1  decoder\.spatial\.1 spatial_branch.convblock2
decoder\.spatial\.2 spatial_branch.convblock3  (convblock\d)\.0 \1.conv1  (convblock\d)\.1 \1.bn
"""


def load(model: SegmentationModel, table: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give a model the release's weights by a table of names of parts, ours and its; return the unused weights."""
    pairs, weights = [pair.split() for pair in table.replace("\n", "  ").strip().split("  ")], {}
    for key, value in model.state_dict().items():
        name = reduce(lambda name, pair: re.sub(*pair, name), pairs, key)
        weights[key] = state.pop(name).reshape(value.shape)
    model.load_state_dict(weights)
    return state


def test_agln() -> None:
    expected, state = official("agln")
    state["head.conv5.0.weight"] = torch.cat(state["head.conv5.0.weight"].chunk(4, 1)[::-1], 1)  # the coarsest is first
    model = create_model("agln", num_classes=19, backbone="resnet50_deep", block="released", descriptors=64).eval()
    assert {*load(model, AGLN, state)} == {f"head.sab_d{i}.conv_atten.bias" for i in (2, 3, 4)}  # lost in a softmax
    with torch.no_grad(), record(model) as seen:
        outputs = {"logits": model(image(expected["size"].tolist()))}
    last = {part: seen[f"decoder.fuses.0.blocks.2.{part}.{tap}"] for part, tap in (("sdm", "M"), ("lrm", "G"))}
    assert_computed(outputs | last | {f"sab_d{4 - i}": seen[f"decoder.gathers.{i}.D"] for i in range(3)}, expected)


def as_released(model: SegmentationModel, embedding: Tensor) -> None:
    """Make the release's choices; `embedding` (1, 256, h, w) is added to the context queries."""

    def positions(size: list[int], extent: list[int], like: Tensor) -> Tensor:  # of the lower right corners of pixels
        corners = torch.cartesian_prod(*(torch.arange(1, side + 1) / side for side in size))  # (h · w, 2), y and x
        angles = corners[:, :, None] * 2 * math.pi / 10000 ** (torch.arange(64) / 64)
        return torch.stack([angles.sin(), angles.cos()], -1).flatten(1)

    model.align_corners, model.decoder._positions, model.decoder.spatial[2][2] = False, positions, nn.Identity()
    model.decoder.context_queries.register_forward_hook(lambda _, args, queries: queries + embedding)
    for layer in model.decoder.decoder:
        layer.register_forward_pre_hook(lambda _, args: (args[0], 0.0, *args[2:]))
        # Images and queries change places: each query attends to the same one of all images.
        layer.self_attention.register_forward_pre_hook(lambda _, args: (*(x.transpose(0, 1) for x in args[:3]), ()))
        layer.self_attention.register_forward_hook(lambda _, args, attended: attended.transpose(0, 1))


@pytest.mark.parametrize(("name", "backbone"), [("resnet", "resnet50c"), ("deit", "deit_tiny_distilled_patch16_224")])
def test_unept(name: str, backbone: str) -> None:
    expected, state = official(f"unept_{name}")
    for key in [key for key in state if "in_proj_" in key]:
        parts = zip("qkv", state.pop(key).chunk(3), strict=True)
        state |= {key.replace("in_proj_", f"{part}_proj."): value for part, value in parts}
    state["mask_head.3.weight"] = state["mask_head.3.weight"][1:]  # a boundary is where the second logit is above 0.5
    state["dir_head.3.weight"] = state["dir_head.3.weight"].roll(4, 0)  # the first direction is to the left
    state |= {"mask_head.3.bias": torch.tensor([-0.5]), "dir_head.3.bias": torch.zeros(8)}
    model = create_model(
        "unept", num_classes=19, backbone=backbone, self_attention="full", design="paper", refine_steps=1
    )
    unused = load(model.eval(), UNEPT, state)
    size = expected["size"].tolist()
    as_released(model, unused.pop("query_embed.weight").T.reshape(1, 256, *(side // 8 for side in size)))
    assert {*unused} == {f"context_branch.decoder.layers.{i}.self_attn.k_proj.bias" for i in range(2)}  # too
    with torch.no_grad():
        logits, unrefined, _, boundary, direction = model.outputs(torch.cat([image(size), image(size).flip(3)]))
    outputs = {"logits": logits, "unrefined": unrefined, "boundary": boundary + 0.5, "direction": direction.roll(4, 1)}
    assert_computed(outputs, expected)
