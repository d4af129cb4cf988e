"""Default colours: how far they are apart, by numbers."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from crispseg.io.images import read_mask, write_labels
from crispseg.labels import BACKGROUND, Color, LabelSet, color_table, default_palette, voc_palette
from crispseg.models.info import ModelInfo

BLACK, WHITE = (0, 0, 0), (255, 255, 255)
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
"""What each kind of eye makes of linear RGB (Machado, Oliveira and Fernandes, IEEE TVCG 2009)."""


def seen(colors: Sequence[Color] | NDArray[np.int64]) -> NDArray[np.float32]:
    """CIELAB of sRGB colours `(N, 3)` to each kind of eye, `(4, N, 3)`."""
    levels = np.asarray(colors) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    simulated = [(linear @ matrix.T).clip(0, 1).astype(np.float32)[None] for matrix in VISIONS.values()]
    return np.stack([np.asarray(cv2.cvtColor(each, cv2.COLOR_LRGB2Lab))[0] for each in simulated])


def distances(first: Sequence[Color], second: Sequence[Color]) -> NDArray[np.float32]:
    """ΔE of each of the first colours to each of the second to each kind of eye, `(4, N, M)`."""
    apart: NDArray[np.float32] = np.linalg.norm(seen(first)[:, :, None] - seen(second)[:, None], axis=-1)
    return apart


def closest(colors: Sequence[Color]) -> NDArray[np.float32]:
    """The least ΔE of two of these colours to each kind of eye, `(4,)`."""
    least: NDArray[np.float32] = (distances(colors, colors) + 1e9 * np.eye(len(colors), dtype=np.float32)).min((1, 2))
    return least


def test_default_colours_are_apart_for_all_eyes() -> None:
    """In CIELAB, for normal vision and the three kinds of colour blindness, with the background's grey among them."""
    for count in range(2, 31):
        least = 30 if count <= 5 else 23 if count <= 8 else 19 if count <= 12 else 11
        assert closest([*default_palette(count), BACKGROUND]).min() >= least, count
    from_both = distances([*default_palette(30), BACKGROUND], [BLACK, WHITE])
    assert from_both.min() >= 15 and from_both[:, :8].min() >= 24


def test_all_values_of_a_mask_have_colours_of_their_own() -> None:
    every = default_palette(255)
    assert len({*every, BLACK}) == 256 and closest(every).min() >= 2.9
    assert default_palette(7) == every[:7]
    assert len(np.unique(color_table(every), axis=0)) == 256  # black is what a file has for 255, ignored


def test_the_distances_are_those_of_cielab() -> None:
    """Black to white is L of 100; red to green as colour-science has it; and who sees no red sees less of it."""
    apart = distances([BLACK, (255, 0, 0)], [WHITE, (0, 255, 0)])
    assert apart[:, 0, 0] == pytest.approx(100, abs=0.1) and apart[0, 1, 1] == pytest.approx(170.6, abs=0.2)
    assert (apart[1:3, 1, 1] < 100).all()


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_background_is_grey(name: str) -> None:
    labels = LabelSet.colored([name, "nucleus", "border"])
    assert labels.palette == (BACKGROUND, *default_palette(3)[1:]) and labels.background == 0
    assert LabelSet.colored(["nucleus", name]).palette == (default_palette(1)[0], BACKGROUND)


def test_classes_without_a_background() -> None:
    labels = LabelSet.numbered(3)
    assert labels == LabelSet(("class 0", "class 1", "class 2"), default_palette(3)) and labels.background is None


def test_saved_models_keep_their_colours() -> None:
    saved = {"name": "fpn", "num_classes": 2, "backbone": "resnet18", "in_chans": 3, "mean": (0,) * 3, "std": (1,) * 3}
    names = ("background", "nucleus")
    assert ModelInfo(**saved, class_names=names, palette=(BLACK, (128, 0, 0))).label_set().palette[1] == (128, 0, 0)
    assert ModelInfo(**saved, class_names=names).label_set() == LabelSet.colored(names)


@given(count=st.integers(2, 255), seed=st.integers(0, 99))
def test_palette_files_keep_the_ids(count: int, seed: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.png"
    labels = np.random.default_rng(seed).integers(0, count, (4, 5)).astype(np.uint8)
    labels[0, 0] = 255
    write_labels(path, labels, LabelSet.numbered(count).palette)
    assert np.array_equal(read_mask(path), labels)


def test_colours_of_pascal_voc() -> None:
    palette = voc_palette(255)
    assert palette[:4] == (BLACK, (128, 0, 0), (0, 128, 0), (128, 128, 0))
    assert palette[20] == (0, 64, 128) and len(set(palette)) == 255
