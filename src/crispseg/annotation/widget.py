"""Widget for napari: paint, train, segment, correct and measure. Files are read, and models run, in other threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.annotation.project import Labels, Progress, Project
from crispseg.config.files import real_path
from crispseg.inference import Segmentation
from crispseg.inference.objects import Object, Objects
from crispseg.io.files import owned, user_path
from crispseg.io.images import read_image
from crispseg.labelling.following import Candidate
from crispseg.labels import LabelSet
from crispseg.models.saving import shipped_models

LAYERS = {"image", "prediction", "confidence", "objects", "where next", "strokes"}
OBJECT_COLUMNS = ("id", "category", "area", "centroid_x", "centroid_y", "probability")  # of the table of objects
KEYS = 9  # number of classes with a key
BRUSH = 5  # diameter of the brush in pixels


class Annotator:
    """Dock widget of one project. Values of its layers of labels are class ids + 1, and 0 for unlabelled pixels."""

    project: Project
    result: Segmentation | None = None  # prediction for the shown image
    stop: Event | None = None  # ends the training, if there is one
    box: tuple[int, ...] | None = None  # to be shown in the next image
    name = ""  # of the shown image
    place: Path | None = None  # folder of the project

    def __init__(self, napari_viewer: Any) -> None:
        from magicgui import widgets

        self.ownership = ExitStack()  # of the folder of the project
        self.viewer = napari_viewer
        self.folder = widgets.FileEdit(mode="d", label="Project")
        self.names = widgets.LineEdit(label="Classes", tooltip="Names, separated by commas", enabled=False)
        self.image = widgets.ComboBox(label="Image", choices=[])
        self.classes = widgets.Container(labels=False)
        self.model = widgets.ComboBox(label="Model", choices=[], nullable=True)
        self.minutes = widgets.FloatSpinBox(label="Minutes", value=1, min=0.2, max=600, step=0.5)
        self.progress = widgets.ProgressBar(value=0, max=100)
        self.note = widgets.Label(value="Choose the folder of a project.")
        self.table = widgets.Table()
        actions = {
            "Train": self._train,
            "Segment": self._segment,
            "Accept image": self._accept,
            "Where next": lambda: self._run(self._show_suggestion, self.project.suggest),
            "Measure": lambda: self._run(partial(self._show_objects, self.name), self.project.measure, self.name),
            "Save": lambda: self._run(self._show_saved, self.project.save, self.name),
        }
        self.buttons = {text: widgets.PushButton(text=text, enabled=False) for text in actions}
        for text, action in actions.items():
            self.buttons[text].changed.connect(action)
        buttons = [*self.buttons.values()]
        bars = [widgets.Container(layout="horizontal", labels=False, widgets=row) for row in (buttons[:3], buttons[3:])]
        settings = [self.folder, self.names, self.image, self.classes, self.model, self.minutes]
        form = widgets.Container(widgets=settings)
        panel = widgets.Container(labels=False, widgets=[form, *bars, self.progress, self.note, self.table])
        for container in (self.classes, form, *bars):
            container.margins = (0, 0, 0, 0)
        self.native = panel.native
        self.native.annotator = self, panel  # both live as long as the window
        self.native.destroyed.connect(self._stop)
        self.native.destroyed.connect(lambda: self.ownership.close())
        self.note.native.setWordWrap(True)
        self.table.native.verticalHeader().hide()
        self.table.native.cellClicked.connect(self._show_object)
        self.folder.changed.connect(self.open_project)
        self.folder.line_edit.native.setReadOnly(True)  # else each typed letter would be a project
        self.names.native.editingFinished.connect(self._rename_classes)
        self.image.changed.connect(self._open_image)
        self.model.changed.connect(lambda model: setattr(self.project, "model", model))

    def _run(self, done: Callable[[Any], object], function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function in another thread, and `done` with its result in the window's; an error is shown."""
        from napari.qt.threading import create_worker

        reactions = {"returned": done, "errored": lambda error: setattr(self.note, "value", str(error))}
        return create_worker(function, *arguments, _connect=reactions)

    # Project and image ----------------------------------------------------------------------------------------------

    def open_project(self, folder: str | Path, images: Sequence[str] = (), classes: Sequence[str] = ()) -> None:
        """Open the project in a folder, with further images and, if there are any, other names of classes."""
        self._run(self._show_project, self._owned_project, folder, images, [name.strip() for name in classes])

    def _owned_project(self, folder: str | Path, images: Sequence[str], classes: Sequence[str]) -> Project:
        """Return the project in a folder; if another window has it open, raise a `CrispsegError`."""
        place = real_path(user_path(folder))
        if place == self.place:
            return Project(place, images, classes)
        with ExitStack() as ownership:
            ownership.enter_context(owned(place))
            project = Project(place, images, classes)
            self.ownership.close()
            self.ownership, self.place = ownership.pop_all(), place
        return project

    def _rename_classes(self) -> None:
        """Take the names of classes when they are whole: the field is left, or the return key is pressed."""
        if self.names.native.isModified():
            self.names.native.setModified(False)
            self.open_project(self.project.folder, classes=self.names.value.split(","))

    def _show_project(self, project: Project) -> None:
        from magicgui import widgets

        self._clear()  # no stroke on an image of the project before is written to this one
        self.project, images = project, [*project.images]
        self._show_models()
        with self.folder.changed.blocked(), self.image.changed.blocked():
            self.folder.value, self.names.value = project.folder, ", ".join(project.classes.names)
            self.image.choices = images
        self.classes.clear()
        for index, (name, color) in enumerate(project.classes.legend, 1):
            button = widgets.PushButton(text=f"{index}  {name}")
            button.native.setCheckable(True)
            button.native.setStyleSheet(f"text-align: left; padding: 4px; border-left: 16px solid rgb{color}")
            button.changed.connect(partial(self._choose_class, index))
            self.classes.append(button)
        self.names.enabled = True
        for widget in (self.classes, *self.buttons.values()):
            widget.enabled = bool(images)
        self.note.value = "" if images else "The project has no images; copy some to its folder images."
        if images:
            self._open_image(self.image.value)

    def _clear(self) -> None:
        self.name, self.result = "", None
        self.table.clear()
        for layer in LAYERS.intersection(map(str, self.viewer.layers)):
            self.viewer.layers.remove(layer)

    def _show_models(self) -> None:
        with self.model.changed.blocked():
            self.model.choices = [*self.project.runs, *shipped_models()]
            self.model.value = self.project.model

    def _open_image(self, name: str) -> None:
        self._run(partial(self._show_image, name), _image_and_labels, self.project, name)

    def _show_image(self, name: str, content: tuple[NDArray[np.uint8], Labels]) -> None:
        """Show an image and its labels; the strokes of the one before are on the disk."""
        if name != self.image.value:  # another image was chosen meanwhile
            return
        image, labels = content
        self._clear()
        self.name = name
        self.viewer.add_image(image, name="image")
        strokes = self.viewer.add_labels(labels + 1, name="strokes", colormap=_colormap(self.project.classes))
        strokes.brush_size = BRUSH
        strokes.events.paint.connect(self._save_strokes)
        strokes.events.selected_label.connect(self._keep_to_classes)
        for index in range(1, min(KEYS, len(self.project.classes)) + 1):
            strokes.bind_key(str(index), lambda _, index=index: self._choose_class(index), overwrite=True)
        for key, change in {"Control-Z": strokes.undo, "Control-Shift-Z": strokes.redo}.items():
            strokes.bind_key(key, lambda _, change=change: self._save_strokes(change()), overwrite=True)
        self._choose_class(1)
        self.viewer.reset_view()
        self._show_box()
        self.note.value = f"{name} {'(accepted prediction)' * (name in self.project.accepted)}"

    def _choose_class(self, index: int, *_: object) -> None:
        for number, button in enumerate(self.classes, 1):
            button.native.setChecked(number == index)
        strokes = self.viewer.layers["strokes"]
        strokes.selected_label, strokes.mode = index, "paint"
        self.viewer.layers.selection.active = strokes

    def _keep_to_classes(self, *_: object) -> None:
        """Choose the last class instead of napari's higher numbers, which no class has."""
        strokes = self.viewer.layers["strokes"]
        strokes.selected_label = min(strokes.selected_label, len(self.project.classes))

    def _save_strokes(self, *_: object) -> None:
        """Write the labels of the image before the next stroke can begin."""
        from qtpy.QtCore import QTimer

        write, strokes = partial(self.project.write, self.name), self.viewer.layers["strokes"]
        if strokes.mode == "polygon":  # its pixels change after napari's event
            QTimer.singleShot(0, lambda: write(strokes.data - 1))
        else:
            write(strokes.data - 1)

    def _show_layer(self, name: str, kind: str, data: Any, **options: Any) -> None:
        """Show a layer below the strokes, which stay active, instead of the one of this name."""
        layers = self.viewer.layers
        if name in layers:
            layers.remove(name)
        getattr(self.viewer, f"add_{kind}")(data, name=name, **options)
        layers.move(len(layers) - 1, layers.index("strokes"))
        layers.selection.active = layers["strokes"]

    # Model ----------------------------------------------------------------------------------------------------------

    def _segment(self) -> None:
        self._run(partial(self._show_prediction, self.name), _prediction, self.project, self.name)

    def _show_prediction(self, name: str, content: tuple[Segmentation, NDArray[np.uint8]]) -> None:
        if name == self.name:  # another image may have been opened meanwhile
            self.result, confidence = content
            self._show_layer("confidence", "image", confidence, visible=False, contrast_limits=(0, 255))
            colors = _colormap(self.result.label_set)
            self._show_layer("prediction", "labels", self.result.labels + 1, opacity=0.4, colormap=colors)

    def _accept(self) -> None:
        """Take the prediction as the labels of all pixels that are not painted."""
        if self.result is None or self.result.label_set.names != self.project.classes.names:
            self.note.value = "Segment the image first, with a model of the classes of this project."
            return
        strokes = self.viewer.layers["strokes"]
        unpainted = np.nonzero(strokes.data == 0)
        strokes.data_setitem(unpainted, self.result.labels[unpainted] + 1)  # a stroke that can be undone
        self.project.accepted.add(self.name)
        self._save_strokes()  # napari's event comes before this change of the data
        self.note.value = f"{self.name} (accepted prediction)"

    def _train(self) -> None:
        """Start a training, or end it early."""
        from superqt.utils import ensure_main_thread

        if self.stop:
            self._stop()
            return
        self.stop, self.buttons["Train"].text = Event(), "Stop"
        show = ensure_main_thread(self._show_progress)
        worker = self._run(self._show_run, self.project.train, self.minutes.value, show, self.stop)
        worker.finished.connect(self._end_training)

    def _stop(self, *_: object) -> None:
        if self.stop:
            self.stop.set()

    def _show_progress(self, progress: Progress) -> None:
        left = "trained" if progress.share == 1 else f"{timedelta(seconds=round(progress.seconds_left))} left"
        score = "" if progress.miou is None else f", mIoU {progress.miou:.1f} on held-back strokes"
        self.progress.value, self.note.value = 100 * progress.share, left + score

    def _show_run(self, _: Path) -> None:
        self._show_models()
        self._segment()

    def _end_training(self) -> None:
        self.stop, self.buttons["Train"].text, self.progress.value = None, "Train", 0

    def _show_suggestion(self, suggestion: Candidate) -> None:
        self.box = suggestion.box
        if suggestion.name == self.name:
            self._show_box()
        self.image.value = suggestion.name

    def _show_box(self) -> None:
        if self.box:
            left, top, width, height = self.box
            corners = [(top, left), (top + height, left + width)]
            self._show_layer("where next", "shapes", [corners], face_color="transparent", edge_color="yellow")
            self.viewer.camera.center = top + height / 2, left + width / 2
        self.box = None

    def _show_objects(self, name: str, objects: Objects) -> None:
        if name != self.name:  # another image was opened meanwhile
            return
        columns = dict(zip(Object._fields, zip(*objects, strict=True), strict=False))
        self.table.value = {column: columns.get(column, ()) for column in OBJECT_COLUMNS}
        self.table.native.resizeColumnsToContents()
        self._show_layer("objects", "labels", objects.ids, visible=False)
        self.note.value = f"{objects.name}: {len(objects)} objects"

    def _show_object(self, row: int, _: int) -> None:
        """Show the object of a row alone, in the middle of the window."""
        cells = dict(zip(OBJECT_COLUMNS, self.table.data[row], strict=True))
        objects = self.viewer.layers["objects"]
        objects.selected_label, objects.show_selected_label, objects.visible = cells["id"], True, True
        self.viewer.camera.center = cells["centroid_y"], cells["centroid_x"]

    def _show_saved(self, folder: Path) -> None:
        self.note.value = f"prediction and objects written to {folder}"


def _image_and_labels(project: Project, name: str) -> tuple[NDArray[np.uint8], Labels]:
    return read_image(project.images[name], value_range="image"), project.labels(name)


def _prediction(project: Project, name: str) -> tuple[Segmentation, NDArray[np.uint8]]:
    result = project.predict(name)
    return result, result.confidence()


def _colormap(labels: LabelSet) -> Any:
    from napari.utils import DirectLabelColormap

    colors: dict[int | None, Any] = {None: "transparent", 0: "transparent"}
    colors |= {index: np.divide([*color, 255], 255) for index, color in enumerate(labels.palette, 1)}
    return DirectLabelColormap(color_dict=colors)
