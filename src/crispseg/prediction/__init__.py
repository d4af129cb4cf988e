"""Prediction of image files: settings, plan of the result files, and one writer for each output."""

from crispseg.prediction.files import predict_files
from crispseg.prediction.outputs import OUTPUTS, Output
from crispseg.prediction.predictions import Predictions

__all__ = ["OUTPUTS", "Output", "Predictions", "predict_files"]
