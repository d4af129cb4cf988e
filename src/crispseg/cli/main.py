"""`crispseg COMMAND ...`"""

from __future__ import annotations

import ctypes
import importlib
import io
import os
import platform
import re
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from crispseg import __version__
from crispseg.errors import (
    INTERRUPTED,
    CrispsegError,
    CrispsegWarning,
    Interrupted,
    did_you_mean,
    ended_worker,
    system_line,
)

COMMANDS = {
    "quickstart": "train, test and look at a model of the bundled images of nuclei (or your data), in minutes",
    "data": "list, show, download and import data",
    "doctor": "look for faults in data, before training",
    "train": "train a model from a YAML file and flags",
    "evaluate": "score a trained model on a split",
    "compare": "score models on the same images, and see where they differ",
    "ablate": "score a trained model without its flow, points, descriptors or refinement",
    "predict": "segment images",
    "inspect": "write a page that shows how a model comes to its labels",
    "demo": "show models in the browser: drop an image, see its classes and where the model looked",
    "list": "networks to train, and bundled trained models",
    "benchmark": "count and time models, beside those of other libraries",
    "export": "write a trained model as an ONNX, OpenVINO or torch.export file, checked",
    "recipes": "list the rows of the papers' tables, and print the commands of one",
    "convert": "turn a checkpoint of SFNet's or SFNet-Lite's official release into a saved model",
}

DEFECT = 70
"""Exit status of an error that crispseg should have foreseen: EX_SOFTWARE of sysexits.h."""

HELP = "\n".join(
    [
        "usage: crispseg COMMAND [...]",
        "",
        "Semantic segmentation with crisp boundaries.",
        "",
        "commands:",
        *(f"  {name:12}{text}" for name, text in COMMANDS.items()),
        "",
        "crispseg COMMAND --help explains a command, crispseg COMMAND --help all every key of it.",
        "crispseg --version prints the version.",
    ]
)

KEPT = 2**30
"""Bytes at the end of a heap that are kept when they are free; threads may have heaps of their own."""
MAPPED = 2**25
"""Size in bytes from which a block is given back when it is free: the most to which glibc raises it by itself."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 if it went well, 2 for a mistake of the user or an error of the operating system, 70 for a defect of crispseg,
        130 if interrupted, 143 if ended by SIGTERM; doctor has 1 and 3 too.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what a terminal cannot show
    received: list[int] = []
    try:
        with _one_line_warnings(), _unwound_by_signals(received):
            return _run(argv)
    except KeyboardInterrupt as interrupt:
        return _interrupted(interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT, str(interrupt))
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        worker = ended_worker(error)
        if isinstance(worker, Interrupted) or received:  # some libraries make another error of an interrupt
            return _interrupted(worker.number if isinstance(worker, Interrupted) else received[0])
        if worker is not None and str(worker) not in str(error):
            error = worker
        if isinstance(error, CrispsegError):
            line = f"--{error}" if error.field else str(error)
        elif isinstance(error, OSError):
            line = system_line(error)
        elif isinstance(error, MemoryError):
            line = "there is not enough memory; end other programs, or give smaller images, crops or batches"
        else:
            traceback.print_exception(error)
            command = shlex.join(["crispseg", *argv])
            system = f"crispseg {__version__}, Python {platform.python_version()}, {platform.platform()}"
            print(f"crispseg: defect: please report the lines above, of '{command}' on {system}", file=sys.stderr)
            return DEFECT
        print(f"crispseg: error: {_own_line(line)}", file=sys.stderr)
        return 2


def _interrupted(number: int, message: str = "") -> int:
    print(f"crispseg: {message or INTERRUPTED}", file=sys.stderr)
    return 128 + number


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(HELP)
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise CrispsegError(f"unknown command '{name}'{did_you_mean(name, COMMANDS)}")
    if any(word.startswith("--shard") for word in rest):
        # Before PyTorch is imported: threads that spin while they wait take the cores from the other processes.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    module = importlib.import_module(f"crispseg.cli.{name}")
    keep_freed_memory()
    try:
        module.run(rest)
    except SystemExit as exit:  # --help, --print_config, and what doctor found
        return int(exit.code or 0)
    return 0


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """In the block each `CrispsegWarning` is a line on stderr, once; what others warn of stays as it is."""
    said: set[str] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_line(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if not issubclass(category, CrispsegWarning):
                show(message, category, *rest, **more)
            elif str(message) not in said:
                said.add(str(message))
                print(f"crispseg: {message}", file=sys.stderr)

        warnings.showwarning = show_line
        warnings.simplefilter("always", CrispsegWarning)
        yield


@contextmanager
def _unwound_by_signals(received: list[int]) -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the block, so that temporary files are removed; a second one ends it.

    SIGTERM ends processes that were forked in the block at once. A handler that is there already stays.

    Args:
        received: signals that came are added to it.
    """
    ours = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() != ours and number == signal.SIGTERM:
            os.kill(os.getpid(), number)
        received.append(number)
        raise Interrupted("", number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
        before = {number: handler for number, handler in usual.items() if signal.getsignal(number) is handler}
    for number in before:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _own_line(message: str) -> str:
    """A message as one line, without what would steer a terminal."""
    if message.startswith("Caught "):  # by a data worker, whose traceback comes first
        message = re.split(r"(?m)^crispseg\.[\w.]+: ", message)[-1]
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: repr(found[0])[1:-1], message.strip())


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
        library.mallopt(-1, KEPT)  # M_TRIM_THRESHOLD
        library.mallopt(-3, MAPPED)  # M_MMAP_THRESHOLD
