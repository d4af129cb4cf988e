"""crispseg is a guest in the program that imports it, and leaves the whole program's state as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from training_runs import DRAWN, quietly, tiny

import crispseg
from crispseg import CrispsegError
from crispseg.cli.main import main
from crispseg.training import Run


def host_state() -> dict[str, Any]:
    """Generators, threads, environment, loggers, warning filters, signal handlers and other settings, by name."""
    loggers = [logging.root, *(each for each in logging.root.manager.loggerDict.values())]
    loggers = [logger for logger in loggers if isinstance(logger, logging.Logger)]
    matplotlib = sys.modules.get("matplotlib")
    return {
        "random": random.getstate(),
        "numpy": str(np.random.get_state()),  # noqa: NPY002
        "torch": torch.get_rng_state().tolist(),
        "threads of torch": torch.get_num_threads(),
        "threads of OpenCV": cv2.getNumThreads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gradients": torch.is_grad_enabled(),
        "environment": {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"},
        "loggers": {
            logger.name: (logger.level, logger.disabled, logger.propagate, *logger.handlers) for logger in loggers
        },
        "warnings": [*warnings.filters],
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "folder": Path.cwd(),
        "hooks": (sys.excepthook, threading.excepthook),
        "backend of Matplotlib": matplotlib.rcParams._get("backend") if matplotlib else None,
    }


def changed(before: dict[str, Any]) -> list[str]:
    """Names of what has changed; loggers that libraries have made meanwhile do not count."""
    after = host_state()
    after["loggers"] = {name: after["loggers"].get(name) for name in before["loggers"]}
    return [name for name in before if before[name] != after[name]]


def test_the_state_of_the_program_stays(tiny_run: Run, tmp_path: Path) -> None:
    image = DRAWN.dataset("val")[0].image
    file = tmp_path / "image.png"
    crispseg.io.images.write_image(file, image)
    run = str(tiny_run.folder)
    segmenter = crispseg.Segmenter(run)
    settings: dict[str, Any] = {"epochs": 1, "deterministic": True}
    calls: dict[str, Callable[[], Any]] = {
        "train": lambda: quietly(tiny(tmp_path / "run", workers=1, **settings)),
        "train fails": lambda: quietly(tiny(tmp_path / "failed", lr=1e30, schedule="constant")),
        "train finds a folder": lambda: quietly(tiny(tmp_path / "run")),
        "evaluate": lambda: tiny_run.evaluate(),
        "evaluate fails": lambda: tiny_run.evaluate("none"),
        "predict": lambda: crispseg.predict(run, file, out=tmp_path / "out"),
        "predict fails": lambda: crispseg.predict(run, tmp_path / "none.png", out=tmp_path / "none"),
        "Segmenter": lambda: crispseg.Segmenter(run),
        "a call": lambda: segmenter([image, file]),
        "a call fails": lambda: segmenter(tmp_path / "none.png"),
        "load": lambda: crispseg.load(run),
        "from_pretrained": lambda: crispseg.from_pretrained(run),
        "command predict": lambda: main(["predict", run, str(file), "--out", str(tmp_path / "command")]),
        "command inspect": lambda: main(["inspect", run, str(file), "--out", str(tmp_path / "inspected")]),
        "command fails": lambda: main(["evaluate", str(tmp_path / "none")]),
    }
    cv2.setNumThreads(2)
    for name, call in calls.items():
        before = host_state()
        try:
            call()
            assert "fail" not in name or "command" in name, name
        except CrispsegError:
            assert "f" in name, name
        assert not changed(before), name
