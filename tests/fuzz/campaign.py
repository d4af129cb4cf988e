"""What comes of damaged files: each is read as it was, read as something else where nothing can tell, or refused."""

from __future__ import annotations

import hashlib
import shutil
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from crispseg import CrispsegError
from fuzz.damage import damaged, damaged_text
from fuzz.readers import Reader

SECONDS = 60


def digest(value: Any) -> str:
    """A digest of arrays, tensors and mappings and sequences of them."""
    if isinstance(value, dict):
        text = " ".join(f"{key} {digest(value[key])}" for key in sorted(value))
    elif isinstance(value, tuple | list):
        text = " ".join(map(digest, value))
    elif hasattr(value, "dtype"):
        array = np.asarray(value)
        text = f"{array.dtype} {array.shape} {array.tobytes().hex()}"
    else:
        text = repr(value)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def limited_time() -> Iterator[None]:
    """Raise `TimeoutError` after a minute."""

    def end(*_: Any) -> None:
        raise TimeoutError(f"more than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(name: str, reader: Reader, seed: int, folder: Path) -> str:
    """Damage a file as the seed says and read it; return read, refused, or what went wrong."""
    random = Random(f"{name} {seed}")
    file = random.choice(sorted(reader.seeds))
    sound = reader.seeds[file]
    content = damaged_text(random, sound) if reader.text and random.random() < 0.7 else damaged(random, sound)
    folder.mkdir()
    path = folder / file
    path.write_bytes(content)
    try:
        with limited_time():
            found = digest(reader.read(path))
        if path.read_bytes() != content:
            return "the input was changed"
        if file.endswith(reader.checked) and reader.checked:
            path.write_bytes(sound)
            if found != digest(reader.read(path)):
                return f"damage to {file} is accepted"
        return "read"
    except CrispsegError as error:
        return "refused" if "\n" not in str(error).strip() else f"several lines: {error}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"{file}: {''.join(traceback.format_exception(error)[-3:])}"
    finally:
        shutil.rmtree(folder)
