"""Inspection of a model: its intermediate values for an image, and ablation of single quantities."""

from crispseg.inspection.ablation import ABLATIONS, Ablation, ablate, ablations_of
from crispseg.inspection.activations import Inspection, inspect_image

__all__ = ["ABLATIONS", "Ablation", "Inspection", "ablate", "ablations_of", "inspect_image"]
