"""Commands as tests run them in processes of their own.

They are not forked from the process of the tests, which has threads: the copy of a lock that one of them holds is never
released.
"""

import multiprocessing
import os
import signal
import socket
import sys
from pathlib import Path

from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from crispseg.cli.main import main

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["crispseg.cli.predict", "crispseg.cli.export", "crispseg.training.trainer", "crispseg.models", "torchmetrics"]
)


def free_port() -> int:
    """Return a port of this machine that no program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def command(argv: list[str]) -> None:
    """Run a command, and end the process with its status."""
    sys.exit(main(argv))


def endless_training(folder: Path, flags: list[str]) -> None:
    """Train without an end in a process group of its own, with a worker for each split."""
    os.setsid()
    _MultiProcessingDataLoaderIter._try_get_data.__defaults__ = (0.2,)  # seconds, not 5, until a worker is missed
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stderr = os.open(folder / "stderr", os.O_WRONLY | os.O_CREAT)
    os.dup2(stderr, 2)
    sys.stderr = os.fdopen(stderr, "w", buffering=1)
    sys.exit(main(["train", *flags, "--epochs=100000", "--workers=1", f"--out={folder / 'run'}"]))
