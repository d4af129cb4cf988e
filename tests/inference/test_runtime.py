"""Exported files in the place of models."""

import asyncio
import json
import pickle
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import INFO, exported
from PIL import Image
from training_runs import of_many_opinions

from crispseg import SegmentationModel, Segmenter
from crispseg.cli.main import main
from crispseg.export.plan import describe
from crispseg.inference import runtime
from crispseg.inference.runtime import ExportedModel, open_model
from crispseg.inspection import inspect_image
from crispseg.inspection.page import inspection_page
from crispseg.prediction import predict_files

NAMES = ("sky", "road", "person", "car")
COLORS = ((1, 2, 3), (200, 0, 0), (0, 200, 0), (0, 0, 200))


@pytest.fixture(scope="module")
def model() -> SegmentationModel:
    model = of_many_opinions(len(NAMES))
    model.info = replace(model.info, class_names=NAMES, palette=COLORS)
    return model


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8).repeat(13, 0).repeat(11, 1)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def file(model: SegmentationModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file whose logits are the model's, without an export."""
    path = tmp_path / "fake.onnx"
    path.write_text("exported")
    metadata = describe(model.info, precision="fp32", bytes_per_pixel=1234.5)
    monkeypatch.setitem(runtime.OPENERS, "onnxruntime", lambda _path: (model.forward, metadata))
    return path


def test_a_file_is_a_model_to_segment_with(model: SegmentationModel, file: Path, photo: Path) -> None:
    ours, theirs = Segmenter(model, "cpu"), Segmenter(file)
    expected, result = ours(photo), theirs(photo)
    assert (result.label_set, result.name, result.path) == (expected.label_set, expected.name, expected.path)
    assert (result.labels == expected.labels).mean() > 0.999 and len(np.unique(result.labels)) > 1
    np.testing.assert_allclose(result.probabilities(), expected.probabilities(), atol=1e-4)
    small = np.asarray(Image.open(photo))[:20, :40]
    assert (theirs(small).labels == ours(small).labels).mean() > 0.999
    tiled, flipped = (Segmenter(file, **options) for options in ({"tile": 128}, {"protocol": "ddsm-ms"}))
    assert tiled(photo).labels.shape == flipped(photo).labels.shape == expected.labels.shape
    assert theirs._tiling.bytes_per_pixel == 1234.5
    assert main(["predict", str(file), str(photo), "--out", str(photo.parent / "out"), "--device", "cpu"]) == 0
    assert (np.asarray(Image.open(photo.parent / "out/photo.png")) == result.labels).all()


def test_a_file_is_inspected_without_what_lies_inside(file: Path, photo: Path) -> None:
    seen = inspect_image(open_model(file), photo, device="cpu")
    assert seen.taps == {} and (seen.labels == Segmenter(file)(photo).labels).all()
    assert "photo" in inspection_page(seen)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_file_of_labels_is_read_where_labels_are_needed(suffix: str, tmp_path: Path, photo: Path) -> None:
    logits, labels = (
        Segmenter(exported(tmp_path / f"{output}{suffix}", output=output)) for output in ("logits", "labels")
    )
    expected, result = logits(photo), labels(photo)
    assert result.labels.dtype == np.uint8 and len(np.unique(result.labels)) > 1
    assert (result.labels == expected.labels).mean() >= 0.9999
    assert result.shares() == pytest.approx(expected.shares(), abs=1e-3)
    assert len(result.objects("class 1").table) and result.objects("class 1").table[0].probability is None
    small = np.asarray(Image.open(photo))[:20, :40]
    assert (labels(small).labels == logits(small).labels).mean() >= 0.999
    large = np.random.default_rng(0).integers(0, 256, (100, 300, 3), np.uint8)
    labels.tile = 128
    tiled = labels(large).labels
    whole = Segmenter(tmp_path / f"labels{suffix}")(large).labels
    assert (tiled == whole)[:, :110].all() and (tiled == whole).mean() > 0.8  # only edges of tiles see less


def test_what_needs_logits_refuses_a_file_of_labels(tmp_path: Path, photo: Path, refuses: Any, capsys: Any) -> None:
    path = exported(tmp_path / "a.onnx", output="labels")
    with refuses("a.onnx has refined logits or labels", "protocol whole"):
        Segmenter(path, protocol="ddsm-ms")
    with refuses("photo.png", "file of labels", "export logits"):
        Segmenter(path)(photo).probabilities()
    with refuses("a.onnx has labels but no logits", "output logits"):
        inspect_image(open_model(path), photo, device="cpu")
    assert main(["demo", str(path)]) == 2
    assert "a.onnx has labels but no logits" in capsys.readouterr().err
    with refuses("only labels", "output logits"):
        predict_files(path, photo, tmp_path / "sure", confidence=True)
    torn = exported(tmp_path / "b.onnx", output="labels")
    torn.write_bytes(torn.read_bytes().replace(b'"output": "labels"', b'"output": "logits"'))
    with refuses("b.onnx"):
        open_model(torn)


def test_an_onnx_file_runs_in_openvino_too(tmp_path: Path, photo: Path) -> None:
    path = exported(tmp_path / "a.onnx")
    pytest.importorskip("openvino")
    result, expected = Segmenter(path, backend="openvino")(photo), Segmenter(path)(photo)
    assert (result.labels == expected.labels).mean() > 0.999 and result.label_set == expected.label_set


async def in_threads(segmenter: Segmenter, images: list[Any]) -> list[Any]:
    return await asyncio.gather(*(asyncio.to_thread(segmenter, image) for image in images))


def in_a_pool(segmenter: Segmenter, images: list[Any]) -> list[Any]:
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(segmenter, images))


def in_lists(segmenter: Segmenter, images: list[Any]) -> list[Any]:
    """Each thread has a list of images."""
    with ThreadPoolExecutor(4) as pool:
        lists = pool.map(segmenter, [images[start::4] for start in range(4)])
    results = [None] * len(images)
    for start, part in enumerate(lists):
        results[start::4] = part
    return results


WAYS = {
    "threads": in_a_pool,
    "lists": in_lists,
    "asyncio": lambda segmenter, images: asyncio.run(in_threads(segmenter, images)),
}


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize(
    ("name", "backend", "output", "way"),
    [
        *(("model", "auto", "logits", way) for way in WAYS),
        *(("a.onnx", "auto", "logits", way) for way in ("threads", "lists")),
        *(("a.xml", "auto", "logits", way) for way in ("threads", "lists")),
        ("a.onnx", "openvino", "logits", "threads"),
        ("a.onnx", "auto", "labels", "threads"),
        ("a.xml", "auto", "labels", "threads"),
    ],
)
def test_threads_get_the_labels_of_their_images(
    name: str, backend: Any, output: Any, way: str, model: SegmentationModel, tmp_path: Path
) -> None:
    """With each runtime, for images of one and of several sizes; the number of threads stays."""
    if name != "model":
        pytest.importorskip("openvino" if name == "a.xml" or backend == "openvino" else "onnxruntime")
    source = model if name == "model" else exported(tmp_path / name, output=output)
    segmenter = Segmenter(source, "cpu", backend=backend)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (height, 40, 3), np.uint8) for height in (32, 32, 32, 32, 40, 48)]
    expected = [segmenter(image).labels for image in images]
    results = WAYS[way](segmenter, images * 4)
    with ThreadPoolExecutor(1) as pool:  # a new thread has the program's number
        assert [torch.get_num_threads(), pool.submit(torch.get_num_threads).result()] == [2, 2]
    for result, labels in zip(results, expected * 4, strict=True):
        assert result.labels.shape == labels.shape and (result.labels == labels).mean() > 0.999
    again = pickle.loads(pickle.dumps(segmenter))
    assert (again(images[0]).labels == expected[0]).mean() > 0.999


@pytest.mark.parametrize(
    ("name", "options", "phrases"),
    [
        ("fake.onnx", {"backend": "torch"}, ["backend is 'torch'", "fake.onnx needs onnxruntime or openvino"]),
        ("fake.onnx", {"precision": "bf16"}, ["fake.onnx", "bf16"]),
        ("none.onnx", {}, ["none.onnx does not exist", "crispseg export"]),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], phrases: list[str], file: Path, refuses: Any) -> None:
    with refuses(*phrases):
        Segmenter(file.parent / name, **options)


def test_a_file_of_another_tool_is_refused(tmp_path: Path, refuses: Any) -> None:
    onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    network = onnx.load(exported(tmp_path / "other.onnx"))
    del network.metadata_props[:]
    onnx.save(network, tmp_path / "other.onnx")
    with refuses("other.onnx is not a saved crispseg model"):
        open_model(tmp_path / "other.onnx")


def test_weights_of_another_file_are_refused(tmp_path: Path, refuses: Any) -> None:
    path, other = exported(tmp_path / "a.xml"), exported(tmp_path / "b.xml", seed=1)
    shutil.copy(other.with_suffix(".bin"), path.with_suffix(".bin"))
    with refuses(str(path), ".bin"):
        open_model(path)


@pytest.mark.parametrize("name", ["a.onnx", "a.xml"])
def test_files_from_before_checksums_are_read(name: str, tmp_path: Path) -> None:
    assert open_model(exported(tmp_path / name, sealed=False)).info.num_classes == 4


@pytest.mark.parametrize("change", [{"num_classes": 5}, {"in_chans": 1, "mean": (0.5,), "std": (0.5,)}])
def test_metadata_that_contradict_the_network(change: dict[str, Any], tmp_path: Path, refuses: Any) -> None:
    path = exported(tmp_path / "a.onnx", replace(INFO, **change))
    with refuses(str(path), "export it again"):
        open_model(path)


def test_what_a_file_cannot_do_is_refused(model: SegmentationModel, refuses: Any) -> None:
    metadata = describe(replace(model.info, options={**model.info.options, "refine": "boundary"}))
    network = ExportedModel(model.forward, metadata, Path("a.onnx"))
    with refuses("a.onnx", "cuda"):
        network.check_use(torch.device("cuda"), precision="fp32", whole=True)
    with refuses("a.onnx has refined logits or labels"):
        network.check_use(torch.device("cpu"), precision="fp32", whole=False)
    with refuses("a.onnx is not a saved crispseg model"):
        ExportedModel(model.forward, json.dumps({"format_version": 1}), Path("a.onnx"))
