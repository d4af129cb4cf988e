"""Training."""

from crispseg.training.config import ModelConfig, TrainConfig
from crispseg.training.result import Run
from crispseg.training.run import train

__all__ = ["ModelConfig", "Run", "TrainConfig", "train"]
