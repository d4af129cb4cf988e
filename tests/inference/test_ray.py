"""`crispseg.inference.ray_data.predict`: what workers make of pictures, and a real Ray on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_runs import files, of_many_opinions

import crispseg
from crispseg import Segmenter
from crispseg.inference.ray_data import _Worker
from crispseg.io.images import write_image, write_labels

pa = pytest.importorskip("pyarrow", reason="ray is not installed: pip install 'crispseg[ray]'")

NAMES = ("a", "b", "sub/c")
OPTIONS = {"device": "cpu", "bf16": False, "protocol": "whole", "value_range": None, "tile": None}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    of_many_opinions(3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for index, name in enumerate(NAMES):
        noise = np.random.default_rng(index).integers(0, 256, (5, 6, 3), np.uint8)
        write_image(folder / f"{name}.png", noise.repeat(8, axis=0).repeat(8, axis=1))
    return folder


@pytest.fixture(scope="module")
def expected(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each image the bytes of its PNG, as `crispseg predict` writes it, and its shares and objects."""
    file, found = tmp_path_factory.mktemp("expected") / "labels.png", {}
    for result in Segmenter(model, "cpu").stream(photos):
        write_labels(file, result.labels, result.label_set.palette)
        objects = [each._asdict() for each in result.objects("class 1", "class 2")]
        found[result.name] = {"labels": file.read_bytes(), "shares": result.shares(), "objects": objects}
    return found


def test_a_worker_sees_bytes_paths_and_structs(model: Path, photos: Path, expected: dict[str, dict[str, Any]]) -> None:
    paths = [str(photos / f"{name}.png") for name in NAMES]
    data = [Path(path).read_bytes() for path in paths]
    structs = [{"bytes": data[0], "path": None}, {"bytes": None, "path": paths[1]}, {"bytes": data[2], "path": "c"}]
    for values in (data, paths, structs):
        batch = pa.table({"id": [7, 8, 9], "image": values, "labels": ["x", "y", "z"]})
        table = _Worker(model, None, "image", "class 1", "class 2", OPTIONS)(batch)
        kept = ["id", "image"] if values is paths else ["id"]
        assert table.column_names == [*kept, "labels", "shares", "objects", "seconds", "error"]
        for row, name in zip(table.to_pylist(), NAMES, strict=True):
            assert {key: row[key] for key in expected[name]} == expected[name]
            assert row["seconds"] > 0 and row["error"] is None


def test_a_worker_goes_on_after_what_cannot_be_read(model: Path, photos: Path, tmp_path: Path) -> None:
    good = (photos / "a.png").read_bytes()
    batch = pa.table({"bytes": [good, b"no picture", b"", None, good], "name": ["x/a", "b", "c", "d", "../e"]})
    rows = _Worker(model, tmp_path, "bytes", None, None, OPTIONS)(batch).to_pylist()
    assert files(tmp_path) == {"x/a.png"} and rows[0]["file"] == str(tmp_path / "x/a.png")
    phrases = ("the image is not an image in a known format", "the image is empty", "holds a NoneType", "leads out of")
    for row, phrase in zip(rows[1:], phrases, strict=True):
        assert phrase in row["error"] and row["shares"] is None and row["file"] is None
    nothing = _Worker(model, tmp_path, "bytes", None, None, OPTIONS)(batch.slice(1, 1))
    assert nothing.schema == _Worker(model, tmp_path, "bytes", None, None, OPTIONS)(batch.slice(0, 1)).schema


def test_mistakes_are_said_before_ray_starts(
    model: Path, photos: Path, tmp_path: Path, refuses: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setattr("ray.init", lambda *_, **__: pytest.fail("Ray was started"))
    for source, options, phrase in (
        (photos, {"objects": "clas 1"}, "no class 'clas 1'"),
        (photos, {"protocol": "hole"}, "protocol"),
        (photos, {"out": photos}, "choose another folder"),
        ([tmp_path / "none.png"], {}, "none.png does not exist"),
    ):
        with refuses(phrase):
            crispseg.inference.ray_data.predict(source, model, **options)
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with refuses("needs Ray; pip install 'crispseg[ray]'"):
        crispseg.inference.ray_data.predict(photos, model)


def run_alone(command: list[str], output: Path) -> tuple[int, str]:
    """Exit status and output of a program; after five minutes it is ended, and after its end all that it started."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    with output.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(300)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return process.wait(), output.read_text()


@pytest.mark.slow
def test_a_real_ray(model: Path, photos: Path, expected: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """From files to files, and from Parquet to Parquet; on a busy machine it takes minutes until Ray has started."""
    pytest.importorskip("ray")
    from pyarrow import parquet

    images = tmp_path / "photos.parquet"
    parquet.write_table(
        pa.table({"name": NAMES, "bytes": [(photos / f"{name}.png").read_bytes() for name in NAMES]}), images
    )
    for attempt in range(3):
        out = tmp_path / str(attempt)
        command = [sys.executable, str(Path(__file__).parent / "with_ray.py"), *map(str, (model, photos, images, out))]
        status, output = run_alone(command, tmp_path / f"{attempt}.txt")
        if "Ray has started" in output and (status == 0 or "Traceback" in output):
            break  # else Ray itself failed
    assert status == 0, output
    said = json.loads((out / "said.json").read_text())
    assert "the dataset has no column 'image'" in said["error"] and "bytes" in said["error"]
    assert said["shares"] == {name: each["shares"] for name, each in expected.items()}
    written = {name: (out / "files" / name).read_bytes() for name in files(out / "files")}
    assert written == {f"{name}.png": each["labels"] for name, each in expected.items()}
    rows = parquet.read_table(out / "rows").to_pylist()
    assert {row["name"]: {key: row[key] for key in expected["a"]} for row in rows} == expected
