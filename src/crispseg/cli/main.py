"""`crispseg COMMAND ...`"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from types import FrameType
from typing import Any

from crispseg import __version__
from crispseg.cli import HELP, first_page
from crispseg.cli.exit_codes import ExitCode
from crispseg.cli.failures import report
from crispseg.errors import CrispsegError, CrispsegWarning, Interrupted, did_you_mean
from crispseg.io.host import imports_unnoticed, quiet_readers

COMMANDS = {
    "quickstart": "train and test a model of nuclei, or of your data, in minutes",
    "data": "list public data sets, import annotations",
    "doctor": "check data for faults before training",
    "train": "train a model from a YAML file and flags",
    "distill": "train a small model with a trained one and images without masks",
    "evaluate": "score a trained model on a split",
    "compare": "score models on the same images, and show their differences",
    "ablate": "score a trained model without its flow, points or descriptors",
    "predict": "segment images",
    "label": "choose images to label next, and find masks that may be wrong",
    "inspect": "write a page that shows how a model computes its labels",
    "annotate": "paint strokes, train on them and correct predictions, in napari",
    "demo": "segment images in the browser",
    "list": "list networks to train, and bundled trained models",
    "benchmark": "count and time models, also of other libraries",
    "export": "write a trained model as an ONNX, OpenVINO or other file",
    "recipes": "list the rows of the papers' tables, and the commands of one",
    "convert": "convert an official checkpoint of SFNet to a saved model",
}

HELP_PAGE = f"""usage: crispseg COMMAND [...]

Semantic segmentation with crisp boundaries.

commands:
{chr(10).join(f"  {name:12}{text}" for name, text in COMMANDS.items())}

crispseg COMMAND --help explains a command; --help all explains all its keys.
crispseg help data explains the keys that say what images and masks mean.
crispseg COMMAND --json FILE writes the results as JSON; - prints them.
crispseg --version prints the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status, see `ExitCode`."""
    if argv is None:  # in a terminal of any encoding, other characters are escaped
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # not so if it is closed or replaced
                stream.reconfigure(errors="backslashreplace")
    try:
        with imports_unnoticed(), quiet_readers(), _one_line_warnings(), _unwound_by_sigterm():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.WARNINGS
    except (Exception, KeyboardInterrupt) as error:
        return report(error, sys.argv[1:] if argv is None else argv)


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
    from crispseg.cli.command import start  # imports pydantic and rich; the help page does not need them

    return start(name, argv[1:]) or 0


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
