"""State of the whole program, which belongs to the program that imports crispseg."""

from __future__ import annotations

import logging
import os
import random
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext

from crispseg.errors import CrispsegError

TRAINING = threading.RLock()


@contextmanager
def only_training() -> Iterator[None]:
    """Raise a CrispsegError if another thread trains: threads share the generators that training seeds."""
    if not TRAINING.acquire(blocking=False):
        raise CrispsegError("another thread of this program is training; train in processes, or one after the other")
    try:
        yield
    finally:
        TRAINING.release()


@contextmanager
def imports_unnoticed(*, environment: bool = True) -> Iterator[None]:
    """Restore what libraries change in the whole program when they are imported in the block.

    Rich draws from `random`, scikit-image suppresses all deprecation warnings, and PyTorch and Lightning set variables.
    """
    generator, variables = random.getstate(), dict(os.environ)
    with warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(generator)
            if environment:
                restore_environment(variables)


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Suppress notes of image libraries in the block: errors are reported once, by exceptions."""
    with warnings.catch_warnings(), quiet_loggers(logging.CRITICAL, "tifffile", "imagecodecs"):
        warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # of Pillow; see `MAX_PIXELS`
        yield


@contextmanager
def quiet_loggers(level: int, *names: str) -> Iterator[None]:
    """Set the level of other libraries' loggers in the block."""
    with ExitStack() as stack:
        for logger in map(logging.getLogger, names):
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(level)
        yield


@contextmanager
def host_state_restored(*, environment: bool = True) -> Iterator[None]:
    """Restore what the block sets in the whole program, also after an error.

    These are the generators, warning filters, the environment, OpenCV's threads, and PyTorch's deterministic mode,
    default dtype and default device, which are float32 and the CPU in the block.
    Threads share this state, so functions that may run in threads, such as `Segmenter`, must not touch it at all.
    """
    import cv2
    import numpy as np
    import torch

    numpy, threads = np.random.get_state(), cv2.getNumThreads()  # noqa: NPY002 - users' transforms draw from it
    dtype = torch.get_default_dtype()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    with device, torch.random.fork_rng(devices), imports_unnoticed(environment=environment), quiet_readers():
        try:
            torch.set_default_dtype(torch.float32)
            yield
        finally:
            torch.set_default_dtype(dtype)
            np.random.set_state(numpy)  # noqa: NPY002
            cv2.setNumThreads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def restore_environment(variables: Mapping[str, str]) -> None:
    """Set all variables of the environment back; those that are as before stay untouched for other threads."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
