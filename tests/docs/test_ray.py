"""`examples/ray_predict.py`: what workers make of pictures, and a real Ray on this machine."""

import sys
from pathlib import Path
from typing import Any

import pytest
from dataset_trees import photos
from training_runs import of_many_opinions

from crispseg import Segmenter
from crispseg.io.images import write_labels

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import ray_predict

pa = pytest.importorskip("pyarrow", reason="ray is not installed: pip install 'crispseg[ray]'")

NAMES = ("a", "b", "sub/c")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    of_many_opinions(3).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", name="photos")
def _photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("photos"), *(f"{name}.png" for name in NAMES))


@pytest.fixture(scope="module")
def expected(model: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Of each image the bytes of its PNG, as `crispseg predict` writes it, and its shares and objects."""
    file, rows = tmp_path_factory.mktemp("expected") / "labels.png", {}
    for name in NAMES:
        result = Segmenter(model, "cpu")(photos / f"{name}.png")
        write_labels(file, result.labels, result.label_set.palette)
        objects = [instance._asdict() for instance in result.objects("class 1", "class 2")]
        rows[name] = {"labels": file.read_bytes(), "shares": result.shares(), "objects": objects}
    return rows


def test_a_worker_segments_pictures(model: Path, photos: Path, expected: dict[str, dict[str, Any]]) -> None:
    data = [(photos / f"{name}.png").read_bytes() for name in NAMES]
    batch = pa.table({"id": [7, 8, 9], "image": data, "labels": ["x", "y", "z"]})
    table = ray_predict.Worker(model, "image", ("class 1", "class 2"), {"device": "cpu"})(batch)
    assert table.column_names == ["id", "labels", "shares", "objects", "error"]
    for row, name in zip(table.to_pylist(), NAMES, strict=True):
        assert {key: row[key] for key in expected[name]} == expected[name] and row["error"] is None


def test_a_worker_goes_on_after_what_cannot_be_read(model: Path, photos: Path) -> None:
    good, worker = (photos / "a.png").read_bytes(), ray_predict.Worker(model, "bytes", (), {"device": "cpu"})
    batch = pa.table({"bytes": [good, b"no picture", b"", None]})
    first, *rows = worker(batch).to_pylist()
    assert first["labels"] and first["error"] is None
    for row, phrase in zip(rows, ("is not an image in a known format", "is empty", "is empty"), strict=True):
        assert f"the image {phrase}" in row["error"] and row["shares"] is None and row["labels"] is None
    assert worker(batch.slice(1, 1)).schema == worker(batch.slice(0, 1)).schema


@pytest.mark.parametrize(
    ("options", "phrase"), [({"objects": "clas 1"}, "no class 'clas 1'"), ({"protocol": "hole"}, "protocol")]
)
def test_mistakes_are_said_before_ray_starts(options: Any, phrase: str, model: Path, refuses: Any) -> None:
    pytest.importorskip("ray")
    with refuses(phrase):
        ray_predict.predict(None, model, **options)
