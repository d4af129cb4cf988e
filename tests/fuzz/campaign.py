"""What comes of damaged files: each is read as it was, read as something else where nothing can tell, or refused."""

import io
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import torch

from crispseg import CrispsegError
from fuzz.damage import damaged, damaged_text
from fuzz.readers import Reader

Damage: TypeAlias = Callable[[Random, bytes], bytes]


def content_of(value: Any) -> bytes:
    """Arrays, tensors, and mappings and sequences of them as bytes."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def attempt(name: str, reader: Reader, seed: int, folder: Path, damage: Damage = damaged) -> str:
    """Damage a file as the seed says and read it; return read, refused, or what went wrong."""
    random = Random(f"{name} {seed}")
    file = random.choice(sorted(reader.seeds))
    sound = reader.seeds[file]
    content = damaged_text(random, sound) if reader.text and random.random() < 0.7 else damage(random, sound)
    folder.mkdir()
    path = folder / file
    path.write_bytes(content)
    try:
        result = content_of(reader.read(path))
        if path.read_bytes() != content:
            return "the input was changed"
        if file.endswith(reader.checked) and reader.checked:
            path.write_bytes(sound)
            if result != content_of(reader.read(path)):
                return f"damage to {file} is accepted"
        return "read"
    except CrispsegError as error:
        return "refused" if "\n" not in str(error).strip() else f"several lines: {error}"
    except Exception as error:
        return f"{file}: {''.join(traceback.format_exception(error)[-3:])}"
    finally:
        shutil.rmtree(folder)
