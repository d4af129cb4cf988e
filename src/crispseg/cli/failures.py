"""Errors of commands, as lines or as JSON on the standard error."""

from __future__ import annotations

import json
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence

from crispseg.cli.exit_codes import ExitCode
from crispseg.errors import (
    INTERRUPTED,
    CrispsegError,
    Interrupted,
    Question,
    command_line,
    ended_worker,
    system_line,
)

ASKS_FOR_JSON = re.compile(r"--?json(=|$)")


def report(error: BaseException, words: Sequence[str]) -> int:
    """Print an error and return the exit status; `words` are those of the command that failed."""
    error = error if isinstance(error, CrispsegError) else ended_worker(error) or error
    status, line = described(error)
    if status == ExitCode.BUG:
        traceback.print_exception(error)
    commands = [command_line(words, settings) for settings in getattr(error, "settings", ())]
    if any(map(ASKS_FOR_JSON.match, words)):
        fault, _, remedy = line.partition("; ")
        values = {"code": status, "field": getattr(error, "field", None), "message": fault, "remedy": remedy or None}
        print(json.dumps({"error": {**values, "commands": commands}}), file=sys.stderr)
    elif isinstance(error, Question):
        print(*_question(error, words), sep="\n", file=sys.stderr)
    else:
        run = f"; run: {'; or: '.join(commands)}" if commands else ""
        print(f"crispseg: {'error: ' if status == ExitCode.MISTAKE else ''}{line}{run}", file=sys.stderr)
    return status


def described(error: BaseException) -> tuple[int, str]:
    """Return the exit status for an error, and its line: the fault, a semicolon and the remedy."""
    match error:
        case KeyboardInterrupt():
            number = error.number if isinstance(error, Interrupted) else signal.SIGINT
            return 128 + number, str(error) or INTERRUPTED
        case CrispsegError():
            line = f"--{error}" if error.field else str(error)
        case OSError():
            line = system_line(error)
        case MemoryError():
            line = "there is not enough memory; close other programs, or give smaller images, crops or batches"
        case _:
            return ExitCode.BUG, "this is a bug; please report the lines above and the command"
    return ExitCode.MISTAKE, " ".join(line.split())


def _question(question: Question, words: Sequence[str]) -> Iterator[str]:
    """Yield what was found, and a command for each choice: ten lines at most."""
    yield f"crispseg: error: {question.title}"
    yield from (f"  {fact}" for fact in question.facts)
    for meaning, settings in question.choices.items():
        yield f"{meaning}:"
        yield f"  {command_line(words, settings)}"
    if question.advice and len(question.choices) < 3:  # else there would be more than ten lines
        yield question.advice
