"""Fuse parts from papers about upsampling, one file per paper, and one of our own; `add` and `fam` are elsewhere."""

from crispseg.decoders.upsamplers.carafe import CARAFE
from crispseg.decoders.upsamplers.dysample import DySample
from crispseg.decoders.upsamplers.fade import FADELite
from crispseg.decoders.upsamplers.sapa import SAPA
from crispseg.decoders.upsamplers.sharp_flow import SharpFlow

__all__ = ["CARAFE", "SAPA", "DySample", "FADELite", "SharpFlow"]
