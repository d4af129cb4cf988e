"""What the C library does with memory that is freed."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Their numbers in `mallopt` of the GNU C library, which others do not have."""
KEPT = 2**30
"""Bytes at the end of a heap that are kept when they are free; threads may have heaps of their own."""
MAPPED = 2**25
"""Bytes from which on a block is one of its own, given back when it is free: the most to which it grows by itself."""


def keep_freed_memory() -> None:
    """Let this process keep up to `KEPT` bytes that it frees, for what it computes next. CPUs train a quarter faster.

    By default most tensors go back to the system when they are freed, which then fills the next with zeros, page by
    page, as often as there are layers. Whoever has set a threshold in the environment keeps what they have.
    """
    asked = " ".join([*os.environ, os.environ.get("GLIBC_TUNABLES", "")]).lower()
    if any(f"{each}_threshold" in asked for each in ("trim", "mmap")):
        return
    with suppress(AttributeError, OSError, TypeError):  # another C library, or none that can be opened
        library = ctypes.CDLL(None)
        library.mallopt(TRIM_THRESHOLD, KEPT)
        library.mallopt(MMAP_THRESHOLD, MAPPED)
