"""Files that would never end: pipes instead of files, and aliases of aliases."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crispseg.config.yaml_files import parse_yaml, read_yaml
from crispseg.io.files import digest
from crispseg.io.images import image_size, read_image, read_mask
from crispseg.io.tiff import open_dataset


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize(
    "read", [read_image, read_mask, image_size, lambda path: open_dataset(path).__enter__()], ids=range(4)
)
def test_pipes_are_refused(read: Callable[[Path], Any], tmp_path: Path, refuses: Any) -> None:
    os.mkfifo(tmp_path / "a.tif")
    with refuses("a.tif is a pipe", "give a file"):
        read(tmp_path / "a.tif")
    assert digest(tmp_path / "a.tif") == digest(tmp_path / "none")


def test_aliases_of_aliases(tmp_path: Path, refuses: Any) -> None:
    """Each level stands for ten of the level before."""
    levels = [f"a{index}: &a{index} [{', '.join([f'*a{index - 1}'] * 10)}]" for index in range(1, 12)]
    (tmp_path / "data.yaml").write_text("\n".join(["a0: &a0 x", *levels]))
    with refuses("data.yaml", "aliases stand for more than 1,000,000 values"):
        read_yaml(tmp_path / "data.yaml")
    with pytest.raises(ValueError, match="aliases"):
        parse_yaml("a: &a [*a]")
    assert parse_yaml("a: &a [1, 2]\nb: *a")["b"] == [1, 2]
