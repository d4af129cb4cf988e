"""The one exception for mistakes a user can mend, and the one warning of what was assumed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class CrispsegError(Exception):
    """Bad input. The message is one line that names the thing, its value and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


class CrispsegWarning(UserWarning):
    """What was assumed or done otherwise than one may think, in one line, which the command line prints as it is."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; the message is one line that says what was kept and how to go on.

    Args:
        message: the line.
        number: of the signal. The command line exits with 128 more.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


def one_line(error: BaseException) -> str:
    """What an exception says, as one line without a full stop; the name of its type where it says nothing."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A phrase to append to "unknown X 'word'": the closest known word, or all of them if there are few.

    >>> did_you_mean("sfnett", ["sfnet", "fpn"])
    "; did you mean 'sfnet'?"
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if len(known) <= 30 else ""
