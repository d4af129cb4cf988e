"""From polygons and run lengths to a folder of own data: images, masks of class ids and the names of the classes.

Where shapes of two classes overlap, the smaller one is on top: what is large is usually behind or around what is small.
Of equal ones the later is on top. Crowds lie under everything else. `overlap` has other rules.
"""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.data.annotations import Annotated, Fault, Pixels, Shape, annotation_files, read_annotations, refuse
from crispseg.data.dataset import read_lines
from crispseg.data.loading import parallel
from crispseg.data.pairing import few
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.io.files import atomic_folder, check_new_folder
from crispseg.io.images import SUFFIXES, find_images, image_size, write_labels
from crispseg.labels import IGNORE, LabelSet

Overlap: TypeAlias = Literal["smaller", "later", "ignore"]
"""Which class a pixel of several gets: that of the smaller shape, of the later one in the file, or none (255)."""

BACKGROUNDS = frozenset({"_background_", "__background__"})
"""labelme's names of what is no class."""

UNLABELED = frozenset({"__ignore__", "_ignore_"})
"""labelme's names of pixels that count nowhere."""

_SPLITS = {"train": {"train", "training"}, "val": {"val", "valid", "validation"}}


class Task(NamedTuple):
    """One image to be written."""

    file: Path
    """The image."""
    name: str
    """What the copies of both files are called, without suffix; may hold "/"."""
    parts: tuple[Annotated, ...]
    """What the annotations say about it; several files may."""


@dataclass(frozen=True)
class Imported:
    """What was written."""

    out: Path
    labels: LabelSet
    images: int
    shapes: int
    without_pixels: int
    """Shapes that are too thin or small to hold the centre of a pixel."""
    empty: tuple[Path, ...]
    """Images without annotations."""
    kept_empty: bool
    """Whether these have a mask of background; else they are left out."""
    unlisted: tuple[Path, ...]
    """Pictures in the folders of images that no annotation names; they are left out."""
    splits: dict[str, int]
    """Images in each list, where there are lists."""

    def lines(self) -> list[str]:
        """A summary."""
        lines = [f"wrote {self.out}: {self.images} images, {self.shapes} shapes, {len(self.labels)} classes"]
        empty = f"images without annotations ({'all background' if self.kept_empty else 'left out'})"
        for files, what in ((self.empty, empty), (self.unlisted, "pictures that no annotation names (left out)")):
            if files:
                lines.append(f"{len(files)} {what}: {few(file.name for file in files)}")
        if self.without_pixels:
            lines.append(f"{self.without_pixels} shapes hold the centre of no pixel, and so are in no mask")
        if self.splits:
            lines.append(", ".join(f"{count} images to {split}" for split, count in self.splits.items()))
        return lines


def import_annotations(
    sources: Sequence[Path],
    out: Path,
    *,
    images: Path | None = None,
    classes: list[str] | Path | None = None,
    background: str | None = "background",
    ignore: Sequence[str] = (),
    overlap: Overlap = "smaller",
    crowds: Literal["class", "ignore"] = "class",
    workers: int | None = None,
) -> Imported:
    """Write `out/images`, `out/masks` and `out/classes.txt`; `out` appears when it is complete.

    Where the names of the annotation files or of their folders say which are to train and which to validate on,
    `train.txt` and `val.txt` are written too.

    Args:
        sources: JSON files of COCO or labelme, or folders of them.
        out: new or empty folder to write to.
        images: folder that the names of images start from, or one above; by default that of each JSON file.
        classes: names in the order of the ids to be, as a list or a text file; by default COCO's in the order of their
            ids, labelme's in that of the alphabet. The background is put in front where it is not among them.
        background: class of pixels that no shape holds; null ignores them.
        ignore: names of classes whose pixels become 255.
        overlap: what a pixel of two classes becomes: that of the smaller shape, of the later one, or ignore (255).
        crowds: what COCO's crowds become: their class, or ignore (255).
        workers: threads; by default one a processor, at most 8.

    Raises:
        CrispsegError: annotations that cannot be read or contradict themselves, an unknown class, a shape outside of
            its image, a missing image or one of another size, images of one name, or an `out` that holds something.
    """
    check_new_folder(out)
    names = read_lines(classes) if isinstance(classes, str | Path) else classes
    read = {path: read_annotations(path) for path in annotation_files(sources)}
    refuse([fault for found in read.values() for fault in found.faults])
    ids, labels = _classes((found.names for found in read.values()), names, background, ignore)
    tasks = _tasks([image for found in read.values() for image in found.images], images)
    for image in (part for task in tasks for part in task.parts):
        for shape in image.shapes:
            if shape.label not in ids:
                remedy = "give a background, or add it to" if names is None else "add it to classes, or to"
                raise CrispsegError(
                    f"{image.source}: {shape.name} is of the unknown class '{shape.label}'; {remedy} ignore"
                )
    empty = tuple(task.file for task in tasks if not any(part.shapes for part in task.parts))
    files = {task.file for task in tasks}
    folders = {file.parent for file in files} if images is None else {images}
    unlisted = {_absolute(file) for folder in folders for file in find_images(folder)} - files  # without those of `out`
    if background is None:
        tasks = [task for task in tasks if task.file not in empty]
    if not tasks:
        raise CrispsegError(f"{', '.join(map(str, sources))} mark nothing in any image; give other annotations")
    kinds = {path: found.kind for path, found in read.items()}
    splits = _splits(tasks, kinds)

    rest = IGNORE if background is None else ids[background]
    with atomic_folder(out) as folder:

        def write(task: Task) -> tuple[int, list[Fault]]:
            size, drawn, faults = _draw(task)
            mask = _paint(size, drawn, ids, rest, overlap, crowds == "ignore")
            write_labels(folder / "masks" / f"{task.name}.png", mask, labels.palette)
            image = folder / "images" / f"{task.name}{task.file.suffix}"
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(task.file, image)
            return sum(not len(pixels) for _, pixels in drawn), faults

        written = list(parallel(write, tasks, "Painting masks", workers))
        refuse([fault for _, faults in written for fault in faults])  # of all images, and nothing is left of `out`
        for name, lines in {"classes": labels.names, **splits}.items():
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Imported(
        out,
        labels,
        len(tasks),
        sum(len(part.shapes) for task in tasks for part in task.parts),
        sum(lost for lost, _ in written),
        empty,
        background is not None,
        tuple(sorted(unlisted)),
        {split: len(names) for split, names in splits.items()},
    )


def _draw(task: Task) -> tuple[tuple[int, int], list[tuple[Shape, Pixels]], list[Fault]]:
    """An image's size `(H, W)`, its shapes with their pixels, and what is wrong with those that have none."""
    height, width = image_size(task.file)
    drawn, faults = [], []
    for part in task.parts:
        if part.size is not None and part.size != (height, width):
            raise CrispsegError(
                f"{part.source} says that {part.image} is {part.size[0]}x{part.size[1]}, but {task.file} is "
                f"{height}x{width} (height x width); annotate the image as it is"
            )
        for shape in part.shapes:
            try:
                drawn.append((shape, shape.draw(height, width)))
            except ValueError as error:
                text = f"{shape.name} of {part.image}: {error}; correct or remove it in the annotations"
                faults.append(Fault(part.source, text))
    return (height, width), drawn, faults


def _paint(
    size: tuple[int, int],
    drawn: list[tuple[Shape, Pixels]],
    ids: dict[str, int],
    rest: int,
    overlap: Overlap,
    no_crowds: bool,
) -> NDArray[np.uint8]:
    """The mask `(H, W)` of shapes; pixels that none holds become `rest`, and with `no_crowds` those of crowds 255."""
    if overlap == "smaller":  # a stable sort: of equal ones the later stays on top
        drawn = sorted(drawn, key=lambda one: (not one[0].crowd, -len(one[1])))
    mask = np.full(size[0] * size[1], rest, np.uint8)
    seen = np.zeros(mask.shape, bool)
    for shape, pixels in drawn:
        label = IGNORE if shape.crowd and no_crowds else ids[shape.label]
        clash = pixels[seen[pixels] & (mask[pixels] != label)] if overlap == "ignore" else []
        mask[pixels], seen[pixels] = label, True
        mask[clash] = IGNORE
    return mask.reshape(size)


def _classes(
    found: Iterable[Sequence[str]], given: Sequence[str] | None, background: str | None, ignore: Sequence[str]
) -> tuple[dict[str, int], LabelSet]:
    """The id of each name, and the classes."""
    every = list(dict.fromkeys(name for names in found for name in names))
    special = {*ignore, *UNLABELED, *(BACKGROUNDS if background is not None else ())}
    names = [name for name in every if name not in special and name != background] if given is None else list(given)
    if background is not None and background not in names:
        names = [background, *names]
    for name in names:
        unwritable = any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in name)
        if name != name.strip() or not name or name.startswith("#") or unwritable:
            raise CrispsegError(
                f"the class name {name!r} cannot be a line of classes.txt; rename it in the annotations"
            )
    if unknown := [name for name in ignore if name not in every]:
        raise CrispsegError(f"ignore names '{unknown[0]}', which is no class{did_you_mean(unknown[0], every)}")
    labels = LabelSet.colored(names)
    ids = {name: index for index, name in enumerate(names)}
    if background is not None:
        ids |= dict.fromkeys(BACKGROUNDS, ids[background])
    return ids | dict.fromkeys([*ignore, *UNLABELED], IGNORE), labels


def _tasks(found: Sequence[Annotated], images: Path | None) -> list[Task]:
    """The images, those that several annotations are about once, each with its name."""

    @cache
    def below(root: Path) -> dict[str, list[Path]]:
        found = defaultdict(list)
        for path in find_images(root) if root.is_dir() else []:
            found[path.name].append(path)
        return found

    def find(root: Path, image: Path) -> Path | None:
        """An image by the path that annotations give it; or by its name alone, in the folder or one below it."""
        direct = [file for file in (root / image, root / image.name) if file.is_file()]
        files = direct[:1] or below(root).get(image.name, [])
        if len(files) > 1:
            raise CrispsegError(f"{image} may be {files[0]} or {files[1]}; give the folder of one as images")
        return _absolute(files[0]) if files else None

    parts: dict[Path, list[Annotated]] = defaultdict(list)
    roots: dict[Path, Path] = {}
    missing = []
    for one in found:
        root = one.source.parent if images is None else images
        if file := find(root, Path(one.image)):
            parts[file].append(one)
            roots.setdefault(file, root.resolve())
        else:
            missing.append(root / one.image)
    if missing:
        raise CrispsegError(
            f"{len(missing)} of {len(found)} images that the annotations name are missing, first {missing[0]}; give "
            "their folder as images"
        )
    tasks: dict[str, Task] = {}
    for file, about in parts.items():
        if file.suffix.lower() not in SUFFIXES:
            raise CrispsegError(f"{file} is no picture in a known format; convert it to PNG or JPEG")
        inside = file.is_relative_to(roots[file])
        name = (file.relative_to(roots[file]) if inside else Path(file.name)).with_suffix("").as_posix()
        if name in tasks:
            raise CrispsegError(f"{tasks[name].file} and {file} have the same name; rename one, or import them apart")
        tasks[name] = Task(file, name, tuple(about))
    return list(tasks.values())


def _absolute(file: Path) -> Path:
    """The folder's real path, so that one file is met once; a link to an image keeps its own name."""
    return file.parent.resolve() / file.name


def _splits(tasks: Sequence[Task], kinds: dict[Path, str]) -> dict[str, list[str]]:
    """Names to train and to validate on, where the paths of the annotations tell both."""
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for task in tasks:
        source = task.parts[0].source
        # labelme's files are named after their images, which say nothing about splits.
        texts = ([source.stem] if kinds[source] == "coco" else []) + [source.absolute().parent.name]
        words = [set(re.split(r"[^a-z]+", text.lower())) for text in texts]
        said = [split for among in words for split, known in _SPLITS.items() if among & known]
        for split in said[:1]:
            splits[split].append(task.name)
    return {split: sorted(names) for split, names in splits.items()} if all(splits.values()) else {}
