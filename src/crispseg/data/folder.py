"""Custom data from a folder of images and a folder of masks, optionally in splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS
from crispseg.data.dataset import DataSource, FileDataset
from crispseg.data.folder_settings import FolderSettings
from crispseg.data.open_folder import OpenFolder
from crispseg.errors import Question
from crispseg.folders.content import content_of, unwrapped
from crispseg.folders.facts import MaskFacts
from crispseg.folders.layouts import LAYOUTS, Located, locate, located_at, recognise
from crispseg.folders.lookup import ColorLookup, IdLookup
from crispseg.folders.meaning import BLACK_AND_WHITE, Meaning
from crispseg.folders.names import names_or_file
from crispseg.folders.survey import Pair
from crispseg.folders.tree import Tree
from crispseg.labels import IGNORE, LabelSet


@dataclass(frozen=True, config=CHECKS)
class Folder(FolderSettings, DataSource):
    """Custom data: its settings, and the folder that they open."""

    name: ClassVar[str] = "folder"
    inferred: ClassVar[bool] = True

    def open(self) -> OpenFolder:
        """Walk through the folders once; a missing folder, or an unknown layout, raises a `CrispsegError`."""
        return self._opened

    @cached_property
    def _opened(self) -> OpenFolder:
        given = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        lists = {split: Path(file) for split, file in given.items() if file is not None}
        tree = None if self.root is None else unwrapped(Tree.of(self.root))
        return OpenFolder(self, content_of(self._located(tree), lists, tree))

    def _located(self, tree: Tree | None) -> Located:
        """Return the given images and masks, or those in the tree of the root."""
        images, masks = self.images, self.instances if self.of_instances else self.masks
        if images is not None and masks is not None:
            return located_at(Path(images), Path(masks))
        assert tree is not None
        if images is None and masks is None:
            return recognise(tree)
        fitting = (locate(tree, layout) for layout in LAYOUTS)
        usual = next(filter(None, fitting), None) or recognise(tree)
        return located_at(Path(images or usual.images), Path(masks or usual.masks))

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes.

        Raises:
            CrispsegError: the declarations contradict each other, or the masks do not determine the classes.
        """
        return self.open().meaning.labels

    def splits(self) -> tuple[str, ...]:
        """Return the available splits; `dataset` also accepts "all" for all images. Errors are those of `open`."""
        return self.open().splits

    def dataset(self, split: str) -> FileDataset:
        """Return one split, defined by folders, by lists or by a seeded shuffle of the sorted names.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        return self.open().dataset(split)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split, see `OpenFolder.pairs`."""
        return self.open().pairs(split, strict)

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line. Errors are those of `dataset`."""
        return self.open().notes()

    @property
    def regrouped(self) -> bool:
        return bool(self.merge or self.drop)

    @property
    def divided(self) -> bool:
        return self.open().divided

    def meaning_of(self, masks: Sequence[MaskFacts]) -> Meaning:
        return self.open().meaning_of(masks)

    def check_meaning(self) -> None:
        if self.of_instances or self.palette or not isinstance(self.open().meaning.lookup, ColorLookup):
            return
        choices: dict[str, Mapping[str, object]] = {
            "if black and white are its classes": {"data.palette": [*BLACK_AND_WHITE]},
            "if 255 means ignore": {"data.ignore": [IGNORE]},
        }
        title = f"{self.root or self.masks}: the masks are black and white, but the model was trained on class ids"
        raise Question(title, [], choices, "write class ids")

    def place(self, pair: Pair) -> PurePosixPath:
        return self.open().place(pair)

    def unpaired(self) -> dict[str, list[str]]:
        return self.open().unpaired()

    def names_to_record(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of pairs as in list files."""
        return self.open().full_names(pairs)

    def with_fold(self, folds: int, fold: int) -> Folder:
        """Return the data with part number `fold` of `folds` equal parts as val."""
        return replace(self, folds=folds, fold=fold)

    def settled(self) -> Folder:
        """Return the same data with inferred settings declared, so that files added later do not change them.

        Errors are those of `label_set` and `dataset`.
        """
        data = self.open()
        lookup, inferred = data.meaning.lookup, dict[str, Any]()
        if self.copies == "pixels" and len({*data.related("names").values()}) == len({*data.groups.values()}):
            inferred["copies"] = "names"  # so that files are compared once
        if isinstance(lookup, ColorLookup):
            inferred |= {"palette": self.palette or [*lookup.palette], "palette_tolerance": lookup.tolerance}
        elif isinstance(lookup, IdLookup):
            inferred["num_classes"] = self.num_classes if data.declared.count else lookup.classes
            if any(IGNORE in mask.held for mask in data.masks if not mask.colors):
                inferred["ignore"] = (*{*self.ignore, IGNORE},)  # else other masks may seem black and white
        settled = replace(
            self, classes=self.class_list(data.content.classes), exclude=names_or_file(self.exclude), **inferred
        )
        settled.__dict__["_opened"] = replace(data, settings=settled)  # the folder is not walked through again
        return settled


def settle(source: DataSource) -> tuple[DataSource, list[str]]:
    """Return a data source with its inferred settings declared, and notes about them."""
    return source.settled(), source.notes()
