"""Content of a folder of data: pairs, lists of splits, and files that may define the classes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from crispseg.errors import few
from crispseg.folders.division import Division, divide
from crispseg.folders.layouts import Located, unused_images
from crispseg.folders.pairs import Pairing
from crispseg.folders.splits import SPLIT_OF, SPLITS, chosen_names
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree

LIST_FOLDERS = ("ImageSets/Segmentation", "splits", "split", ".")  # of train.txt, val.txt and test.txt; the last wins
ANNOTATED = "ImageSets/Segmentation/default.txt"  # CVAT's list of annotated images
DEPTH = 2  # number of levels at which files that may define the classes are searched
MOST_CLASS_FILES, MOST_LISTS = 4, 20  # largest numbers of such files in a folder, and of lists; more are of images

# Files that may define the classes, and files that may define the splits
_CLASS_FILE = re.compile(
    r"(?!classes\.txt$).*(legend|label|class|categor|colou?r|code).*\.([ct]sv|txt|json|ya?ml)|dataset\.json", re.I
)
_SPLIT_FILE = re.compile(rf"(.*[^a-z])?({'|'.join(SPLIT_OF)}|split|fold)s?([^a-z].*)?\.(csv|tsv|txt|json|ya?ml)", re.I)


@dataclass(frozen=True)
class Content:
    """What a folder of data contains."""

    located: Located
    division: Division
    lists: Mapping[str, Path] = field(default_factory=dict)  # split → file that lists its images
    classes: Path | None = None  # file of the class names
    annotated: Path | None = None  # list of the images that have annotations
    class_files: tuple[Path, ...] = ()  # further files that may define the classes
    unused: tuple[str, ...] = ()  # notes about folders and lists that are not used

    @property
    def pairs(self) -> dict[str, Pair]:
        """All pairs by name, see `Division.pairs`, of annotated images."""
        pairs = self.division.pairs
        names = [*pairs] if self.annotated is None else chosen_names(self.annotated, [*pairs], ())[0]
        return {name: pairs[name] for name in names}

    @property
    def pairings(self) -> Iterable[Pairing]:
        return self.division.pairings.values()

    @property
    def hint(self) -> str:
        """Note about files that may define the classes; empty if there are none."""
        meaning = "may define the classes: give names as data.classes, colours as data.palette"
        return f"{few(self.class_files)} {meaning}" if self.class_files else ""


def content_of(located: Located, lists: Mapping[str, Path], tree: Tree | None = None) -> Content:
    """Return the content of images and masks, and of the files of a tree, such as lists.

    The given lists take precedence over folders of splits, and these over lists in the tree.
    """
    division = divide(located, follow_folders=not lists)
    annotated = Path(located.images).parent / ANNOTATED
    content = Content(located, division, lists, annotated=annotated if annotated.is_file() else None)
    return content if tree is None else with_files(content, tree)


def with_files(content: Content, tree: Tree) -> Content:
    """Return the content with the lists and the class names in a tree, and notes about its other files."""
    by_folders = content.division.by_folders or bool(content.division.split_folders)
    lists = {} if by_folders else lists_in(tree)
    names = tree.named()
    return replace(
        content,
        lists={**lists, **content.lists},
        classes=tree.path(names["classes.txt"]) if "classes.txt" in names else None,
        class_files=class_files(tree),
        unused=() if by_folders or content.lists else unused_notes(tree, content.located, {*lists.values()}),
    )


def unwrapped(tree: Tree) -> Tree:
    """Return the innermost of folders that contain one folder only, as after unpacking an archive."""
    top = {PurePosixPath(path.parts[0]) for path in tree.files}
    return unwrapped(tree.below(min(top))) if len(top) == 1 and top.isdisjoint(tree.files) else tree


def lists_in(tree: Tree) -> dict[str, Path]:
    """Return the files train.txt, val.txt and test.txt by split."""
    lists: dict[str, Path] = {}
    for folder in LIST_FOLDERS:
        files = tree.named(folder)
        lists |= {split: tree.path(files[f"{split}.txt"]) for split in SPLITS if f"{split}.txt" in files}
    return lists


def class_files(tree: Tree) -> tuple[Path, ...]:
    """Return files that may define the classes; many in one folder belong to single images."""
    files = [path for path in tree.files if len(path.parts) <= DEPTH and _CLASS_FILE.fullmatch(path.name)]
    counts = Counter(path.parent for path in files)
    return tuple(tree.path(path) for path in files if counts[path.parent] <= MOST_CLASS_FILES)


def unused_notes(tree: Tree, located: Located, used: Set[Path]) -> tuple[str, ...]:
    """Return notes about folders of images, and about lists that may define the splits."""
    notes = []
    if folders := unused_images(tree, located):
        counts = few(f"{folder} ({len(files)})" for folder, files in folders.items())
        notes.append(f"images that are not used: {counts}")
    lists = [path for path in tree.files if _SPLIT_FILE.fullmatch(path.name) and tree.path(path) not in used]
    if 0 < len(lists) <= MOST_LISTS:
        remedy = "if they define the splits, give data.train_list, data.val_list and data.test_list"
        notes.append(f"files that are not used: {few(lists)}; {remedy}")
    return tuple(notes)
