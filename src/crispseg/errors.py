"""Exceptions for mistakes that a user can correct, and the warning about assumptions."""

from __future__ import annotations

import difflib
import errno
import json
import re
import shlex
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from types import MappingProxyType

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(message: str) -> str:
    """Return a message with escapes of control characters, which names of files may contain."""
    return CONTROL.sub(lambda match: ascii(match[0])[1:-1], message)


class CrispsegError(Exception):
    """Error for bad input. The message is one line with the thing, its value and the remedy.

    The command line prints it without a traceback and exits with status 2.

    Args:
        message: the line; with a field, it continues the field's name, such as "is 16; give at least 32".
        field: the wrong setting, such as "augment.crop". The command line shows it as a flag.
        settings: alternative settings that would work. The command line shows each as a whole command.
    """

    def __init__(
        self, message: str = "", field: str | None = None, settings: Sequence[Mapping[str, object]] = ()
    ) -> None:
        if message.startswith("Caught "):  # PyTorch gives the traceback of a data worker, which ends with its message
            message = message.rpartition("CrispsegError: ")[2].strip()
        super().__init__(printable(message))
        self.field, self.settings = field, settings

    def __str__(self) -> str:
        return super().__str__() if self.field is None else f"{self.field} {super().__str__()}"


class Question(CrispsegError):
    """Error for data that can mean several things: what they contain, and settings to choose from.

    The command line prints it in at most ten lines, with a command for each choice; elsewhere it is one line.

    Args:
        title: the folder or files, and what is unclear.
        facts: at most three lines about what they contain.
        choices: at most three meanings, and the settings that declare each.
        advice: what to do if no choice is right.
    """

    def __init__(
        self, title: str, facts: Sequence[str], choices: Mapping[str, Mapping[str, object]], advice: str = ""
    ) -> None:
        self.title, self.facts, self.choices, self.advice = title, facts[:3], dict(islice(choices.items(), 3)), advice
        options = [f"{meaning}: {', '.join(assignments(chosen))}" for meaning, chosen in self.choices.items()]
        line = "; ".join(filter(None, [title, *self.facts, *options, advice]))
        super().__init__(line, settings=[*self.choices.values()])


class CrispsegWarning(UserWarning):
    """Warning of an assumption that a user may not expect; the command line prints it as one line."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class Interrupted(KeyboardInterrupt):
    """Exception for a signal that ended the work; its one-line message reports what was kept and how to resume.

    Args:
        message: the line.
        number: number of the signal. The command line exits with this number + 128.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


INTERRUPTED = "interrupted; unfinished files were not written; run the same command again"
"""Message of commands that keep only finished files."""


def check_installed(module: str, user: str, package: str) -> None:
    """Raise a `CrispsegError` with the remedy if a module is missing; `package` is what pip installs."""
    if find_spec(module) is None:
        raise CrispsegError(f"{user} needs {module}; pip install {package}")


SYSTEM_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.ENAMETOOLONG: "give shorter names",
}
"""Remedies for errors of the operating system."""


def system_line(error: OSError) -> str:
    """Return the file, the error of the operating system and the remedy, as one line."""
    file = error.filename2 or error.filename
    reason = error.strerror or str(error).strip().rpartition("\n")[2] or type(error).__name__
    where = f"{file}: " if file is not None else ""
    return f"{where}{reason}; {SYSTEM_REMEDIES.get(error.errno or 0, 'check the file, its permissions and its disk')}"


@contextmanager
def telling(kept: Callable[[], str]) -> Iterator[None]:
    """Report what was kept and how to resume if an interrupt or an `OSError` ends the block.

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
    """Return the exception for users if PyTorch reports a terminated data worker; None for any other error.

    Another error may wrap the report. Signals that end a run often reach its workers first.
    """
    chain = [error]
    while cause := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(cause)
    text = " ".join(map(str, chain))
    if "DataLoader worker (pid" not in text:
        return None
    for cause in chain:
        if isinstance(cause, KeyboardInterrupt):  # the report arrived while an interrupt was handled
            return cause if isinstance(cause, Interrupted) else Interrupted(INTERRUPTED, signal.SIGINT)
    for number in (signal.SIGTERM, signal.SIGINT):
        if f"killed by signal: {signal.strsignal(number)}" in text:
            return Interrupted(INTERRUPTED, number)
    remedy = "use fewer workers, or 0, if memory or shared memory (Docker's shm-size) has run out"
    return CrispsegError(f"a data worker was terminated; {remedy}")


def one_line(error: BaseException) -> str:
    """Return an exception's message as one line without a full stop; the name of its type if it has none."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def flags_of(settings: Mapping[str, object]) -> list[str]:
    """Return settings as flags of the command line."""
    return [f"--{key}={text}" for key, text in texts_of(settings).items()]


def command_line(words: Iterable[object], settings: Mapping[str, object] = MappingProxyType({})) -> str:
    """Return a command of crispseg that can be pasted into a shell."""
    return shlex.join(["crispseg", *map(str, words), *flags_of(settings)])


def assignments(settings: Mapping[str, object]) -> list[str]:
    """Return settings as text for a message, such as "data.ignore [255]"."""
    return [f"{key} {text}" for key, text in texts_of(settings).items()]


def texts_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return the values of settings in the notation of flags."""
    compact = json.JSONEncoder(separators=(",", ":"))
    return {key: value if isinstance(value, str) else compact.encode(value) for key, value in settings.items()}


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a phrase to append to "unknown X 'word'": the closest known word, or all known words if they are few.

    >>> did_you_mean("sfnett", ["sfnet", "fpn"])
    "; did you mean 'sfnet'?"
    """
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(known)}" if len(known) <= 30 else ""


def few(items: Iterable[object], most: int = 5) -> str:
    """Return the first few items as text for a message."""
    shown = [f"{item!s:.200}" for item in items]
    return ", ".join(shown[:most]) + (", …" if len(shown) > most else "")
