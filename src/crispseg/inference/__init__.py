"""Using a trained model."""

from crispseg.inference.folding import fold_batch_norms
from crispseg.inference.protocols import PROTOCOLS, Protocol
from crispseg.inference.refiner import Refiner
from crispseg.inference.segmentation import Segmentation
from crispseg.inference.segmenter import Segmenter

__all__ = ["PROTOCOLS", "Protocol", "Refiner", "Segmentation", "Segmenter", "fold_batch_norms"]
