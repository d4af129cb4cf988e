"""What signals do to a run and its data workers."""

import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

import pytest
from separate_processes import PROCESSES, endless_training
from training_runs import FLAGS, rows

import crispseg.cli.predict  # noqa: F401 as it registers itself

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
    assert not [text for text in before if "Traceback" in text or "Error" in text or "ignored in" in text]
    assert re.fullmatch(rf"crispseg: {says}; .*step \d+ .* crispseg train --resume={tmp_path}/run", line), line
    assert process.exitcode == status
    assert (tmp_path / "run/model/model.safetensors").is_file()
