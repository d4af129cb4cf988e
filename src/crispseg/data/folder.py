"""Custom data from a folder of images and a folder of masks, optionally in splits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, plural
from crispseg.data.dataset import DataSource, FileDataset
from crispseg.errors import CrispsegError, Question, did_you_mean, few
from crispseg.folders.content import Content, content_of
from crispseg.folders.facts import MaskFacts, read_mask_facts
from crispseg.folders.groups import groups_by, undivided
from crispseg.folders.layouts import files_in
from crispseg.folders.lookup import ColorLookup, IdLookup
from crispseg.folders.meaning import BLACK_AND_WHITE, Declared, Meaning
from crispseg.folders.names import names_or_file
from crispseg.folders.readers import read
from crispseg.folders.settings import FolderSettings
from crispseg.folders.splits import SPLITS, chosen_names, folded, shared_out
from crispseg.folders.survey import Pair, read_facts
from crispseg.labels import IGNORE, LabelSet

ALL = "all"  # split of all images that have a mask


class Assignment(NamedTuple):
    """Names of images by split, and of those that are divided randomly between train and val."""

    fixed: dict[str, list[str]]
    drawn: list[str]


@dataclass(frozen=True, config=CHECKS)
class Folder(FolderSettings, DataSource):
    """Custom data: its settings, and what the folders contain, which is read when it is asked for."""

    name: ClassVar[str] = "folder"
    inferred: ClassVar[bool] = True

    @cached_property
    def content(self) -> Content:
        """Images, masks and lists, from one walk; a missing folder, or an unknown layout, raises a `CrispsegError`."""
        masks = self.instances if self.of_instances else self.masks
        given = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        lists = {split: Path(file) for split, file in given.items() if file is not None}
        return content_of(self.root, self.images, masks, lists)

    # Splits ---------------------------------------------------------------------------------------------------------

    @cached_property
    def pairs_by_name(self) -> dict[str, Pair]:
        """All pairs; the split is the first part of the name if folders are the splits."""
        return self.content.pairs

    @cached_property
    def listed(self) -> dict[str, list[str]]:
        """Split → image names in its list or its folder of images."""
        if self.content.lists:
            return {split: names for split, (names, _) in self._lists.items()}
        listed = {}
        for split, names in self.content.division.splits.items():
            listed[split] = [name for name in names if name in self.pairs_by_name]
        return listed

    @cached_property
    def _lists(self) -> dict[str, tuple[list[str], list[str]]]:
        """Split → image names in its list, and entries that match no image."""
        names, unpaired = [*self.pairs_by_name], self.content.division.pairing.names
        return {split: chosen_names(file, names, unpaired) for split, file in self.content.lists.items()}

    @cached_property
    def assignment(self) -> Assignment:
        """Images of the splits that folders or lists define, and images to divide randomly."""
        fixed = dict(self.listed)
        lacking = {"train", "val"} - fixed.keys()
        if self.content.division.by_folders:
            drawn = fixed.pop("train") if lacking == {"val"} else []
        else:
            drawn = sorted(self.pairs_by_name.keys() - set().union(*fixed.values()))
            if len(lacking) < 2:  # the other split is what one list leaves
                fixed, drawn = fixed | dict.fromkeys(lacking, drawn), []
        if self.folds is not None:
            drawn = sorted({*drawn, *fixed.pop("train", ()), *fixed.pop("val", ())})
        return Assignment(fixed, drawn)

    @property
    def drawn(self) -> list[str]:
        """Names of the images that are divided randomly between train and val."""
        return self.assignment.drawn

    @cached_property
    def names(self) -> dict[str, list[str]]:
        """Image names of each split."""
        names: dict[str, list[str]] = {"train": [], "val": [], **self.assignment.fixed}
        if not self.drawn:
            return names
        if self.folds is None:
            return names | shared_out(self.drawn, self.val_ratio, self.seed, self.groups)
        return names | folded(self.drawn, self.folds, self.fold, self.seed, self.groups)

    def splits(self) -> tuple[str, ...]:
        """Return the available splits; `dataset` also accepts "all" for all images. Errors are those of `content`."""
        known = {*self.listed}
        if "train" in known or not self.content.division.by_folders:
            known |= {"train", "val"}
        return tuple(split for split in SPLITS if split in known)

    @property
    def divided(self) -> bool:
        return bool(self.listed or self.folds or self.val_ratio != Folder.val_ratio)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split without reading its masks; if not `strict`, files without partner are left out.

        Splits are defined by folders, by lists or by a seeded shuffle of the sorted names.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        known = (*self.splits(), ALL)
        if split not in known:
            raise CrispsegError(f"there is no split '{split}'{did_you_mean(split, known)}")
        self._check(strict)
        names = self.pairs_by_name if split == ALL else self.names[split]
        pairs = {name: self.pairs_by_name[name] for name in names if name not in self.excluded}
        if not pairs:
            place, count = self.root or self.content.located.images, plural(len(self.pairs_by_name), "image")
            reason = self.content.division.pairing.lonely or f"{place} has {count} with a mask"
            remedy = "add images, or change lists and folders of splits, data.exclude or data.val_ratio"
            raise CrispsegError(f"'{split}' is empty: {reason}; {remedy}")
        pooled = split == ALL or self.folds is not None
        return [pair._replace(name=name) if pooled else pair for name, pair in pairs.items()]

    def _check(self, strict: bool) -> None:
        """Raise an error if nothing pairs, or, if `strict`, if files or entries of lists have no partner."""
        error = self.content.division.pairing.error
        if error and (strict or not self.pairs_by_name):
            raise error
        lists = self.content.lists if strict else {}
        for split in lists:
            if unknown := self._lists[split][1]:
                wrong = f"{plural(len(unknown), 'line')} with no or several matching images: {few(unknown)}"
                raise CrispsegError(f"{lists[split]} has {wrong}; add sub-folders, or give other data.images")
        for split, other in combinations(lists, 2):
            if shared := sorted({*self.listed[split]} & {*self.listed[other]}):
                images = f"share {plural(len(shared), 'image')}: {few(shared)}"
                raise CrispsegError(f"{lists[split]} and {lists[other]} {images}; remove them from one of the lists")

    def dataset(self, split: str) -> FileDataset:
        """Return one split. Errors are those of `pairs` and `label_set`."""
        pairs = self.pairs(split)
        value_range = None if self.value_range == "auto" else self.value_range
        return FileDataset(pairs, self.meaning.labels, self.meaning.lookup, 3, value_range, self._objects(pairs))

    def _objects(self, pairs: Sequence[Pair]) -> dict[str, Path] | None:
        """Return the instance mask of each pair; None without instance masks next to class masks."""
        if self.instances is None or self.of_instances:
            return None
        files = {name: file for file, name in files_in(Path(self.instances)).items()}
        names = self.names_to_record(pairs)
        if missing := [name for name in names if name not in files]:
            lacking = f"data.instances {self.instances} has no file for {len(missing)} of {len(pairs)} images"
            raise CrispsegError(f"{lacking}: {few(missing)}; give each image a file of the same name")
        return {pair.name: files[name] for pair, name in zip(pairs, names, strict=True)}

    def names_to_record(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of pairs as in list files, with the folder of the split."""
        names = {pair.image: name for name, pair in self.pairs_by_name.items()}
        return [names[pair.image] for pair in pairs]

    def place(self, pair: Pair) -> PurePosixPath:
        return PurePosixPath(self.content.division.places.get(pair.image, pair.name))

    def unpaired(self) -> dict[str, list[str]]:
        """Return unpaired files and list entries without an image, by the code of a finding."""
        missing: list[str] = []
        for split, (_, unknown) in self._lists.items():
            missing += [f"{self.content.lists[split]}: {entry}" for entry in unknown]
        unpaired = self.content.division.pairing.unpaired
        return {code: [*map(str, files)] for code, files in unpaired.items()} | {"listed-file-missing": missing}

    def with_fold(self, folds: int, fold: int) -> Folder:
        """Return the data with part number `fold` of `folds` equal parts as val."""
        return replace(self, folds=folds, fold=fold)

    # Groups ---------------------------------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> dict[str, str]:
        """Representative of the group of each name in `drawn`; a group stays in one split."""
        images = {name: self.pairs_by_name[name].image for name in self.drawn}
        return undivided(images, self._drawn_places, self.group, self.copies)

    @property
    def _drawn_places(self) -> dict[str, PurePosixPath]:
        return {name: self.place(self.pairs_by_name[name]) for name in self.drawn}

    # Notes ----------------------------------------------------------------------------------------------------------

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Names that are left out; those of files may have a suffix."""
        names = names_or_file(self.exclude)
        return frozenset(
            name if name in self.pairs_by_name else str(PurePosixPath(name).with_suffix("")) for name in names
        )

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line. Errors are those of `dataset`."""
        content, lines = self.content, list[str]()
        if places := self._places_of_splits():
            lines.append(f"the splits follow {places}")
        if content.annotated:
            lines.append(f"{content.annotated} lists {len(self.pairs_by_name)} annotated images; others are left out")
        lines.append(content.unused)
        if outside := content.division.outside:
            remedy = "to use them, name their folders train, val or test, or give data.train_list and data.val_list"
            lines.append(f"images in no split: {few((pair.image for pair in outside), 1)}; {remedy}")
        lines.append(content.division.pairing.note)
        if unknown := sorted(self.excluded - self.pairs_by_name.keys()):
            lines.append(f"data.exclude names no image by {few(unknown)}; give names as in images/NAME.png")
        return [*filter(None, lines), *self._notes_of_groups()]

    def _places_of_splits(self) -> str:
        """Return the lists or folders that define the splits, in their root if there is one."""
        places = [*map(str, self.content.lists.values())]
        if not places:
            for names in filter(None, self.listed.values()):
                folders = [self.pairs_by_name[name].image.parent for name in names]
                places.append(os.path.commonpath(folders))
        inside = f"{self.root or Path.cwd()}{os.sep}"
        return ", ".join(place.removeprefix(inside) for place in places)

    def _notes_of_groups(self) -> Iterator[str]:
        names, key = self.drawn, self.group
        named = groups_by(key, self._drawn_places) if key else {}
        alone = [name for name in names if name not in named]
        if key and alone:
            yield f"data.group {key} fits {len(named)} of {len(names)} images, not {few(alone, 2)}"
        count = len({*self.groups.values()})
        if names and (key or count < len(names)):
            share = len(self.names["val"]) / len(names)
            line = f"{len(names)} images form {plural(count, 'group')}, which are not divided"
            yield f"{line}; val has {share:.0%} of the images"

    # Masks ----------------------------------------------------------------------------------------------------------

    @property
    def _declared(self) -> Declared:
        return self.declared(self.content.classes)

    @cached_property
    def meaning(self) -> Meaning:
        """Meaning of the masks; a `Question` asks if it is unclear, and contradictory declarations raise an error."""
        needed = self._declared.palette is None and not self.of_instances
        return self.meaning_of(self._masks if needed else [])

    def meaning_of(self, masks: Sequence[MaskFacts]) -> Meaning:
        instances = None if self.masks is None or self.root else Path(self.masks)
        return read(self._declared, masks, Path(self.masks or str(self.root)), instances)

    @cached_property
    def _masks(self) -> list[MaskFacts]:
        """Facts of the masks in use; of declared classes, without files that cannot be read."""
        used = {*self.drawn}.union(*self.assignment.fixed.values()) - self.excluded
        pairs = [pair for name, pair in self.pairs_by_name.items() if name in used] or self.pairs(ALL)
        facts, errors = read_facts("mask", read_mask_facts, (pair.mask for pair in pairs))
        if errors and self._declared.count is None:
            raise next(iter(errors.values()))
        return [*facts.values()]

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes.

        Raises:
            CrispsegError: the declarations contradict each other, or the masks do not determine the classes.
        """
        return self.meaning.labels

    @property
    def regrouped(self) -> bool:
        return bool(self.merge or self.drop)

    def check_meaning(self) -> None:
        if self.of_instances or self.palette or not isinstance(self.meaning.lookup, ColorLookup):
            return
        choices: dict[str, Mapping[str, object]] = {
            "if black and white are its classes": {"data.palette": [*BLACK_AND_WHITE]},
            "if 255 means ignore": {"data.ignore": [IGNORE]},
        }
        title = f"{self.root or self.masks}: the masks are black and white, but the model was trained on class ids"
        raise Question(title, [], choices, "write class ids")

    def settled(self) -> Folder:
        """Return the same data with inferred settings declared, so that files added later do not change them.

        Errors are those of `label_set` and `dataset`.
        """
        lookup, inferred = self.meaning.lookup, dict[str, Any]()
        if isinstance(lookup, ColorLookup):
            inferred |= {"palette": self.palette or [*lookup.palette], "palette_tolerance": lookup.tolerance}
        elif isinstance(lookup, IdLookup):
            inferred["num_classes"] = self.num_classes if self._declared.count else lookup.classes
            if any(IGNORE in mask.held for mask in self._masks if not mask.colors):
                inferred["ignore"] = (*{*self.ignore, IGNORE},)  # else other masks may seem black and white
        classes = self.class_list(self.content.classes)
        settled = replace(self, classes=classes, exclude=names_or_file(self.exclude), **inferred)
        settled.__dict__["content"] = self.content  # the folder is not walked through again
        return settled
