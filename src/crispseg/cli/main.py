"""`crispseg COMMAND ...`"""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
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
    flags_of,
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
    "benchmark": "count and time models, and those of other libraries",
    "export": "write a trained model as an ONNX, OpenVINO or torch.export file, checked",
    "recipes": "list the rows of the papers' tables, and print the commands of one",
    "convert": "turn a checkpoint of SFNet's or SFNet-Lite's official release into a saved model",
}

HELP = f"""usage: crispseg COMMAND [...]

Semantic segmentation with crisp boundaries.

commands:
{chr(10).join(f"  {name:12}{text}" for name, text in COMMANDS.items())}

crispseg COMMAND --help explains a command, crispseg COMMAND --help all every key of it.
crispseg --version prints the version."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0 if it went well, 2 for a mistake of the user or an error of the operating system, 70 for a defect of crispseg,
        130 if interrupted, 143 if ended by SIGTERM; doctor has 1 and 3 too.
    """
    try:
        with _one_line_warnings(), _unwound_by_sigterm():
            return _run(list(sys.argv[1:] if argv is None else argv))
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        found = error if isinstance(error, CrispsegError) else ended_worker(error) or error
        if isinstance(found, KeyboardInterrupt):
            print(f"crispseg: {str(found) or INTERRUPTED}", file=sys.stderr)
            return 128 + (found.number if isinstance(found, Interrupted) else signal.SIGINT)
        if isinstance(found, CrispsegError):
            line = f"--{found}" if found.field else str(found)
            words = sys.argv[1:] if argv is None else argv
            for start, tree in zip(("; run: ", *["; or: "] * len(found.settings)), found.settings, strict=False):
                line += start + shlex.join(["crispseg", *words, *flags_of(tree)])
        elif isinstance(found, OSError):
            line = system_line(found)
        elif isinstance(found, MemoryError):
            line = "there is not enough memory; end other programs, or give smaller images, crops or batches"
        else:
            traceback.print_exception(found)
            print("crispseg: defect: please report the lines above, and the command", file=sys.stderr)
            return 70  # EX_SOFTWARE of sysexits.h
        if line.startswith("Caught "):  # by a data worker, whose traceback comes first
            line = re.split(r"(?m)^crispseg\.[\w.]+: ", line)[-1]
        print(f"crispseg: error: {' '.join(line.split())}", file=sys.stderr)
        return 2


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    name, *rest = argv
    if name not in COMMANDS:
        raise CrispsegError(f"unknown command '{name}'{did_you_mean(name, COMMANDS)}")
    source = Path(*rest[:1])
    named = bool(rest) and not rest[0].startswith("-") and source.suffix not in (".yaml", ".yml")
    if name == "train" and named and not source.exists() and "--help" not in rest:
        # At once; the imports of training take seconds.
        raise CrispsegError(f"{source} is missing; give a folder of data, or a YAML file of settings")
    importlib.import_module(f"crispseg.cli.{name}")
    keep_freed_memory()
    from crispseg.cli.command import commands  # pydantic and rich, which the page of help does without

    return commands[name].start(rest) or 0


@contextmanager
def _one_line_warnings() -> Iterator[None]:
    """In the block each `CrispsegWarning` is a line on stderr, once; what others warn of stays as it is."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
            if issubclass(category, CrispsegWarning):
                print(f"crispseg: {message}", file=sys.stderr)
            else:
                usual(message, category, *rest, **more)

        warnings.showwarning = show
        warnings.simplefilter("default", CrispsegWarning)  # once for each place in the code
        yield


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    """SIGTERM raises `Interrupted` in the block, so that temporary files are removed; forked processes end at once."""
    ours = os.getpid()

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)  # for a second one
        if os.getpid() != ours:
            os.kill(os.getpid(), number)
        raise Interrupted("", number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def keep_freed_memory() -> None:
    """Let this process keep a GB that it frees for what it computes next; CPUs train a quarter faster.

    By default most tensors go back to the system when they are freed, which then fills the next with zeros.
    """
    with suppress(AttributeError, OSError, TypeError):  # another C library, or none that can be opened
        library = ctypes.CDLL(None)
        library.mallopt(-1, 2**30)  # M_TRIM_THRESHOLD, bytes
        library.mallopt(-3, 2**25)  # M_MMAP_THRESHOLD, bytes: the most to which glibc raises it by itself
