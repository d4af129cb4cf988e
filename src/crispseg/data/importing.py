"""Import of polygons and run lengths as a folder of images, masks of class ids and class names.

If shapes of two classes overlap, the smaller one is on top, because large objects are usually behind small ones. If
their sizes are equal, the later one is on top. Crowds are below all other shapes. CVAT's `z_order` comes first.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.annotations import Annotations, MarkedImage
from crispseg.data.folder_search import SPLIT_OF, SPLITS
from crispseg.data.formats import FORMATS, read_annotations
from crispseg.data.yolo import yolo_files, yolo_root
from crispseg.errors import CrispsegError, did_you_mean, few, one_line
from crispseg.folders.names import read_lines
from crispseg.io.files import atomic_folder, check_new_folder
from crispseg.io.images import IMAGE_FOLDERS, find_images, image_size, write_labels
from crispseg.io.parallel import parallel
from crispseg.labels import IGNORE, LabelSet

BACKGROUNDS = frozenset({"_background_", "__background__"})  # labelme's names of the background
UNLABELED = frozenset({"__ignore__", "_ignore_"})  # labelme's names of ignored pixels


class Task(NamedTuple):
    """One image to write."""

    file: Path
    name: str  # name of the image and its mask, without suffix; may contain "/"
    parts: list[MarkedImage]  # annotations of the image in each annotation file


def import_annotations(
    sources: Sequence[Path],
    out: Path,
    *,
    format: str | None = None,
    images: Path | None = None,
    classes: list[str] | Path | None = None,
    background: str | None = "background",
    ignore: Sequence[str] = (),
) -> list[str]:
    """Write `out/images`, `out/masks` and `out/classes.txt`; `out` is created when it is complete.

    If annotation files, their folders or data.yaml define splits, it also writes `train.txt`, `val.txt` and `test.txt`.
    It returns the lines of a summary.

    Args:
        sources: annotation files, folders of them, or folders of YOLO polygons with data.yaml.
        out: new or empty folder to write to.
        format: coco, yolo, cvat, labelstudio, labelme or geojson; needed only if a folder has several.
        images: folder of the images, or one above it; by default the folder of each annotation file, then the source.
        classes: class names in the order of the new ids, as a list or a text file. By default classes of COCO and YOLO
            are sorted by id, those of CVAT are as it lists them, and others alphabetical. A background that is not
            among them is added first.
        background: class of pixels outside all shapes; null ignores them.
        ignore: names of classes whose pixels become 255.
    """
    check_new_folder(out)
    names = read_lines(classes) if isinstance(classes, str | Path) else classes
    if format not in (None, *FORMATS):
        raise CrispsegError(f"is {format}{did_you_mean(str(format), FORMATS)}", "format")
    read = [content for source in sources for content in _read(source, format, images)]
    ids, labels = _classes((found.names for found in read), names, background, ignore)
    folders = [source for source in sources if source.is_dir()]
    tasks = _tasks([image for found in read for image in found.images], images, folders)
    for shape in (shape for task in tasks for part in task.parts for shape in part.shapes):
        if shape.label not in ids:
            remedy = "give a background" if names is None else "add it to classes"
            raise CrispsegError(f"{shape.name} has the unknown class '{shape.label}'; {remedy}, or ignore it")
    empty = [task for task in tasks if not any(part.shapes for part in task.parts)]
    if background is None:
        tasks = [task for task in tasks if task not in empty]
    if not tasks:
        raise CrispsegError(f"{', '.join(map(str, sources))} contain no annotated images; give other annotations")
    splits = _splits(tasks)

    rest = IGNORE if background is None else ids[background]
    with atomic_folder(out) as folder:

        def write(task: Task) -> None:
            write_labels(folder / "masks" / f"{task.name}.png", _paint(task, ids, rest), labels.palette)
            image = folder / "images" / f"{task.name}{task.file.suffix}"
            image.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(task.file, image)

        list(parallel(write, tasks, "Painting masks"))
        for name, lines in {"classes": labels.names, **splits}.items():
            (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    lines = [f"wrote {out}: {len(tasks)} images, {len(labels)} classes"]
    what = f"images without annotations ({'left out' if background is None else 'all background'})"
    if empty:
        lines.append(f"{len(empty)} {what}: {few(one.file.name for one in empty)}")
    folded = Counter(map(str.casefold, labels.names))
    if alike := [name for name in labels.names if folded[name.casefold()] > 1]:
        remedy = f"correct them, or train with data.merge '{{{alike[0]}: [{', '.join(alike)}]}}' if they are one class"
        lines.append(f"class names that differ only in upper and lower case: {', '.join(alike)}; {remedy}")
    lines += [f"{len(found)} images to {split}" for split, found in splits.items()]
    return [*lines, *(note for found in read for note in found.notes)]


def _read(source: Path, format: str | None, images: Path | None) -> list[Annotations]:
    """Read an annotation file, or those in a folder, which must have one format."""
    chosen = [FORMATS[format]] if format else [*FORMATS.values()]
    files = [source] if source.is_file() else sorted(source.rglob("[!.]*"))
    if source.is_dir():
        files = [file for file in files if any(file.suffix.lower() in each.suffixes for each in chosen)]
        files = [file for file in files if file.suffix.lower() != ".xml" or b"<annotation" in file.read_bytes()[:999]]
        if format in (None, "yolo"):
            top = source.absolute()
            files += sorted({max(top, yolo_root(file) or top) for file in yolo_files(source)})  # the deeper of both
    found = [(file, *read_annotations(file, images)) for file in files]
    kinds = {kind: file for file, kind, _ in found if format in (None, kind)}
    if len(kinds) > 1:
        listed = " and ".join(f"{FORMATS[kind].title} ({file})" for kind, file in kinds.items())
        raise CrispsegError(f"{source} contains {listed}; give format, one of {', '.join(kinds)}")
    if not kinds:
        titles = ", ".join(each.title for each in chosen)
        raise CrispsegError(f"{source} contains no annotations of {titles}; export it as docs/labelling.md shows")
    return [content for _, kind, content in found if kind in kinds]


def _paint(task: Task, ids: dict[str, int], rest: int) -> NDArray[np.uint8]:
    """Return the mask `(H, W)` of an image; pixels outside all shapes become `rest`."""
    size = image_size(task.file)
    drawn = []
    for part in task.parts:
        if None not in part.size and part.size != size:
            sizes = f"{part.source} lists {part.image} as {part.size}, but {task.file} is {size} (height, width)"
            raise CrispsegError(f"{sizes}; annotate the image as it is")
        for shape in part.shapes:
            try:
                drawn.append((shape, shape.draw(*size)))
            except Exception as error:  # on broken data Pillow's decoders raise almost anything
                remedy = "correct or remove it in the annotations"
                raise CrispsegError(f"{shape.name} of {part.image}: {one_line(error)}; {remedy}") from None
    mask = np.full(size[0] * size[1], rest, np.uint8)
    drawn.sort(key=lambda one: (not one[0].crowd, one[0].z_order, -len(one[1])))  # a stable sort
    for shape, pixels in drawn:
        mask[pixels] = ids[shape.label]
    return mask.reshape(size)


def _classes(
    found: Iterable[Sequence[str]], given: Sequence[str] | None, background: str | None, ignore: Sequence[str]
) -> tuple[dict[str, int], LabelSet]:
    every = list(dict.fromkeys(name for names in found for name in names))
    special = {*ignore, *UNLABELED, *(BACKGROUNDS if background is not None else ())}
    names = [name for name in every if name not in special and name != background] if given is None else list(given)
    if background is not None and background not in names:
        names = [background, *names]
    if unknown := [name for name in ignore if name not in every]:
        raise CrispsegError(f"ignore contains '{unknown[0]}', which is not a class{did_you_mean(unknown[0], every)}")
    ids = {name: index for index, name in enumerate(names)}
    if background is not None:
        ids |= dict.fromkeys(BACKGROUNDS, ids[background])
    return ids | dict.fromkeys([*ignore, *UNLABELED], IGNORE), LabelSet.colored(names)


def _tasks(found: Sequence[MarkedImage], images: Path | None, folders: Sequence[Path]) -> list[Task]:
    """Return each image once with its name, even if several files annotate it.

    Images are in `images`, or otherwise in the folder of the annotations or in `folders`.
    """

    @cache
    def below(root: Path) -> dict[str, list[Path]]:
        files = defaultdict(list)
        for path in find_images(root) if root.is_dir() else []:
            files[path.name].append(path)
            files[path.stem].append(path)
        return files

    tasks: dict[Path, Task] = {}
    for one in found:
        root, image = one.source.parent if images is None else images, Path(one.image)
        direct = [file for file in (root / image, root / image.name, root / one.also) if file.is_file()]
        roots = [root] if images is not None else [root, *folders]
        named = (below(root).get(name, []) for name in (image.name, one.also) for root in roots)  # in a sub-folder
        files = direct[:1] or next(filter(None, named), [])
        if len(files) != 1:
            found_there = f"may be {files[0]} or {files[1]}" if files else f"is not in {root}"
            remedy = "give its folder as images, or correct that file"
            raise CrispsegError(f"{image}, which {one.source} names, {found_there}; {remedy}")
        file = files[0].parent.resolve() / files[0].name  # once for each file; a link keeps its own name
        path = file.relative_to(root.resolve()) if file.is_relative_to(root.resolve()) else Path(file.name)
        path = path.relative_to(path.parts[0]) if path.parts[0].lower() in IMAGE_FOLDERS else path
        tasks.setdefault(file, Task(file, one.name or path.with_suffix("").as_posix(), [])).parts.append(one)
    if twice := [name for name, count in Counter(task.name for task in tasks.values()).items() if count > 1]:
        raise CrispsegError(f"two images have the same name, {twice[0]}; rename one, or import them separately")
    return [*tasks.values()]


def _splits(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return names by split, of train and val only if both exist."""
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for task in tasks:
        source = task.parts[0].source.absolute()
        named = source.stem * (source.stem != task.file.stem)  # labelme's files are named after their images
        words = re.findall("[a-z]+", f"{task.parts[0].split} {named} {source.parent.name}".lower())
        if said := [SPLIT_OF[word] for word in words if word in SPLIT_OF]:
            splits[said[0]].append(task.name)
    kept = splits if splits["train"] and splits["val"] else {"test": splits["test"]}
    return {split: sorted(names) for split, names in kept.items() if names}
