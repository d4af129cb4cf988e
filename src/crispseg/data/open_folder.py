"""Custom data after its folder was walked through: pairs, splits, groups and the meaning of the masks."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crispseg.config.settings import plural
from crispseg.data.dataset import FileDataset
from crispseg.data.folder_settings import FolderSettings
from crispseg.errors import CrispsegError, did_you_mean, few
from crispseg.folders.content import Content
from crispseg.folders.facts import ImageFacts, MaskFacts, read_image_facts, read_mask_facts
from crispseg.folders.groups import group_of, original, together
from crispseg.folders.layouts import files_in
from crispseg.folders.meaning import Declared, Meaning
from crispseg.folders.names import names_or_file
from crispseg.folders.readers import read
from crispseg.folders.splits import SPLITS, chosen_names, folded, shared_out
from crispseg.folders.survey import Pair, read_facts

ALL = "all"  # split of all images that have a mask


class Assignment(NamedTuple):
    """Names of images by split, and of those that are divided randomly between train and val."""

    fixed: dict[str, list[str]]
    drawn: list[str]


@dataclass(frozen=True)
class OpenFolder:
    """A folder of data and its settings. Errors of the content are raised when a part that needs it is asked for."""

    settings: FolderSettings
    content: Content

    # Splits ---------------------------------------------------------------------------------------------------------

    @cached_property
    def pairs_by_name(self) -> dict[str, Pair]:
        """All pairs; the split is the first part of the name if folders are the splits."""
        return self.content.pairs

    @cached_property
    def listed(self) -> dict[str, list[str]]:
        """Split → image names in its list or its folder of images."""
        division = self.content.division
        if self.content.lists:
            return {split: names for split, (names, _) in self._lists.items()}
        listed: dict[str, list[str]] = {}
        for split, folder in division.split_folders.items():
            if division.by_folders:
                listed[split] = [f"{split}/{name}" for name in division.pairings[split].pairs]
            else:
                listed[split] = [n for n, pair in self.pairs_by_name.items() if pair.image.is_relative_to(folder)]
        return listed

    @cached_property
    def _lists(self) -> dict[str, tuple[list[str], list[str]]]:
        """Split → image names in its list, and entries that match no image."""
        unpaired = set[str]().union(*(pairing.names for pairing in self.content.pairings))
        names = [*self.pairs_by_name]
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
        if self.settings.folds is not None:
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
        settings, drawn = self.settings, self.drawn
        if not drawn:
            return names
        if settings.folds is None:
            return names | shared_out(drawn, settings.val_ratio, settings.seed, self.groups)
        return names | folded(drawn, settings.folds, settings.fold, settings.seed, self.groups)

    @property
    def splits(self) -> tuple[str, ...]:
        """Available splits."""
        known = {*self.listed}
        if "train" in known or not self.content.division.by_folders:
            known |= {"train", "val"}
        return tuple(split for split in SPLITS if split in known)

    @property
    def divided(self) -> bool:
        """Whether folders, lists or settings define the splits."""
        return bool(self.listed or self.settings.folds or self.settings.val_ratio != 0.2)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split without reading its masks; if not `strict`, files without partner are left out.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        known = (*self.splits, ALL)
        if split not in known:
            raise CrispsegError(f"there is no split '{split}'{did_you_mean(split, known)}")
        pooled = split == ALL or self.settings.folds is not None
        self._check_pairings("" if pooled else split, strict)
        if strict:
            self._check_lists()
        names = self.pairs_by_name if split == ALL else self.names[split]
        pairs = {name: self.pairs_by_name[name] for name in names if name not in self.excluded}
        if not pairs:
            raise CrispsegError(f"'{split}' is empty: {self._why_empty}")
        return [pair._replace(name=name) if pooled else pair for name, pair in pairs.items()]

    def _check_pairings(self, split: str, strict: bool) -> None:
        """Raise the error of the pairs in the folder of a split, or in those of all splits."""
        pairings = self.content.division.pairings
        own = pairings.get(split) or pairings.get("train")  # val may be a share of train
        for pairing in [own] if own and split else pairings.values():
            if pairing.error and (strict or not pairing.pairs):
                raise pairing.error

    def _check_lists(self) -> None:
        lists = self.content.lists
        for split, (_, unknown) in self._lists.items():
            if unknown:
                wrong = f"{plural(len(unknown), 'line')} with no or several matching images: {few(unknown)}"
                raise CrispsegError(f"{lists[split]} has {wrong}; add sub-folders, or give other data.images")
        for split, other in combinations(lists, 2):
            if shared := sorted({*self.listed[split]} & {*self.listed[other]}):
                images = f"share {plural(len(shared), 'image')}: {few(shared)}"
                raise CrispsegError(f"{lists[split]} and {lists[other]} {images}; remove them from one of the lists")

    @property
    def _why_empty(self) -> str:
        places = [*self.content.lists.values(), *self.content.division.split_folders.values()]
        if places:
            return f"{few(places)} leave no image with a mask for it; change them"
        place = self.settings.root or self.content.located.images
        ratio = f"data.val_ratio is {self.settings.val_ratio:g}; add images, or give a share such as 0.2"
        return f"{place} has {plural(len(self.pairs_by_name), 'image')} with a mask, and {ratio}"

    def full_names(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of pairs as in list files, with the folder of the split."""
        names = {pair.image: name for name, pair in self.pairs_by_name.items()}
        return [names[pair.image] for pair in pairs]

    def place(self, pair: Pair) -> PurePosixPath:
        """Return the path of an image in the folder of images or of the split, without suffix."""
        return PurePosixPath(self.content.division.names.get(pair.image, pair.name))

    def unpaired(self) -> dict[str, list[str]]:
        """Return unpaired files and list entries without an image, by the code of a finding."""
        files: dict[str, list[str]] = defaultdict(list)
        for pairing in self.content.pairings:
            for code, unpaired in pairing.unpaired.items():
                files[code] += map(str, unpaired)
        for split, (_, unknown) in self._lists.items():
            files["listed-file-missing"] += [f"{self.content.lists[split]}: {entry}" for entry in unknown]
        return files

    # Groups ---------------------------------------------------------------------------------------------------------

    @cached_property
    def groups(self) -> dict[str, str]:
        """Representative of the group of each name in `drawn`; a group stays in one split."""
        groups = self.related(self.settings.copies)
        if len(groups) < 2 or len({*groups.values()}) > 1:
            return groups
        if self.settings.group:
            some = f"'{self.settings.group}', which makes one group of all {len(groups)} images, {few(groups, 2)}"
            raise CrispsegError(f"is {some}; give a finer group, or choose images with data.val_list", "data.group")
        return {name: name for name in groups}  # all images are copies of one

    def related(self, copies: str) -> dict[str, str]:
        """Return the representative of each name in `drawn`, by groups and copies."""
        names, places = self.drawn, self._drawn_places
        keys: list[Mapping[str, object]] = [self.named_groups]
        if copies != "none":
            repeated = len({*places.values()}) < len(names)  # names repeat in the folders of the splits
            keys.append({name: original(PurePosixPath(name) if repeated else places[name]) for name in names})
        if copies == "pixels":
            images = self._drawn_images
            keys.append({name: image.digest[:-1] for name, image in images.items() if not image.constant})
        return together(names, *keys)

    @property
    def _drawn_images(self) -> dict[str, ImageFacts]:
        files = {name: self.pairs_by_name[name].image for name in self.drawn}
        facts = read_facts("image", read_image_facts, files.values())
        return {name: image for name, file in files.items() if isinstance(image := facts[file], ImageFacts)}

    @property
    def _drawn_places(self) -> dict[str, PurePosixPath]:
        return {name: self.place(self.pairs_by_name[name]) for name in self.drawn}

    @cached_property
    def named_groups(self) -> dict[str, str]:
        """Group of each name in `drawn` that has one by `data.group`."""
        pattern = self.settings.group
        if pattern is None:
            return {}
        groups = {name: group for name, place in self._drawn_places.items() if (group := group_of(pattern, place))}
        if self.drawn and not groups:
            images = f"'{pattern}', which matches no image, such as {few(self.drawn, 2)}"
            raise CrispsegError(f"is {images}; correct it, or leave it out", "data.group")
        return groups

    # Notes ----------------------------------------------------------------------------------------------------------

    @cached_property
    def excluded(self) -> frozenset[str]:
        """Names that are left out; those of files may have a suffix."""
        names = names_or_file(self.settings.exclude)
        return frozenset(
            name if name in self.pairs_by_name else str(PurePosixPath(name).with_suffix("")) for name in names
        )

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line."""
        content, lines = self.content, list[str]()
        if places := self._places_of_splits():
            lines.append(f"the splits follow {places}")
        if content.annotated:
            lines.append(f"{content.annotated} lists {len(self.pairs_by_name)} annotated images; others are left out")
        lines.append(content.unused)
        if outside := content.division.outside:
            remedy = "to use them, name their folders train, val or test, or give data.train_list and data.val_list"
            lines.append(f"images in no split: {few((pair.image for pair in outside), 1)}; {remedy}")
        lines += [pairing.note for pairing in content.pairings]
        if unknown := sorted(self.excluded - self.pairs_by_name.keys()):
            lines.append(f"data.exclude names no image by {few(unknown)}; give names as in images/NAME.png")
        return [*filter(None, lines), *self._notes_of_groups()]

    def _places_of_splits(self) -> str:
        """Return the lists or folders that define the splits, in their root if there is one."""
        folders = [folder for split, folder in self.content.division.split_folders.items() if self.listed[split]]
        paths = map(str, self.content.lists.values() or folders)
        return ", ".join(path.removeprefix(f"{self.settings.root}{os.sep}") for path in paths)

    def _notes_of_groups(self) -> Iterator[str]:
        names, groups, key = self.drawn, self.groups, self.settings.group
        alone = [name for name in names if name not in self.named_groups]
        if key and alone:
            yield f"data.group {key} fits {len(names) - len(alone)} of {len(names)} images, not {few(alone, 2)}"
        count = len({*groups.values()})
        if names and (key or count < len(names)):
            share = len(self.names["val"]) / len(names)
            line = f"{len(names)} images form {plural(count, 'group')}, which are not divided"
            yield f"{line}; val has {share:.0%} of the images"

    # Masks ----------------------------------------------------------------------------------------------------------

    @property
    def declared(self) -> Declared:
        """Declared meaning of the masks; contradictions raise a `CrispsegError`."""
        return self.settings.declared(self.content.classes)

    @cached_property
    def meaning(self) -> Meaning:
        """Meaning of the masks; a `Question` asks if it is unclear."""
        needed = self.declared.palette is None and not self.settings.of_instances
        return self.meaning_of(self.masks if needed else [])

    def meaning_of(self, masks: Sequence[MaskFacts]) -> Meaning:
        """Return the meaning of masks; a `Question` asks if it is unclear."""
        settings = self.settings
        instances = None if settings.masks is None or settings.root else Path(settings.masks)
        return read(self.declared, masks, Path(settings.masks or str(settings.root)), instances)

    @cached_property
    def masks(self) -> list[MaskFacts]:
        """Facts of the masks in use; of declared classes, without files that cannot be read."""
        used = {*self.drawn}.union(*self.assignment.fixed.values()) - self.excluded
        pairs = [pair for name, pair in self.pairs_by_name.items() if name in used] or self.pairs(ALL)
        facts = read_facts("mask", read_mask_facts, (pair.mask for pair in pairs)).values()
        errors = [error for error in facts if isinstance(error, CrispsegError)]
        if errors and self.declared.count is None:
            raise errors[0]
        return [mask for mask in facts if isinstance(mask, MaskFacts)]

    def dataset(self, split: str) -> FileDataset:
        """Return one split. Errors are those of `pairs` and `meaning`."""
        pairs = self.pairs(split)
        value_range = None if self.settings.value_range == "auto" else self.settings.value_range
        return FileDataset(pairs, self.meaning.labels, self.meaning.lookup, 3, value_range, self._objects(pairs))

    def _objects(self, pairs: Sequence[Pair]) -> dict[str, Path] | None:
        """Return the instance mask of each pair; None without instance masks next to class masks."""
        if self.settings.instances is None or self.settings.of_instances:
            return None
        files = {name: file for file, name in files_in(Path(self.settings.instances)).items()}
        names = self.full_names(pairs)
        if missing := [name for name in names if name not in files]:
            lacking = f"data.instances {self.settings.instances} has no file for {len(missing)} of {len(pairs)} images"
            raise CrispsegError(f"{lacking}: {few(missing)}; give each image a file of the same name")
        return {pair.name: files[name] for pair, name in zip(pairs, names, strict=True)}
