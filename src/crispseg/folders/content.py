"""Content of a folder of data: pairs, lists of splits, and class names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from crispseg.errors import few
from crispseg.folders.division import Division, divide
from crispseg.folders.layouts import Located, unused_images
from crispseg.folders.pairs import Pairing
from crispseg.folders.splits import SPLITS, chosen_names
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree

LIST_FOLDERS = ("ImageSets/Segmentation", "splits", "split", ".")  # of train.txt, val.txt and test.txt; the last wins
ANNOTATED = "ImageSets/Segmentation/default.txt"  # CVAT's list of annotated images


@dataclass(frozen=True)
class Content:
    """What a folder of data contains."""

    located: Located
    division: Division
    lists: Mapping[str, Path] = field(default_factory=dict)  # split → file that lists its images
    classes: Path | None = None  # file of the class names
    annotated: Path | None = None  # list of the images that have annotations
    unused: str = ""  # note about folders of images that are not used

    @property
    def pairs(self) -> dict[str, Pair]:
        """All pairs by name, see `Division.pairs`, of annotated images."""
        pairs = self.division.pairs
        names = [*pairs] if self.annotated is None else chosen_names(self.annotated, [*pairs], ())[0]
        return {name: pairs[name] for name in names}

    @property
    def pairings(self) -> Iterable[Pairing]:
        return self.division.pairings.values()


def content_of(located: Located, lists: Mapping[str, Path], tree: Tree | None = None) -> Content:
    """Return the content of images and masks, and of the files of a tree, such as lists.

    The given lists take precedence over folders of splits, and these over lists in the tree.
    """
    division = divide(located, follow_folders=not lists)
    annotated = Path(located.images).parent / ANNOTATED
    content = Content(located, division, lists, annotated=annotated if annotated.is_file() else None)
    return content if tree is None else with_files(content, tree)


def with_files(content: Content, tree: Tree) -> Content:
    """Return the content with the lists and the class names in a tree, and a note about its other images."""
    by_folders = content.division.by_folders or bool(content.division.split_folders)
    lists = {} if by_folders else lists_in(tree)
    names = tree.named()
    return replace(
        content,
        lists={**lists, **content.lists},
        classes=tree.path(names["classes.txt"]) if "classes.txt" in names else None,
        unused="" if by_folders or content.lists else note_of_unused(tree, content.located),
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


def note_of_unused(tree: Tree, located: Located) -> str:
    """Return a note about folders of images that are not used; empty if there are none."""
    folders = unused_images(tree, located)
    counts = few(f"{folder} ({len(files)})" for folder, files in folders.items())
    return f"images that are not used: {counts}" if folders else ""
