"""Using a trained model."""

from crispseg.inference.acceleration import fold_batch_norms
from crispseg.inference.protocols import PROTOCOLS, Protocol
from crispseg.inference.refiner import Refiner
from crispseg.inference.segmenter import Segmentation, Segmenter

__all__ = ["PROTOCOLS", "Protocol", "Refiner", "Segmentation", "Segmenter", "fold_batch_norms"]
