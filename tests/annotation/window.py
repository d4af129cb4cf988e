"""A person in front of napari, for tests, measurements and pictures: keys, brush strokes and buttons of a real window.

python tests/annotation/window.py MODE FOLDER [IMAGES ...]: `walk` goes once through all buttons and prints what it saw,
as JSON; `paint` trains and paints until it is killed, and prints each stroke when it is finished.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import napari
import numpy as np
from npe2 import PluginManager, PluginManifest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from crispseg import Segmenter

WAIT = 400  # seconds, on a busy machine
CELL = 16  # side of the squares of an image that `paint` gives a stroke each


class Person:
    """Window of a project, which opens from the plugin's manifest, and a person's hands and patience."""

    def __init__(self, folder: str | Path, images: Sequence[str] = (), classes: Sequence[str] = ()) -> None:
        manifest = PluginManifest.from_file(str(resources.files("crispseg.annotation") / "napari.yaml"))
        PluginManager.instance().register(manifest)
        self.viewer = napari.Viewer(show=True)
        _, self.annotator = self.viewer.window.add_plugin_dock_widget("crispseg")
        self.annotator.open_project(folder, images, classes)
        self.wait(lambda: "strokes" in self.viewer.layers)

    @property
    def canvas(self) -> Any:
        return self.viewer.window._qt_viewer.canvas.native

    def wait(self, condition: Callable[[], object]) -> None:
        """Let the window work until a condition holds."""
        end = time.monotonic() + WAIT
        while not condition():
            QApplication.processEvents()
            time.sleep(0.01)
            assert time.monotonic() < end, f"waited in vain; the window says {self.annotator.note.value}"
        QApplication.processEvents()

    def open(self, name: str) -> None:
        self.annotator.image.value = name
        self.wait(lambda: self.annotator.name == name)

    def press(self, button: str) -> None:
        QTest.mouseClick(self.annotator.buttons[button].native, Qt.MouseButton.LeftButton)

    def key(self, key: str) -> None:
        QTest.keyClick(self.canvas, key)

    def point(self, row: float, column: float) -> QPoint:
        """Return the place of a pixel on the canvas."""
        camera = self.viewer.camera
        x = (column - camera.center[-1]) * camera.zoom + self.canvas.width() / 2
        y = (row - camera.center[-2]) * camera.zoom + self.canvas.height() / 2
        return QPoint(round(x), round(y))

    def stroke(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Paint a line with the brush."""
        points = [self.point(*place) for place in np.linspace(start, end, 4)]
        QTest.mouseMove(self.canvas, points[0])
        QTest.mousePress(self.canvas, Qt.MouseButton.LeftButton, pos=points[0])
        for place in points[1:]:
            QTest.mouseMove(self.canvas, place)
            QApplication.processEvents()
        QTest.mouseRelease(self.canvas, Qt.MouseButton.LeftButton, pos=points[-1])
        QApplication.processEvents()


def work_of_the_window(folder: str) -> list[str]:
    """Return a list that will name what the window's thread reads in the folder, predicts, or starts."""
    seen: list[str] = []
    segment = Segmenter._segment

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if threading.current_thread() is threading.main_thread():
            if event == "open" and folder in str(arguments[0]) and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
                seen.append(f"open {arguments[0]}")
            if event == "subprocess.Popen" and arguments[0] == sys.executable:
                seen.append(f"start {arguments[0]}")

    def watched(*arguments: Any, **options: Any) -> Any:
        if threading.current_thread() is threading.main_thread():
            seen.append("predict")
        return segment(*arguments, **options)

    Segmenter._segment = watched
    sys.addaudithook(watch)
    return seen


def walk(folder: str, images: Sequence[str]) -> dict[str, Any]:
    """Paint two classes, train, segment, accept, undo, measure, look at an object, be led on, and save."""
    seen = work_of_the_window(folder)
    person = Person(folder, images, ["background", "nucleus"])
    annotator, layers = person.annotator, person.viewer.layers
    painted = {}
    for key, row in (("1", 60), ("2", 120), ("1", 200), ("2", 230)):
        person.key(key)
        person.stroke((row, 40), (row, 200))
        painted[key] = np.unique(layers["strokes"].data).tolist()
    person.key("z")  # no stroke
    annotator.minutes.value = float(os.environ.get("CRISPSEG_MINUTES", "1"))
    person.press("Train")
    notes = []
    person.wait(lambda: notes.append(annotator.note.value) or "prediction" in layers)
    confidence = layers["confidence"].data
    person.press("Accept image")
    full = int((layers["strokes"].data > 0).mean() == 1)
    person.press("Measure")
    person.wait(lambda: "objects" in layers)
    rows = annotator.table.shape[0]
    if rows:
        annotator.table.native.cellClicked.emit(0, 0)
    name = annotator.name
    person.press("Where next")
    person.wait(lambda: annotator.name != name)
    person.press("Save")
    person.wait(lambda: "written" in annotator.note.value)
    result = {
        "painted": painted,
        "notes": sorted({*notes}),
        "confidence": [int(confidence.min()), int(confidence.max())],
    }
    result |= {"full": full, "rows": rows, "next": annotator.name, "seen": seen}
    person.viewer.close()
    return result


def paint(folder: str, images: Sequence[str]) -> None:
    """Paint cell after cell while a model is trained."""
    person = Person(folder, images, ["background", "nucleus"])
    labels = person.viewer.layers["strokes"].data
    person.annotator.minutes.value = 0.2
    for row in range(8, labels.shape[0] - 8, CELL):
        for column in range(8, labels.shape[1] - 8, CELL):
            if not labels[row, column]:
                index = (row // CELL + column // CELL) % 2 + 1
                person.key(str(index))
                person.stroke((row, column - 3), (row, column + 3))
                print("stroke", person.annotator.name, row, column, index - 1, flush=True)
                if row > 8 and person.annotator.stop is None:
                    person.press("Train")


if __name__ == "__main__":
    print(os.getpid(), flush=True)
    mode, folder, *images = sys.argv[1:]
    result = {"walk": walk, "paint": paint}[mode](folder, images)
    print(json.dumps(result), flush=True)
