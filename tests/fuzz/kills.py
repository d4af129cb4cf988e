"""Kill small trainings with SIGKILL, resume them, and compare them with one that nobody disturbed.

    cd tests && python -m fuzz.kills --count 50 --out ../runs/kills

Every second one is killed while it writes a checkpoint, after a random share of its bytes; the others at a random
moment of the training. What was killed goes on by `crispseg train --resume`, or, where it had no checkpoint yet, by the
same command again. Weights, the last checkpoint and the table of scores have to be equal bit for bit, and the folder
has to hold the same files.
"""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

os.environ["OMP_NUM_THREADS"] = "1"  # processes are forked

import torch
from training_runs import FLAGS, equal, files, without_time

import crispseg.training.fit  # noqa: F401 (now, so that no process has to)
from crispseg.backbones import read_state_dict
from crispseg.cli.main import main as command
from crispseg.training.checkpoints import LAST, read_checkpoint
from crispseg.training.config import CONFIG

TRAIN = [*FLAGS, "--model=sfnet", "--model.width=8", "--deterministic=true", "--checkpoint_every=2", "--batch_size=1"]
TRAIN = [flag for flag in TRAIN if flag not in ("--model=fpn", "--model.width=16", "--batch_size=4", "--epochs=2")]
TRAIN = ["train", *TRAIN, "--epochs=3"]
CHECKPOINTS = 14
"""That a run writes, at least: last ones after every second of 24 steps, and at the end of epochs; best ones."""


def forked(argv: list[str], log: Path, before: Callable[[], None] = lambda: None) -> int:
    """Start a command of crispseg in a process of its own, whose output goes to a file; gives its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = (io.TextIOWrapper(os.fdopen(number, "wb"), line_buffering=True) for number in (1, 2))
        before()
        status = command(argv)
    finally:
        sys.stdout.flush()
        os._exit(status)


def finished(process: int) -> int:
    """Wait for the end of a process; its exit status, or less than 0 where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def runs(process: int) -> bool:
    """Whether it has not ended yet."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def dying(number: int, share: float) -> Callable[[], None]:
    """Makes a process kill itself when it has written a share of the checkpoint of this number."""
    save, count = torch.save, 0

    def half(value: object, file: io.BufferedWriter) -> None:
        nonlocal count
        count += 1
        if count < number:
            save(value, file)
            return
        whole = io.BytesIO()
        save(value, whole)
        file.write(whole.getvalue()[: int(share * len(whole.getvalue()))])
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    def patch() -> None:
        torch.save = half

    return patch


def killed(folder: Path, random: Random, writing: bool, seconds: float) -> bool:
    """Train until the process is killed; False where it ended before."""
    log = folder.with_suffix(".log")
    before = dying(random.randint(1, CHECKPOINTS), random.random()) if writing else (lambda: None)
    process = forked([*TRAIN, f"--out={folder}"], log, before)
    if not writing:
        while not (folder / CONFIG).is_file() and runs(process):
            time.sleep(0.001)
        time.sleep(random.uniform(0, seconds))
        os.kill(process, signal.SIGKILL)
    return finished(process) == -signal.SIGKILL


def differences(folder: Path, whole: Path) -> list[str]:
    """In what a run differs from the one that nobody disturbed."""
    found = []
    weights = "model/model.safetensors"
    if not equal(read_state_dict(folder / weights), read_state_dict(whole / weights)):
        found.append("the saved weights are others")
    (last, step), (other, other_step) = (read_checkpoint(one / LAST) for one in (folder, whole))
    if step != other_step or not equal(last, other):
        found.append("the last checkpoint is another")
    if without_time(folder) != without_time(whole):
        found.append("metrics.csv is another")
    if odd := files(folder) ^ files(whole):
        found.append(f"files: {', '.join(sorted(odd))}")
    return found


def options(text: str | None, count: int) -> argparse.Namespace:
    """Of a campaign that disturbs commands so many times."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=count, help="kills, or signals")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=lambda path: Path(path).absolute(), required=True, help="new folder to work in")
    return parser.parse_args()


def main() -> int:
    arguments = options(__doc__, 50)
    arguments.out.mkdir(parents=True)
    torch.set_num_threads(1)
    whole = arguments.out / "whole"
    process = forked([*TRAIN, f"--out={whole}"], whole.with_suffix(".log"))
    while not (whole / CONFIG).is_file() and runs(process):
        time.sleep(0.001)
    began = time.perf_counter()
    if finished(process) != 0:
        print(f"the undisturbed run failed, see {whole.with_suffix('.log')}")
        return 1
    seconds = time.perf_counter() - began
    random, bad, anew, number = Random(arguments.seed), 0, 0, 0
    print(f"undisturbed: {seconds:.1f} s of training", flush=True)
    while number < arguments.count:
        folder = arguments.out / f"killed-{number}"
        writing = number % 2 == 1
        if not killed(folder, random, writing, seconds):
            folder.rename(arguments.out / f"ended-{time.monotonic_ns()}")
            continue
        left = sorted(path.name for path in folder.rglob(".crispseg*"))
        resumable = (folder / LAST).is_file()
        anew += not resumable
        argv = ["train", "--resume", str(folder)] if resumable else [*TRAIN, f"--out={folder}"]
        status = finished(forked(argv, folder.with_suffix(".log")))
        wrong = differences(folder, whole) if status == 0 else [f"exit status {status}"]
        bad += bool(wrong)
        moment = "while a checkpoint was written" if writing else "at a random moment"
        then = "resumed" if resumable else "begun anew"
        print(f"{number}: killed {moment}, left {left}, {then}: {'; '.join(wrong) or 'equal'}", flush=True)
        number += 1
    print(f"{number} kills, {anew} before the first checkpoint, {bad} with a difference")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
