"""Content of a folder of data: pairs, lists of splits, and class names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from crispseg.errors import few
from crispseg.folders.division import Division, divide
from crispseg.folders.layouts import Located, located_at, recognise, unused_images
from crispseg.folders.splits import SPLITS, chosen_names
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree

LIST_FOLDERS = ("ImageSets/Segmentation", "splits", "split", ".")  # of train.txt, val.txt and test.txt; the last wins
ANNOTATED = "ImageSets/Segmentation/default.txt"  # CVAT's list of annotated images

Place = str | Path | None  # folder or pattern, if it is given


@dataclass(frozen=True)
class Content:
    """What a folder of data contains."""

    located: Located
    division: Division
    lists: Mapping[str, Path]  # split → file that lists its images
    classes: Path | None  # file of the class names
    annotated: Path | None  # list of the images that have annotations
    unused: str  # note about folders of images that are not used

    @property
    def pairs(self) -> dict[str, Pair]:
        """All pairs of annotated images by name; the split is the first part of the name if folders are the splits."""
        pairs = self.division.pairing.pairs
        names = [*pairs] if self.annotated is None else chosen_names(self.annotated, [*pairs], ())[0]
        return {name: pairs[name] for name in names}


def content_of(root: Place, images: Place, masks: Place, given: Mapping[str, Path]) -> Content:
    """Return the content of images and masks, and of a root; what is not given is sought in the root.

    The `given` lists take precedence over folders of splits, and these over lists in the root.
    """
    tree = Tree(Path()) if root is None else unwrapped(Tree.of(root))
    located = located_in(tree, images, masks)
    division = divide(located, follow_folders=not given)
    annotated = Path(located.images).parent / ANNOTATED
    return Content(
        located,
        division,
        lists={**({} if division.splits else lists_in(tree)), **given},
        classes=tree.named().get("classes.txt"),
        annotated=annotated if annotated.is_file() else None,
        unused="" if division.splits or given else note_of_unused(tree, located),
    )


def located_in(tree: Tree, images: Place, masks: Place) -> Located:
    """Return the given images and masks, or those in a tree."""
    if images and masks:
        return located_at(Path(images), Path(masks))
    usual = recognise(tree)
    return located_at(Path(images or usual.images), Path(masks or usual.masks)) if images or masks else usual


def unwrapped(tree: Tree) -> Tree:
    """Return the innermost of folders that contain one folder only, as after unpacking an archive."""
    top = {PurePosixPath(path.parts[0]) for path in tree.files}
    return unwrapped(tree.below(min(top))) if len(top) == 1 and top.isdisjoint(tree.files) else tree


def lists_in(tree: Tree) -> dict[str, Path]:
    """Return the files train.txt, val.txt and test.txt by split."""
    lists: dict[str, Path] = {}
    for folder in LIST_FOLDERS:
        files = tree.named(folder)
        lists |= {split: files[f"{split}.txt"] for split in SPLITS if f"{split}.txt" in files}
    return lists


def note_of_unused(tree: Tree, located: Located) -> str:
    """Return a note about folders of images that are not used; empty if there are none."""
    folders = unused_images(tree, located)
    counts = few(f"{folder} ({len(files)})" for folder, files in folders.items())
    return f"images that are not used: {counts}" if folders else ""
