"""YOLO polygons: a text file in "labels" for each file in "images" next to it, and data.yaml with class names.

Exports of labelImg and Label Studio have classes.txt instead, a name per line.

Format: https://docs.ultralytics.com/datasets/segment. (0, 0) is the top left corner of the first pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from crispseg.config.files import read_text
from crispseg.config.yaml_files import read_yaml
from crispseg.data.annotations import Annotations, MarkedImage, Outlined, Shape, claim, class_name, draw_shares
from crispseg.errors import CrispsegError, few
from crispseg.folders.names import listed_names, read_lines
from crispseg.io.files import foreign_endings, user_path
from crispseg.io.images import IMAGE_FOLDERS, find_images
from crispseg.labels import LabelSet

DATA_YAML = "data.yaml"
NAME_FILES = (DATA_YAML, "data.yml", "labels/classes.txt", "classes.txt")  # the first of these has the class names


def yolo_files(folder: Path) -> list[Path]:
    """Return the text files in a folder that are at most three levels below a folder "labels"."""
    files = find_images(folder.absolute(), {".txt"})
    return [path for path in files if "labels" in path.parts[-4:-1] and path.name != "classes.txt"]


def yolo_root(file: Path) -> tuple[Path, Path] | None:
    """Return the folder with class names to which a text file belongs, and the file of the names."""
    places = ((top, top / name) for name, top in product(NAME_FILES, file.parents[:4]))
    return next((place for place in places if place[1].is_file()), None)


def read_yolo(folder: Path, images: Path | None = None) -> Annotations:
    """Read the text files of the images below a folder; an image without a text file is background.

    The file data.yaml, in the folder or above, defines the class names and optionally the splits. The images may also
    be in another folder `images`; those without a text file are then left out.
    """
    files = set(yolo_files(folder))
    if (root := yolo_root(min(files))) is None:
        raise CrispsegError(f"{folder} has no {DATA_YAML} with class names; write one: 'names: [a, b]'")
    top, listing = root
    tree = read_yaml(listing) if listing.suffix != ".txt" else {"names": [*listed_names(listing, read_lines(listing))]}
    names, places = _class_names(listing, tree.get("names")), _split_places(listing, top, tree)
    marked = _marked(folder.absolute(), images, top, names, places)
    if files := files.difference(image.source for image in marked):
        raise CrispsegError(f"{min(files)} has no image in images, next to labels; add it, or give images")
    missing = [f"{place} of {split}" for split, place in places if not place.is_dir()]
    notes = (f"{listing}: {few(missing)} is not a folder; names of folders define the splits",) if missing else ()
    return Annotations(tuple(marked), tuple(names[key] for key in sorted(names)), notes)


def _marked(
    folder: Path, images: Path | None, top: Path, names: Mapping[int, str], places: Sequence[tuple[str, Path]]
) -> list[MarkedImage]:
    """Return the images that belong to text files below `top`, with their shapes."""
    base = top if images is None or images.absolute().is_relative_to(top) else images.absolute()
    elsewhere = base != top
    marked = []
    for image in find_images(base if elsewhere else folder):
        place = image.relative_to(base).with_suffix("").as_posix()
        before, next_to_labels, after = f"/{place}".rpartition("/images/")
        file, name = Path(f"{top}{before}/labels/{after}.txt"), PurePosixPath(f".{before}/{after}")
        is_annotated = file.is_file() if elsewhere else bool(next_to_labels)
        if is_annotated:
            splits = (split for split, place in places if image.is_relative_to(place))
            split, shapes = next(splits, str(name.parent)), _shapes(file, names)
            marked.append(MarkedImage(str(image), file, shapes=shapes, name=str(name), split=split))
    return marked


def _shapes(file: Path, names: Mapping[int, str]) -> list[Shape]:
    """Return the shapes in a text file; none without the file."""
    text = read_text(file) if file.exists() else ""
    lines = enumerate(text.splitlines(), 1)
    return [_shape(f"{file}: line {index}", line.split(), names) for index, line in lines if line.strip()]


def write_yolo(folder: Path, images: Iterable[Outlined], classes: LabelSet) -> None:
    """Write data.yaml and a text file for each image."""
    names = classes.foreground
    for image in images:
        size = image.labels.shape[::-1]
        lines = []
        for name, ring in image.polygons():
            shares = (np.array(ring) / size).ravel()
            lines.append(" ".join([str(names.index(name)), *(f"{share:.7g}" for share in shares)]) + "\n")
        image.path(folder / "labels", ".txt").write_text("".join(lines), encoding="utf-8")
    text = yaml.safe_dump({"names": dict(enumerate(names))}, allow_unicode=True)
    (folder / DATA_YAML).write_text(text, encoding="utf-8")


def _class_names(file: Path, names: Any) -> dict[int, str]:
    """Return id → name from a list or a mapping."""
    names = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(names, dict) or not all(isinstance(key, int) for key in names):
        raise CrispsegError(f"{file} has no class names; write a line 'names: [a, b]'")
    ids = dict[str, int]()
    for key, name in names.items():
        claim(ids, class_name(name, f"{file}: class {key}"), key, f"{file}: the id of '{name}'")
    return {key: name for name, key in ids.items()}


def _split_places(listing: Path, top: Path, tree: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """Return each split with its folders, which may have been elsewhere when the file was written."""
    places, base = [], str(tree.get("path") or "")
    for split in ("train", "val", "test"):
        for place in np.ravel(tree.get(split) or []).tolist():
            user_path(f"{base}/{place}", listing)  # refuses a name that no system has
            places.append((split, _split_folder(top, base, str(place))))
    return places


def _split_folder(top: Path, base: str, place: str) -> Path:
    """Return the folder below `top` that a split means; a name such as "images" alone would mean all of them."""
    endings = [ending for ending in foreign_endings(f"{base}/{place}") if ".." not in ending.parts]
    meant = [ending for ending in endings if str(ending) == place or str(ending).lower() not in IMAGE_FOLDERS]
    return next((top / ending for ending in meant if (top / ending).is_dir()), top / place)


def _shape(line: str, words: list[str], names: Mapping[int, str]) -> Shape:
    """Return the shape of a line: its class number, then x and y of each point as shares of width and height."""
    if len(words) == 5:
        raise CrispsegError(f"{line} is a box, not a polygon; export polygons of all objects, or remove it")
    try:
        number, points = int(words[0]), np.array(words[1:], np.float64).reshape(-1, 2)
    except ValueError:
        raise CrispsegError(f"{line} is not a polygon 'class x1 y1 x2 y2 x3 y3 …'; export the file again") from None
    if number not in names:
        raise CrispsegError(
            f"{line} has class {number}, which has no name in {DATA_YAML} or classes.txt; add it to the names"
        )
    return Shape(line, names[number], partial(draw_shares, "polygon", points, 1))
