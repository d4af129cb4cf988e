"""SFNet and SFNet-Lite as their official release computes them: functions on a checkpoint's tensors alone, under the
release's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RESNET_BLOCKS = {"resnet18_deep": (2, 2, 2, 2), "resnet50_deep": (3, 4, 6, 3), "resnet101_deep": (3, 4, 23, 3)}
DF_STAGES = {  # name, channels, blocks, stride
    "df1": [("stage2", 64, 3, 2), ("stage3", 128, 3, 2), ("stage4", 256, 3, 2), ("stage5", 512, 1, 1)],
    "df2": [
        ("stage2_1", 64, 2, 2),
        ("stage2_2", 128, 1, 1),
        ("stage3_1", 128, 10, 2),
        ("stage3_2", 256, 1, 1),
        ("stage4_1", 256, 4, 2),
        ("stage4_2", 512, 2, 1),
    ],
}
TAKEN = {"df1": ("stage3", "stage4", "stage5"), "df2": ("stage2_2", "stage3_2", "stage4_2")}
STDC_MODULES = {"stdc1": (2, 2, 2), "stdc2": (4, 5, 3)}
WIDTH = {"resnet18_deep": 128, "resnet50_deep": 256, "resnet101_deep": 256}
WIDTH_LITE = 128


class Released:
    """One network of the release.

    Args:
        backbone: crispseg's name of it.
        state: tensors under the release's names; by default random ones, batch-norm statistics too.
        gate: of SFNet-Lite, pooled or features; SFNet has none.
    """

    def __init__(
        self, backbone: str, state: dict[str, Tensor] | None = None, *, num_classes: int = 19, gate: str | None = None
    ) -> None:
        self.backbone = backbone
        self.gate = gate
        self.width = WIDTH.get(backbone, 64) if gate is None else WIDTH_LITE
        self.num_classes = num_classes
        self.state = {} if state is None else state
        self.missing = state is None
        if state is None:
            self.logits(torch.zeros(1, 3, 64, 64))
            self.missing = False

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        features = self.features(images)
        out = self.head(features) if self.gate is None else self.lite_head(features)
        return F.interpolate(out, images.shape[-2:], mode="bilinear", align_corners=True)

    def features(self, images: Tensor) -> list[Tensor]:
        if self.backbone in STDC_MODULES:
            return self.stdc(images, "backbone.")
        return self.df(images, "backbone.") if self.backbone in DF_STAGES else self.resnet(images)

    @torch.no_grad()
    def stdc(self, x: Tensor, prefix: str = "") -> list[Tensor]:
        x = self.convx(f"{prefix}features.0", x, 32, 3, stride=2)
        x = self.convx(f"{prefix}features.1", x, 64, 3, stride=2)
        features, place = [x], 2
        for modules, channels in zip(STDC_MODULES[self.backbone], (256, 512, 1024), strict=True):
            for index in range(modules):
                x = self.concatenated(f"{prefix}features.{place}", x, channels, halved=index == 0)
                place += 1
            features.append(x)
        return features

    def concatenated(self, key: str, x: Tensor, channels: int, *, halved: bool) -> Tensor:
        first = self.convx(f"{key}.conv_list.0", x, channels // 2, 1)
        x = first
        if halved:
            x = self.norm(f"{key}.avd_layer.1", self.conv(f"{key}.avd_layer.0", x, channels // 2, 3, 2, groups=True))
            first = F.avg_pool2d(first, 3, stride=2, padding=1)
        second = self.convx(f"{key}.conv_list.1", x, channels // 4, 3)
        third = self.convx(f"{key}.conv_list.2", second, channels // 8, 3)
        return torch.cat([first, second, third, self.convx(f"{key}.conv_list.3", third, channels // 8, 3)], 1)

    def convx(self, key: str, x: Tensor, channels: int, size: int, stride: int = 1) -> Tensor:
        return F.relu(self.norm(f"{key}.bn", self.conv(f"{key}.conv", x, channels, size, stride)))

    @torch.no_grad()
    def df(self, x: Tensor, prefix: str = "") -> list[Tensor]:
        x = F.relu(self.norm(f"{prefix}stage1.1", self.conv(f"{prefix}stage1.0", x, 32, 3, stride=2)))
        x = F.relu(self.norm(f"{prefix}stage1.4", self.conv(f"{prefix}stage1.3", x, 64, 3, stride=2)))
        features = []
        for name, channels, blocks, stride in DF_STAGES[self.backbone]:
            for index in range(blocks):
                x = self.basic(f"{prefix}{name}.{index}", x, channels, 1 if index else stride)
            if name in TAKEN[self.backbone]:
                features.append(x)
        return features

    def resnet(self, x: Tensor) -> list[Tensor]:
        x = F.relu(self.norm("layer0.0.1", self.conv("layer0.0.0", x, 64, 3, stride=2)))
        x = F.relu(self.norm("layer0.0.4", self.conv("layer0.0.3", x, 64, 3)))
        x = F.relu(self.norm("layer0.1", self.conv("layer0.0.6", x, 128, 3)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        block = self.basic if self.backbone == "resnet18_deep" else self.bottleneck
        features = []
        for layer, blocks in enumerate(RESNET_BLOCKS[self.backbone], start=1):
            for index in range(blocks):
                stride = 2 if layer > 1 and index == 0 else 1
                x = block(f"layer{layer}.{index}", x, 32 * 2**layer, stride, {3: 2, 4: 4}.get(layer, 1))
            features.append(x)
        return features

    def ppm(self, deepest: Tensor) -> Tensor:
        width, pooled = self.width, []
        for index, bins in enumerate((1, 2, 3, 6)):
            stage = self.conv(f"head.ppm.stages.{index}.1", F.adaptive_avg_pool2d(deepest, bins), width, 1)
            pooled.append(self.enlarge(self.norm(f"head.ppm.stages.{index}.2", stage), deepest))
        joined = self.conv("head.ppm.bottleneck.0", torch.cat([*pooled, deepest], 1), width, 1)
        return F.relu(self.norm("head.ppm.bottleneck.1", joined))

    def head(self, features: list[Tensor]) -> Tensor:
        width, level = self.width, self.ppm(features[-1])
        outs = [level]
        for index in reversed(range(len(features) - 1)):
            fine = self.lateral(index, features[index])
            level = fine + self.align(f"head.fpn_out_align.{index}", fine, level)
            out = self.conv(f"head.fpn_out.{index}.0.0", level, width, 3)
            outs.insert(0, F.relu(self.norm(f"head.fpn_out.{index}.0.1", out)))
        return self.classified([self.enlarge(out, outs[0]) for out in outs])

    def lite_head(self, features: list[Tensor]) -> Tensor:
        c2, _, c4, c5 = features
        if self.missing and self.backbone == "resnet18_deep":
            self.lateral(2, c5)  # it is in the file, though its output goes nowhere
        aligned = self.gated(self.lateral(0, c2), self.ppm(c5))
        return self.classified([aligned, self.enlarge(self.lateral(1, c4), aligned)])

    def lateral(self, index: int, feature: Tensor) -> Tensor:
        x = self.conv(f"head.fpn_in.{index}.0", feature, self.width, 1, bias=True)
        return F.relu(self.norm(f"head.fpn_in.{index}.1", x))

    def classified(self, levels: list[Tensor]) -> Tensor:
        merged = self.conv("head.conv_last.0.0", torch.cat(levels, 1), self.width, 3)
        merged = F.relu(self.norm("head.conv_last.0.1", merged))
        return self.conv("head.conv_last.1", merged, self.num_classes, 1, bias=True)

    def gated(self, fine: Tensor, coarse: Tensor) -> Tensor:
        key, half = "head.flow_align_module", fine.shape[1] // 2
        above = self.enlarge(self.conv(f"{key}.down_h", coarse, half, 1), fine)
        both = torch.cat([above, self.conv(f"{key}.down_l", fine, half, 1)], 1)
        flow = self.conv(f"{key}.flow_make", both, 4, 3)
        if self.gate == "pooled":
            both = torch.stack([above.mean(1), fine.mean(1), above.max(1)[0], fine.max(1)[0]], 1)
        gate = self.conv(f"{key}.flow_gate.0", both, 1, 3).sigmoid()
        return self.warped(coarse, flow[:, :2]) * gate + self.warped(fine, flow[:, 2:]) * (1 - gate)

    def align(self, key: str, fine: Tensor, coarse: Tensor) -> Tensor:
        half = fine.shape[1] // 2
        above = self.enlarge(self.conv(f"{key}.down_h", coarse, half, 1), fine)
        both = torch.cat([above, self.conv(f"{key}.down_l", fine, half, 1)], 1)
        return self.warped(coarse, self.conv(f"{key}.flow_make", both, 2, 3))

    @staticmethod
    def warped(level: Tensor, flow: Tensor) -> Tensor:
        height, width = flow.shape[-2:]
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        moved = torch.stack([x, y], -1) + flow.permute(0, 2, 3, 1) / torch.tensor([width, height])
        return F.grid_sample(level, moved, align_corners=True)

    def basic(self, key: str, x: Tensor, channels: int, stride: int, dilation: int = 1) -> Tensor:
        out = F.relu(self.norm(f"{key}.bn1", self.conv(f"{key}.conv1", x, channels, 3, stride)))
        out = self.norm(f"{key}.bn2", self.conv(f"{key}.conv2", out, channels, 3, 1, dilation))
        return F.relu(out + self.shortcut(key, x, channels, stride))

    def bottleneck(self, key: str, x: Tensor, channels: int, stride: int, dilation: int = 1) -> Tensor:
        out = F.relu(self.norm(f"{key}.bn1", self.conv(f"{key}.conv1", x, channels, 1)))
        out = F.relu(self.norm(f"{key}.bn2", self.conv(f"{key}.conv2", out, channels, 3, stride, dilation)))
        out = self.norm(f"{key}.bn3", self.conv(f"{key}.conv3", out, 4 * channels, 1))
        return F.relu(out + self.shortcut(key, x, 4 * channels, stride))

    def shortcut(self, key: str, x: Tensor, channels: int, stride: int) -> Tensor:
        if stride == 1 and x.shape[1] == channels:
            return x
        return self.norm(f"{key}.downsample.1", self.conv(f"{key}.downsample.0", x, channels, 1, stride))

    def conv(
        self,
        key: str,
        x: Tensor,
        channels: int,
        size: int,
        stride: int = 1,
        dilation: int = 1,
        *,
        bias: bool = False,
        groups: bool = False,
    ) -> Tensor:
        seen = 1 if groups else x.shape[1]
        if self.missing:
            fan_in = seen * size * size
            self.state[f"{key}.weight"] = torch.randn(channels, seen, size, size) * (2 / fan_in) ** 0.5
            if bias:
                self.state[f"{key}.bias"] = torch.randn(channels)
        weight = self.state[f"{key}.weight"]
        assert weight.shape == (channels, seen, size, size), key
        padding = dilation * (size // 2)
        given = self.state[f"{key}.bias"] if bias else None
        return F.conv2d(x, weight, given, stride, padding, dilation, x.shape[1] // seen)

    def norm(self, key: str, x: Tensor) -> Tensor:
        names = ("running_mean", "running_var", "weight", "bias")
        if self.missing:
            channels = x.shape[1]
            for name, scale, shift in zip(names, (0.2, 1.0, 0.5, 0.2), (-0.1, 0.5, 0.4, -0.1), strict=True):
                self.state[f"{key}.{name}"] = scale * torch.rand(channels) + shift
            self.state[f"{key}.num_batches_tracked"] = torch.tensor(7)
        return F.batch_norm(x, *(self.state[f"{key}.{name}"] for name in names))

    @staticmethod
    def enlarge(x: Tensor, like: Tensor) -> Tensor:
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=True)
