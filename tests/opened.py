"""Counts of opened files, from outside, by an audit hook."""

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

OPENED: Counter[str] = Counter()


def _count(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        OPENED[os.fsdecode(arguments[0])] += 1


sys.addaudithook(_count)


def start_counting() -> None:
    OPENED.clear()


def times_opened(file: Path) -> int:
    return OPENED[str(file)]
