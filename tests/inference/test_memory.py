"""Images for which memory would not do are seen in tiles, whatever their format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Refuses
from PIL import Image

from crispseg import Segmenter
from crispseg.cli.main import main
from crispseg.errors import CrispsegWarning
from crispseg.inference import tiling as memory
from crispseg.inference.tiling import free_bytes, peak_bytes, tiled
from crispseg.io.images import read_mask

from .test_tiled import blocks

CPU = torch.device("cpu")


def in_tiles(folder: Path, image: np.ndarray, tile: int) -> np.ndarray:
    return tiled(Segmenter(folder, "cpu").logits, image, tile)[0]


# Tiles --------------------------------------------------------------------------------------------------------------


def test_an_array_in_tiles(folder: Path, refuses: Refuses) -> None:
    image, tiled = blocks(150, 200), Segmenter(folder, "cpu", tile=128)
    result = tiled(image)
    assert np.array_equal(result.labels, in_tiles(folder, image, 128)) and len(np.unique(result.labels)) > 1
    assert np.array_equal(tiled.labels(image), result.labels)
    with refuses("the image", "tiles"):
        result.probabilities()
    assert tiled(image[:128, :128]).probabilities().shape == (4, 128, 128)  # no larger than a tile
    with refuses("tiles of 64 pixels are too small"):
        Segmenter(folder, "cpu", tile=64)


def test_memory_asks_for_tiles(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = blocks(300, 300)
    for name in ("a.png", "b.png"):
        Image.fromarray(image).save(tmp_path / name)
    need = Segmenter(folder, "cpu")._tiling.bytes_per_pixel * image.shape[0] * image.shape[1]
    monkeypatch.setattr(memory, "LARGE", 1000)
    argv = ["predict", str(folder), str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    monkeypatch.setattr(memory, "free_bytes", lambda device: int(1.1 * need))
    assert main([*argv, f"--out={tmp_path / 'tiles'}"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "tiles of 256 pixels" in line
    for name in ("a.png", "b.png"):
        assert np.array_equal(read_mask(tmp_path / "tiles" / name), in_tiles(folder, image, 256))
    for enough in (int(2 * need), None):
        monkeypatch.setattr(memory, "free_bytes", lambda device, enough=enough: enough)
        assert main([*argv, f"--out={tmp_path / 'whole'}"]) == 0
        assert capsys.readouterr().err == ""
        assert np.array_equal(read_mask(tmp_path / "whole/a.png"), Segmenter(folder, "cpu")(image).labels)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 1)
    with pytest.warns(CrispsegWarning, match="tiles of 128 pixels"):
        Segmenter(folder, "cpu").labels(image)


# What is needed, and what there is ----------------------------------------------------------------------------------


def test_tensors_are_counted_while_they_live() -> None:
    def run() -> torch.Tensor:
        first = torch.zeros(1000)  # 4000 bytes
        second = first + 1  # 8000
        del first
        third = second.view(10, 100).double()  # 4000, a view of them, 8000 more
        return third.sum()

    assert 12000 <= peak_bytes(run) < 12100
    assert peak_bytes(lambda: [torch.zeros(1000) for _ in range(5)]) == 20000
    assert peak_bytes(lambda: [torch.zeros(1000).sum() for _ in range(5)]) < 4100


def test_the_need_grows_with_the_image(folder: Path) -> None:
    one = Segmenter(folder, "cpu")
    image = np.zeros((512, 640, 3), np.uint8)
    with torch.inference_mode():
        assert peak_bytes(lambda: one._see(image)) == pytest.approx(
            one._tiling.bytes_per_pixel * image.size / 3, rel=0.25
        )


def test_what_is_free() -> None:
    free = free_bytes(CPU)
    assert free is not None and 2**20 < free < 2**50
    assert free_bytes(torch.device("meta")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_what_is_free_on_a_gpu() -> None:
    device = torch.device("cuda", 0)
    before = free_bytes(device)
    held = torch.zeros(2**26, device=device)
    assert before is not None and before - (free_bytes(device) or 0) >= held.nbytes
