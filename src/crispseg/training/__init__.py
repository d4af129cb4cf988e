"""Training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from crispseg.training.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from crispseg.training.fit import train
    from crispseg.training.folds import train_folds
    from crispseg.training.result import Run

__all__ = ["ModelConfig", "Run", "TrainConfig", "train", "train_folds"]

_HOMES = {"Run": "result", "train": "fit", "train_folds": "folds"}


def __getattr__(name: str) -> Any:
    """Import Lightning only when training begins, so that reading settings stays fast."""
    if name in _HOMES:
        return globals().setdefault(name, getattr(import_module(f"crispseg.training.{_HOMES[name]}"), name))
    raise AttributeError(f"module 'crispseg.training' has no attribute '{name}'")
