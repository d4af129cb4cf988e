"""Inference with a trained model."""

from crispseg.inference.acceleration import fold_batch_norms
from crispseg.inference.protocols import PROTOCOLS, Protocol
from crispseg.inference.segmentation import Segmentation
from crispseg.inference.segmenter import Segmenter

__all__ = ["PROTOCOLS", "Protocol", "Segmentation", "Segmenter", "fold_batch_norms"]
