"""Other programs, which tests marked `tools` run in environments of their own."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def program(variable: str, needs: str) -> str:
    """Return the program that a variable of the environment names; skip the test if there is none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no {needs}")
    return os.environ[variable]


def run(*command: object) -> None:
    """Run a script of another Python, which fails the test if it fails; it may import crispseg."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*map(str, command)], env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
