"""The window in napari, on a real display; the Python of CRISPSEG_NAPARI_PYTHON has napari and crispseg's packages."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crispseg import Project
from crispseg.io.images import read_mask
from crispseg.labels import IGNORE

pytestmark = pytest.mark.tools
SCREEN = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]
ROOT = Path(__file__).parents[2]
IMAGES = [str(path) for path in sorted((ROOT / "src/crispseg/data/free/nuclei/images").iterdir())[:4]]
KILLS = 10


@contextmanager
def window(mode: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A person at work in a window, see window.py."""
    python = os.environ.get("CRISPSEG_NAPARI_PYTHON")
    if not python:
        pytest.skip("CRISPSEG_NAPARI_PYTHON names no Python with napari")
    if not shutil.which(SCREEN[0]):
        pytest.skip("xvfb-run is not installed")
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [*SCREEN, python, str(Path(__file__).with_name("window.py")), mode, str(folder), *IMAGES]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process


def test_paint_train_correct_and_measure(tmp_path: Path) -> None:
    """The window's thread reads no file, predicts nothing and starts no training."""
    folder = tmp_path / "project"
    with window("walk", folder) as process:
        assert process.stdout
        result = json.loads(process.stdout.readlines()[-1])
    assert process.returncode == 0
    assert result["painted"] == {"1": [0, 1, 2], "2": [0, 1, 2]} and result["full"]
    assert any("left, mIoU" in note for note in result["notes"])
    assert 0 <= result["confidence"][0] < result["confidence"][1] <= 255
    project = Project(folder)
    first, *others = project.images
    assert project.accepted == {first} and (project.labels(first) != IGNORE).all()
    assert result["next"] in others
    assert (folder / "predictions" / f"{result['next']}_objects.csv").is_file()
    assert result["seen"] == []


def test_no_finished_stroke_is_lost(tmp_path: Path) -> None:
    """The window is killed at random times, while it paints and trains; each time it opens again."""
    folder, strokes, moment = tmp_path / "project", list[list[str]](), random.Random(0)
    for _ in range(KILLS):
        with window("paint", folder) as process:
            assert process.stdout
            number = int(process.stdout.readline())
            line = process.stdout.readline()  # the first stroke
            time.sleep(moment.uniform(0, 6))
            os.kill(number, signal.SIGKILL)
            strokes += [words.split()[1:] for words in (line, *process.stdout) if words.startswith("stroke")]
    assert len(strokes) > 2 * KILLS
    project = Project(folder)
    for name, row, column, index in strokes:
        assert read_mask(project.mask(name))[int(row), int(column)] == int(index)
