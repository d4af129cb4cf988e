"""Backbones: any timm network with a feature pyramid, and the papers' backbones that timm lacks."""

from crispseg.backbones.pyramid import Backbone
from crispseg.backbones.timm_networks import plain_strides
from crispseg.backbones.weights import read_state_dict, write_state_dict

__all__ = ["Backbone", "plain_strides", "read_state_dict", "write_state_dict"]
