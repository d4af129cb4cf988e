"""Images of other channels than RGB: as many bands of a TIFF as a model takes, of 8 or 16 bits."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from training_runs import PAPER, quietly

from crispseg.cli.main import main
from crispseg.data import Augment, Folder
from crispseg.io.images import read_image, write_image
from crispseg.training import ModelConfig, Run, TrainConfig

rasterio = pytest.importorskip("rasterio")
Refuses = Callable[..., Any]
LOW, HIGH = 100, 3000
"""Values of the images of 16 bits."""


def bands(path: Path, values: NDArray[Any], **options: Any) -> NDArray[Any]:
    """Write a TIFF of values `(H, W, C)`, at a place on a map of its own for each name."""
    height, width, count = values.shape
    left = 500_000 + 10_000 * (zlib.crc32(path.name.encode()) % 10_000)
    place = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, left, 0, -10, 5_200_000)}
    options |= {"height": height, "width": width, "count": count, "dtype": values.dtype, **place}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(path, "w", driver="GTiff", **options) as file:
        file.write(values.transpose(2, 0, 1))
    return values


def noise(size: tuple[int, int], channels: int, dtype: Any, seed: int = 0) -> NDArray[Any]:
    high = 256 if dtype == np.uint8 else HIGH + 1
    return np.random.default_rng(seed).integers(0 if dtype == np.uint8 else LOW, high, (*size, channels)).astype(dtype)


def test_a_tiff_that_claims_too_many_pixels(tmp_path: Path, refuses: Refuses) -> None:
    options = {"height": 40_000, "width": 40_000, "count": 5, "dtype": "uint16", "sparse_ok": True, "tiled": True}
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", **options):
        pass
    with refuses(str(tmp_path / "a.tif"), "claims more than", "tiles of 1024"):
        read_image(tmp_path / "a.tif", 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Twelve images of five bands and 16 bits, whose class is where the fourth band is bright."""
    root = tmp_path_factory.mktemp("bands")
    for index in range(12):
        mask = np.zeros((64, 96), np.uint8)
        mask[10 + index : 40, 20 : 60 + index] = 1
        values = noise((64, 96), 5, np.uint16, seed=index) // 3
        values[..., 3] += 1900 * mask.astype(np.uint16)
        bands(root / f"images/{index:02}.tif", values)
        write_image(root / f"masks/{index:02}.png", mask)
    return Folder(images=root / "images", masks=root / "masks", classes=["field", "house"])


@pytest.fixture(scope="module")
def run(data: Folder, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        model=ModelConfig("fpn", "test_efficientnet", False, in_chans=5, options={"width": 16}),
        data=data,
        augment=Augment(crop=(64, 64), turn=False, photometric=False, repeat=4),
        epochs=2,
        batch_size=4,
        workers=0,
        loggers=[],
        out=tmp_path_factory.mktemp("runs") / "run",
        **PAPER | {"optimizer": "adamw", "lr": 0.003, "auxiliary_weight": 0.0},
    )
    return quietly(config)


def test_a_model_of_bands_keeps_their_range(run: Run, data: Folder) -> None:
    info = run.model.info
    assert info.in_chans == 5 and len(info.mean) == 5
    assert info.value_range is not None and info.value_range[1] > 2000
    assert info.value_range == data.dataset("train").with_channels(5).known_range()
    assert run.iou["house"] is not None and run.iou["house"] > 50
    assert (run.folder / "val.png").is_file()


def test_commands_on_bands(run: Run, data: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = ["--data=folder", f"--data.images={data.images}", f"--data.masks={data.masks}"]
    assert main(["doctor", *own, "--in_chans=5"]) == 0
    assert "5 channels" not in capsys.readouterr().err
    assert main(["doctor", *own]) == 3
    printed = capsys.readouterr().out
    assert "12 files cannot be used" in printed and "has 5 channel(s), not 3" in printed
    assert main(["evaluate", str(run.folder), "--html", str(tmp_path / "scores.html"), "--workers=0"]) == 0
    path = data.pairs("val")[0].image
    assert main(["inspect", str(run.folder), str(path), "--out", str(tmp_path / "inspect.html")]) == 0
    flags = ["--preset=paper", "--model=fpn", "--model.backbone=test_efficientnet", "--model.pretrained=false"]
    assert main(["train", *own, *flags, f"--out={tmp_path / 'run'}"]) == 2
    assert "model.in_chans 5" in capsys.readouterr().err
