"""`crispseg data`: what is known about data sets, what data hold, imports and the augmented VOC."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import Capture, error_of, hints, output_of
from dataset_trees import MAKERS

from crispseg.data import DATA_SOURCES, Folder, Nuclei
from crispseg.folders.lookup import ColorLookup
from crispseg.folders.readers import read
from crispseg.folders.report import values_of_labels
from crispseg.labels import IGNORE


def values_of(text: str) -> list[Any]:
    """The numbers, or colours, that a cell of the mapping names."""
    if text.startswith("["):
        return [json.loads(f"[{part.partition(']')[0]}]") for part in text.split("[")[1:]]
    parts = [part.split("-") for part in text.split(", ")]
    return [value for part in parts for value in range(int(part[0]), int(part[-1]) + 1)]


@pytest.mark.parametrize("name", [*MAKERS, "pascal_context 59", "camvid ids", "folder"])
def test_the_mapping_that_is_shown_is_the_one_that_is_used(name: str, tmp_path: Path) -> None:
    """Every value and colour that it names is decoded to the class that it names, and none is left out."""
    if name == "folder":
        folder = Folder("x", "y", palette=[(0, 0, 0), (255, 0, 7)], ignore=((9, 9, 9), 12), palette_tolerance=0)
        reading = read(folder.declared(), [], Path("y"), None)
        labels, decode = reading.labels, reading.lookup
    else:
        kind, _, option = name.partition(" ")
        options: Any = {"59": {"classes": 59}, "ids": {"masks": "ids"}}.get(option)
        source: Any = DATA_SOURCES[kind]("x", **options) if options else MAKERS[kind](tmp_path)
        labels, decode = source.label_set(), source.lookup()
    meanings = values_of_labels(decode, 1000)
    assert sorted(meanings) == [*range(len(labels)), IGNORE]
    every = []
    for label, values in meanings.items():
        for value in values_of(values):
            every.append(tuple(value) if isinstance(value, list) else value)
            decoded = decode(np.full((1, 1, *np.shape(value)), value, np.uint8))
            assert decoded.tolist() == [[label]], (label, value)
    assert sorted(every) == sorted(decode.meaning)


def test_grey_values_are_numbers() -> None:
    assert values_of_labels(ColorLookup([(0, 0, 0), (255, 255, 255)])) == {0: "0", 1: "255"}
    assert values_of_labels(ColorLookup([(0, 0, 0), (255, 0, 0)])) == {0: "[0, 0, 0]", 1: "[255, 0, 0]"}


def test_bundled_images_are_copied(tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "cells"
    (step,) = hints(output_of(capsys, "data", "get", "nuclei", out))
    assert f"images: {out / 'images'}" in output_of(capsys, *step, "--print_config")
    copied = Folder(images=str(out / "images"), instances=str(out / "instances"), classes=["background", "nucleus"])
    for split in ("train", "val", "test"):
        assert [pair.image.name for pair in copied.pairs(split)] == [
            pair.image.name for pair in sorted(Nuclei().pairs(split))
        ]
    assert str(out) in error_of(capsys, "data", "get", "nuclei", out)
    assert "nuclei" in error_of(capsys, "data", "get", "cells", tmp_path / "other")


def test_help_and_unknown_commands(capsys: Capture) -> None:
    for argv in ([], ["--help"]):
        assert "import" in output_of(capsys, "data", *argv)
    assert "unknown command 'data imprt'; did you mean 'data import'?" in error_of(capsys, "data", "imprt")
    for name, phrase in (("list", "public data sets"), ("import", "--background")):
        assert phrase in output_of(capsys, "data", name, "--help")
