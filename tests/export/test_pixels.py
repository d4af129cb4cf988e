"""Files that take pixels: normalisation and value ranges inside the graph, and every output."""

import json
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from models.base import ModelTester
from numpy.typing import NDArray

from crispseg import SegmentationModel, Segmenter
from crispseg.export.formats import FILE_FORMATS, float_file, save_onnx, write_openvino
from crispseg.export.pipeline import export_model
from crispseg.export.pixels import Pixels, limits_of_images
from crispseg.export.plan import ExportPlan, describe
from crispseg.inference.runtime import ExportedModel, open_model, open_onnx, pixels_of
from crispseg.inference.segmenter import as_batch
from crispseg.io.images import image_channels, read_image
from crispseg.io.value_range import OF_IMAGE, ValueRange, percentile_range, sampled
from crispseg.models import ModelInfo

SIZE = (97, 131)
RANGES: list[ValueRange | None] = [None, (100, 3000), (7, 60), "image"]


def info_of(in_chans: int, value_range: ValueRange | None) -> ModelInfo:
    middle = tuple(0.1 * (index + 2) for index in range(in_chans))
    return ModelInfo("fpn", 3, "test_efficientnet", in_chans, mean=middle, std=middle, value_range=value_range)


def drawn(height: int, width: int, channels: int, value_range: ValueRange | None, seed: int = 0) -> NDArray[Any]:
    """Blobs and noise of the values that a file of this range has."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width, :channels][:2]
    waves = (2 + np.sin(rows / 9 + seed) + np.cos(columns / 7)) / 4 + 0.1 * random.random((height, width, channels))
    return (waves * (255 if value_range is None else 3500)).astype(np.uint8 if value_range is None else np.uint16)


def written(path: Path, pixels: NDArray[Any]) -> Path:
    photometric = "rgb" if pixels.shape[2] == 3 else "minisblack"
    planes = "contig" if pixels.shape[2] > 1 else None
    tifffile.imwrite(path, pixels, photometric=photometric, planarconfig=planes)
    return path


@pytest.mark.parametrize(("height", "width"), [(32, 57), (97, 160), (256, 257), (300, 513)])
@pytest.mark.parametrize("channels", [1, 3])
def test_limits_are_those_of_reading(height: int, width: int, channels: int) -> None:
    images = np.stack([drawn(height, width, channels, "image", seed) // 13**seed for seed in range(3)])
    limits = limits_of_images(torch.from_numpy(images.astype(np.int32)))
    for image, pair in zip(images, limits.tolist(), strict=True):
        assert tuple(pair) == percentile_range([sampled(image)], OF_IMAGE)


def test_a_grey_image_of_three_channels_has_the_limits_of_one() -> None:
    grey = drawn(97, 131, 1, "image")
    limits = limits_of_images(torch.from_numpy(np.repeat(grey, 3, axis=2)[None].astype(np.int32)))
    assert tuple(limits[0].tolist()) == percentile_range([sampled(grey)], OF_IMAGE)


@pytest.mark.parametrize("value_range", RANGES)
@pytest.mark.parametrize("in_chans", [1, 3, 4])
def test_pixels_become_the_images_of_a_segmenter(in_chans: int, value_range: ValueRange | None, tmp_path: Path) -> None:
    info = info_of(in_chans, value_range)
    channels = image_channels(in_chans)
    pixels = drawn(64, 97, in_chans, value_range)
    read = read_image(written(tmp_path / "a.tif", pixels), channels, value_range)
    pixels = np.repeat(pixels, channels // in_chans, axis=2)
    expected = as_batch(read, info, torch.device("cpu"))
    images = Pixels(info)(torch.from_numpy(pixels)[None])
    torch.testing.assert_close(images, expected)
    again = Pixels(info)(pixels_of(expected, info))
    if value_range != "image":
        torch.testing.assert_close(again, expected)


class Learned(ModelTester):
    name = "fpn"


@pytest.fixture(scope="module")
def learned() -> SegmentationModel:
    return Learned.build_learned()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value_range", "output", "size"),
    [
        ("a.onnx", None, "labels", SIZE),
        ("a.onnx", (100, 3000), "probabilities", SIZE),
        ("a.onnx", "image", "logits", None),
        ("a.xml", "image", "labels", None),
        ("a.pte", None, "labels", SIZE),
    ],
)
def test_files_of_pixels(
    name: str, value_range: ValueRange | None, output: Any, size: Any, learned: SegmentationModel, tmp_path: Path
) -> None:
    form: Any = next(form for form, kind in FILE_FORMATS.items() if name.endswith(kind.suffix))
    learned.info = replace(learned.info, value_range=value_range)
    certificate = export_model(learned, tmp_path / name, form, input="uint8", output=output, size=size)
    assert all(comparison.of_files and comparison.same_labels >= 0.9999 for comparison in certificate.comparisons)
    file, segmenter = open_model(tmp_path / name), Segmenter(learned, "cpu")
    for height, width in [size] if size else [(33, 57), SIZE, (301, 450)]:
        images = [drawn(height, width, 3, value_range, seed) for seed in range(1 if size else 3)]
        results = [segmenter(written(tmp_path / "a.tif", image)) for image in images]
        values = file.of_input(torch.from_numpy(np.stack(images)))  # type: ignore[operator]
        labels = values if output == "labels" else values.argmax(1)
        expected = torch.from_numpy(np.stack([result.labels for result in results]))
        assert expected.unique().numel() > 1
        assert (labels == expected).float().mean() >= 0.9999
        if value_range == "image":
            continue
        of_path = Segmenter(tmp_path / name)(tmp_path / "a.tif")
        assert (of_path.labels == results[-1].labels).mean() >= 0.9999
        if output != "labels":
            np.testing.assert_allclose(of_path.probabilities(), results[-1].probabilities(), atol=1e-2)


TINY = {"backbone": "test_efficientnet", "width": 16}
RUNS: dict[str, dict[str, Any]] = {
    "crisp": {**TINY, "fuse_levels": [5], "inference_scale": 1.33},
    "fpn of 16 bits": TINY,
    "fpn of one channel": {**TINY, "in_chans": 1},
}
"""Options of models with random weights. The graphs of other models are exported in test_export.py."""


def saved_run(name: str, folder: Path) -> str | Path:
    """Return a bundled model's name, or the folder of a random model whose features do not fade."""
    if name not in RUNS:
        return name
    tester = type("Tester", (ModelTester,), {"name": name.split()[0]})
    model = tester.build_lively(**RUNS[name])
    if name.endswith("16 bits"):
        model.info = replace(model.info, value_range=(100, 3000))
    model.save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuclei", "aerial", *RUNS])
def test_labels_are_those_of_a_segmenter(name: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    run = saved_run(name, tmp_path / "run")
    segmenter, model = Segmenter(run, "cpu"), SegmentationModel.from_pretrained(run)
    plan, path = ExportPlan(model, sampling="gather", input="uint8", output="labels"), tmp_path / "a.xml"
    save_onnx(plan, plan.trace(), float_file(path))
    files = [open_onnx(float_file(path))[0], write_openvino(plan, path).of_input]  # the latter is made of the former
    info, seen = model.info, set()
    for size in [(33, 57), SIZE, (203, 150)]:
        images = [drawn(*size, info.in_chans, info.value_range, seed) for seed in range(3)]
        expected = np.stack([segmenter(written(tmp_path / "a.tif", image)).labels for image in images])
        seen |= {*expected.flat}
        for file, count in product(files, (1, 3)):
            labels = file(torch.from_numpy(np.stack(images[:count]))).numpy()
            assert (labels == expected[:count]).mean() >= 0.9999
    assert len(seen) > 1


@pytest.mark.slow
def test_the_file_says_what_it_takes(learned: SegmentationModel, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    learned.info = replace(learned.info, value_range=None)
    export_model(learned, tmp_path / "a.onnx", "onnx", input="uint8", output="labels", triton=True)
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx")
    ((images,), (labels,)) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type, images.shape[3]) == ("images", "tensor(uint8)", 3)
    assert (labels.name, labels.type) == ("labels", "tensor(uint8)")
    record = json.loads(session.get_modelmeta().custom_metadata_map["crispseg"])
    assert (record["input"], record["output"]) == ("uint8", "labels") and "uint8 (N, H, W, 3)" in record["images"]
    assert "TYPE_UINT8 dims: [ -1, -1, 3 ]" in (tmp_path / "config.pbtxt").read_text()


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_one_channel_keep_the_mean_of_rgb(channels: int) -> None:
    info = info_of(1, None)
    image = np.random.default_rng(0).integers(0, 256, (33, 57, channels)).astype(np.uint8)
    batch = as_batch(image, info, torch.device("cpu"))
    torch.testing.assert_close(Pixels(info)(pixels_of(batch, info)), batch)


def test_files_that_scale_images_by_themselves_are_not_segmented(tmp_path: Path, refuses: Any) -> None:
    file = ExportedModel(torch.nn.Identity(), describe(info_of(3, "image"), "uint8"), tmp_path / "a.onnx")
    with refuses("a.onnx", "input float"):
        Segmenter(file)


@pytest.mark.skipif(find_spec("coremltools") is None, reason="coremltools is not installed")
def test_core_ml_takes_normalised_images(learned: SegmentationModel, tmp_path: Path, refuses: Any) -> None:
    with refuses("input float"):
        export_model(learned, tmp_path / "a.mlpackage", "coreml", size=(64, 96), input="uint8")
