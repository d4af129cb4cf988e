"""ShuffleNet v2: Ma et al., *ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design*, ECCV 2018.

The network and its weights are torchvision's.
"""

from __future__ import annotations

from collections.abc import Sequence

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torchvision.models import ShuffleNet_V2_X1_0_Weights, shufflenet_v2_x1_0

from crispseg.backbones.timm_networks import Pyramid, Stage, cannot_dilate, pyramid_of_stages
from crispseg.backbones.weights import REMEDY, load_weights
from crispseg.errors import CrispsegError

SHUFFLENET = "shufflenetv2_x1_0"


def build_shufflenet(name: str, published: bool, in_chans: int, strides: Sequence[int], output_stride: int) -> Pyramid:
    """Build ShuffleNet v2 1.0×, with torchvision's published weights if asked.

    The deepest feature of stride 32 is that of the last 1×1 convolution, 1024 channels.

    Raises:
        CrispsegError: the weights cannot be got; dilation, or features that it does not have, are asked for.
    """
    if output_stride < 32:
        raise cannot_dilate(name, output_stride)
    net = shufflenet_v2_x1_0(weights=None)
    if in_chans != 3:
        net.conv1[0] = nn.Conv2d(in_chans, 24, 3, stride=2, padding=1, bias=False)
    stages = {
        "conv1": Stage(net.conv1, 24, 2),
        "maxpool": Stage(net.maxpool, 24, 4),
        "stage2": Stage(net.stage2, 116, 8),
        "stage3": Stage(net.stage3, 232, 16),
        "stage4": Stage(net.stage4, 464, 32),
        "conv5": Stage(net.conv5, 1024, 32),
    }
    network = pyramid_of_stages(name, stages, strides, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    if published:
        try:
            weights = ShuffleNet_V2_X1_0_Weights.IMAGENET1K_V1.get_state_dict(
                progress=False, check_hash=True, weights_only=True
            )
        except Exception as error:  # the network, the disk and PyTorch's reader raise many types here
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise CrispsegError(
                f"cannot get torchvision's weights for backbone '{name}' ({reason}); {REMEDY}"
            ) from error
        load_weights(network.body, weights, name, "torchvision's weight file")
    return network
