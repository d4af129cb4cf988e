"""Seeing inside: what a model computes on the way from an image to its labels, and what it would do without."""

from crispseg.inspection.ablation import ABLATIONS, Ablation, ablate, ablations_of
from crispseg.inspection.activations import Inspection, inspect_image

__all__ = ["ABLATIONS", "Ablation", "Inspection", "ablate", "ablations_of", "inspect_image"]
