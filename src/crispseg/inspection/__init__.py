"""Seeing how a model carries meaning to a pixel, and what it would do without."""

from crispseg.inspection.ablation import ABLATIONS, Ablation, ablate, ablations_of

__all__ = ["ABLATIONS", "Ablation", "ablate", "ablations_of"]
