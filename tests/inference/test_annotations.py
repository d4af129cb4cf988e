"""`crispseg predict --format`: annotations for labelling tools, which are imported again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from commands import error_of, output_of

from crispseg.data.formats import FORMATS
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask, write_image

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for index, name in enumerate(("a", "sub/b")):
        noise = np.random.default_rng(index).integers(0, 256, (5, 6, 3), np.uint8)
        write_image(tmp_path / f"photos/{name}.jpg", noise.repeat(8, axis=0).repeat(8, axis=1))
    return tmp_path / "photos"


@pytest.mark.parametrize("kind", FORMATS)
def test_predictions_are_imported(kind: str, model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    output_of(capsys, "predict", model, photos, "--out", out)
    printed = output_of(capsys, "predict", model, photos, "--out", out, "--format", kind, "--resume")
    assert f"annotations in {out / kind}" in printed and "2 of them earlier" in printed  # masks do not depend on it
    names = [f"class {index}" for index in range(3)]
    import_annotations([out / kind], tmp_path / "in", images=photos, classes=names, background=None)
    for name in ("a", "sub/b"):
        mask = read_mask(tmp_path / f"in/masks/{name}.png")
        np.testing.assert_array_equal(mask, read_mask(out / f"{name}.png"))
        assert len(np.unique(mask)) > 1
    again = error_of(capsys, "predict", model, photos, "--out", out, "--format", kind)
    assert f"{out / kind} is not empty" in again


def test_labelme_finds_its_images(model: Path, photos: Path, tmp_path: Path, capsys: Capture) -> None:
    output_of(capsys, "predict", model, photos, "--out", tmp_path / "out", "--format=labelme")
    import_annotations([tmp_path / "out/labelme"], tmp_path / "in", background=None)
    assert (tmp_path / "in/images/a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
