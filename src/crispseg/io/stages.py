"""Processor time of stages, such as reading and writing, in which several threads work."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

STAGES: defaultdict[str, float] = defaultdict(float)  # processor time of each stage since the start of the program
_ADDITION = Lock()


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the processor time of this thread in the block to a stage."""
    began = time.thread_time()
    try:
        yield
    finally:
        with _ADDITION:
            STAGES[name] += time.thread_time() - began


@contextmanager
def stage_seconds() -> Iterator[dict[str, float]]:
    """Yield a table of the processor time of the block, filled at its end: reading, network (the rest) and writing."""
    table: dict[str, float] = {}
    before, began = STAGES.copy(), time.process_time()
    yield table
    reading, writing = (STAGES[name] - before[name] for name in ("reading", "writing"))
    network = max(time.process_time() - began - reading - writing, 0.0)
    table |= {"reading": reading, "network": network, "writing": writing}
