"""Building blocks shared by all decoders."""

from crispseg.nn.inside import keep_inside
from crispseg.nn.layers import (
    BatchNorm2d,
    average_bins,
    ceil_div,
    channel_softmax,
    conv_bn_relu,
    mix_channels,
    pad_to_multiple,
    projection,
    resize,
    resize_to_images,
    same_layout,
    upcast,
)
from crispseg.nn.record import Tap, alter, record
from crispseg.nn.sampling import DeformableAttention, deformable_attention, pixel_centres, sampled_dot, sampled_sum

__all__ = [
    "BatchNorm2d",
    "DeformableAttention",
    "Tap",
    "alter",
    "average_bins",
    "ceil_div",
    "channel_softmax",
    "conv_bn_relu",
    "deformable_attention",
    "keep_inside",
    "mix_channels",
    "pad_to_multiple",
    "pixel_centres",
    "projection",
    "record",
    "resize",
    "resize_to_images",
    "same_layout",
    "sampled_dot",
    "sampled_sum",
    "upcast",
]
