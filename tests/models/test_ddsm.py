"""DDSM's parts against Eqs. 1 to 3, evaluated pixel by pixel in float64."""

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from reference import assert_close, enlarged, one_by_one, rand, sampled, softmax
from torch import Tensor, nn

from crispseg.models.ddsm import DDSM, ChannelAffinity, DynamicSampler, PositionEmbedding, SpatialAffinity

from .base import ModelTester


def ddsm_taps(path: str, stride: int, coarse: int, points: int = 9) -> dict[str, tuple[int, ...]]:
    """Of one DDSM of 16 reduced channels: channels and stride, or the whole shape."""
    taps: dict[str, tuple[int, ...]] = {"x_l": (16, stride), "x_h": (16, coarse), "x_Sout": (16, stride)}
    taps["x_Cout"] = (16, stride)
    for part, place in (("spatial", (stride,)), ("channel", (4, 4))):
        taps[f"{part}.affinity.sampler.offset"] = (2 * points, *place)
        taps |= {f"{part}.affinity.{tap}": (points, *place) for tap in ("sampler.modulation", "weights")}
    return {f"{path}.{tap}": shape for tap, shape in taps.items()}


class TestDDSMUPerNet(ModelTester):
    name = "ddsm_upernet"
    options: ClassVar = {"width": 24, "reduced": 16, "pixels": 9}
    taps: ClassVar = {
        "decoder.coarsest": (24, 32),
        "decoder.context.pooled": (96, 32),
        **ddsm_taps("decoder.fuses.0", 4, 8),
        **ddsm_taps("decoder.fuses.1", 8, 16),
        **ddsm_taps("decoder.fuses.2", 16, 32),
    }

    @pytest.mark.parametrize("affinity", ["spatial", "channel"])
    def test_one_affinity_alone(self, affinity: str, tmp_path: Path) -> None:
        """Table 1, "+S" and "+C": in two steps; and with more points (§3, "We sample 25 pixels")."""
        points = {"spatial": "pixels", "channel": "channels"}[affinity]
        seen = self.check_option(tmp_path, affinity=affinity, fuse_levels=[3, 4], **{points: 25})
        weights = {key: value.shape[1] for key, value in seen.items() if key.endswith(".weights")}
        assert weights == {f"decoder.fuses.{step}.{affinity}.affinity.weights": 25 for step in (0, 1)}


class TestDDSMDeepLabV3Plus(ModelTester):
    name = "ddsm_deeplabv3plus"
    options: ClassVar = {"width": 24, "reduced": 16, "pixels": 9}
    auxiliary_maps = 1
    taps: ClassVar = {"decoder.coarsest": (24, 16), **ddsm_taps("decoder.fuse", 4, 16)}


def eq1(x: Tensor, offset: Tensor, modulation: Tensor) -> Tensor:
    """F(x(p)) at every p: `x` (C, H, W), `offset` (2N, H, W), x before y, `modulation` (N, H, W) → (C, N, H, W)."""
    points, height, width = modulation.shape
    k, n = math.isqrt(points), torch.arange(points)[:, None, None]
    columns = torch.arange(width) + n % k - (k - 1) / 2 + offset[0::2]
    rows = torch.arange(height)[:, None] + n // k - (k - 1) / 2 + offset[1::2]
    return sampled(x, columns, rows) * modulation


def attend(query: Tensor, key: Tensor, value: Tensor, conv: nn.Conv2d) -> Tensor:
    """The sum over n of Eqs. 2 and 3 at every position; `conv` predicts offsets, then modulations."""
    predicted = one_by_one(conv, key)
    points = len(predicted) // 3
    predictions = predicted[: 2 * points], 1 / (1 + torch.exp(-predicted[2 * points :]))
    weights = softmax(torch.einsum("chw,cnhw->nhw", query, eq1(key, *predictions)), 0)
    return torch.einsum("nhw,cnhw->chw", weights, eq1(value, *predictions))


def embedded(x: Tensor, embedding: PositionEmbedding) -> Tensor:
    return x + enlarged(embedding.rows[0], x.shape[1], 1) + enlarged(embedding.columns[0], 1, x.shape[2])


def eq2(part: SpatialAffinity, x_l: Tensor, x_h: Tensor) -> Tensor:
    fine, coarse = embedded(x_l, part.e_pl), embedded(enlarged(x_h, *x_l.shape[1:]), part.e_ph)
    key = one_by_one(part.w_phi, torch.cat([fine, coarse]))
    return attend(one_by_one(part.w_theta, fine), key, one_by_one(part.w_g, coarse), part.affinity.sampler.predict)


def eq3(part: ChannelAffinity, x_l: Tensor, x_h: Tensor, pooled: int, downsampled: int) -> Tensor:
    x_lp, x_hp = (F.adaptive_avg_pool2d(x, pooled) for x in (x_l, x_h))
    x_hd = F.adaptive_avg_pool2d(x_h, downsampled)
    maps = (one_by_one(part.w_alpha, x_lp), one_by_one(part.w_beta, torch.cat([x_lp, x_hp])))
    side = math.isqrt(len(x_l))

    def as_image(x: Tensor) -> Tensor:
        """c × a × a → a² × √c × √c: the pixel (i, j) of the image is channel i · √c + j."""
        image = torch.zeros(x.shape[1] * x.shape[2], side, side, dtype=x.dtype)
        for channel in range(len(x)):
            image[:, channel // side, channel % side] = x[channel].reshape(-1)
        return image

    images = map(as_image, (*maps, one_by_one(part.w_gamma, x_hd)))
    attended = attend(*images, part.affinity.sampler.predict)
    channels = [attended[:, c // side, c % side].reshape(downsampled, downsampled) for c in range(len(x_l))]
    return enlarged(torch.stack(channels), *x_l.shape[1:], aligned=False)


def shaken(part: nn.Module) -> Any:
    """In float64, with offsets and modulations that are not those of initialisation."""
    for module in part.modules():
        if isinstance(module, DynamicSampler):
            nn.init.normal_(module.predict.weight, std=0.3)
            nn.init.normal_(module.predict.bias, std=1.0)
    return part.double()


@pytest.mark.parametrize(("points", "sizes"), [(9, ((6, 7), (3, 4))), (25, ((5, 3), (1, 1))), (1, ((4, 6), (4, 6)))])
def test_spatial_affinity_is_equation_2(points: int, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    part = shaken(SpatialAffinity(4, points))
    x_l, x_h = (rand(2, 4, *size) for size in sizes)
    out = part(x_l, x_h)
    for b in range(2):
        assert_close(out[b], eq2(part, x_l[b], x_h[b]))


@pytest.mark.parametrize(("points", "sizes"), [(9, ((9, 11), (4, 5))), (25, ((3, 2), (1, 1)))])
def test_channel_affinity_is_equation_3(points: int, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    part = shaken(ChannelAffinity(16, points, pooled=3, downsampled=5))
    x_l, x_h = (rand(2, 16, *size) for size in sizes)
    out = part(x_l, x_h)
    for b in range(2):
        assert_close(out[b], eq3(part, x_l[b], x_h[b], 3, 5))


@pytest.mark.parametrize("affinity", ["both", "spatial", "channel"])
def test_module_is_fine_plus_both(affinity: str) -> None:
    part = shaken(DDSM(6, 5, pixels=9, affinity=affinity, reduced=4))
    fine, coarse = rand(1, 6, 5, 6), rand(1, 5, 3, 3)
    x_l, x_h = (one_by_one(conv, x[0]) for conv, x in ((part.reduce_fine, fine), (part.reduce_coarse, coarse)))
    total = torch.zeros_like(x_l)
    if affinity != "channel":
        total += eq2(part.spatial, x_l, x_h)
    if affinity != "spatial":
        total += eq3(part.channel, x_l, x_h, 8, 16)
    assert_close(part(fine, coarse)[0], fine[0] + one_by_one(part.expand, total))


def test_coordinates_of_a_bfloat16_model_are_float32() -> None:
    """In bfloat16, the columns from 256 on would be told apart in steps of two pixels."""
    sampler = DynamicSampler(3, 9).bfloat16()
    grid, _ = sampler(torch.randn(1, 3, 2, 600, dtype=torch.bfloat16))
    columns = (grid[0, 4, 0, :, 0] + 1) * 300 - 0.5
    torch.testing.assert_close(columns, torch.arange(600.0), atol=1e-3, rtol=0)
