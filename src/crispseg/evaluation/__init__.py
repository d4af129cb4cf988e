"""Evaluation: scores, their intervals and reports."""

from crispseg.evaluation.boundary import BoundaryF, BoundaryIoU, BoundaryIoUScores, BoundaryScores
from crispseg.evaluation.evaluate import evaluate
from crispseg.evaluation.object_scores import ObjectQuality, ObjectScores
from crispseg.evaluation.scores import Counts, Scores, SegmentationScores
from crispseg.evaluation.thin import ThinQuality, ThinScores

__all__ = [
    "BoundaryF",
    "BoundaryIoU",
    "BoundaryIoUScores",
    "BoundaryScores",
    "Counts",
    "ObjectQuality",
    "ObjectScores",
    "Scores",
    "SegmentationScores",
    "ThinQuality",
    "ThinScores",
    "evaluate",
]
