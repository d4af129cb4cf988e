"""Evaluation: scores and where they come from."""

from crispseg.evaluation.boundary import BoundaryF, BoundaryScores
from crispseg.evaluation.scores import Scores, SegmentationScores

__all__ = ["BoundaryF", "BoundaryScores", "Scores", "SegmentationScores"]
