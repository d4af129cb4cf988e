"""`examples/label_studio/`: requests to the backend in this process, and the real Label Studio with it."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import crispseg
from crispseg import Segmenter
from crispseg.data.importing import import_annotations
from crispseg.data.label_studio import regions
from crispseg.folders.names import read_names
from crispseg.io.images import read_mask
from crispseg.labels import LabelSet

from .test_python_page import ROOT

httpx = pytest.importorskip("httpx")

EXAMPLE, NUCLEI = ROOT / "examples/label_studio", ROOT / "src/crispseg/data/free/nuclei"
NAMES = read_names(NUCLEI / "val.txt")[:6]
CLASSES = LabelSet.colored(["background", "nucleus"])
LABELS = '<{0}Labels name="label" toName="image"><Label value="nucleus"/></{0}Labels>'
CONFIG = f'<View><Image name="image" value="$image"/>{LABELS}</View>'
BRUSH = {"from_name": "label", "to_name": "image", "type": "brushlabels"}
TASKS = [{"id": number, "data": {"image": f"/data/{name}.png"}} for number, name in enumerate(NAMES[:2])]
PREDICT = {"project": "7.1796051414", "label_config": CONFIG.format("Brush"), "tasks": TASKS[:1]}
START = {"action": "START_TRAINING", "project": {"id": 7, "num_tasks_with_annotations": 2}}
ELSEWHERE, MISSING = ({"id": 9, "data": {"image": address}} for address in ("https://example.com/a.png", "/data/a.png"))


def truth(name: str) -> NDArray[np.uint8]:
    return (read_mask(NUCLEI / f"instances/{name}.png") > 0).astype(np.uint8)


def drawn(results: dict[str, Any], folder: Path) -> dict[str, NDArray[np.uint8]]:
    """The masks of results by the names of their images, as `crispseg data import` reads them."""
    folder.mkdir()
    tasks = [{"data": {"image": f"{name}.png"}, "predictions": [{"result": results[name]}]} for name in results]
    (folder / "tasks.json").write_text(json.dumps(tasks))
    options: Any = {"images": NUCLEI / "images", "classes": [*CLASSES.names]}
    import_annotations([folder / "tasks.json"], folder / "read", **options)
    return {name: read_mask(folder / f"read/masks/{name}.png") for name in results}


def studio(request: Any) -> Any:
    """Label Studio's answer to a request of the backend."""
    path = request.url.path
    if path == "/api/token/refresh":
        return httpx.Response(200 if b"personal" in request.content else 401, json={"access": "short"})
    assert request.headers["Authorization"] == "Bearer short"
    results = [regions(truth(name), CLASSES, BRUSH) for name in NAMES[: len(TASKS)]]
    export = [{**task, "annotations": [{"result": result}]} for task, result in zip(TASKS, results, strict=True)]
    pages = {"/api/projects/7": {"label_config": CONFIG.format("Brush")}, "/api/projects/7/export": export}
    if path in pages:
        return httpx.Response(200, json=pages[path])
    file = NUCLEI / "images" / Path(path).name
    return httpx.Response(200, content=file.read_bytes()) if file.is_file() else httpx.Response(404)


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    client = pytest.importorskip("fastapi.testclient").TestClient
    monkeypatch.syspath_prepend(EXAMPLE)
    for key, value in (("MODEL", "nuclei"), ("FOLDER", str(tmp_path / "all")), ("LABEL_STUDIO_API_KEY", "personal")):
        monkeypatch.setenv(key, value)
    app, project = (importlib.import_module(name) for name in ("app", "project"))
    monkeypatch.setattr(project, "client", httpx.Client(base_url=project.URL, transport=httpx.MockTransport(studio)))
    yield SimpleNamespace(requests=client(app.app), project=project)
    for name in ("app", "project"):
        del sys.modules[name]


@pytest.mark.parametrize("kind", ["Brush", "Polygon"])
def test_first_guesses(kind: str, backend: Any, tmp_path: Path) -> None:
    request, post = PREDICT | {"label_config": CONFIG.format(kind), "tasks": TASKS}, backend.requests.post
    setup = {"project": request["project"], "schema": request["label_config"], "access_token": "", "hostname": ""}
    assert post("/setup", json=setup).json() == {"model_version": "nuclei"}
    guesses = post("/predict", json=request).json()["results"]
    results = {name: guess["result"] for name, guess in zip(NAMES, guesses, strict=False)}
    for name, mask in drawn(results, tmp_path / "drawn").items():
        assert np.array_equal(mask == 1, Segmenter("nuclei")(NUCLEI / f"images/{name}.png").labels == 1)
    answer = post("/predict", json=request | {"tasks": [*TASKS, MISSING]}).json()
    assert answer == {"results": [{"result": []}]}, "one result, since Label Studio then asks for each task"


def test_training(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(crispseg, "train", lambda images, **settings: calls.append((images, settings)))
    backend.project.train(7)
    ((data, settings),) = calls
    for number, name in enumerate(NAMES[: len(TASKS)]):
        assert np.array_equal(read_mask(data / f"masks/task-{number}.png"), truth(name))
    assert read_names(data / "classes.txt") == ("background", "nucleus", "border"), "those of the model before"
    run = Path(settings["out"])
    run.mkdir()
    assert settings["init_from"] == "nuclei" and [*backend.project.versions(7)] == ["nuclei"]
    (run / "report.html").touch()
    assert backend.requests.get("/versions").json() == {"versions": ["nuclei", "v1"]}


@pytest.mark.parametrize(
    ("address", "body", "settings", "phrase"),
    [
        ("setup", {"project": "7", "schema": "<View/>"}, {}, "no BrushLabels or PolygonLabels"),
        ("predict", PREDICT | {"tasks": [ELSEWHERE]}, {}, "at https://example.com/a.png"),
        ("predict", PREDICT | {"tasks": [MISSING]}, {}, "check LABEL_STUDIO_URL"),
        ("predict", PREDICT | {"label_config": CONFIG.replace("nucleus", "cell").format("Brush")}, {}, "rename labels"),
        ("predict", PREDICT, {"TOKEN": "old"}, "personal access token"),
        ("predict", PREDICT, {"MAX_PIXELS": 100}, "raise MAX_PIXELS"),
        ("predict", PREDICT, {"MODEL": ""}, "no model yet"),
        ("webhook", START | {"project": {"id": 7, "num_tasks_with_annotations": 1}}, {}, "at least 2"),
        ("webhook", START, {}, "is running"),
    ],
)
def test_refusals(address: str, body: Any, settings: Any, phrase: str, backend: Any) -> None:
    for name, value in settings.items():
        setattr(backend.project, name, value)  # the fixture imports another module for each test
    with backend.project.training_lock(7):
        answer = backend.requests.post(f"/{address}", json=body)
    assert answer.status_code == 400 and phrase in answer.json()["detail"]
