"""Classes that are merged and dropped, in own data and in public data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crispseg.data.examination import examine
from crispseg.folders.checks import check
from crispseg.labels import LabelSet

from .own_folders import folder, ids, make_pair

FOUR = LabelSet.colored(("void", "road", "car", "bus"))


@pytest.mark.parametrize(
    ("merge", "drop", "names", "new"),
    [
        ({}, [], FOUR.names, [0, 1, 2, 3]),
        ({"vehicle": ["car", "bus"]}, [], ("void", "road", "vehicle"), [0, 1, 2, 2]),
        ({"bus": ["car"]}, ["void"], ("road", "bus"), [255, 0, 1, 1]),
        ({"all": ["void", "bus"], "car": ["car", "road"]}, [], ("all", "car"), [0, 1, 1, 0]),
    ],
)
def test_classes_merge_and_drop(merge: Any, drop: Any, names: Any, new: list[int], tmp_path: Path) -> None:
    labels, mapping = FOUR.regrouped(merge, drop)
    assert labels.names == names and [*mapping.values()] == new
    assert {*labels.palette} <= {*FOUR.palette} and all(
        labels.palette[at] == FOUR.palette[FOUR.index(name)] for at, name in enumerate(names) if name in FOUR.names
    )
    for name in "abc":
        make_pair(tmp_path, name, ids(0, 1, 2, 3))
    source = folder(tmp_path, classes=[*FOUR.names], merge=merge, drop=drop)
    np.testing.assert_array_equal(source.dataset("val")[0].labels, np.array(new)[ids(0, 1, 2, 3)])
    assert source.settled().settled() == source.settled()
    data = examine(source)
    assert data.meaning and data.meaning.labels == source.label_set() == labels
    assert check(data) == []


@pytest.mark.parametrize(
    ("merge", "drop", "phrase"),
    [
        ({"x": ["caar"]}, [], "did you mean 'car'"),
        ({}, ["rode"], "did you mean 'road'"),
        ({"x": ["car"]}, ["car"], "'car'"),
        ({"car": ["bus"]}, ["car"], "'car'"),
        ({}, ["void", "road", "car"], "number of class names is 1"),
    ],
)
def test_what_cannot_be_merged(merge: Any, drop: Any, phrase: str, refuses: Any) -> None:
    with refuses(phrase):
        FOUR.regrouped(merge, drop)
