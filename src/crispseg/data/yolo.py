"""YOLO's polygons: a text file for each image in folders "labels" next to "images", and data.yaml with the class names.

The format: https://docs.ultralytics.com/datasets/segment. (0, 0) is the top left corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from crispseg.config.yaml_files import read_yaml
from crispseg.data.annotations import Annotations, MarkedImage, Pixels, Shape, draw_outlines
from crispseg.errors import CrispsegError, one_line
from crispseg.io.images import SUFFIXES, find_images

LABELS, DATA = "labels", "data.yaml"


def yolo_files(folder: Path) -> Iterator[Path]:
    """Return the text files of a folder, and of three levels below it, that are in or below a folder "labels"."""
    found = (path for level in range(4) for path in folder.absolute().glob(f"{'*/' * level}[!.]*.txt"))
    return (path for path in found if LABELS in path.parts[-4:-1])


def yolo_root(file: Path) -> tuple[Path, Path]:
    """Return the folder with data.yaml to which a file belongs, by default that above its "labels", and the latter."""
    labels = next((folder for folder in file.parents if folder.name == LABELS), file.parent)
    return next((top for top in list(labels.parents)[:2] if (top / DATA).is_file()), labels.parent), labels


def unlabelled(files: Iterable[Path]) -> Iterator[Path]:
    """Return the missing text files of images next to these files; such images are background, by the format."""
    for labels in {yolo_root(file)[1] for file in files}:
        images = labels.parent / "images"
        for image in find_images(images) if images.is_dir() else ():
            if not (text := labels / image.relative_to(images).with_suffix(".txt")).is_file():
                yield text


def read_yolo(path: Path) -> Annotations:
    """Read the file of one image; data.yaml says what the numbers of classes mean, and perhaps which split it is in.

    A missing file is empty.

    Raises:
        CrispsegError: a line is no polygon or of no class; or data.yaml is missing or does not name the classes.
    """
    path = path.absolute()
    top, labels = yolo_root(path)
    below, stem = path.relative_to(labels).parent, path.name.removesuffix(".txt")
    if not (top / DATA).is_file():
        raise CrispsegError(f"{top} has no {DATA}, which names the classes of {path}; write one: 'names: [a, b]'")
    names, places = _data_yaml(top, (top / DATA).stat().st_mtime_ns)
    folder = labels.parent / "images" / below
    files = [folder / f"{stem}{suffix}" for each in sorted(SUFFIXES) for suffix in (each, each.upper())]
    image = next((file for file in files if file.is_file()), folder / f"{stem}.jpg")
    name = labels.parent.relative_to(top) / below / stem
    split = next((split for split, place in places if image.is_relative_to(place)), name.parent.as_posix())
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise CrispsegError(f"{path} is no text ({one_line(error)}); export it again") from None
    lines = enumerate(map(str.split, text.splitlines()), 1)
    shapes = [_shape(f"{path}: line {index}", words, names) for index, words in lines if words]
    marked = MarkedImage(str(image), path, (None, None), shapes, name.as_posix(), split)
    return Annotations((marked,), tuple(names[key] for key in sorted(names)))


@lru_cache(maxsize=1)
def _data_yaml(top: Path, changed: int) -> tuple[dict[int, str], list[tuple[str, Path]]]:
    """The names, and the folders of splits. Exports start these from anywhere: "../train/images" is below `top` too."""
    tree: Mapping[str, Any] = read_yaml(top / DATA)
    names = tree.get("names")
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise CrispsegError(f"{top / DATA} does not name the classes; write a line 'names: [a, b]'")
    places = []
    for split in ("train", "val", "test"):
        for place in np.ravel(tree.get(split) or []).tolist():
            inside = [part for part in PurePosixPath(str(place)).parts if part != ".."]
            places += [(split, start.joinpath(*inside)) for start in (top, top / str(tree.get("path") or ""))]
    return {key: str(name) for key, name in names.items()}, places


def _shape(what: str, words: list[str], names: Mapping[int, str]) -> Shape:
    """The shape of a line: the number of its class, then x and y of each point as shares of width and height."""
    if len(words) == 5:
        raise CrispsegError(f"{what} is a box, which makes no mask; export polygons of all objects, or remove it")
    try:
        number, points = int(words[0]), np.array(words[1:], np.float64).reshape(-1, 2)
        if len(points) < 3 or not np.isfinite(points).all():
            raise ValueError
    except ValueError:
        raise CrispsegError(f"{what} is no polygon 'class x1 y1 x2 y2 x3 y3 …'; export the file again") from None
    if number not in names:
        raise CrispsegError(f"{what} is of class {number}, which {DATA} does not name; add it to 'names'")

    def draw(height: int, width: int) -> Pixels:
        return draw_outlines("polygon", [(points * (width, height)).tolist()], height, width)

    return Shape(what, names[number], draw)
