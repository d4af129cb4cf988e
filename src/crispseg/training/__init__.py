"""Training."""

from typing import TYPE_CHECKING, Any

from crispseg.training.config import ModelConfig, TrainConfig

if TYPE_CHECKING:
    from crispseg.training.run import Run, train

__all__ = ["ModelConfig", "Run", "TrainConfig", "train"]


def __getattr__(name: str) -> Any:
    """Import Lightning when training begins, and not where settings are read alone."""
    if name in __all__:
        from crispseg.training import run

        return globals().setdefault(name, getattr(run, name))
    raise AttributeError(f"module 'crispseg.training' has no attribute '{name}'")
