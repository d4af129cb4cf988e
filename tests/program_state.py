"""State of the whole program, which belongs to whoever imports crispseg."""

import logging
import os
import random
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
import torch


def program_state() -> dict[str, Any]:
    """Generators, threads, environment, loggers, warning filters, signal handlers and other settings, by name."""
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    return {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "threads of torch": torch.get_num_threads(),
        "threads of OpenCV": cv2.getNumThreads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "loggers": {
            logger.name: (logger.level, logger.disabled, logger.propagate, *logger.handlers)
            for logger in loggers
            if isinstance(logger, logging.Logger) and logger.name != "torch.__trace"  # its handler removes itself
        },
        "warnings": (*warnings.filters, warnings.showwarning),
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "folder": Path.cwd(),
        "hooks": (sys.excepthook, threading.excepthook),
        "streams": (sys.stdout, sys.stderr),
        "Matplotlib": dict.copy(matplotlib.rcParams),  # with its backend
    }


def changed(before: dict[str, Any]) -> list[str]:
    """Names of what has changed; loggers that libraries have made meanwhile do not count."""
    after = program_state()
    after["loggers"] = {name: after["loggers"].get(name) for name in before["loggers"]}
    return [name for name in before if before[name] != after[name]]
