"""A person in front of napari: keys, brush strokes and buttons of a real window; see the functions in `MODES`.

python tests/annotation/window.py MODE FOLDER
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import resources
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import napari
import numpy as np
from napari.utils.notifications import notification_manager
from npe2 import PluginManager, PluginManifest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from crispseg import Project
from crispseg.annotation.widget import Annotator
from crispseg.io.images import read_mask
from crispseg.labels import IGNORE

IMAGES = [str(path) for path in sorted((Path(__file__).parents[2] / "src/crispseg/data/free/nuclei/images").iterdir())]
WAIT = 400  # seconds, on a busy machine
CELL = 16  # side of the squares of an image that get a stroke each
KILLS = 10
LEFT = Qt.MouseButton.LeftButton
Place = Sequence[float]  # row and column


class Person:
    """Window of a project, which opens from the plugin's manifest, and a person's hands and patience."""

    def __init__(self, folder: str) -> None:
        manifest = PluginManifest.from_file(str(resources.files("crispseg.annotation") / "napari.yaml"))
        PluginManager.instance().register(manifest)
        self.viewer = napari.Viewer(show=True)
        _, self.annotator = self.viewer.window.add_plugin_dock_widget("crispseg")
        self.annotator.open_project(folder, IMAGES[:4], ["background", "nucleus"])
        self.wait(lambda: "strokes" in self.viewer.layers)
        self.canvas, self.strokes = self.viewer.window._qt_viewer.canvas.native, self.viewer.layers["strokes"]

    def wait(self, condition: Callable[[], object]) -> None:
        """Let the window work until a condition holds."""
        end = time.monotonic() + WAIT
        while not condition():
            QApplication.processEvents()
            time.sleep(0.01)
            assert time.monotonic() < end, f"waited in vain; the window says {self.annotator.note.value}"
        QApplication.processEvents()

    def rename_classes(self, names: str) -> None:
        """Type other names of classes; they are one change."""
        project, field = self.annotator.project, self.annotator.names.native
        field.selectAll()
        QTest.keyClicks(field, names)
        QTest.qWait(500)
        assert self.annotator.project is project
        QTest.keyClick(field, Qt.Key.Key_Return)
        self.wait(lambda: self.annotator.project is not project and self.annotator.name)
        assert ", ".join(self.annotator.project.classes.names) == names
        self.strokes = self.viewer.layers["strokes"]

    def press(self, button: str) -> None:
        QTest.mouseClick(self.annotator.buttons[button].native, LEFT)

    def mouse(self, action: Callable[..., None], place: Place) -> None:
        """Move the mouse to a place of the image, and do something there."""
        camera, size = self.viewer.camera, np.array([self.canvas.height(), self.canvas.width()])
        row, column = np.rint((np.array(place) - camera.center[-2:]) * camera.zoom + size / 2).astype(int).tolist()
        QTest.mouseMove(self.canvas, QPoint(column, row))
        action(self.canvas, LEFT, pos=QPoint(column, row))
        QApplication.processEvents()

    def stroke(self, key: str, start: Place, end: Place) -> None:
        """Choose a class, and paint a line with the brush."""
        QTest.keyClick(self.canvas, key)
        self.mouse(QTest.mousePress, start)
        for place in np.linspace(start, end, 4):
            self.mouse(lambda *_, **__: None, place)
        self.mouse(QTest.mouseRelease, end)


def reads_and_starts(folder: str) -> list[str]:
    """Return a list of the files in a folder that the window's thread will read, and of the processes it will start.

    Predictions read a file of the folder.
    """
    events: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        reads = event == "open" and folder in str(arguments[0]) and not arguments[2] & (os.O_WRONLY | os.O_RDWR)
        starts = event == "subprocess.Popen" and arguments[0] == sys.executable
        if (reads or starts) and threading.current_thread() is threading.main_thread():
            events.append(f"{event} {arguments[0]}")

    sys.addaudithook(watch)
    return events


def walk(folder: str) -> None:
    """Paint two classes, train, accept, measure, look at an object, be led on, draw a polygon, and save."""
    events, person = reads_and_starts(folder), Person(folder)
    annotator, layers = person.annotator, person.viewer.layers
    person.rename_classes("background, cell")
    first = annotator.name
    for key, row in (("1", 60), ("2", 120), ("1", 200), ("2", 230)):
        person.stroke(key, (row, 40), (row, 200))
    person.strokes.selected_label = 7
    assert person.strokes.selected_label == 2
    assert np.unique(person.strokes.data).tolist() == [0, 1, 2]
    with notification_manager:  # shows errors, as it does in napari
        person.press("Train")
        person.press("Train")  # Stop
        person.wait(lambda: annotator.stop is None and "stopped before" in annotator.note.value)
    notes = set[str]()
    person.press("Train")
    person.wait(lambda: notes.add(annotator.note.value) or "prediction" in layers)
    assert any("left, mIoU" in note for note in notes)
    assert np.ptp(layers["confidence"].data) > 0
    person.press("Accept image")
    person.press("Measure")
    person.wait(lambda: "objects" in layers)
    if annotator.table.shape[0]:
        annotator.table.native.cellClicked.emit(0, 0)
        assert layers["objects"].show_selected_label
    person.press("Where next")
    person.wait(lambda: annotator.name not in (first, ""))
    layers["strokes"].mode = "polygon"
    for place in ((20, 20), (20, 60), (60, 60)):
        person.mouse(QTest.mouseClick, place)
    person.mouse(QTest.mouseDClick, (60, 20))
    assert not events, events
    project = Project(folder)
    assert (project.labels(annotator.name) != IGNORE).sum() > 500, "polygons are saved when they are finished"
    assert project.accepted == {first} and (project.labels(first) != IGNORE).all()
    person.press("Save")
    person.wait(lambda: "written" in annotator.note.value)
    assert (Path(folder) / "predictions" / f"{annotator.name}_objects.csv").is_file()
    other = Annotator(person.viewer)
    other.open_project(folder)
    person.wait(lambda: "another process" in other.note.value)
    person.viewer.close()


def paint(folder: str, told: Connection) -> None:
    """Paint square after square while a model is trained, and tell each finished stroke."""
    person = Person(folder)
    for square in np.ndindex(*(np.array(person.strokes.data.shape) // CELL)):
        row, column = CELL * np.array(square) + CELL // 2
        if not person.strokes.data[row, column]:
            index = sum(square) % 2
            person.stroke(str(index + 1), (row, column - 3), (row, column + 3))
            told.send((person.annotator.name, row, column, index))
            if person.annotator.stop is None:
                person.press("Train")


def killed(folder: str) -> None:
    """Kill windows at random times while they paint and train; no finished stroke is lost.

    The windows are copies of this process, since importing napari takes seconds.
    """
    context, moment, strokes = multiprocessing.get_context("fork"), random.Random(0), list[Any]()
    for _ in range(KILLS):
        here, there = context.Pipe(duplex=False)
        window = context.Process(target=paint, args=(folder, there))
        window.start()
        there.close()
        strokes.append(here.recv())
        time.sleep(moment.uniform(0, 6))
        window.kill()
        window.join()
        with suppress(EOFError):
            while True:
                strokes.append(here.recv())
    assert len(strokes) > 2 * KILLS
    project = Project(folder)
    for name, row, column, index in strokes:
        assert read_mask(project.mask(name))[row, column] == index


MODES = {"walk": walk, "killed": killed}

if __name__ == "__main__":
    MODES[sys.argv[1]](sys.argv[2])
