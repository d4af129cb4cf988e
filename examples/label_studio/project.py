"""A project of Label Studio: its labels, its images, and the training of its model: python project.py ID"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from xml.etree import ElementTree

import httpx
from filelock import FileLock, Timeout

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
MAX_BYTES = int(os.environ.get("MAX_BYTES", "50000000"))
MAX_PIXELS = int(os.environ.get("MAX_PIXELS", "25000000"))
CONTROLS = ("BrushLabels", "PolygonLabels")


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


def folder_of(project: int) -> Path:
    """Return the folder of a project's log, lock and versions, which is created."""
    folder = FOLDER / f"project-{project}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def versions(project: int | str) -> dict[str, str]:
    """Return the models of a project by the names of their versions, the newest last; "*" is any project."""
    reports = FOLDER.glob(f"project-{project}/v*/run/report.html")  # training writes it at the end
    runs = sorted((report.parent for report in reports), key=lambda run: int(run.parent.name[1:]))
    return ({MODEL: MODEL} if MODEL else {}) | {run.parent.name: str(run) for run in runs}


class Token(httpx.Auth):
    """Exchange of the personal access token for tokens of a few minutes."""

    access = ""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Send a request, and send it again with a new token if it is refused."""
        request.headers["Authorization"] = f"Bearer {self.access}"
        response = yield request
        if response.status_code == 401:
            response = yield httpx.Request("POST", f"{URL}/api/token/refresh", json={"refresh": TOKEN})
            if response.is_error:
                raise CrispsegError("Label Studio refuses LABEL_STUDIO_API_KEY; set it to a personal access token")
            self.access = json.loads(response.read())["access"]
            request.headers["Authorization"] = f"Bearer {self.access}"
            yield request


class Studio:
    """Label Studio's pages for programs, and its images."""

    def __init__(self) -> None:
        self.client = httpx.Client(base_url=URL, auth=Token(), timeout=60, follow_redirects=True)

    def image(self, task: dict[str, Any], key: str, folder: Path) -> Path:
        """Write a task's image to a folder and return its path; others than `Studio`'s raise a `CrispsegError`."""
        name, address = f"task-{task['id']}", httpx.URL(URL).join(str(task["data"].get(key)))
        if address.host != httpx.URL(URL).host:
            raise CrispsegError(f"{name} has its image at {address}; upload it, or use a storage of Label Studio")
        suffix = Path(address.path).suffix.lower()
        path = folder / f"{name}{suffix if suffix in SUFFIXES else '.png'}"  # it is read by its content
        path.write_bytes(self.read(address, MAX_BYTES))
        height, width = image_size(path)
        if height * width > MAX_PIXELS:
            raise CrispsegError(f"{name} has an image of {width}x{height} pixels; cut it, or raise MAX_PIXELS")
        return path

    def read(self, address: httpx.URL | str, limit: float = float("inf")) -> bytes:
        """Return the bytes at an address; more than `limit`, or no answer, raise a `CrispsegError`."""
        content = bytearray()
        try:
            with self.client.stream("GET", address) as response:
                response.raise_for_status()
                for part in response.iter_bytes():
                    content += part
                    if len(content) > limit:
                        raise CrispsegError(f"{address} has more than {limit:,} bytes; shrink it, or raise MAX_BYTES")
        except httpx.HTTPError as error:
            raise CrispsegError(f"{URL} does not give {address} ({error}); check LABEL_STUDIO_URL") from None
        return bytes(content)


def training_lock(project: int) -> FileLock:
    """Return the lock of a project's training; the system releases it when the process ends in any way."""
    return FileLock(folder_of(project) / "training.lock", timeout=0)


def train(project: int) -> None:
    """Import the annotated tasks of a project, and train its next version from the newest one."""
    known = versions(project)
    folder = folder_of(project) / f"v{len(known.keys() - {MODEL}) + 1}"
    shutil.rmtree(folder, ignore_errors=True)  # of a training that was killed
    start = known[[*known][-1]] if known else None
    studio = Studio()
    control = control_of(json.loads(studio.read(f"/api/projects/{project}"))["label_config"])
    classes, background = classes_of(control, start)
    tasks = json.loads(studio.read(f"/api/projects/{project}/export?exportType=JSON"))
    with TemporaryDirectory() as place:
        for task in tasks:
            task["data"] = {control.key: studio.image(task, control.key, Path(place)).name}
        source = Path(place) / "tasks.json"
        source.write_text(json.dumps(tasks), encoding="utf-8")
        print(*import_annotations([source], folder / "data", classes=classes, background=background), sep="\n")
    crispseg.train(folder / "data", init_from=start, minutes=MINUTES, out=str(folder / "run"))


def classes_of(control: Control, start: str | None) -> tuple[list[str], str | None]:
    """Return the classes, and that of pixels without a region: those of the model before, if it has all labels."""
    labels = read_info(start).label_set() if start else None
    if labels and control.labels <= {*labels.names}:
        return [*labels.names], None if labels.background is None else labels.names[labels.background]
    return ["background", *sorted(control.labels - {"background"})], "background"


if __name__ == "__main__":
    try:
        with training_lock(int(sys.argv[1])):
            train(int(sys.argv[1]))
    except (CrispsegError, Timeout) as error:
        sys.exit(str(error))
