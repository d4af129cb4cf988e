"""How improbable masks are, and what their most doubtful area is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crispseg.labelling.errors import TEMPERATURE, doubtful_area, quality
from crispseg.labelling.following import cell_entropies, uncertainty, varied

SIZE = (40, 60)


def probabilities(labels: np.ndarray, classes: int = 3, sure: float = 0.9) -> np.ndarray:
    """As a model has them that predicts these labels."""
    rest = (1 - sure) / (classes - 1)
    return np.where(np.arange(classes)[:, None, None] == labels, sure, rest).astype(np.float32)


@given(arrays(np.float32, (3, 4, 5), elements=st.floats(0.015625, 1, width=32)), st.integers(0, 2**32 - 1))
def test_the_quality_is_the_softmin_of_the_paper(values: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).choice(np.array([0, 1, 2, 255], np.uint8), (4, 5))
    given = [float(values[label, y, x]) for (y, x), label in np.ndenumerate(labels) if label != 255]
    weights = [np.exp((1 - value) / TEMPERATURE) for value in given]
    expected = sum(term * weight for term, weight in zip(given, weights, strict=True)) / sum(weights) if given else 1.0
    assert quality(values, labels) == pytest.approx(expected)


def masks() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A mask with two objects, and versions with one error."""
    right = np.zeros(SIZE, np.uint8)
    right[5:20, 5:25], right[22:36, 35:55] = 1, 2
    wrong = {kind: right.copy() for kind in ("class swapped", "object missing", "border", "scattered")}
    wrong["class swapped"][5:20, 5:25] = 2
    wrong["object missing"][5:20, 5:25] = 0
    wrong["border"][5:20, 5:13] = 0
    wrong["scattered"][5:20:3, 5:25:4] = 0
    return right, wrong


@pytest.mark.parametrize("kind", masks()[1])
def test_each_kind_of_error_is_named_and_lowers_the_quality(kind: str) -> None:
    right, every = masks()
    seen, wrong = probabilities(right), every[kind]
    assert doubtful_area(seen, right) is None
    assert quality(seen, wrong) < quality(seen, right)
    doubt = doubtful_area(seen, wrong)
    if kind == "scattered":
        assert doubt is None
        return
    assert doubt is not None
    name, labelled, predicted, area = doubt
    left = {"class swapped": (2, 1), "object missing": (0, 1), "border": (0, 1)}[kind]
    assert (name, labelled, predicted) == (kind, *left)
    assert not (area & (right == wrong)).any() and area.sum() >= 0.9 * (right != wrong).sum()  # corners are thin


def test_ignored_pixels_are_no_errors() -> None:
    right, every = masks()
    wrong = np.where(right != every["object missing"], 255, right).astype(np.uint8)
    assert doubtful_area(probabilities(right), wrong) is None
    assert quality(probabilities(right), wrong) == pytest.approx(0.9)


def test_the_most_probable_other_area_is_the_most_doubtful() -> None:
    right, _ = masks()
    seen = probabilities(right, sure=0.5)
    seen[:, 22:36, 35:55] = probabilities(right, sure=0.95)[:, 22:36, 35:55]
    doubt = doubtful_area(seen, np.zeros(SIZE, np.uint8))
    assert doubt is not None and doubt[2] == 2  # the first object has more pixels


def test_uncertainty_is_that_of_the_worst_cells() -> None:
    sure = probabilities(np.zeros((80, 160), np.uint8), sure=0.999)
    unsure = sure.copy()
    unsure[:, 10:30, 20:40] = 1 / 3
    everywhere = probabilities(np.zeros((80, 160), np.uint8), sure=0.97)
    entropies = cell_entropies(unsure)
    assert entropies.shape == (8, 16) and entropies[1:3, 2:4] == pytest.approx(1, abs=1e-4)
    values = [uncertainty(cell_entropies(maps)) for maps in (sure, everywhere, unsure)]
    assert values == sorted(values) and values[0] >= 0 and values[-1] <= 1
    assert cell_entropies(sure[:, :3, :3]).shape == (3, 3)


def test_the_choice_is_of_worth_and_unlike_what_is_known() -> None:
    features = np.array([[0, 0], [0, 0.1], [5, 0], [0, 5.0]], np.float32)
    worth = [1.0, 0.99, 0.5, 0.4]
    none = np.empty((0, 2), np.float32)
    assert [index for index, _ in varied(worth, features, none, 9)] == [0, 2, 3, 1]
    first, distance = next(varied(worth, features, features[:1], 1))
    assert first == 2 and 0 < distance < np.inf
    assert [*varied(worth, features, none, 1)] == [(0, np.inf)]
    assert len([*varied([0.0] * 4, np.ones((4, 2), np.float32), none, 4)]) == 4
