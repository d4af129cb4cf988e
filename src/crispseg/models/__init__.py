"""Models: one file per paper."""

from crispseg.models.agln import agln, agln_lite
from crispseg.models.base import Outputs, SegmentationModel, create_model
from crispseg.models.crisp import crisp, crisp_l, crisp_s
from crispseg.models.ddsm import DDSM, ddsm_deeplabv3plus, ddsm_upernet
from crispseg.models.deeplabv3plus import deeplabv3plus
from crispseg.models.fcn import fcn
from crispseg.models.fpn import fpn
from crispseg.models.info import ModelInfo
from crispseg.models.registry import list_models, models
from crispseg.models.sfnet import FlowAlignment, sfnet, warp
from crispseg.models.sfnet_lite import GatedDualFlowAlignment, sfnet_lite
from crispseg.models.unept import EPT, unept
from crispseg.models.upernet import upernet

__all__ = [
    "DDSM",
    "EPT",
    "FlowAlignment",
    "GatedDualFlowAlignment",
    "ModelInfo",
    "Outputs",
    "SegmentationModel",
    "agln",
    "agln_lite",
    "create_model",
    "crisp",
    "crisp_l",
    "crisp_s",
    "ddsm_deeplabv3plus",
    "ddsm_upernet",
    "deeplabv3plus",
    "fcn",
    "fpn",
    "list_models",
    "models",
    "sfnet",
    "sfnet_lite",
    "unept",
    "upernet",
    "warp",
]
