"""Inputs of all kinds, one after the other, and what came of them."""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

from fuzz.annotated import Coco, Labelme
from fuzz.bounds import GIGABYTES, SECONDS, Hang, Memory, Reach, limited_time
from fuzz.described import Configs, Settings
from fuzz.kinds import Kind, Lost, files_of, outcomes
from fuzz.named import Names
from fuzz.pictures import Images, Masks
from fuzz.weights import Checkpoints, Weights

KINDS: dict[str, type[Kind]] = {
    kind.name: kind for kind in (Images, Masks, Settings, Configs, Weights, Checkpoints, Coco, Labelme, Names)
}

FAULTS = ("tracebacks", "hangs", "over 2 GB", "damage accepted", "outputs lost", "reached out")
"""What must never come of an input. "Reached out": it tried to write elsewhere, to start a program or to connect."""


class Campaign:
    """Args:
    sandbox: folder to work in.
    seed: from which all inputs follow.
    out: folder where inputs that went wrong are kept, or None.
    kinds: names of the kinds.
    """

    def __init__(self, sandbox: Path, seed: int, out: Path | None, kinds: Sequence[str]) -> None:
        self.sandbox, self.seed, self.out = sandbox, seed, out
        self.kinds: dict[str, Kind] = {}
        for name in kinds:
            place = sandbox / f"sound {name}"
            place.mkdir()
            self.kinds[name] = KINDS[name](place)
        self.shared = {name: files_of(sandbox / f"sound {name}") for name in kinds}
        self.reach, self.memory = Reach(sandbox), Memory()
        self.counts: dict[str, Counter[str]] = {name: Counter() for name in kinds}
        self.failures: list[str] = []
        """What went wrong, a line each."""
        self._seen: set[str] = set()

    def run(self, name: str, start: int, count: int) -> list[str]:
        """So many inputs of a kind, from this number on; what went wrong, a line each."""
        kind, began, before = self.kinds[name], time.perf_counter(), len(self.failures)
        for number in range(start, start + count):
            self._try(name, kind, number)
        if files_of(self.sandbox / f"sound {name}") != self.shared[name]:
            self._fail(name, start, "outputs lost", "files that all inputs share were changed")
        self.counts[name]["seconds"] += round(time.perf_counter() - began)
        return self.failures[before:]

    def _try(self, name: str, kind: Kind, number: int) -> None:
        folder, counts = self.sandbox / f"{name} {number}", self.counts[name]
        folder.mkdir()
        case = kind.case(Random(f"{self.seed} {name} {number}"), folder)
        given, faults = files_of(folder), {}
        self.memory.start()
        try:
            with limited_time(SECONDS), self.reach.watched() as tries:
                found, refusals = outcomes(case)
            counts["read" if next(iter(case.readers)) in found else "refused"] += 1
            if wrong := [reader for reader, value in found.items() if value != case.sound.get(reader, value)]:
                faults["damage accepted"] = f"read by {', '.join(wrong)}"
            if any("MemoryError" in text or "allocate" in text for text in refusals):
                faults["over 2 GB"] = refusals[-1]
        except Hang:
            faults["hangs"] = f"more than {SECONDS} s"
        except MemoryError:
            faults["over 2 GB"] = "MemoryError"
        except Lost as error:
            faults["outputs lost"] = str(error)
        except (Exception, SystemExit) as error:
            faults["tracebacks"] = described(error)
        if (taken := self.memory.taken()) > GIGABYTES:
            faults["over 2 GB"] = f"{taken:.1f} GB"
        if tries:
            faults["reached out"] = "; ".join(tries[:3])
        after = files_of(folder)
        if lost := [file for file, content in given.items() if after.get(file) != content]:
            faults["outputs lost"] = f"input {lost[0]} was changed or removed"
        counts["inputs"] += 1
        for fault, text in faults.items():
            self._fail(name, number, fault, f"{case.what}: {text}", key=f"{name} {fault} {text}", folder=folder)
        shutil.rmtree(folder)

    def _fail(self, name: str, number: int, fault: str, text: str, key: str = "", folder: Path | None = None) -> None:
        self.counts[name][fault] += 1
        line = f"{name} {number}: {fault}: {text}"
        self.failures.append(line)
        if key in self._seen:
            return
        self._seen.add(key)  # once of each place in the code
        print(f"{line!r:.700}", file=sys.stderr, flush=True)
        if self.out is not None and folder is not None:
            shutil.copytree(folder, self.out / f"{name} {self.seed} {number}", symlinks=True, dirs_exist_ok=True)

    def table(self) -> str:
        """What was tried, and what came of it, in Markdown."""
        columns = ("inputs", "refused", "read", *FAULTS, "seconds")
        rows = [["kind", *columns], ["---"] * (1 + len(columns))]
        rows += [[name, *(f"{self.counts[name][key]:,}" for key in columns)] for name in self.kinds]
        total: Counter[str] = sum(self.counts.values(), Counter())
        rows.append(["all", *(f"{total[key]:,}" for key in columns)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def described(error: BaseException) -> str:
    """The kind of an error, where it came from, in crispseg and at all, and what it says."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = next((frame for frame in reversed(frames) if "/crispseg/" in frame.filename), frames[-1])
    places = dict.fromkeys(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in (ours, frames[-1]))
    return f"{type(error).__name__} at {' < '.join(places)}: {error}"
