"""Exit statuses of all commands."""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class ExitCode(IntEnum):
    """Exit status of a command, with its meaning for the documentation."""

    about: str

    def __new__(cls, status: int, about: str) -> Self:
        code = int.__new__(cls, status)
        code._value_, code.about = status, about
        return code

    SUCCESS = 0, "success; of `doctor`: the data have no warnings and no errors"
    WARNINGS = 1, "of `doctor`: the data have warnings; of any command: the reader of its output, such as `head`, ended"
    MISTAKE = 2, "a wrong argument, an unreadable file, or an error of the operating system"
    ERRORS = 3, "of `doctor`: the data have errors"
    REFUSED = 4, "of `predict --refuse`: images unlike the training images were left out; 2, for unread files, wins"
    BUG = 70, "a bug in crispseg, with a traceback"
    INTERRUPTED = 130, "interrupted by SIGINT (Ctrl+C)"
    TERMINATED = 143, "ended by SIGTERM"
