"""FAM and DDSM in the decoder of an FPN of segmentation-models-pytorch, trained for one step.

python examples/smp_fpn.py
"""

import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import crispseg

CLASSES = 5


class FusedBlock(nn.Module):
    """Stands for an FPNBlock: a fuse part of crispseg instead of its "interpolate and add"."""

    def __init__(self, block: nn.Module, fuse: str) -> None:
        super().__init__()
        self.skip_conv = block.skip_conv
        channels = block.skip_conv.out_channels  # the pyramid's, of both levels
        self.fuse = crispseg.fuses[fuse](channels, channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.fuse(self.skip_conv(skip), x)  # fine, coarse


def fpn(fuse: str | None = None) -> nn.Module:
    """smp's FPN, as it is or with a fuse part in its three blocks."""
    model = smp.FPN("resnet18", encoder_weights=None, decoder_pyramid_channels=64, classes=CLASSES)
    if fuse is not None:
        for name in ("p4", "p3", "p2"):
            setattr(model.decoder, name, FusedBlock(getattr(model.decoder, name), fuse))
    return model


def main() -> None:
    """For each part: a training step, and what its finest block computes afterwards."""
    torch.manual_seed(0)
    images, labels = torch.randn(2, 3, 64, 96), torch.randint(CLASSES, (2, 64, 96))
    for fuse, tap, unit in (("fam", "flow", "half pixels"), ("ddsm", "spatial.affinity.sampler.offset", "pixels")):
        model = fpn(fuse)
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        torch.optim.SGD(model.parameters(), lr=0.01).step()
        with torch.no_grad(), crispseg.record(model.eval()) as seen:
            logits = model(images)
        name = f"decoder.p2.fuse.{tap}"
        print(f"{fuse}: loss {loss:.2f}, logits {tuple(logits.shape)}")
        print(f"  {name} {tuple(seen[name].shape)}, up to {seen[name].abs().max():.4f} {unit}")


if __name__ == "__main__":
    main()
