"""Annotations of labelling tools: masks go out and come back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.typing import NDArray

from crispseg.data.formats import FORMATS, write_annotations
from crispseg.data.importing import import_annotations
from crispseg.io.images import read_mask, write_image
from crispseg.labels import LabelSet

NAMES = ("background", "cell", "Gefäß & <rand>")
LABELS = LabelSet.colored(NAMES)


def returned(kind: str, masks: dict[str, NDArray[np.uint8]], folder: Path) -> dict[str, NDArray[np.uint8]]:
    """What masks are after they were written and imported."""
    photos, out = folder / "photos", folder / "out"
    for name, mask in masks.items():
        write_image(photos / f"{name}.png", np.zeros((*mask.shape, 3), np.uint8))
    write_annotations(out / kind, [(photos / f"{name}.png", name, mask) for name, mask in masks.items()], LABELS)
    import_annotations([out], folder / "in", images=photos, classes=[*NAMES])
    assert (folder / "in/classes.txt").read_text(encoding="utf-8").splitlines() == [*NAMES]
    return {name: read_mask(folder / f"in/masks/{name}.png") for name in masks}


def odd_mask() -> NDArray[np.uint8]:
    """A ring with an object inside, touching classes, single pixels, corners, the border, and a hole at a corner."""
    mask = np.zeros((19, 23), np.uint8)
    mask[:7, :7], mask[1:6, 1:6], mask[3, 3] = 1, 0, 2
    mask[8:12, 0:6], mask[8:12, 6:12] = 1, 2
    mask[18, 22], mask[0, 22], mask[15, 15], mask[16, 16] = 1, 2, 1, 1
    mask[8:12, 15:19], mask[9, 16], mask[10, 17], mask[8, 15], mask[9:11, 19:] = 1, 0, 0, 0, 2
    mask[14:17, 3:12:2], mask[16, 3:12] = 1, 1
    return mask


any_mask = st_numpy.arrays(
    np.uint8, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(0, 2)
)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=10)
@given(mask=any_mask, factor=st.integers(1, 3))
@example(mask=odd_mask(), factor=1)
def test_any_mask_returns(
    kind: str, mask: NDArray[np.uint8], factor: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    masks = {"a #1+2%20ü": mask.repeat(factor, 0).repeat(factor, 1)}
    masks |= {"deep/b": np.full((5, 4), 2, np.uint8), "none": np.zeros((4, 5), np.uint8)}
    for name, found in returned(kind, masks, tmp_path_factory.mktemp("any")).items():
        np.testing.assert_array_equal(found, masks[name])
