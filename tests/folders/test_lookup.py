"""Lookup tables from mask values and colours to classes, and statistics of masks."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crispseg.folders.facts import count_values
from crispseg.folders.lookup import ColorLookup, IdLookup, MaskLookup
from tests.data.own_folders import BLACK, WHITE, ids


@given(count=st.integers(2, 255), ignore=st.sets(st.integers(0, 300), max_size=4), data=st.data())
def test_ids_are_kept_or_ignored_or_refused(count: int, ignore: set[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 400), min_size=1, max_size=12))
    lookup, void, mask = IdLookup(count, tuple(ignore)), ignore | {255}, np.array([values], np.uint16)
    if all(value < count or value in void for value in values):
        assert lookup(mask).dtype == np.uint8
        assert lookup(mask).tolist() == [[255 if value in void else value for value in values]]
    else:
        with pytest.raises(ValueError, match=f"out of range 0 to {count - 1}"):
            lookup(mask)


@settings(deadline=None, max_examples=8)
@given(palette=st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=2, max_size=9, unique=True), data=st.data())
def test_colours_become_ids(palette: list[tuple[int, int, int]], data: st.DataObject) -> None:
    void, colors = tuple(palette[:1]), tuple(palette[1:])
    labels = np.array(data.draw(st.lists(st.integers(-1, len(colors) - 1), min_size=1, max_size=20)))
    mask = np.array([*colors, *void], np.uint8)[labels][None]
    np.testing.assert_array_equal(ColorLookup(colors, void)(mask)[0], np.where(labels < 0, 255, labels))
    if (labels < 0).any():
        with pytest.raises(ValueError, match=r"colour .* is not in data\.palette"):
            ColorLookup(colors)(mask)


DEEP = ids(0, 1).astype(np.uint16)


@pytest.mark.parametrize(
    ("lookup", "mask", "expected"),
    [
        (IdLookup(2), np.repeat(ids(0, 1)[..., None], 3, 2), 1),  # equal channels are grey
        (IdLookup(2), np.dstack([ids(0), ids(8), ids(7)]), r"\[0, 8, 7\]"),
        (ColorLookup((BLACK, WHITE)), ids(0, 255), 1),  # a grey value is a colour
        (ColorLookup((BLACK, WHITE)), ids(0, 7), r"\[7, 7, 7\] is not in"),
        (ColorLookup((BLACK, (1, 1, 1))), DEEP, 1),
        (ColorLookup((BLACK, WHITE)), DEEP * 65535, 1),  # white of 16 bits
        (ColorLookup((BLACK, WHITE)), DEEP * 1799, "16-bit"),
        (ColorLookup(((1, 1, 1), WHITE)), DEEP * 65535, r"\[0, 0, 0\]"),
    ],
)
def test_grey_and_16_bits(lookup: MaskLookup, mask: np.ndarray, expected: int | str) -> None:
    if isinstance(expected, int):
        np.testing.assert_array_equal(lookup(mask), ids(0, expected))
    else:
        with pytest.raises(ValueError, match=expected):
            lookup(mask)


def test_values_are_counted_exactly() -> None:
    random = np.random.default_rng(0)
    for dtype, top in ((np.uint8, 256), (np.uint16, 700), (np.uint32, 1000)):
        values = random.integers(0, top, (37, 53)).astype(dtype)
        levels, counts, distinct = count_values(values)
        expected = Counter(values.ravel().tolist())
        assert dict(zip(levels.tolist(), counts.sum((1, 2)).tolist(), strict=True)) == expected
        lower_left = Counter(values[19:, :27].ravel().tolist())
        assert distinct == len(expected) and counts[:, 1, 0].tolist() == [lower_left[grey] for grey in levels.tolist()]
    many = np.arange(5000, dtype=np.uint32).reshape(50, 100) // 2
    many[:5] = 7
    levels, counts, distinct = count_values(many)
    assert len(levels) == 1024 and 7 in levels and (np.diff(levels.astype(int)) > 0).all()
    assert distinct == len(np.unique(many)) and counts[levels == 7].sum() == (many == 7).sum()
