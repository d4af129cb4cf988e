"""`examples/label_studio/`: requests to the backend in this process, and the real Label Studio with it."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from other_programs import ROOT, program
from separate_processes import free_port

import crispseg
from crispseg import Segmenter
from crispseg.data.importing import import_annotations
from crispseg.data.label_studio import regions
from crispseg.folders.names import read_names
from crispseg.io.images import read_mask
from crispseg.labels import LabelSet

httpx = pytest.importorskip("httpx")

EXAMPLE, NUCLEI = ROOT / "examples/label_studio", ROOT / "src/crispseg/data/free/nuclei"
NAMES = read_names(NUCLEI / "val.txt")[2:]
CLASSES = LabelSet.colored(["background", "nucleus"])
LABELS = '<{0}Labels name="label" toName="image"><Label value="nucleus"/></{0}Labels>'
CONFIG = f'<View><Image name="image" value="$image"/>{LABELS}</View>'
BRUSH = {"from_name": "label", "to_name": "image", "type": "brushlabels"}
START = {"action": "START_TRAINING", "project": {"id": 7, "num_tasks_with_annotations": 2}}


def predict(address: str = f"/data/{NAMES[0]}.png", label_config: str = CONFIG.format("Brush"), **more: Any) -> Any:
    """The request for a prediction."""
    tasks = [{"id": 9, "data": {"image": address}, **more}]
    return {"project": "7.1796051414", "label_config": label_config, "tasks": tasks}


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
    file = NUCLEI / "images" / Path(request.url.path).name
    if request.url.path == "/api/token/refresh":
        return httpx.Response(200 if b"personal" in request.content else 401, json={"access": "short"})
    assert request.headers["Authorization"] == "Bearer short"
    return httpx.Response(200, content=file.read_bytes()) if file.is_file() else httpx.Response(404)


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    client, folder = pytest.importorskip("fastapi.testclient").TestClient, tmp_path_factory.mktemp("versions")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLE)
        for key, value in (("MODEL", "nuclei"), ("FOLDER", str(folder / "all")), ("LABEL_STUDIO_API_KEY", "personal")):
            patch.setenv(key, value)
        app, project = (importlib.import_module(name) for name in ("app", "project"))
        patch.setattr(project, "client", httpx.Client(base_url=project.URL, transport=httpx.MockTransport(studio)))
        yield SimpleNamespace(post=client(app.app, raise_server_exceptions=False).post, project=project)
        for name in ("app", "project"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", ["Brush", "Polygon"])
def test_first_guesses(kind: str, backend: Any, tmp_path: Path) -> None:
    request = predict(label_config=CONFIG.format(kind))
    setup = {"project": request["project"], "schema": request["label_config"], "access_token": "", "hostname": ""}
    assert backend.post("/setup", json=setup).json() == {"model_version": "nuclei"}
    (guess,) = backend.post("/predict", json=request).json()["results"]
    mask = drawn({NAMES[0]: guess["result"]}, tmp_path / "drawn")[NAMES[0]]
    assert np.array_equal(mask == 1, Segmenter("nuclei")(NUCLEI / f"images/{NAMES[0]}.png").labels == 1)
    several = backend.post("/predict", json=request | {"tasks": 2 * request["tasks"]}).json()
    assert several == {"results": [{"result": []}]}, "one result, since Label Studio then asks for each task"


@pytest.mark.parametrize(
    ("address", "body", "settings", "phrase"),
    [
        ("setup", {"project": "7", "schema": "<View/>"}, {}, "no BrushLabels or PolygonLabels"),
        ("setup", {"project": "7", "schema": "<View"}, {}, "unclosed"),
        ("setup", {"project": "../7", "schema": "<View/>"}, {}, "pattern"),
        ("predict", predict("https://example.com/a.png"), {}, "at https://example.com/a.png"),
        ("predict", predict("http://a:b/c.png"), {}, "port"),
        ("predict", predict("/data/a.png"), {}, "check LABEL_STUDIO_URL"),
        ("predict", predict(data=None), {}, "dictionary"),
        ("predict", predict(id="../a"), {}, "integer"),
        ("predict", predict(label_config=CONFIG.replace("nucleus", "cell").format("Brush")), {}, "rename labels"),
        ("predict", predict(), {"TOKEN": "old"}, "personal access token"),
        ("predict", predict(), {"MAX_PIXELS": 100}, "raise MAX_PIXELS"),
        ("predict", predict(), {"MODEL": ""}, "no model yet"),
        ("webhook", START | {"project": {"title": "nuclei"}}, {}, "required"),
        ("webhook", START | {"project": {"id": 7, "num_tasks_with_annotations": 1}}, {}, "at least 2"),
        ("webhook", START, {}, "is running"),
    ],
)
def test_refusals(
    address: str, body: Any, settings: Any, phrase: str, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setattr(backend.project, name, value)
    with backend.project.training_lock(7):
        answer = backend.post(f"/{address}", json=body)
    assert answer.status_code in (400, 422) and phrase in answer.text


def awaited(ready: Callable[[], bool]) -> None:
    """Wait until it is ready, at most 15 minutes; a server that does not listen yet is not."""
    for _ in range(900):
        with suppress(httpx.TransportError):
            if ready():
                return
        time.sleep(1)
    pytest.fail("not ready within 15 minutes")


@contextmanager
def served(command: list[Any], port: int, settings: dict[str, Any]) -> Iterator[str]:
    """The address of a server, which is killed in the end."""
    environment, address = os.environ | {key: str(settings[key]) for key in settings}, f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*map(str, command), "--port", str(port)], env=environment, cwd=EXAMPLE)
    try:
        awaited(lambda: httpx.get(f"{address}/health").is_success)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.mark.tools
def test_real_label_studio(tmp_path: Path) -> None:
    start = [program("CRISPSEG_LABEL_STUDIO", "program label-studio (pip install label-studio)"), "start"]
    start += ["--no-browser", "--enable-legacy-api-token", "--internal-host", "127.0.0.1"]
    start += ["--username", "a@example.com", "--password", "secret123", "--user-token", "secret123"]
    firsts = read_names(NUCLEI / "train.txt")[:4]
    files, masks = [str(NUCLEI / f"images/{name}.png") for name in firsts], [truth(name) for name in firsts]
    crispseg.train(files, masks, classes=[*CLASSES.names], iterations=10, out=str(tmp_path / "start"))
    switched_off = ("ML_BLOCK_LOCAL_IP", "USE_DEFAULT_BANNED_SUBNETS", "COLLECT_ANALYTICS", "LATEST_VERSION_CHECK")
    options = dict.fromkeys(switched_off, "false") | {"LABEL_STUDIO_BASE_DATA_DIR": tmp_path / "data"}
    with served(start, free_port(), options) as url:
        client = httpx.Client(base_url=url, headers={"Authorization": "Token secret123"}, timeout=300)

        def call(method: str, address: str, **content: Any) -> Any:
            answer = client.request(method, f"/api/{address}", **content)
            assert answer.is_success, answer.text
            return answer.json() if answer.content else None

        def score(version: str) -> float:
            """Mean IoU of nuclei on the tasks that are not corrected."""
            everything = {"selectedItems": {"all": True, "excluded": []}}
            call("POST", f"dm/actions?id=retrieve_tasks_predictions&project={project}", json=everything)
            guesses = call("GET", f"predictions?project={project}")
            results = {names[guess["task"]]: guess["result"] for guess in guesses if guess["model_version"] == version}
            masks = drawn(results, tmp_path / f"of_{Path(version).name}")
            pairs = [(masks[name] == 1, truth(name) == 1) for name in NAMES[2:]]
            return float(np.mean([(mask & true).sum() / (mask | true).sum() for mask, true in pairs]))

        project = call("POST", "projects", json={"title": "nuclei", "label_config": CONFIG.format("Brush")})["id"]
        uploads = {name: (NUCLEI / f"images/{name}.png").open("rb") for name in NAMES}
        call("POST", f"projects/{project}/import", files=uploads)
        tasks = call("GET", f"tasks?project={project}&page_size=100")["tasks"]
        names = {task["id"]: Path(task["data"]["image"]).stem.partition("-")[2] for task in tasks}
        settings = {"LABEL_STUDIO_URL": url, "LABEL_STUDIO_API_KEY": call("POST", "token/")["token"], "MINUTES": 1}
        settings |= {"MODEL": tmp_path / "start", "FOLDER": tmp_path / "versions"}
        backend, port = [sys.executable, "-m", "uvicorn", "app:app"], free_port()
        with served(backend, port, settings) as own:
            connected = call("POST", "ml", json={"url": own, "project": project, "title": "crispseg"})
            old = score(connected["model_version"])
            corrected = {number: truth(name) for number, name in names.items() if name in NAMES[:2]}
            for number, mask in corrected.items():
                call("POST", f"tasks/{number}/annotations", json={"result": regions(mask, CLASSES, BRUSH)})
            call("POST", f"ml/{connected['id']}/train")
        with served(backend, port, settings):  # it was killed, but the training was not
            awaited(lambda: call("GET", f"ml/{connected['id']}")["model_version"] == "v1")
            assert score("v1") >= old
    for number, mask in corrected.items():
        assert np.array_equal(read_mask(tmp_path / f"versions/project-{project}/v1/data/masks/task-{number}.png"), mask)
