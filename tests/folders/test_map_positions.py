"""GeoTIFFs whose positions on the map show a fault."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from crispseg.data import Folder

from .trees import SIZE, findings_of, ids, photo

SIDE = 10.0  # metres of a pixel


def write(path: Path, values: np.ndarray, left: float, top: float, south: bool = False, matrix: bool = False) -> None:
    """With rows from the north, as most programs, or from the south; then `top` is the lower side."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scale, tie = (SIDE, SIDE, 0.0), (0.0, 0.0, 0.0, left, top, 0.0)
    tags = [(33550, "d", 3, scale, True), (33922, "d", 6, tie, True)]
    if south or matrix:
        rows = [SIDE, 0, 0, left], [0, SIDE if south else -SIDE, 0, top], [0, 0, 0, 0], [0, 0, 0, 1]
        tags = [(34264, "d", 16, tuple(float(value) for row in rows for value in row), True)]
    tifffile.imwrite(path, values, photometric="rgb" if values.ndim == 3 else "minisblack", extratags=tags)


@pytest.mark.parametrize("kind", ["same", "as a matrix", "south", "moved", "image only"])
def test_masks_elsewhere_are_named(kind: str, tmp_path: Path) -> None:
    for index in range(6):
        left, top = 5e5 + 1e5 * index, 6e6
        write(tmp_path / f"images/{index}.tif", photo(index), left, top)
        mask = ids(index)
        if kind == "south":
            write(tmp_path / f"masks/{index}.tif", mask[::-1].copy(), left, top - SIDE * SIZE[0], south=True)
        elif kind == "image only":
            tifffile.imwrite(tmp_path / "masks" / f"{index}.tif", mask) if index else write(
                tmp_path / f"masks/{index}.tif", mask, left, top
            )
        else:
            moved = SIDE * (kind == "moved")
            write(tmp_path / f"masks/{index}.tif", mask, left + moved, top, matrix=kind == "as a matrix")
    assert ("positions-differ" in findings_of(Folder(root=tmp_path))) == (kind in ("south", "moved"))
