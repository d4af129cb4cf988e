"""Real commands that are interrupted at random moments, also while they import libraries.

    cd tests && python -m fuzz.interrupts --count 70 --out ../runs/interrupts

SIGINT and SIGTERM in turns. Each command has to end with the status of its signal (130 or 143) and one line that says
what was kept or how to go on, without a traceback; to leave no temporary file; and to change nothing that was there.
What had ended before is counted apart. In its first tenth of a second, while Python starts, nothing is sent.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from crispseg.io.files import LITTER
from fuzz.full_disks import commands, sound_files
from fuzz.kills import options
from fuzz.kinds import files_of

PYTHON = 0.1
"""Seconds in which Python starts, and tells of interrupts in its own way."""


def started(argv: list[str]) -> subprocess.Popen[str]:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background, shells have it ignored
    argv = [sys.executable, "-m", "crispseg", *argv]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def prepared(name: str, sound: Path, place: Path) -> None:
    """The folder as it is before a command."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    if name == "resume":
        shutil.copytree(sound / "run", place / "out")


def interrupted(
    argv: list[str], place: Path, number: signal.Signals, after: float, seconds: float
) -> tuple[str, list[str]]:
    """How a command ended that was sent a signal `after` some of the `seconds` it takes, and what is wrong there."""
    before = files_of(place)
    process = started(argv)
    time.sleep(after)
    process.send_signal(number)
    try:
        errors = process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return "it went on", ["60 seconds later it had not ended"]
    files, lines = files_of(place), errors.splitlines()
    wrong = [f"left: {file}" for file in files if LITTER in file]
    wrong += [f"changed or gone: {file}" for file in before if files.get(file) != before[file] and "out" not in file]
    if process.returncode in (0, -number) and after > 0.7 * seconds and "Traceback" not in errors:
        return "it had ended", wrong  # all but Python itself, which the signal may end
    if process.returncode != 128 + number:
        wrong.append(f"exit status {process.returncode}")
    if not lines or not lines[-1].startswith("crispseg: interrupted") or "Traceback" in errors:
        wrong.append(f"it said: {errors[-2000:]}")
    return (lines or [""])[-1], wrong


def main() -> int:
    arguments = options(__doc__, 70)
    sound, place = arguments.out / "sound", arguments.out / "place"
    sound.mkdir(parents=True)
    sound_files(sound)
    random, bad, ends = Random(arguments.seed), 0, Counter[str]()
    names, seconds = list(commands(sound, place)), {}
    for number in range(arguments.count):
        name = names[number % len(names)]
        argv = commands(sound, place)[name]
        if name not in seconds:
            prepared(name, sound, place)
            began, process = time.perf_counter(), started(argv)
            assert process.communicate() and process.returncode == 0
            seconds[name] = time.perf_counter() - began
        prepared(name, sound, place)
        after = random.uniform(PYTHON, seconds[name])
        which = (signal.SIGINT, signal.SIGTERM)[number // len(names) % 2]
        end, wrong = interrupted(argv, place, which, after, seconds[name])
        bad += bool(wrong)
        ends["ended before" if end == "it had ended" else "interrupted"] += 1
        told = f"{number}: {which.name} after {after:.2f} of {seconds[name]:.2f} s of {name}: {end}"
        print(told, *wrong, sep="\n  ", flush=True)
    print(f"{arguments.count} signals, {dict(ends)}, {bad} where something was wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
