"""Training."""

from crispseg.training.config import ModelConfig, TrainConfig
from crispseg.training.run import Run, train

__all__ = ["ModelConfig", "Run", "TrainConfig", "train"]
