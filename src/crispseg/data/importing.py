"""From polygons and run lengths to a folder of own data: images, masks of class ids and the names of the classes.

Where shapes of two classes overlap, the smaller one is on top: large things are usually behind or around small ones. Of
equal ones the later is on top. Crowds lie under everything else. `overlap` has other rules.
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

from crispseg.data.annotations import Annotated, Pixels, Shape, annotation_files, read_annotations
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
    name: str
    """Name of both copies, without suffix; may hold "/"."""
    parts: tuple[Annotated, ...]
    """What each file of annotations says about it."""


@dataclass(frozen=True)
class Imported:
    """The folder that was written."""

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
        """Return a summary."""
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
) -> Imported:
    """Write `out/images`, `out/masks` and `out/classes.txt`; `out` appears when it is complete.

    If the names of the annotation files or of their folders name splits, `train.txt` and `val.txt` are written too.

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

    Raises:
        CrispsegError: annotations that cannot be read or contradict themselves, an unknown class, a shape outside of
            its image, a missing image or one of another size, images of one name, or an `out` that holds something.
    """
    check_new_folder(out)
    names = read_lines(classes) if isinstance(classes, str | Path) else classes
    read = [read_annotations(path) for path in annotation_files(sources)]
    _refuse([fault for found in read for fault in found.faults])
    ids, labels = _classes((found.names for found in read), names, background, ignore)
    tasks = _tasks([image for found in read for image in found.images], images)
    for image in (part for task in tasks for part in task.parts):
        for shape in image.shapes:
            if shape.label not in ids:
                remedy = "give a background, or add it to" if names is None else "add it to classes, or to"
                raise CrispsegError(f"{shape.name} is of the unknown class '{shape.label}'; {remedy} ignore")
    files = {task.file for task in tasks}
    folders = {file.parent for file in files} if images is None else {images}
    unlisted = {_absolute(file) for folder in folders for file in find_images(folder)} - files
    empty = tuple(task.file for task in tasks if not any(part.shapes for part in task.parts))
    if background is None:
        tasks = [task for task in tasks if task.file not in empty]
    if not tasks:
        raise CrispsegError(f"{', '.join(map(str, sources))} mark nothing in any image; give other annotations")
    splits = _splits(tasks)

    rest = IGNORE if background is None else ids[background]
    with atomic_folder(out) as folder:

        def write(task: Task) -> tuple[int, list[str]]:
            """Write one image; return how many shapes have no pixel, and the faults of those that cannot be drawn."""
            size = image_size(task.file)
            drawn, faults = _draw(task, size)
            mask = _paint(size, drawn, ids, rest, overlap, crowds == "ignore")
            write_labels(folder / "masks" / f"{task.name}.png", mask, labels.palette)
            image = folder / "images" / f"{task.name}{task.file.suffix}"
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(task.file, image)
            return sum(not len(pixels) for _, pixels in drawn), faults

        written = list(parallel(write, tasks, "Painting masks"))
        _refuse([fault for _, faults in written for fault in faults])  # of all images, and nothing is left of `out`
        for name, lines in {"classes": labels.names, **splits}.items():
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Imported(
        out,
        labels,
        images=len(tasks),
        shapes=sum(len(part.shapes) for task in tasks for part in task.parts),
        without_pixels=sum(lost for lost, _ in written),
        empty=empty,
        kept_empty=background is not None,
        unlisted=tuple(sorted(unlisted)),
        splits={split: len(names) for split, names in splits.items()},
    )


def _refuse(faults: Sequence[str]) -> None:
    """Raise an error that names the first bad shape and counts the others, if there are any."""
    if faults:
        raise CrispsegError(faults[0] + (f" ({len(faults) - 1} more shapes are bad)" if len(faults) > 1 else ""))


def _draw(task: Task, size: tuple[int, int]) -> tuple[list[tuple[Shape, Pixels]], list[str]]:
    """The shapes of an image of `(H, W)` with their pixels, and what is wrong with those that have none."""
    drawn, faults = [], []
    for part in task.parts:
        if None not in part.size and part.size != size:
            (height, width), (real_height, real_width) = part.size, size
            raise CrispsegError(
                f"{part.source} says that {part.image} is {height}x{width}, but {task.file} is "
                f"{real_height}x{real_width} (height x width); annotate the image as it is"
            )
        for shape in part.shapes:
            try:
                drawn.append((shape, shape.draw(*size)))
            except ValueError as error:
                faults.append(f"{shape.name} of {part.image}: {error}; correct or remove it in the annotations")
    return drawn, faults


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
            raise CrispsegError(f"the class {name!r} cannot be a line of classes.txt; rename it in the annotations")
    if unknown := [name for name in ignore if name not in every]:
        raise CrispsegError(f"ignore names '{unknown[0]}', which is no class{did_you_mean(unknown[0], every)}")
    ids = {name: index for index, name in enumerate(names)}
    if background is not None:
        ids |= dict.fromkeys(BACKGROUNDS, ids[background])
    return ids | dict.fromkeys([*ignore, *UNLABELED], IGNORE), LabelSet.colored(names)


def _tasks(found: Sequence[Annotated], images: Path | None) -> list[Task]:
    """The images, those that several annotations are about once, each with its name."""

    @cache
    def below(root: Path) -> dict[str, list[Path]]:
        files = defaultdict(list)
        for path in find_images(root) if root.is_dir() else []:
            files[path.name].append(path)
        return files

    parts: dict[Path, list[Annotated]] = defaultdict(list)
    roots: dict[Path, Path] = {}
    missing = []
    for one in found:
        root, image = one.source.parent if images is None else images, Path(one.image)
        direct = [file for file in (root / image, root / image.name) if file.is_file()]
        files = direct[:1] or below(root).get(image.name, [])  # else by its name alone, in a folder below
        if len(files) > 1:
            raise CrispsegError(f"{image} may be {files[0]} or {files[1]}; give the folder of one as images")
        if files:
            parts[_absolute(files[0])].append(one)
            roots.setdefault(_absolute(files[0]), root.resolve())
        else:
            missing.append(root / image)
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


def _splits(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Names to train and to validate on, where the paths of the annotations tell both."""
    splits: dict[str, list[str]] = {split: [] for split in _SPLITS}
    for task in tasks:
        source = task.parts[0].source
        # labelme's files are named after their images, which say nothing about splits.
        texts = ([] if source.stem == task.file.stem else [source.stem]) + [source.absolute().parent.name]
        words = [set(re.split(r"[^a-z]+", text.lower())) for text in texts]
        said = [split for among in words for split, known in _SPLITS.items() if among & known]
        for split in said[:1]:
            splits[split].append(task.name)
    return {split: sorted(names) for split, names in splits.items()} if all(splits.values()) else {}
