"""Files that `crispseg predict` writes, decoded: whole, in tiles, with objects, by protocols, in shares."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contract.formula import FROZEN, assert_same, frozen, picture, run, write_png

MODEL = FROZEN / "sfnet"
WAYS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "tiles": ("--tiles", "128"),
    "objects": ("--objects", "thing", "--objects_border", "edge"),
    "objects alone": ("--objects", "background"),
    "scales": ("--scales", "0.5", "1", "--flip", "true"),
    "window": ("--window", "64", "--stride", "48"),
}
PICTURES = {"wide.png": (64, 96, 7), "below/odd.png": (37, 51, 2), "below/tall.png": (80, 110, 13)}
"""Height, width and seed; chosen so that no pixel's best classes are nearly equal."""
LARGE = (150, 210, 5)


def images(folder: Path, large: bool) -> Path:
    """Images, some in a sub-folder, one of them grey; with `large`, also a TIFF."""
    for name, (*size, seed) in PICTURES.items():
        write_png(folder / name, picture(size, seed))
    write_png(folder / "grey.png", picture((65, 96), 2)[..., 0])
    if large:
        write_png(folder / "large.tif", picture(LARGE[:2], LARGE[2]))
    return folder


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def plain(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def content(path: Path) -> Any:
    """What is in a file: pixels with the first colours of the palette, rows, or a JSON tree."""
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return [[plain(cell) for cell in row] for row in csv.reader(file)]
    if path.suffix == ".json":
        return json.loads(path.read_text())
    with Image.open(path) as found:
        palette = [*(found.getpalette() or ())][:9]
        return np.asarray(found), np.asarray(palette, np.uint8)


def predicted(folder: Path, way: str) -> dict[str, Any]:
    """What a command writes, by file; of overlays, which are made in one way, once."""
    status, _ = run("predict", MODEL, images(folder / "in", way == "tiles"), "--out", folder / "out", *WAYS[way])
    assert status == 0
    made = files(folder / "out")
    return {name: None if "overlay" in name and way != "whole" else content(folder / "out" / name) for name in made}


def assert_pixels(found: NDArray[Any], expected: NDArray[Any], what: str) -> None:
    """All but one pixel in 500 are equal, colours within 1."""
    assert found.shape == expected.shape and found.dtype == expected.dtype, what
    margin = 1 if expected.ndim == 3 else 0
    assert (abs(found.astype(int) - expected) <= margin).mean() >= 0.998, what


@pytest.mark.parametrize("way", WAYS)
def test_predict(way: str, tmp_path: Path) -> None:
    pixels, tables = frozen("predict.npz"), frozen("predict.json")[way]
    found = predicted(tmp_path, way)
    assert [*found] == tables.pop("files")
    for name, values in found.items():
        if name in tables:
            assert_same(values, tables[name], 1e-3)
        elif values is not None:
            assert_pixels(values[0], pixels[f"{way}/{name}"], name)
            assert np.array_equal(values[1], pixels[f"{way}/{name}/palette"])
