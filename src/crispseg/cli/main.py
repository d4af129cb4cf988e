"""`crispseg COMMAND ...`"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any

from crispseg import __version__
from crispseg.cli import HELP, first_page
from crispseg.errors import (
    INTERRUPTED,
    CrispsegError,
    CrispsegWarning,
    Interrupted,
    Question,
    command_line,
    did_you_mean,
    ended_worker,
    system_line,
)
from crispseg.io.host import imports_unnoticed, quiet_readers

COMMANDS = {
    "quickstart": "train, test and view a model of the bundled nuclei images (or your data) in minutes",
    "data": "list public data sets, import annotations",
    "doctor": "check data for faults before training",
    "train": "train a model from a YAML file and flags",
    "distill": "train a small model with a trained one and images without masks",
    "evaluate": "score a trained model on a split",
    "compare": "score models on the same images, and show their differences",
    "ablate": "score a trained model without its flow, points, descriptors or refinement",
    "predict": "segment images",
    "label": "choose images to label next, and list masks that are probably wrong",
    "inspect": "write a page that shows how a model computes its labels",
    "demo": "show models in the browser: drop an image and see its classes and the model's sampled points",
    "list": "list networks to train, and bundled trained models",
    "benchmark": "count and time models, also of other libraries",
    "export": "write a trained model as an ONNX, OpenVINO or torch.export file, checked",
    "recipes": "list the rows of the papers' tables, and print the commands of one",
    "convert": "convert a checkpoint of SFNet's or SFNet-Lite's official release to a saved model",
}

HELP_PAGE = f"""usage: crispseg COMMAND [...]

Semantic segmentation with crisp boundaries.

commands:
{chr(10).join(f"  {name:12}{text}" for name, text in COMMANDS.items())}

crispseg COMMAND --help explains a command, and crispseg COMMAND --help all explains all its keys.
crispseg help data explains the keys that say what images and masks mean.
crispseg --version prints the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 for success, 2 for a mistake of the user or an error of the operating system, 70 for a bug in crispseg.
        130 if interrupted, 143 if ended by SIGTERM; doctor also returns 1 and 3.
    """
    if argv is None:  # in a terminal of any encoding, other characters are escaped
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # not so if it is closed or replaced
                stream.reconfigure(errors="backslashreplace")
    try:
        with imports_unnoticed(), quiet_readers(), _one_line_warnings(), _unwound_by_sigterm():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        return _report(error, sys.argv[1:] if argv is None else argv)


def _report(error: BaseException, words: Sequence[str]) -> int:
    """Print an error and return the exit status; `words` are those of the command that failed."""
    error = error if isinstance(error, CrispsegError) else ended_worker(error) or error
    match error:
        case KeyboardInterrupt():
            lines = [f"crispseg: {str(error) or INTERRUPTED}"]
            status = 128 + (error.number if isinstance(error, Interrupted) else signal.SIGINT)
        case CrispsegError():
            lines, status = [*_lines_of(error, words)], 2
        case OSError():
            lines, status = [f"crispseg: error: {' '.join(system_line(error).split())}"], 2
        case MemoryError():
            remedy = "close other programs, or give smaller images, crops or batches"
            lines, status = [f"crispseg: error: there is not enough memory; {remedy}"], 2
        case _:
            traceback.print_exception(error)
            lines = ["crispseg: this is a bug; please report the lines above and the command"]
            status = 70  # EX_SOFTWARE of sysexits.h
    print(*lines, sep="\n", file=sys.stderr)
    return status


def _lines_of(error: CrispsegError, words: Sequence[str]) -> Iterator[str]:
    """Yield a message with a command for each alternative; `words` are those of the command that failed."""
    if isinstance(error, Question):
        yield from _question(error, words)
        return
    line = f"--{error}" if error.field else str(error)
    starts = ["; run: ", *["; or: "] * len(error.settings)]
    for start, settings in zip(starts, error.settings, strict=False):
        line += start + command_line(words, settings)
    if line.startswith("Caught "):  # raised by a data worker; its traceback comes first
        line = re.split(r"(?m)^crispseg\.[\w.]+: ", line)[-1]
    yield f"crispseg: error: {' '.join(line.split())}"


def _question(question: Question, words: Sequence[str]) -> Iterator[str]:
    """Yield what was found, and a command for each choice: ten lines at most."""
    yield f"crispseg: error: {question.title}"
    yield from (f"  {fact}" for fact in question.facts)
    for meaning, settings in question.choices.items():
        yield f"{meaning}:"
        yield f"  {command_line(words, settings)}"
    if question.advice and len(question.choices) < 3:  # else there would be more than ten lines
        yield question.advice


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(__version__)
        return 0
    if argv in (["help", "data"], ["help", "data", "all"]):
        from crispseg.cli.command import data_help

        print(data_help())
        return 0
    if argv and argv[0] in {"help", *HELP}:
        argv = [*argv[1:], "--help"]
    words = [word for word in argv if word not in HELP]
    if not words:
        print(HELP_PAGE)
        return 0
    name = words[0]
    if name not in COMMANDS:
        raise CrispsegError(f"unknown command '{name}'{did_you_mean(name, COMMANDS)}")
    if len(words) < len(argv) and "all" not in words:
        print(first_page(words))
        return 0
    os.environ.pop("MPLBACKEND", None)  # crispseg opens no windows, and matplotlib fails if there is no such backend
    importlib.import_module(f"crispseg.cli.{name}")
    keep_freed_memory()
    from crispseg.cli.command import commands  # imports pydantic and rich; the help page does not need them

    return commands[name].start(argv[1:]) or 0


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """Print each `CrispsegWarning` of the block once, as a line on stderr; other warnings stay unchanged."""
    with warnings.catch_warnings(action="default", category=CrispsegWarning):  # once per line of code
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, CrispsegWarning):
                print(f"crispseg: {message}", file=sys.stderr)
            else:
                usual(message, category, *place, **more)

        warnings.showwarning = show
        yield


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise `Interrupted` in the block, which removes temporary files; forked processes end at once."""
    ours = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # for a second signal
        if os.getpid() != ours:
            os.kill(os.getpid(), number)
        raise Interrupted("", number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_freed_memory() -> None:
    """Let this process keep up to a GB of freed memory for reuse; training on a CPU is a quarter faster.

    By default, most freed tensors return to the system, which then fills the next allocation with zeros.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, or no loadable one
        library = ctypes.CDLL(None)
        library.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes
        library.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, bytes: the maximum of glibc's own adjustment
