"""Counts of opened files and listed folders, from outside, by an audit hook."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

OPENED: Counter[str] = Counter()
LISTED: Counter[str] = Counter()


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    counters = {"open": OPENED, "os.scandir": LISTED, "os.listdir": LISTED}
    if event in counters and isinstance(arguments[0], str | bytes | os.PathLike):
        counters[event][os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


def start_counting() -> None:
    OPENED.clear()
    LISTED.clear()


def times_opened(file: Path) -> int:
    return OPENED[str(file)]


def times_listed(folder: Path) -> int:
    """Return how often the folder and its sub-folders were listed."""
    return sum(count for place, count in LISTED.items() if Path(place).is_relative_to(folder))
