"""State of the whole program, which belongs to the program that imports crispseg."""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import cv2
import numpy as np
import torch


@contextmanager
def host_state_restored(*, environment: bool = True) -> Iterator[None]:
    """Restore what the block sets in the whole program, also after an error.

    These are the generators, warning filters, the environment, OpenCV's threads and PyTorch's deterministic mode.
    Threads share this state, so functions that may run in threads, such as `Segmenter`, must not touch it at all.
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - users' transforms draw from it
    threads, variables = cv2.getNumThreads(), dict(os.environ)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002
            cv2.setNumThreads(threads)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            if environment:
                restore_environment(variables)


def restore_environment(variables: Mapping[str, str]) -> None:
    """Set all variables of the environment back; those that are as before stay untouched for other threads."""
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    for name, value in variables.items():
        if os.environ.get(name) != value:
            os.environ[name] = value
