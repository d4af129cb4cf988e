"""`examples/serve/`: the server without PyTorch, in a process of this environment and as its image installs it."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import peak_memory
from exports import INFO, exported
from PIL import Image, ImageOps

import crispseg
from crispseg import Segmenter
from crispseg.export.pipeline import export_model

pytest.importorskip("onnxruntime")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")

SERVE = Path(__file__).resolve().parents[2] / "examples/serve"
CLIENTS, IMAGES = 8, 200


def photos(folder: Path) -> list[Path]:
    """Pictures of several sizes, modes and formats."""
    folder.mkdir()
    random, paths = np.random.default_rng(0), []
    for index, size in enumerate(((40, 64), (64, 40), (40, 64), (20, 70), (90, 33), (40, 64))):
        noise = Image.fromarray(random.integers(0, 256, (-(-size[0] // 8), -(-size[1] // 8), 3), np.uint8))
        noise = noise.resize(size[::-1], Image.Resampling.NEAREST)
        noise = noise.convert(("RGB", "RGB", "RGBA", "L", "P", "RGB")[index])
        path = folder / f"{index}.{'jpg' if index in (1, 5) else 'png'}"
        turned = Image.Exif()
        turned[0x0112] = 6 if index == 1 else 1
        noise.save(path, **({"exif": turned} if index == 1 else {}))
        paths.append(path)
    return paths


@pytest.mark.parametrize("output", ["labels", "logits"])
def test_a_process_without_torch_serves(output: Any, tmp_path: Path) -> None:
    model = exported(tmp_path / "model.onnx", output=output)
    paths, out = photos(tmp_path / "photos"), tmp_path / "out"
    out.mkdir()
    command = [sys.executable, Path(__file__).parent / "with_server.py", model, tmp_path / "photos", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found, segmenter = json.loads(done.stdout.splitlines()[-1]), Segmenter(model)
    for path in paths:
        with Image.open(out / f"{path.stem}.png") as served:
            expected = segmenter(path)
            assert np.array_equal(np.array(served), expected.labels), path
            colors = np.array(expected.label_set.palette, np.uint8)[expected.labels]
            assert np.array_equal(np.array(served.convert("RGB")), colors)
    assert found["health"] == {"status": "ok", "classes": list(INFO.label_set().names), "requests": 0}
    assert sum(found["batches"]) == len(paths) and max(found["batches"]) > 1
    for case, status, phrase in (
        ("too many bytes", 413, "at most 40,000 bytes"),
        ("bytes in parts", 413, "at most 40,000 bytes"),
        ("too many pixels", 413, "11,000 pixels; send at most 10,000"),
        ("no image", 415, "cannot be read"),
        ("empty", 415, "cannot be read"),
        ("16 bits", 415, "16 bits"),
        ("CMYK", 415, "mode CMYK"),
        ("full", 503, "4 requests are in progress; try again"),
    ):
        assert found[case][0] == status and phrase in found[case][1], (case, found[case])
    assert found["then"] == 4 * [200]
    assert (found["defect"], found["after it"], found["left"]) == (500, 200, 0)


def steps() -> dict[str, list[str]]:
    """The instructions of the Dockerfile."""
    found: dict[str, list[str]] = {}
    for line in (SERVE / "Dockerfile").read_text(encoding="utf-8").splitlines():
        step, _, words = line.partition(" ")
        found.setdefault(step, []).append(words)
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of a fresh environment after the image's RUN."""
    folder = tmp_path_factory.mktemp("image") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    programs = folder / "bin"
    reached = subprocess.run([programs / "pip", "index", "versions", "pip"], capture_output=True, check=False)
    if reached.returncode:
        pytest.skip("no package index can be reached")
    for words in steps()["RUN"]:
        program, *rest = shlex.split(words)
        subprocess.run([programs / program, *rest], check=True, capture_output=True)
    return programs


@pytest.fixture(scope="module")
def served(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int, Path]]:
    """Address, process id and model of the app, copied and started as by the Dockerfile, with a bundled model."""
    work = tmp_path_factory.mktemp("app")
    export_model(crispseg.from_pretrained("nuclei"), work / "model.onnx", "onnx", output="labels")
    (copied,) = steps()["COPY"]
    for name in set(copied.split()[:-1]) - {"model.onnx"}:
        shutil.copy(SERVE / name, work)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    program, *rest = json.loads(steps()["CMD"][0])
    assert rest[-1] in steps()["EXPOSE"]
    variables = {"PATH": str(environment), "THREADS": "1"}
    with (work / "log.txt").open("w") as log:
        command = [environment / program, *rest[:-1], port]
        server = subprocess.Popen(command, cwd=work, env=variables, stdout=log, stderr=log)
    address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield address, server.pid, work / "model.onnx"
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_the_image_has_no_torch_a_health_check_and_answers_large_uploads(
    environment: Path, served: tuple[str, int, Path]
) -> None:
    for name in ("torch", "crispseg"):
        done = subprocess.run([environment / "python", "-Ic", f"import {name}"], capture_output=True, check=False)
        assert done.returncode and b"ModuleNotFoundError" in done.stderr
    program, *rest = json.loads(steps()["HEALTHCHECK"][0].removeprefix("CMD "))
    for port, works in ((served[0].rpartition(":")[2], True), ("1", False)):
        command = [word.replace("8000", port) for word in rest]
        done = subprocess.run([environment / program, *command], capture_output=True, check=False)
        assert (done.returncode == 0) == works, done.stderr
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{served[0]}/segment", bytes(60_000_000), timeout=60)
    assert refused.value.code == 413 and b"at most 20,000,000 bytes" in refused.value.read()


@pytest.mark.slow
def test_clients_of_the_image_get_the_labels_of_segmenter_and_its_memory_is_bounded(
    served: tuple[str, int, Path], tmp_path: Path
) -> None:
    address, process, model = served
    segmenter, random = Segmenter(model), np.random.default_rng(0)
    sources = sorted((Path(crispseg.__file__).parent / "data/free/nuclei").rglob("images/**/*.png"))[:10]
    assert len(sources) == 10
    contents, expected = [], []
    for index, source in enumerate(sources):
        with Image.open(source) as picture:
            sides = (256, 256) if index % 2 else tuple(random.integers(150, 260, 2).tolist())
            path = tmp_path / f"{index}.png"
            ImageOps.fit(picture.convert("RGB"), sides).save(path)
        contents.append(path.read_bytes())
        expected.append(segmenter(path).labels)

    def send(number: int) -> tuple[np.ndarray, int]:
        request = urllib.request.Request(f"{address}/segment", contents[number % 10], method="POST")
        with urllib.request.urlopen(request, timeout=300) as response, Image.open(response) as labels:
            return np.array(labels), peak_memory(process)

    with ThreadPoolExecutor(CLIENTS) as pool:
        first = max(memory for _, memory in pool.map(send, [1] * 5 * CLIENTS))  # full batches of the largest size
        found = list(pool.map(send, range(IMAGES)))
    for number, (labels, _) in enumerate(found):
        assert np.array_equal(labels, expected[number % 10])
    assert any(len(np.unique(labels)) > 1 for labels in expected)
    last = max(memory for _, memory in found)
    print(f"peak memory: {first / 1e6:.0f} MB after full batches, {last / 1e6:.0f} MB after {IMAGES} images")
    assert last < 1.1 * first
