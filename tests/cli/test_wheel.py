"""What people install: the models are inside, and work without a network and without this clone."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crispseg import __version__
from crispseg.io.images import write_image

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 45e6

OFFLINE = """
import socket, sys
def refuse(*_):
    raise OSError("there is no network")
socket.socket.connect = refuse
import crispseg.data
from crispseg.cli.main import main
assert crispseg.__file__.startswith(sys.argv[1]), crispseg.__file__
for name in ("nuclei", "aerial", "leaf"):
    assert main(["predict", name, "photo.png", "--out", name]) == 0
assert len(crispseg.data.Nuclei().dataset("test"))
"""


@pytest.mark.slow
def test_a_wheel_predicts_without_network(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling is not installed: pip install 'crispseg[dev]'")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.stat().st_size <= MOST_BYTES
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", installed, wheel], check=True)
    write_image(tmp_path / "photo.png", np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    environment = {**os.environ, "PYTHONPATH": str(installed), "HF_HOME": str(tmp_path / "no-cache")}
    argv = [sys.executable, "-c", OFFLINE, str(installed)]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    command = subprocess.run([installed / "bin/crispseg", "--version"], env=environment, capture_output=True, text=True)
    assert command.stdout.strip() == __version__, command.stderr
    assert (installed / "crispseg/annotation/napari.yaml").is_file()  # of napari's plugin
    for name in ("nuclei", "aerial", "leaf"):
        with Image.open(tmp_path / name / "photo.png") as written:
            assert written.mode == "P" and written.size == (80, 60)
