"""`examples/camera.py`: the frames of a file and of a camera; windows need a display."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Refuses

pytest.importorskip("tkinter")
sys.path.append(str(Path(__file__).parents[2] / "examples"))
import camera


def picture(number: int) -> np.ndarray:
    return np.full((32, 48, 3), (10 * number, 100, 200), np.uint8)  # BGR


def test_a_file_gives_all_its_frames(tmp_path: Path, refuses: Refuses) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (48, 32))
    for number in range(9):
        writer.write(picture(number))
    writer.release()
    found = list(camera.frames(str(tmp_path / "a.avi")))
    assert len(found) == 9
    for number, frame in enumerate(found):
        assert np.abs(frame.mean((0, 1)) - (200, 100, 10 * number)).max() < 4  # RGB
    with refuses("missing.avi cannot be opened"):
        list(camera.frames(str(tmp_path / "missing.avi")))
