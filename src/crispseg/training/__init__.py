"""Training."""

from crispseg.training.config import ModelConfig, TrainConfig
from crispseg.training.folds import train_folds
from crispseg.training.result import Run
from crispseg.training.run import train

__all__ = ["ModelConfig", "Run", "TrainConfig", "train", "train_folds"]
