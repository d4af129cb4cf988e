"""Evaluation: scores and where they come from."""

from crispseg.evaluation.scores import Scores, SegmentationScores

__all__ = ["Scores", "SegmentationScores"]
