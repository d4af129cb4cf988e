"""The exception for mistakes that a user can correct, and the warning about assumptions."""

from __future__ import annotations

import difflib
import errno
import json
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager


class CrispsegError(Exception):
    """Bad input. The message is one line that names the thing, its value and the remedy.

    The command line prints it without a traceback and exits with status 2.

    Args:
        message: the line; with a field what follows that, such as "is 16; give at least 32".
        field: the setting that is wrong, such as "augment.crop". The command line shows it as a flag.
        settings: alternatives of settings with which it would work. The command line shows each as a whole command.
    """

    def __init__(
        self, message: str = "", field: str | None = None, settings: Sequence[Mapping[str, object]] = ()
    ) -> None:
        super().__init__(message)
        self.field, self.settings = field, settings

    def __str__(self) -> str:
        return super().__str__() if self.field is None else f"{self.field} {super().__str__()}"


class CrispsegWarning(UserWarning):
    """An assumption that a user may not expect, in one line, which the command line prints as it is."""


class Interrupted(KeyboardInterrupt):
    """A signal ended the work; the message is one line that says what was kept and how to resume.

    Args:
        message: the line.
        number: of the signal. The command line exits with 128 more.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


INTERRUPTED = "interrupted; files that were not finished were not written, run the same command again"
"""The line of commands that keep only finished files."""


def system_line(error: OSError) -> str:
    """Return the file, the error of the operating system and the remedy, as one line."""
    file = error.filename2 or error.filename
    reason = error.strerror or str(error).strip().rpartition("\n")[2] or type(error).__name__
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    where = f"{file}: " if file is not None else ""
    return f"{where}{reason}; {'make room' if full else 'check the file, its permissions and its disk'}"


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Say what was kept and how to resume if an interrupt or an `OSError` ends the block.

    They become an `Interrupted` and a `CrispsegError`.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        number = stop.number if isinstance(stop, Interrupted) else signal.SIGINT
        raise Interrupted(f"interrupted; {kept()}", number) from None
    except OSError as error:
        raise CrispsegError(f"{system_line(error)}; {kept()}") from None


def ended_worker(error: BaseException) -> CrispsegError | Interrupted | None:
    """Return the exception for users if PyTorch's error is about a data worker that ended; None for any other error.

    Another error may wrap it. Signals that end a run often reach its workers first.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text = " ".join(map(str, chain))
    if "DataLoader worker" not in text:
        return None
    for number in (signal.SIGTERM, signal.SIGINT):
        if f"killed by signal: {signal.strsignal(number)}" in text:
            return Interrupted(INTERRUPTED, number)
    remedy = "use fewer workers, or 0, if memory or shared memory (Docker's shm-size) has run out"
    return CrispsegError(f"a data worker has gone; {remedy}")


def one_line(error: BaseException) -> str:
    """Return an exception's message as one line without a full stop; the name of its type if it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def flags_of(settings: Mapping[str, object]) -> list[str]:
    """Return settings as flags of the command line."""
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


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
