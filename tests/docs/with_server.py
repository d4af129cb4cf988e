"""Requests to `examples/serve/app.py` in a process without PyTorch and crispseg, for tests/docs/test_serve.py.

    python with_server.py IMAGES OUT MODEL...

Writes the response of each image file to OUT/MODEL, and prints the other outcomes of each model as JSON.
"""

import importlib
import io
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np

sys.modules.update(dict.fromkeys(("torch", "crispseg")))  # imports of them raise an ImportError
sys.path.append(str(Path(__file__).parents[2] / "examples/serve"))
LIMITS = {"MAX_BYTES": 40_000, "MAX_PIXELS": 10_000, "MAX_REQUESTS": 4, "WAIT": 0.1, "THREADS": 1}


def picture(mode: str, size: tuple[int, int], form: str = "PNG") -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new(mode, size).save(file, form)
    return file.getvalue()


def run(app: Any, images: Path, out: Path) -> dict[str, Any]:
    from fastapi.testclient import TestClient

    out.mkdir()
    batches: list[int] = []
    plain, started, released = app.Model.labels, threading.Event(), threading.Event()

    def counted(self: Any, images: list[Any]) -> list[Any]:
        batches.append(len(images))
        return list(plain(self, images))

    def held(self: Any, images: list[Any]) -> list[Any]:
        started.set()
        released.wait(30)
        return list(plain(self, images))

    app.Model.labels = counted
    with TestClient(app.app, raise_server_exceptions=False) as client, ThreadPoolExecutor(4) as pool:

        def send(content: bytes) -> Any:
            return client.post("/segment", content=content)

        def refused(content: bytes) -> list[Any]:
            response = send(content)
            return [response.status_code, response.json()["detail"]]

        outcomes: dict[str, Any] = {"health": client.get("/health").json()}
        files = sorted(images.iterdir())
        for file, response in zip(files, pool.map(send, map(Path.read_bytes, files)), strict=True):
            assert response.status_code == 200, response.text
            (out / f"{file.stem}.png").write_bytes(response.content)
        outcomes["batches"] = [*batches]
        outcomes |= {
            "too many bytes": refused(bytes(LIMITS["MAX_BYTES"] + 1)),
            "bytes in parts": refused(iter([bytes(30_000)] * 2)),  # type: ignore[arg-type]
            "too many pixels": refused(picture("1", (1000, 11))),
            "no image": refused(b"GIF89a"),
            "empty": refused(b""),
            "16 bits": refused(imagecodecs.png_encode(np.zeros((40, 40, 3), np.uint16))),
            "CMYK": refused(picture("CMYK", (40, 40), "JPEG")),
        }
        app.Model.labels = held
        waiting = [pool.submit(send, picture("RGB", (40, 40))) for _ in range(4)]
        started.wait(30)
        while client.get("/health").json()["requests"] < 4:
            pass
        outcomes["full"] = refused(picture("RGB", (40, 40)))
        released.set()
        outcomes["then"] = [future.result().status_code for future in waiting]
        app.Model.labels = lambda self, images: 1 / 0
        outcomes["defect"] = send(picture("RGB", (40, 40))).status_code
        app.Model.labels = plain
        outcomes["after it"] = send(picture("RGB", (40, 40))).status_code
        outcomes["left"] = client.get("/health").json()["requests"]
    assert sys.modules["torch"] is None and sys.modules["crispseg"] is None
    return outcomes


if __name__ == "__main__":
    images, out, *models = map(Path, sys.argv[1:])
    os.environ.update({key: str(value) for key, value in LIMITS.items()})
    for model in models:
        os.environ["MODEL"] = str(model)
        sys.modules.pop("app", None)  # it reads its settings when it is imported
        print(json.dumps(run(importlib.import_module("app"), images, out / model.stem)))
