"""Backbones: any timm network with a feature pyramid, and the papers' backbones that timm lacks."""

from crispseg.backbones.pyramid import NAMED_BACKBONES, PYRAMID_STRIDES, Backbone
from crispseg.backbones.timm_networks import DEEP_RESNETS, plain_strides
from crispseg.backbones.weights import read_state_dict, write_state_dict

__all__ = [
    "DEEP_RESNETS",
    "NAMED_BACKBONES",
    "PYRAMID_STRIDES",
    "Backbone",
    "plain_strides",
    "read_state_dict",
    "write_state_dict",
]
