"""Names and colours of classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crispseg.errors import CrispsegError
from crispseg.io.images import read_mask, write_labels
from crispseg.labels import BACKGROUND, LabelSet, color_table, default_palette, voc_palette
from crispseg.models.info import ModelInfo

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


def test_all_values_of_a_mask_have_colours_of_their_own() -> None:
    every = default_palette(255)
    assert len({*every, BLACK, WHITE, BACKGROUND}) == 258
    assert default_palette(7) == every[:7]
    assert len(np.unique(color_table(every), axis=0)) == 256  # black is what a file has for 255, ignored


@pytest.mark.parametrize("name", ["background", "Background", "_background_"])
def test_a_background_is_grey(name: str) -> None:
    labels = LabelSet.colored([name, "nucleus", "border"])
    assert labels.palette == (BACKGROUND, *default_palette(3)[1:]) and labels.background == 0
    assert LabelSet.colored(["nucleus", name]).palette == (default_palette(1)[0], BACKGROUND)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "\x1b[31mroad", "a\tb"])
def test_names_have_one_line(name: str) -> None:
    with pytest.raises(CrispsegError, match="is empty or has control characters"):
        LabelSet.colored(["background", name])


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


def test_water_is_blue_and_vegetation_green() -> None:
    names = ("building", "Water", "tree", "grass", "background")
    labels = LabelSet.colored(names)
    blue, green = labels.palette[1], labels.palette[2]
    assert blue[2] == max(blue) and green[1] == max(green)
    assert labels.palette[3] == default_palette(4)[3] and labels.palette[4] == BACKGROUND  # a colour is used once
    assert len({*labels.palette}) == len(names)
