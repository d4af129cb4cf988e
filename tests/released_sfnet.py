"""SFNet as its official release computes it: functions on a checkpoint's tensors alone, under the release's names."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

RESNET_BLOCKS = {
    "resnet18_deep": (2, 2, 2, 2),
    "resnet50_deep": (3, 4, 6, 3),
    "resnet101_deep": (3, 4, 23, 3),
}
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
WIDTH = {"resnet18_deep": 128, "resnet50_deep": 256, "resnet101_deep": 256, "df1": 64, "df2": 64}


class Released:
    """One network of the release.

    Args:
        backbone: crispseg's name of it.
        state: tensors under the release's names; by default random ones, batch-norm statistics too.
    """

    def __init__(self, backbone: str, state: dict[str, Tensor] | None = None, *, num_classes: int = 19) -> None:
        self.backbone = backbone
        self.num_classes = num_classes
        self.state = {} if state is None else state
        self.missing = state is None
        if state is None:
            self.logits(torch.zeros(1, 3, 64, 64))
            self.missing = False

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        out = self.head(self.df(images, "backbone.") if self.backbone in DF_STAGES else self.resnet(images))
        return F.interpolate(out, images.shape[-2:], mode="bilinear", align_corners=True)

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

    def head(self, features: list[Tensor]) -> Tensor:
        width, deepest = WIDTH[self.backbone], features[-1]
        pooled = []
        for index, bins in enumerate((1, 2, 3, 6)):
            stage = self.conv(f"head.ppm.stages.{index}.1", F.adaptive_avg_pool2d(deepest, bins), width, 1)
            pooled.append(self.enlarge(self.norm(f"head.ppm.stages.{index}.2", stage), deepest))
        joined = self.conv("head.ppm.bottleneck.0", torch.cat([*pooled, deepest], 1), width, 1)
        level = F.relu(self.norm("head.ppm.bottleneck.1", joined))
        outs = [level]
        for index in reversed(range(len(features) - 1)):
            fine = self.conv(f"head.fpn_in.{index}.0", features[index], width, 1, bias=True)
            fine = F.relu(self.norm(f"head.fpn_in.{index}.1", fine))
            level = fine + self.align(f"head.fpn_out_align.{index}", fine, level)
            out = self.conv(f"head.fpn_out.{index}.0.0", level, width, 3)
            outs.insert(0, F.relu(self.norm(f"head.fpn_out.{index}.0.1", out)))
        merged = torch.cat([self.enlarge(out, outs[0]) for out in outs], 1)
        merged = F.relu(self.norm("head.conv_last.0.1", self.conv("head.conv_last.0.0", merged, width, 3)))
        return self.conv("head.conv_last.1", merged, self.num_classes, 1, bias=True)

    def align(self, key: str, fine: Tensor, coarse: Tensor) -> Tensor:
        half, (height, width) = fine.shape[1] // 2, fine.shape[-2:]
        above = self.enlarge(self.conv(f"{key}.down_h", coarse, half, 1), fine)
        both = torch.cat([above, self.conv(f"{key}.down_l", fine, half, 1)], 1)
        flow = self.conv(f"{key}.flow_make", both, 2, 3).permute(0, 2, 3, 1) / torch.tensor([width, height])
        y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
        return F.grid_sample(coarse, torch.stack([x, y], -1) + flow, align_corners=True)

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
        self, key: str, x: Tensor, channels: int, size: int, stride: int = 1, dilation: int = 1, *, bias: bool = False
    ) -> Tensor:
        if self.missing:
            fan_in = x.shape[1] * size * size
            self.state[f"{key}.weight"] = torch.randn(channels, x.shape[1], size, size) * (2 / fan_in) ** 0.5
            if bias:
                self.state[f"{key}.bias"] = torch.randn(channels)
        weight = self.state[f"{key}.weight"]
        assert weight.shape == (channels, x.shape[1], size, size), key
        padding = dilation * (size // 2)
        return F.conv2d(x, weight, self.state[f"{key}.bias"] if bias else None, stride, padding, dilation)

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
