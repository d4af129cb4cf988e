"""Import of polygons and run lengths as a folder of images, masks of class ids and class names.

If shapes of two classes overlap, the smaller one is on top, because large objects are usually behind small ones. If
their sizes are equal, the later one is on top. Crowds are below all other shapes. CVAT's `z_order` comes first.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.config.files import read_text, real_path
from crispseg.config.settings import plural, shortened
from crispseg.data.annotations import Annotations, MarkedImage, Shape, claim
from crispseg.data.formats import FORMATS, read_annotations
from crispseg.data.yolo import yolo_files, yolo_root
from crispseg.errors import CrispsegError, did_you_mean, few
from crispseg.folders.names import read_names, write_list, write_names
from crispseg.folders.splits import SPLIT_OF, SPLITS
from crispseg.io.files import atomic_folder, check_new_folder, foreign_endings
from crispseg.io.images import IMAGE_FOLDERS, find_images, image_size, write_labels
from crispseg.io.parallel import parallel
from crispseg.labels import IGNORE, LabelSet

BACKGROUNDS = frozenset({"_background_", "__background__"})  # labelme's names of the background
UNLABELED = frozenset({"__ignore__", "_ignore_"})  # labelme's names of ignored pixels
LABEL_STUDIO_NOTES = "notes.json"  # about its YOLO files


class Task(NamedTuple):
    """One image to write."""

    file: Path
    name: str  # name of the image and its mask, without suffix; may contain "/"
    parts: list[MarkedImage]  # annotations of the image in each annotation file

    @property
    def shapes(self) -> list[Shape]:
        """All shapes of the image."""
        return list(chain(*(part.shapes for part in self.parts)))

    @property
    def strokes(self) -> bool:
        """Whether all shapes are lines, so that pixels without a shape are unlabelled."""
        return bool(self.shapes) and all(shape.line for shape in self.shapes)


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
        background: class of pixels outside all shapes; null ignores them. In images with lines only, they are ignored.
        ignore: names of classes whose pixels become 255.
    """
    check_new_folder(out)
    title = ", ".join(map(str, sources))
    given = read_names(classes) if isinstance(classes, str | Path) else classes
    contents = list(chain(*(_read(source, format, images) for source in sources)))
    tasks = _tasks(contents, images, sources)
    tasks, background, notes = _usable(tasks, background)
    if not tasks:
        raise CrispsegError(f"{title} contain no annotated images; give other annotations")
    splits = _splits(tasks)
    with atomic_folder(out) as folder:
        try:
            ids, labels = _classes(contents, given, background, ignore)
            write_names(folder / "classes.txt", labels.names)
        except CrispsegError as error:
            raise CrispsegError(f"{title}: {error}") from None
        invisible = _write(folder, tasks, splits, ids, background, labels)
    notes |= {"shapes without the centre of a pixel, which are in no mask": invisible}
    lines = [f"{text}: {len(names)} ({few(names)})" for text, names in notes.items() if names]
    lines += [f"{plural(len(names), 'image')} to {split}" for split, names in splits.items()]
    lines += chain(*(content.notes for content in contents))
    return [f"wrote {out}: {plural(len(tasks), 'image')}, {len(labels)} classes", *lines]


def _usable(tasks: list[Task], background: str | None) -> tuple[list[Task], str | None, dict[str, list[str]]]:
    """Return the images to write, the background, and notes: names of images by what is special about them.

    There is no background if only lines are drawn, none of which has its class. If an image has lines only, those
    without annotations are left out, since their pixels are not known to be background.
    """
    annotated = [task for task in tasks if task.shapes]
    empty = [task.file.name for task in tasks if not task.shapes]
    strokes = [task.file.name for task in tasks if task.strokes]
    shapes = chain(*(task.shapes for task in annotated))
    labels = {shape.label for shape in shapes}
    if 0 < len(strokes) == len(annotated) and labels.isdisjoint({background, *BACKGROUNDS}):
        background = None
    leaves_out = bool(strokes) or background is None
    notes = {"images with lines only, whose other pixels are 255, unlabelled": strokes}
    notes[f"images without annotations, {'left out' if leaves_out else 'all background'}"] = empty
    return annotated if leaves_out else tasks, background, notes


def _write(
    folder: Path,
    tasks: Sequence[Task],
    splits: Mapping[str, Sequence[str]],
    ids: Mapping[str, int],
    background: str | None,
    labels: LabelSet,
) -> list[str]:
    """Write lists of splits, images and masks; return the shapes without pixels."""
    outside = IGNORE if background is None else ids[background]
    for split, names in splits.items():
        write_list(folder / f"{split}.txt", names)

    def write(task: Task) -> list[str]:
        mask, invisible = _paint(task, ids, IGNORE if task.strokes else outside)
        write_labels(folder / "masks" / f"{task.name}.png", mask, labels.palette)
        image = folder / "images" / f"{task.name}{task.file.suffix}"
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(task.file, image)
        return invisible

    return list(chain(*parallel(write, tasks, "Painting masks")))


def _read(source: Path, format: str | None, images: Path | None) -> list[Annotations]:
    """Read an annotation file, or those in a folder, which must have one format."""
    if format not in (None, *FORMATS):
        raise CrispsegError(f"is {format}{did_you_mean(str(format), FORMATS)}", "format")
    chosen = [format] if format else [*FORMATS]
    contents: dict[str, dict[Path, Annotations]] = defaultdict(dict)
    for file in [source] if source.is_file() else _annotation_files(source, chosen):
        kind, content = read_annotations(file, images)
        if kind in chosen:
            contents[kind][file] = content
    if len(contents) > 1:
        listed = " and ".join(f"{FORMATS[kind].title} ({max(files)})" for kind, files in contents.items())
        raise CrispsegError(f"{source} contains {listed}; give format, one of {', '.join(contents)}")
    if not contents:
        titles = ", ".join(FORMATS[kind].title for kind in chosen)
        raise CrispsegError(f"{source} contains no annotations of {titles}; export it as docs/labelling.md shows")
    return [*contents.popitem()[1].values()]


def _annotation_files(folder: Path, formats: Sequence[str]) -> list[Path]:
    """Return the files of a folder that may be annotations, and folders of YOLO."""
    suffixes = set[str]().union(*(FORMATS[format].suffixes for format in formats))
    files = find_images(folder, suffixes)
    files = [file for file in files if file.name != LABEL_STUDIO_NOTES and is_cvat_or_json(file)]
    if "yolo" in formats:
        top = folder.absolute()
        roots = {yolo_root(file) or (top, None) for file in yolo_files(folder)}
        files += sorted({max(top, root) for root, _ in roots})  # the deeper of both
    return files


def is_cvat_or_json(file: Path) -> bool:
    return file.suffix.lower() != ".xml" or "<annotation" in read_text(file, "surrogateescape")[:999]


def _paint(task: Task, ids: Mapping[str, int], outside: int) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the mask `(H, W)` of an image, `outside` all shapes too, and the names of shapes without pixels."""
    size = image_size(task.file)
    drawn = []
    for part in task.parts:
        if None not in part.size and part.size != size:
            sizes = f"{part.source} lists {part.image} as {part.size}, but {task.file} is {size} (height, width)"
            raise CrispsegError(f"{sizes}; annotate the image as it is")
        for shape in part.shapes:
            if shape.label not in ids:
                remedy = "give a background, add it to classes, or ignore it"
                raise CrispsegError(f"{shape.name} has the unknown class '{shape.label}'; {remedy}")
            try:
                drawn.append((shape, shape.draw(*size)))
            except Exception as error:  # on broken data Pillow's decoders raise almost anything
                problem = str(error) if isinstance(error, CrispsegError) else "it has an unknown structure"
                remedy = "correct or remove it in the annotations"
                raise CrispsegError(f"{shape.name} of {part.image}: {problem}; {remedy}") from None
    mask = np.full(size[0] * size[1], outside, np.uint8)
    drawn.sort(key=lambda item: (not item[0].crowd, item[0].z_order, -np.diff(item[1]).sum()))  # a stable sort
    for shape, spans in drawn:
        for start, end in spans.tolist():
            mask[start:end] = ids[shape.label]
    invisible = [shape.name for shape, spans in drawn if not np.diff(spans).any()]
    return mask.reshape(size[::-1]).T, invisible


def _classes(
    contents: Iterable[Annotations], given: Sequence[str] | None, background: str | None, ignore: Sequence[str]
) -> tuple[dict[str, int], LabelSet]:
    """Return the id of each class name in the annotations, and the classes; see `import_annotations`."""
    annotated = list(dict.fromkeys(chain(*(content.names for content in contents))))
    if unknown := [name for name in ignore if name not in annotated]:
        close = did_you_mean(unknown[0], annotated)
        raise CrispsegError(f"ignore contains '{unknown[0]}', which is not a class{close}")
    backgrounds = () if background is None else (background, *BACKGROUNDS)
    special = {*ignore, *UNLABELED, *backgrounds}
    names = [name for name in annotated if name not in special] if given is None else list(given)
    names = [*(name for name in backgrounds[:1] if name not in names), *names]
    ids = {name: index for index, name in enumerate(names)}
    for name in backgrounds:
        ids[name] = ids[backgrounds[0]]
    return ids | dict.fromkeys([*ignore, *UNLABELED], IGNORE), LabelSet.colored(names)


class ImageFiles:
    """Images that annotations name: in `images`, or in the folder of the annotations, or in one of the `folders`."""

    def __init__(self, images: Path | None, folders: Sequence[Path]) -> None:
        self.images, self.folders = images, folders if images is None else ()
        self.names: dict[Path, dict[str, list[Path]]] = {}  # folder → files by name, with and without suffix

    def root(self, marked: MarkedImage) -> Path:
        """Return the folder that paths of images start from."""
        return marked.source.parent if self.images is None else self.images

    def find(self, marked: MarkedImage) -> Path:
        """Return the file of an image. None or several raise a `CrispsegError`."""
        root, image, endings = self.root(marked), marked.image, foreign_endings(marked.image)
        for file in (root / image, *map(root.joinpath, endings), root / marked.also):
            with suppress(OSError):  # a name that no system has
                if file.is_file() and file != marked.source:
                    return file
        names = Path(image).name, endings[-1].name, marked.also  # in a sub-folder
        inside = (self.below(folder).get(name) for name, folder in product(names, [root, *self.folders]))
        files = next(filter(None, inside), [])
        if len(files) != 1:
            problem = f"may be {files[0]} or {files[1]}" if files else f"is not in {root}"
            remedy = "give its folder as images, or correct that file"
            raise CrispsegError(
                f"{shortened(image) or 'an empty name'}, which {marked.source} names, {problem}; {remedy}"
            )
        return files[0]

    def below(self, folder: Path) -> dict[str, list[Path]]:
        """Return the images in a folder by their names, with and without suffix."""
        if folder not in self.names:
            names = self.names[folder] = defaultdict(list)
            for path in find_images(folder):
                names[path.name].append(path)
                names[path.stem].append(path)
        return self.names[folder]


def _tasks(contents: Sequence[Annotations], images: Path | None, sources: Sequence[Path]) -> list[Task]:
    """Return each image once with its name, even if several files annotate it."""
    files = ImageFiles(images, [source for source in sources if source.is_dir()])
    tasks, entries, names = dict[Path, Task](), dict[Any, str](), dict[str, Path]()
    parts = chain(*(content.images for content in contents))
    for part in parts:
        image, root = files.find(part), real_path(files.root(part))
        file = real_path(image.parent) / image.name  # once for each file; a link keeps its own name
        path = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
        path = path.relative_to(path.parts[0]) if path.parts[0].lower() in IMAGE_FOLDERS else path
        task = tasks.setdefault(file, Task(file, part.name or path.with_suffix("").as_posix(), []))
        task.parts.append(part)
        claim(entries, (file, part.scope or part.source), part.entry or str(part.source), f"the annotation of {file}")
        other = names.setdefault(task.name, file)
        if other != file:
            same = f"{other} and {file} have the same name, {task.name}"
            raise CrispsegError(f"{same}; rename one, or import them separately")
    return [*tasks.values()]


def _splits(tasks: Sequence[Task]) -> dict[str, list[str]]:
    """Return names by split, of train and val only if both exist."""
    splits: dict[str, list[str]] = {split: [] for split in SPLITS}
    for task in tasks:
        source = task.parts[0].source.absolute()
        places = [task.parts[0].split, source.stem, source.parent.name]
        if source.stem == task.file.stem:  # labelme's files are named after their images
            places.remove(source.stem)
        words = re.findall("[a-z]+", " ".join(places).lower())
        if named_splits := [SPLIT_OF[word] for word in words if word in SPLIT_OF]:
            splits[named_splits[0]].append(task.name)
    complete = splits if splits["train"] and splits["val"] else {"test": splits["test"]}
    return {split: sorted(names) for split, names in complete.items() if names}
