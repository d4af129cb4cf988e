"""Label Studio's machine learning backend: first guesses, and training on annotated tasks. See docs/open-tools.md.

LABEL_STUDIO_API_KEY=... MODEL=nuclei uvicorn app:app --app-dir examples/label_studio --port 9090
"""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any
from xml.etree.ElementTree import ParseError

from fastapi import Body, FastAPI, Request
from fastapi.responses import JSONResponse
from filelock import Timeout
from httpx import InvalidURL
from project import Task, control_of, download, training_lock, versions
from pydantic import BaseModel

from crispseg import CrispsegError, Segmenter
from crispseg.data.label_studio import regions

MIN_TASKS = 2  # one to train on, and one to choose the best weights by
Uid = Annotated[str, Body(pattern=r"^\d+(\.\d+)?$")]  # the id of a project and the time of its creation
Tasks = Annotated[list[Task], Body(min_length=1)]
Text = Annotated[str, Body()]

app = FastAPI(title="crispseg")
segmenter = functools.lru_cache(maxsize=2)(Segmenter)
segmenting = threading.Lock()


class Progress(BaseModel):
    """A project, and the number of its tasks to train on."""

    id: int
    num_tasks_with_annotations: int = MIN_TASKS


@app.exception_handler(CrispsegError)
@app.exception_handler(InvalidURL)
@app.exception_handler(ParseError)
def refuse(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that cannot be met. Label Studio shows only the status, so the reason is logged too."""
    logging.getLogger("uvicorn.error").warning("%s: %s", request.url.path, error)
    return JSONResponse({"detail": str(error)}, 400)


@app.get("/health")
def health() -> dict[str, str]:
    """Return that the server runs."""
    return {"status": "UP"}


@app.post("/setup")
def setup(project: Uid, label_config: Annotated[str, Body(alias="schema")]) -> dict[str, str]:
    """Return the version of a project's model."""
    control_of(label_config)
    return {"model_version": newest(project)[0]}


@app.get("/versions")
def all_versions() -> dict[str, list[str]]:
    """Return the versions of all projects, since Label Studio does not name one."""
    return {"versions": [*versions("*")]}


@app.post("/predict")
def predict(tasks: Tasks, project: Uid, label_config: Text) -> dict[str, list[dict[str, Any]]]:
    """Return the regions of a task's image, and as score the mean confidence, by which tasks can be sorted.

    For several tasks it is a single empty prediction: Label Studio then asks for each, and waits 100 seconds for it.
    """
    if len(tasks) > 1:
        return {"results": [{"result": []}]}
    control, (version, model) = control_of(label_config), newest(project)
    if not model:
        raise CrispsegError(f"there is no model yet; set MODEL, or annotate {MIN_TASKS} tasks and start the training")
    with TemporaryDirectory() as folder, segmenting:
        classes = segmenter(model).label_set
        if not control.labels & {*classes.names}:
            names = f"{', '.join(classes.names)}, and the project's labels {', '.join(sorted(control.labels))}"
            raise CrispsegError(f"the classes of {model} are {names}; rename labels, or start the training")
        result = segmenter(model)(download(tasks[0], control.key, Path(folder)))
        score = result.confidence().mean() / 255
    shapes = regions(result.labels, classes, control.head)
    shapes = [shape for shape in shapes if control.labels.issuperset(shape["value"][shape["type"]])]
    return {"results": [{"model_version": version, "result": shapes, "score": float(score)}]}


@app.post("/webhook")
def webhook(action: Text, project: Annotated[Progress | None, Body()] = None) -> dict[str, str]:
    """Start the training of a project in another process; other events are ignored."""
    if action != "START_TRAINING" or project is None:
        return {"status": "ignored"}
    count = project.num_tasks_with_annotations
    if count < MIN_TASKS:
        raise CrispsegError(f"the project has {count} annotated tasks; annotate at least {MIN_TASKS} before training")
    try:
        with training_lock(project.id) as lock, Path(lock.lock_file).with_suffix(".log").open("w") as log:
            command = [sys.executable, Path(__file__).with_name("project.py"), str(project.id)]
            subprocess.Popen(command, stdout=log, stderr=log)
    except Timeout:
        raise CrispsegError("a training of this project is running; wait for it") from None
    return {"status": "started"}


def newest(project: str) -> tuple[str, str]:
    """Return the name and the model of a project's newest version."""
    return [("untrained", ""), *versions(project.partition(".")[0]).items()][-1]
