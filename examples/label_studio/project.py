"""A project of Label Studio: its labels, its images, and the training of its model: python project.py ID"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree import ElementTree

import httpx
from filelock import FileLock
from pydantic import BaseModel

import crispseg
from crispseg import CrispsegError
from crispseg.data.importing import import_annotations
from crispseg.io.images import SUFFIXES, image_size
from crispseg.models.saving import read_info

URL = os.environ.get("LABEL_STUDIO_URL", "http://localhost:8080")
TOKEN = os.environ.get("LABEL_STUDIO_API_KEY", "")  # the token that Label Studio sends to backends reads no images
MODEL = os.environ.get("MODEL", "")  # run or bundled model before the first training, which else starts from ImageNet
MINUTES = float(os.environ.get("MINUTES", "5"))
FOLDER = Path(os.environ.get("FOLDER", "label_studio_models"))
MAX_PIXELS = int(os.environ.get("MAX_PIXELS", "25000000"))
CONTROLS = ("BrushLabels", "PolygonLabels")

client = httpx.Client(base_url=URL, timeout=60, follow_redirects=True)


class Task(BaseModel):
    """A task; its data contain the address of its image."""

    id: int
    data: dict[str, Any]


class Control(NamedTuple):
    """The labels that people draw on the image of a task."""

    head: dict[str, str]  # `from_name`, `to_name` and `type` of results
    key: str  # of the image's address in the data of a task
    labels: frozenset[str]


def control_of(label_config: str) -> Control:
    """Return the first brush or polygon labels of a project; a project without them raises a `CrispsegError`."""
    root = ElementTree.fromstring(label_config)
    addresses = {image.get("name"): image.get("value") for image in root.iter("Image")}
    for tag in root.iter():
        address = addresses.get(tag.get("toName"))
        if tag.tag in CONTROLS and address:
            head = {"from_name": tag.get("name", ""), "to_name": tag.get("toName", ""), "type": tag.tag.lower()}
            labels = frozenset(label.get("value", "") for label in tag.iter("Label"))
            return Control(head, address.removeprefix("$"), labels)
    raise CrispsegError(f"the labelling interface has no {' or '.join(CONTROLS)} of an Image with a value; add them")


def training_lock(project: int) -> FileLock:
    """Return the lock of a project's training; the system releases it when the process ends in any way."""
    return FileLock(FOLDER / f"project-{project}/training.lock", timeout=0)


def versions(project: int | str) -> dict[str, str]:
    """Return the models of a project by the names of their versions, the newest last; "*" is any project."""
    reports = FOLDER.glob(f"project-{project}/v*/run/report.html")  # training writes it at the end
    runs = sorted((report.parent for report in reports), key=lambda run: int(run.parent.name[1:]))
    return ({MODEL: MODEL} if MODEL else {}) | {run.parent.name: str(run) for run in runs}


def read(address: httpx.URL | str) -> bytes:
    """Return the bytes at an address of Label Studio; no answer raises a `CrispsegError`."""
    try:
        answer = client.post("/api/token/refresh", json={"refresh": TOKEN})
        if answer.is_client_error:
            raise CrispsegError("Label Studio refuses LABEL_STUDIO_API_KEY; set it to a personal access token")
        head = {"Authorization": f"Bearer {answer.json()['access']}"}  # valid for some minutes
        return client.get(address, headers=head).raise_for_status().content
    except httpx.HTTPError as error:
        raise CrispsegError(f"{URL} does not give {address} ({error}); check LABEL_STUDIO_URL") from None


def download(task: Task, key: str, folder: Path) -> Path:
    """Return the path of a task's image in a folder; an image elsewhere, or a large one, raises a `CrispsegError`."""
    name, address = f"task-{task.id}", httpx.URL(URL).join(str(task.data.get(key)))
    if address.netloc != httpx.URL(URL).netloc:
        raise CrispsegError(f"{name} has its image at {address}; upload it, or serve it as a local file")
    suffix = Path(address.path).suffix.lower()
    path = folder / f"{name}{suffix if suffix in SUFFIXES else '.png'}"  # images are read by their content
    path.write_bytes(read(address))
    height, width = image_size(path)
    if height * width > MAX_PIXELS:
        raise CrispsegError(f"{name} has an image of {width}x{height} pixels; cut it, or raise MAX_PIXELS")
    return path


def train(project: int) -> None:
    """Import the annotated tasks of a project, and train its next version from the newest one."""
    known = versions(project)
    start = [None, *known.values()][-1]
    numbers = [int(name[1:]) for name in known if name != MODEL]
    folder = FOLDER / f"project-{project}/v{max(numbers, default=0) + 1}"
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed
    control = control_of(json.loads(read(f"/api/projects/{project}"))["label_config"])
    classes, background = classes_of(control, start)
    tasks = json.loads(read(f"/api/projects/{project}/export?exportType=JSON"))
    with TemporaryDirectory() as place:
        for task in tasks:
            task["data"] = {control.key: download(Task(**task), control.key, Path(place)).name}
        source = Path(place) / "tasks.json"
        source.write_text(json.dumps(tasks), encoding="utf-8")
        print(*import_annotations([source], folder / "data", classes=classes, background=background), sep="\n")
    crispseg.train(folder / "data", init_from=start, minutes=MINUTES, out=str(folder / "run"))


def classes_of(control: Control, start: str | None) -> tuple[list[str], str | None]:
    """Return the classes, and that of pixels without a region: those of the model before, if it has all labels."""
    known = read_info(start).label_set() if start else None
    if known and control.labels <= {*known.names}:
        return [*known.names], None if known.background is None else known.names[known.background]
    return ["background", *sorted(control.labels - {"background"})], "background"


if __name__ == "__main__":
    with training_lock(int(sys.argv[1])):
        train(int(sys.argv[1]))
