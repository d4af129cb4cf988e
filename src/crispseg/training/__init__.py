"""Training."""

from crispseg.training.config import ModelConfig, TrainConfig
from crispseg.training.folds import train_folds
from crispseg.training.run import Run, train

__all__ = ["ModelConfig", "Run", "TrainConfig", "train", "train_folds"]
