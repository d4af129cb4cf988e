"""The window in napari, on a real display; the Python of CRISPSEG_NAPARI_PYTHON has napari and crispseg's packages."""

import shutil
from pathlib import Path

import pytest
from other_programs import program, run

SCREEN = ["xvfb-run", "-a", "-s", "-screen 0 1600x1000x24"]


@pytest.mark.tools
@pytest.mark.parametrize("mode", ["walk", "killed"])
def test_window(mode: str, tmp_path: Path) -> None:
    python = program("CRISPSEG_NAPARI_PYTHON", "Python with napari")
    if not shutil.which(SCREEN[0]):
        pytest.skip("xvfb-run is not installed")
    run(*SCREEN, python, Path(__file__).with_name("window.py"), mode, tmp_path / "project")
