"""`examples/camera.py`: the frames of a file and of a camera; windows need a display."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

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


def test_of_a_camera_the_newest_frame_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Camera:
        def __init__(self, source: Any) -> None:
            assert source == 1
            self.taken = 0

        def isOpened(self) -> bool:
            return True

        def read(self) -> tuple[bool, np.ndarray]:
            self.taken += 1
            time.sleep(0.01)
            return self.taken <= 20, picture(self.taken)

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    found = []
    for frame in camera.frames("1"):
        found.append(int(frame[0, 0, 2]) // 10)
        time.sleep(0.1)
        if found[-1] >= 15:
            break
    assert found[-1] >= 15 and len(found) < 8 and found == sorted(found)
