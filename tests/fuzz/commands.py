"""The campaign: each hostile input is given to a command in a forked child with limits, and its outcome is judged."""

import hashlib
import importlib
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest.mock import Mock

from PIL import Image

from crispseg import CrispsegError
from crispseg.cli import demo
from crispseg.cli import main as cli
from crispseg.config.settings import Text, checked
from crispseg.inference.runtime import CHECKSUM
from fuzz.damage import damaged
from fuzz.hostile import KINDS, OTHERS, TOKEN, Edit, apply, cut, edits, flipped, is_text, put_other, text_of
from fuzz.subjects import COMMANDS, SUBJECTS, TEXTS, keys_of, make_sound, with_setting, words_of

MEMORY = 4 * 2**30  # bytes beyond those of the parent; the imports of PyTorch alone take nearly 4 GiB of addresses
SECONDS, LONGEST = 20, 300  # of the processor, and of the clock for a child that waits
EXPORT_SECONDS = 90  # of an export and its comparison, which takes 20 without damage
BAD = ("ugly", "wrong", "hung", "crashed")
WAYS = {"cut": cut, "flip": flipped, "bytes": damaged}
CHECKED = (".safetensors", ".ckpt", ".pth", ".onnx", ".bin")  # suffixes of files with checksums
RESULTS = re.compile(r"wrote|loss|IoU|[│%]|pixels")  # in lines whose numbers may differ
REMEDY = re.compile(r"[;,:] \w|\bgive\b|did you mean|\bneeds?\b|\"remedy\": \"")
ERRORS = ("crispseg: error:", '{"error":')  # starts of an error, the second one as JSON


class Case(NamedTuple):
    """A hostile input: its name (reader or command, kind, number), arguments, file, and how the file is changed.

    A refusal contains a text of `named`. If the command succeeds with other results in the files of the pattern
    `written`, `may_differ` tells from the changed file whether it may be sound and say something else.
    """

    name: str
    argv: list[str]
    named: tuple[str, ...]
    make: Callable[[Path], object]
    may_differ: Callable[[Path], bool]
    file: str = "data"
    written: str = ""


def all_cases(sound: Path, count: int) -> Iterator[Case]:
    """Yield `count` cases of each kind and reader or command, if there are as many."""
    for name in SUBJECTS:
        for kind in (*WAYS, "other", *KINDS):
            yield from file_cases(name, kind, sound, max(count, len(OTHERS)) if kind == "other" else count)
    for name in COMMANDS:
        for kind in TEXTS:
            yield from setting_cases(name, kind, count)


def file_cases(name: str, kind: str, sound: Path, count: int) -> Iterator[Case]:
    argv, written, pattern = SUBJECTS[name]
    files = sorted(str(path.relative_to(sound)) for path in sound.glob(pattern))
    changes = edited_files(name, kind, sound, files) if kind in KINDS else damaged_files(name, kind, sound, files)
    for number, (file, make, may_differ, new) in enumerate(islice(changes, count)):
        new_word = filter(None, [new.strip(' "')[:30]])
        named = (Path(file).name, Path(file).stem, Path(file).parts[0], str(sound)[:8], *new_word)
        arguments = argv.replace("FILE", file).split()
        yield Case(f"{name}/{kind}/{number}", arguments, named, make, may_differ, file, written)


def damaged_files(name: str, kind: str, sound: Path, files: list[str]) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield a file, what damages it, `may_differ` of a `Case`, and the longest new word, without end."""
    for number in range(10**6):
        file, make, new = files[number % len(files)], partial(put_other, OTHERS[number % len(OTHERS)]), ""
        if kind in WAYS:
            seed = f"{name}/{kind}/{number}"
            make, new = partial(rewrite, WAYS[kind], seed), new_word((sound / file).read_bytes(), WAYS[kind], seed)
        yield file, make, partial(is_sound, kind), new


def edited_files(name: str, kind: str, sound: Path, files: list[str]) -> Iterator[tuple[str, Any, Any, str]]:
    """Yield a file, what edits it, `may_differ` of a `Case`, and the text that the edit writes."""
    choices = []
    for file in files:
        choices += [(file, edit) for edit in edits(text_of(sound / file, (sound / file).read_bytes()), kind)]
    for file, edit in shuffled(choices, name + kind):
        yield file, partial(apply, edit), partial(is_alike, edit), edit.new


def is_alike(edit: Edit, path: Path) -> bool:
    content = path.read_bytes()
    if CHECKSUM.search(content):  # an exported file that got the checksum of its new content
        return True
    if path.suffix == ".txt" and is_text(content):  # of names, which may be any text
        return True
    is_picture = path.parent.name in ("images", "masks")
    return edit.is_alike if is_text(content) and not is_picture else is_sound("number", path)


def setting_cases(name: str, kind: str, count: int) -> Iterator[Case]:
    keys = keys_of(name)
    choices = shuffled([(key, text) for key in keys for text in TEXTS[kind]], name + kind)
    for number, (key, text) in enumerate(choices[:count]):
        last = key.rpartition(".")[2]
        words = re.findall(r"[^\s\[\]{},:'&]+", text) or [text]
        named = (last, last.replace("_", "-"), last.partition("_")[0], words[0][:20], "is missing", "odd/loop")
        is_word = key in words_of(name)  # an empty one is as if it were left out
        accepts = partial(is_accepted, str if is_word else keys[key].kind, text or "none" if is_word else text)
        yield Case(f"{name}/{kind}/{number}", with_setting(name, key, text), named, bool, accepts)


def shuffled(choices: list[Any], seed: str) -> list[Any]:
    Random(seed).shuffle(choices)
    return choices


def new_word(content: bytes, way: Callable[[Random, bytes], bytes], seed: str) -> str:
    """The longest word that a damaged text has and the sound one has not."""
    if not is_text(content):
        return ""
    words = {*TOKEN.findall(way(Random(seed), content).decode(errors="replace"))} - {*TOKEN.findall(content.decode())}
    return max(words, key=len, default="")


def rewrite(way: Callable[[Random, bytes], bytes], seed: str, path: Path) -> None:
    path.write_bytes(way(Random(seed), path.read_bytes()))


def is_sound(kind: str, path: Path) -> bool:
    """Whether a changed file has no checksum that would tell, and other readers than crispseg's read it."""
    if not path.is_file() or path.suffix in CHECKED or CHECKSUM.search(path.read_bytes()):
        return False
    if path.parent.name in ("images", "masks"):
        with suppress(Exception), Image.open(path) as picture:
            return picture.load() is not None
        return False
    return path.suffix != ".mp4" or kind != "cut"  # pictures of videos have no checksums


def is_accepted(kind: Any, text: str, _: Path) -> bool:
    """Whether the type of a setting has a value of this text."""
    with suppress(CrispsegError):
        checked(kind, Text(text), "setting")
        return True
    return False


class Ended(NamedTuple):
    """How a command ended: its exit status, or minus the number of a signal; what it printed, and digests of files."""

    status: int
    printed: str
    written: dict[str, str]


class Campaign:
    """Runs commands on copies of the sound files, in `place`."""

    def __init__(self, place: Path) -> None:
        for name in (*(f"crispseg.cli.{name}" for name in cli.COMMANDS), "crispseg.training.fit", "imagecodecs"):
            importlib.import_module(name)  # once, not in each child
        self.place, self.sound = place, place / "sound"
        self.expected: dict[str, Ended] = {}
        self.sound.mkdir()
        os.chdir(self.sound)
        assert in_child(partial(make_sound, self.sound), place / "log") == 0, (place / "log").read_text()
        assert len([*Path("/proc/self/task").iterdir()]) == 1  # no thread

    def outcome(self, case: Case) -> tuple[str, str]:
        """Return the outcome of a case, and what its command printed."""
        key = str(case.argv)
        if case.written and key not in self.expected:
            self.expected[key] = self.run(case._replace(make=bool))[0]
            assert self.expected[key].status in (0, 1) and self.expected[key].written, self.expected[key]
        ended, may_differ = self.run(case)
        return judged(case, ended, self.expected.get(key), may_differ), ended.printed

    def run(self, case: Case) -> tuple[Ended, bool]:
        """Run a command in a child; also return whether its results may differ from those of sound files."""
        folder, log = self.place / "case", self.place / "log"
        shutil.copytree(self.sound, folder, symlinks=True, ignore=lambda *_: ["pipe"])
        put_other("pipe", folder / "odd/pipe")
        status = in_child(partial(limited, case, folder), log)
        files = sorted(path for path in folder.glob(case.written or "none") if path.is_file())
        written = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
        may_differ = case.may_differ(folder / case.file)
        shutil.rmtree(folder)
        return Ended(status, log.read_text(errors="replace")[-100_000:], written), may_differ


def judged(case: Case, ended: Ended, sound: Ended | None, may_differ: bool) -> str:
    """Return right, another (a sound input that says something else), refused, or one of `BAD`."""
    if ended.status in (-signal.SIGXCPU, -signal.SIGKILL):
        return "right" if " left" in ended.printed else "hung"  # a long training prints its remaining time
    if ended.status < 0:
        return "crashed"
    if ended.status == 70 or "Traceback (most" in ended.printed:
        return "ugly"
    if ended.status == 2:
        errors = [line for line in ended.printed.splitlines() if line.startswith(ERRORS)]
        is_named = any(name in ended.printed for name in case.named)
        return "refused" if len(errors) == 1 and is_named and REMEDY.search(errors[0]) else "ugly"
    if sound is None:
        return "right" if may_differ else "wrong"
    if ended.written == sound.written or lines(ended) - lines(sound):
        return "right"
    return "another" if may_differ else "wrong"


def lines(ended: Ended) -> set[str]:
    return {line for line in ended.printed.splitlines() if not RESULTS.search(line)}


def in_child(function: Callable[[], int | None], log: Path) -> int:
    """Run a function in a forked child, which writes to `log`; return its exit status, or minus that of a signal."""
    child, end = os.fork(), time.monotonic() + LONGEST
    if child:
        ended, status = 0, 0
        while not ended:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.005)
            if not ended and time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(status)
    status = 70
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND), 1)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(1, 2)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, errors="replace", closefd=False) for number in (1, 2))
        status = function() or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def limited(case: Case, folder: Path) -> int:
    """Change the file and run the command in this process, with limits; return the exit status."""
    os.environ.update(HOME=str(folder), CRISPSEG_CACHE=str(folder / "cache"))
    os.chdir(folder)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    seconds = EXPORT_SECONDS if case.argv[0] == "export" else SECONDS
    limits = {resource.RLIMIT_AS: taken + MEMORY, resource.RLIMIT_FSIZE: 2**30, resource.RLIMIT_CPU: seconds}
    for kind, limit in limits.items():
        resource.setrlimit(kind, (limit, limit + 1))
    case.make(folder / case.file)
    vars(demo).update(Event=Mock)  # a demo ends as soon as it serves
    return cli.main(case.argv)
