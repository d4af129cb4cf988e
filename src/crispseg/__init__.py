"""crispseg: semantic segmentation with crisp boundaries, on any timm backbone."""

from pathlib import Path

from crispseg.decoders import contexts, fuses, merges
from crispseg.errors import CrispsegError
from crispseg.inference import Segmentation, Segmenter
from crispseg.models import SegmentationModel, create_model, list_models
from crispseg.nn import alter, record

__version__ = "0.1.0.dev0"

__all__ = [
    "CrispsegError",
    "Segmentation",
    "SegmentationModel",
    "Segmenter",
    "alter",
    "contexts",
    "create_model",
    "from_pretrained",
    "fuses",
    "list_models",
    "merges",
    "record",
]


def from_pretrained(folder_or_hub_id: str | Path) -> SegmentationModel:
    """Load a saved model, in eval mode, from its folder, a finished run's folder or the Hugging Face hub.

    Raises:
        CrispsegError: it is not there, damaged, of a later format, or its weights do not fit.
    """
    return SegmentationModel.from_pretrained(folder_or_hub_id)
