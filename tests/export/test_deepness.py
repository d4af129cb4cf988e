"""Files for Deepness, read by the code of the plug-in, and run by it in QGIS if that is installed."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from other_programs import program, run

from crispseg import SegmentationModel, Segmenter
from crispseg.cli.main import main
from crispseg.export.deepness import OVERLAP_PERCENT
from crispseg.inference.runtime import open_model
from crispseg.io.images import read_image

SIDE = 512


@pytest.fixture(scope="module")
def aerial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, as a file for the plug-in."""
    path = tmp_path_factory.mktemp("deepness") / "aerial.onnx"
    flags = ["--format=deepness", "--size", str(SIDE), str(SIDE), "--pixel_size=0.5m", f"--out={path}"]
    assert main(["export", "aerial", *flags]) == 0
    return path


@pytest.mark.slow
def test_the_plugin_reads_each_key(aerial: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(shared / "peers/deepness/src")
    from deepness.processing.models.segmentor import Segmentor

    info, model = SegmentationModel.from_pretrained("aerial").info, Segmentor(str(aerial))
    assert model.get_metadata_model_type() == "Segmentor"
    assert model.get_outputs_channel_names() == [[*info.class_names]]
    parameters = model.get_metadata_standarization_parameters()
    assert (tuple(parameters.mean), tuple(parameters.std)) == (info.mean, info.std)
    assert model.get_metadata_tile_size() == model.get_input_size_in_pixels()[0] == SIDE
    assert model.get_metadata_tiles_overlap() == OVERLAP_PERCENT and model.get_metadata_resolution() == 50
    assert model.get_metadata_segmentation_threshold() == 0
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    (output,) = model.process(image[None])
    expected = Segmenter("aerial", "cpu")(image).probabilities()
    np.testing.assert_allclose(output[0], expected, atol=1e-3)
    np.testing.assert_allclose(Segmenter(open_model(aerial), "cpu")(image).probabilities(), expected, atol=1e-3)


@pytest.mark.tools
@pytest.mark.parametrize(("size", "least"), [((SIDE, SIDE), 0.995), ((846, 1099), 0.99)])
def test_qgis_has_the_labels_of_segmenter(
    size: tuple[int, int], least: float, aerial: Path, shared: Path, tmp_path: Path
) -> None:
    python = program("CRISPSEG_QGIS_PYTHON", "Python with QGIS, onnxruntime and OpenCV")
    rasterio = pytest.importorskip("rasterio")
    image = read_image(shared / "data/aerial/images/tile7_005.jpg")[: size[0], : size[1]]
    place = {"crs": "EPSG:32640", "transform": rasterio.Affine(0.5, 0, 400000, 0, -0.5, 2700000)}  # half metres
    form = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "map.tif", "w", **form, **place) as file:
        file.write(image.transpose(2, 0, 1))
    tool, plugin = shared / "tools/deepness.py", shared / "peers/deepness"
    run(python, tool, plugin, aerial, tmp_path / "map.tif", tmp_path / "labels.npy")
    labels, expected = np.load(tmp_path / "labels.npy")[0] - 1, expected_map(image)
    assert len(np.unique(expected)) > 2
    assert (labels == expected).mean() >= least


def expected_map(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Compose the labels of `Segmenter` as the plug-in does, from tiles that overlap.

    Black pixels above and on the right extend the map to whole tiles. A tile overwrites those before it from half of
    the overlap on.
    """
    segmenter, (height, width) = Segmenter("aerial", "cpu"), image.shape[:2]
    overlap = int(SIDE * OVERLAP_PERCENT / 100 * 2) // 2
    stride = SIDE - overlap
    counts = [max(0, -(-(side - SIDE) // stride)) + 1 for side in (height, width)]
    rows, columns = (SIDE + stride * (count - 1) for count in counts)
    extended, labels = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8)
    extended[rows - height :, :width] = image
    for place in np.ndindex(*counts):
        top, left = (stride * index for index in place)
        down, right = (overlap // 2 * (index > 0) for index in place)
        tile = segmenter.labels(extended[top : top + SIDE, left : left + SIDE])
        labels[top + down : top + SIDE, left + right : left + SIDE] = tile[down:, right:]
    return labels[rows - height :, :width]
