"""Bounds of time, memory and reach around code that reads hostile files."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

SECONDS = 60
"""An input that takes longer counts as a hang."""

GIGABYTES = 2.0
"""An input that takes more memory than that counts."""


class Hang(BaseException):
    """The time is up."""


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Raise `Hang` in the block when its time is up; code that never comes back to Python ends the process, later."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, end)
    faulthandler.dump_traceback_later(2 * seconds + 60, exit=True)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class Memory:
    """The peak of resident memory of each input, by the kernel's own mark. Linux only; elsewhere it is always 0."""

    def __init__(self) -> None:
        reset = Path("/proc/self/clear_refs")
        self._reset = reset.open("wb", buffering=0) if reset.exists() else None  # opened before the sandbox closes

    def start(self) -> None:
        """Forget the peak so far."""
        if self._reset is not None:
            self._reset.write(b"5")
            self._before = _resident("VmRSS")

    def taken(self) -> float:
        """GB at the peak since `start`, beyond what was resident then."""
        return 0.0 if self._reset is None else (_resident("VmHWM") - self._before) / 1e9


def _resident(key: str) -> int:
    found = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return 1024 * int(found[1]) if found else 0


def limit_memory(gigabytes: float) -> None:
    """Let the process map so many GB more than now, so that what asks for the moon cannot take the machine down."""
    if not Path("/proc/self/statm").exists():
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + int(gigabytes * 1e9)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


# Reach --------------------------------------------------------------------------------------------------------------

WRITES = re.compile("[wax+]")
PROGRAMS = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.system", "os.fork", "pty.spawn")
CHANGES = {
    **dict.fromkeys(("os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.truncate", "os.utime"), (0,)),
    "os.rename": (0, 1),
    "os.link": (0, 1),
    "os.symlink": (1,),
    "shutil.rmtree": (0,),
    "shutil.move": (0, 1),
}
"""Which arguments of an event are paths. The last one of most is the folder from which they start, or -1."""


class Reach:
    """Sees, from inside of Python, every try to write outside of a folder, to start a program or to connect."""

    hooked: ClassVar[bool] = False
    watching: ClassVar[Reach | None] = None

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder.resolve())
        self.tries: list[str] = []

    @contextmanager
    def watched(self) -> Iterator[list[str]]:
        """The tries within the block, one at a time in a process."""
        if not Reach.hooked:  # for the life of the process: hooks cannot be removed
            sys.addaudithook(lambda event, arguments: Reach.watching and Reach.watching._audit(event, arguments))
            Reach.hooked = True
        self.tries, Reach.watching = [], self
        try:
            yield self.tries
        finally:
            Reach.watching = None

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in PROGRAMS or event in ("socket.connect", "socket.sendto", "socket.bind"):
            self.tries.append(f"{event} {arguments!r:.200}")
        elif event == "open" and self._writes(*arguments):
            self._check("open", arguments[0])
        for place in CHANGES.get(event, ()):
            self._check(event, arguments[place], -1 if event == "os.truncate" else arguments[-1])

    @staticmethod
    def _writes(path: Any, mode: str | None, flags: int) -> bool:
        return bool(WRITES.search(mode or "")) or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    def _check(self, event: str, path: Any, start: Any = -1) -> None:
        if isinstance(path, int) or path is None:
            return  # a file that is open already
        path = os.fsdecode(path)
        if type(start) is int and start >= 0 and not path.startswith("/"):
            if not Path("/proc/self/fd").is_dir():
                return
            path = f"{os.readlink(f'/proc/self/fd/{start}')}/{path}"  # noqa: PTH115
        place = os.path.realpath(os.path.dirname(os.path.abspath(path)))  # noqa: PTH100, PTH120
        if place != self.folder and not place.startswith(f"{self.folder}/") and path != os.devnull:
            self.tries.append(f"{event} {path}")


def close_in(folder: Path) -> bool:
    """From now on let the kernel refuse this process every write outside of the folder, programs and connections.

    By Landlock, which needs no rights but Linux 5.13; it cannot be undone. False where there is none.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    create, add, restrict = 444, 445, 446
    abi = libc.syscall(create, None, 0, 1)
    if abi < 1:
        return False
    files = sum(1 << bit for bit in (0, 1, *range(4, 13)))  # execute, write, remove, make; all but to read
    files |= (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0)  # refer, truncate
    network = 0b11 if abi >= 4 else 0  # bind, connect
    attributes = struct.pack("QQ", files, network)
    rules = libc.syscall(create, attributes, len(attributes) if abi >= 4 else 8, 0)
    if rules < 0:
        return False
    for place, allowed in ((folder, files & ~1), (Path(os.devnull), 1 << 1)):
        handle = os.open(place, os.O_PATH)
        libc.syscall(add, rules, 1, struct.pack("=Qi", allowed, handle), 0)
        os.close(handle)
    closed = libc.prctl(38, 1, 0, 0, 0) == 0 and libc.syscall(restrict, rules, 0) == 0  # 38: no new privileges
    os.close(rules)
    return bool(closed)
