"""crispseg: semantic segmentation with crisp boundaries, on any timm backbone."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crispseg.errors import CrispsegError
from crispseg.io.host import imports_unnoticed

if TYPE_CHECKING:
    from crispseg.annotation import Project
    from crispseg.api import evaluate, load, predict, train
    from crispseg.decoders import contexts, fuses, merges
    from crispseg.inference import Segmentation, Segmenter
    from crispseg.models import SegmentationModel, create_model, list_models
    from crispseg.nn import alter, record

__version__ = "0.1.0"

__all__ = [
    "CrispsegError",
    "Project",
    "Segmentation",
    "SegmentationModel",
    "Segmenter",
    "alter",
    "contexts",
    "create_model",
    "evaluate",
    "from_pretrained",
    "fuses",
    "list_models",
    "load",
    "merges",
    "predict",
    "record",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import PyTorch only when it is needed, so that help appears at once."""
    with imports_unnoticed():
        if name in __all__:
            for home in ("models", "decoders", "inference", "nn", "api", "annotation"):  # models register parts first
                module = importlib.import_module(f"crispseg.{home}")
                if hasattr(module, name):
                    return globals().setdefault(name, getattr(module, name))
        if not name.startswith("_") and importlib.util.find_spec(f"crispseg.{name}"):
            return importlib.import_module(f"crispseg.{name}")
    raise AttributeError(f"module 'crispseg' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def from_pretrained(folder_or_hub_id: str | Path) -> SegmentationModel:
    """Load a saved model, in eval mode: a folder, a finished run's folder, a name such as "nuclei", or a hub id.

    It raises a `CrispsegError` if the model is missing, damaged or of a later format.
    """
    from crispseg.models import SegmentationModel

    return SegmentationModel.from_pretrained(folder_or_hub_id)
