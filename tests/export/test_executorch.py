"""ExecuTorch files: they compute what the model does, at one size, and say so where another is given."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import crispseg
from crispseg.cli.main import main
from crispseg.data.sources import PART
from crispseg.export import export_model
from crispseg.inference.runtime import open_model
from crispseg.io.images import read_image, write_image

pytest.importorskip("executorch", reason="executorch is not installed: pip install 'crispseg[executorch]'")

pytestmark = pytest.mark.slow

SIZE = (64, 96)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model: labels of one without training are ties."""
    path = tmp_path_factory.mktemp("model") / "nuclei.pte"
    assert main(["export", "nuclei", "--out", str(path), "--size", *map(str, SIZE)]) == 0
    assert b"grid_sampler" not in path.read_bytes()
    return path


def test_labels_are_those_of_the_model(file: Path) -> None:
    model, opened = crispseg.Segmenter("nuclei"), crispseg.Segmenter(file)
    names = [name for split in ("val", "test") for name in (PART / f"{split}.txt").read_text().split()][:20]
    images = [read_image(PART / f"images/{name}.png")[: SIZE[0], : SIZE[1]] for name in names]
    assert len(images) == 20
    assert min((opened.labels(image) == model.labels(image)).mean() for image in images) >= 0.999


def test_results_are_not_overwritten_by_the_next_call(file: Path) -> None:
    opened = open_model(file)
    first, second = torch.randn(2, 1, 3, *SIZE)
    kept = opened(first)
    before = kept.clone()
    opened(second)
    assert torch.equal(kept, before) and torch.equal(opened(torch.cat([second, first]))[1:], before)


def test_threads_get_the_labels_of_their_images(file: Path) -> None:
    segmenter = crispseg.Segmenter(file)
    images = list(np.random.default_rng(0).integers(0, 256, (4, *SIZE, 3), np.uint8))
    expected = [segmenter(image).labels for image in images]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(segmenter, images * 5))
    assert all(np.array_equal(result.labels, labels) for result, labels in zip(results, expected * 5, strict=True))


def test_another_size_is_refused(file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", np.zeros((50, 70, 3), np.uint8))
    assert main(["predict", str(file), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 2
    message = capfd.readouterr().err
    assert "64×96" in message and "50×70" in message and "size 50 70" in message


def test_damage_is_found(file: Path, tmp_path: Path, refuses: Any) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "a.pte").write_bytes(content)
    with refuses("checksums differ"):
        open_model(tmp_path / "a.pte")


def test_a_network_with_pyramid_pooling_agrees(tmp_path: Path) -> None:
    options = {"num_classes": 3, "backbone": "test_efficientnet", "width": 8, "fuse_levels": [5]}
    model = crispseg.create_model("sfnet", **options).eval()
    certificate = export_model(model, tmp_path / "a.pte", "executorch", size=SIZE, sampling="gather")
    assert certificate.comparisons[0].agrees
