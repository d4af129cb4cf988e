"""`crispseg annotate FOLDER [IMAGES ...]`"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crispseg.annotation.widget import Annotator
from crispseg.cli.command import Command
from crispseg.errors import check_installed


@dataclass(kw_only=True)
class Annotate(Command):
    """Paint images, train a model on the strokes, and correct its predictions, in a window of napari.

    Args:
        folder: folder of the project, which is created if it is missing. Other commands read it like any data.
        images: images to add: files, folders or patterns.
        classes: names of the classes; by default those of classes.txt in the folder, or background and object.
    """

    name = "annotate"
    words = ("folder", "images")
    folder: Path
    images: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def __call__(self) -> None:
        open_window(self.folder, self.images, self.classes)
        self.results["project"] = self.folder


def open_window(folder: Path, images: Sequence[str], classes: Sequence[str]) -> None:
    """Open a project in napari, and return when the window is closed."""
    check_installed("napari", "annotate", "'crispseg[napari]'")
    import napari

    viewer = napari.Viewer(title=f"crispseg: {folder}")
    annotator = Annotator(viewer)
    viewer.window.add_dock_widget(annotator, name="crispseg")
    annotator.open_project(folder, images, classes)
    napari.run()
