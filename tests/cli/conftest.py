"""Fixtures and helpers of the tests of commands."""

from pathlib import Path

import numpy as np
import pytest

from crispseg.io.images import write_image
from crispseg.training import Run


@pytest.fixture
def run(tiny_run: Run) -> Path:
    """The folder of a finished run."""
    return tiny_run.folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures of different sizes and formats, one of them in a sub-folder."""
    folder = tmp_path / "in"
    random = np.random.default_rng(0)
    for name, size in (("one.png", (40, 64)), ("two.v2.jpg", (33, 57)), ("sub/three.png", (70, 50))):
        write_image(folder / name, random.integers(0, 256, (*size, 3), np.uint8))
    return folder
