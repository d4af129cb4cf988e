"""What SIGTERM does to a command."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
from separate_processes import PROCESSES, endless_training
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling
from training_runs import FLAGS, rows

import crispseg.cli.predict  # noqa: F401 as it registers itself
from crispseg.cli.command import commands
from crispseg.cli.main import INTERRUPTED, main

FORK = multiprocessing.get_context("fork")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "alone", "status", "says"),
    [
        (signal.SIGTERM, False, 143, r"interrupted at step \d+"),
        (signal.SIGKILL, True, 2, r"error: a data worker was terminated; use fewer workers.*"),
    ],
)
def test_a_run_whose_data_workers_are_told_to_end_says_what_it_kept(
    number: signal.Signals, alone: bool, status: int, says: str, tmp_path: Path
) -> None:
    """Schedulers, containers and terminals send the signal to all its processes; the system may end a worker alone."""
    process = PROCESSES.Process(target=endless_training, args=(tmp_path, FLAGS))
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 60
    table = tmp_path / "run/metrics.csv"
    while not (table.is_file() and len(rows(table.parent)) > 2) and time.monotonic() < deadline:
        time.sleep(0.01)
    if alone:
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(child), number)
    else:
        os.killpg(process.pid, number)
    process.join(60)
    process.kill()
    *before, line = (tmp_path / "stderr").read_text().splitlines()
    assert not [each for each in before if "Traceback" in each or "Error" in each or "ignored in" in each]
    assert re.fullmatch(rf"crispseg: {says}; .*step \d+ .* {tmp_path}/run", line), line
    assert process.exitcode == status
    assert (tmp_path / "run/model/model.safetensors").is_file()


@pytest.mark.parametrize(
    ("end", "status", "line"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, INTERRUPTED),
        (lambda: os.kill(os.getpid(), signal.SIGBUS), 2, "error: a data worker was terminated; use*"),
        (lambda: os._exit(3), 2, "error: a data worker was terminated; use fewer workers*"),
    ],
)
def test_a_command_whose_data_worker_has_gone_says_so(
    end: Callable[[], None], status: int, line: str, tmp_path: Path
) -> None:
    process = FORK.Process(target=with_a_worker_that, args=(end, tmp_path / "stderr"))
    process.start()
    process.join(60)
    process.kill()
    assert process.exitcode == status
    said = (tmp_path / "stderr").read_text().splitlines()[-1]
    assert fnmatch(said.strip("\0"), f"crispseg: {line}")  # PyTorch ends its own lines with a zero


def with_a_worker_that(ends: Callable[[], None], stderr: Path) -> None:
    class Images(Dataset[int]):
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> int:
            ends()
            return index

    signal_handling._SIGCHLD_handler_set = False  # as in a process that has not loaded anything yet
    os.dup2(os.open(stderr, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    worker = SimpleNamespace(start=lambda argv: list(DataLoader(Images(), num_workers=1)))
    commands["predict"] = worker  # type: ignore[assignment]
    sys.exit(main(["predict"]))
