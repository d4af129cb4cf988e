"""Measure how soon the window of `crispseg annotate` answers, idle and during a training, or take its picture.

    OMP_NUM_THREADS=1 xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py
    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/window.py --picture docs/assets/napari.png

The Python needs the extra napari. A timer of 10 ms runs in the window: the 50th and the 95th percentile of the
milliseconds between two of its events are printed, in a minute without work and in a minute of training. Strokes are
short lines of the true masks of four bundled images.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication

from crispseg import Project
from crispseg.annotation.widget import Annotator
from crispseg.data.sources import Nuclei
from crispseg.io.images import read_mask
from crispseg.labels import IGNORE


def write_project(folder: str) -> None:
    """Write a project with strokes."""
    pairs = Nuclei().pairs("train")[:4]
    project = Project(folder, [pair.image for pair in pairs], ["background", "nucleus"])
    for name, pair in zip(project.images, pairs, strict=True):
        truth = np.minimum(read_mask(pair.mask), 1).astype(np.uint8)
        rows, columns = np.indices(truth.shape)
        is_stroke = (rows % 40 < 5) & ((columns + rows // 40 * 32) % 96 < 40)
        project.write(name, np.where(is_stroke, truth, IGNORE))


def wait(condition: Callable[[], object]) -> None:
    """Let the window work until a condition holds."""
    while not condition():
        QApplication.processEvents()
        time.sleep(0.01)


def percentiles(seconds: float) -> list[float]:
    """Return the median and the 95th percentile of the milliseconds between two ticks of the window."""
    times, loop, timer = list[float](), QEventLoop(), QTimer(interval=10)
    timer.timeout.connect(lambda: times.append(1000 * time.perf_counter()))
    timer.start()
    QTimer.singleShot(round(1000 * seconds), loop.quit)
    loop.exec()
    return np.percentile(np.diff(times), [50, 95]).round(1).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="duration of each measurement and of the training")
    parser.add_argument("--picture", type=Path, help="write this picture, and measure nothing")
    given, viewer = parser.parse_args(), napari.Viewer()
    annotator, layers = Annotator(viewer), viewer.layers
    viewer.window.add_dock_widget(annotator, name="crispseg")
    with tempfile.TemporaryDirectory() as folder:
        write_project(folder)
        annotator.open_project(folder)
        wait(lambda: annotator.name)
        if given.picture:
            for button, layer in (("Segment", "prediction"), ("Measure", "objects")):
                annotator.model.value = "nuclei"
                annotator.buttons[button].native.click()
                wait(lambda layer=layer: layer in layers)
            viewer.window.resize(1400, 860)
            QApplication.processEvents()
            viewer.reset_view()
            viewer.screenshot(given.picture, canvas_only=False)
        else:
            print("idle:", *percentiles(given.seconds), flush=True)
            annotator.minutes.value = given.seconds / 60
            annotator.buttons["Train"].native.click()
            print("training:", *percentiles(given.seconds), flush=True)
            wait(lambda: annotator.stop is None and "prediction" in layers)
        viewer.close()


if __name__ == "__main__":
    main()
