"""Custom data after its folder was walked through: pairs, splits, groups and the meaning of the masks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from crispseg.config.settings import plural
from crispseg.data.dataset import FileDataset
from crispseg.data.folder_settings import FolderSettings
from crispseg.errors import CrispsegError, Question, did_you_mean, few
from crispseg.folders.content import Content
from crispseg.folders.copies import sharing
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
        folders = self.content.division.split_folders
        names = {split: names for split, (names, _) in self._lists.items()}
        if self.content.lists or self.content.division.by_folders:
            return names
        return {split: self._names_below(folder) for split, folder in folders.items()}

    def _names_below(self, folder: Path) -> list[str]:
        return [name for name, pair in self.pairs_by_name.items() if pair.image.is_relative_to(folder)]

    @cached_property
    def _lists(self) -> dict[str, tuple[list[str], list[str]]]:
        """Split → image names in its list, and entries that match no image."""
        unpaired: set[str] = set()
        for pairing in self.content.pairings:
            unpaired |= pairing.names
        names = [*self.pairs_by_name]
        return {split: chosen_names(file, names, unpaired) for split, file in self.content.lists.items()}

    @cached_property
    def assignment(self) -> Assignment:
        """Images of the splits that folders or lists define, and images to divide randomly."""
        if self.content.division.by_folders:
            fixed = self._split_folders()
            drawn = fixed.pop("train") if "train" in fixed and "val" not in fixed else []
        else:
            fixed = dict(self.listed)
            drawn = sorted(self.pairs_by_name.keys() - set().union(*fixed.values()))
            lacking = {"train", "val"} - fixed.keys()
            if len(lacking) < 2:  # the rest is the other split
                fixed, drawn = fixed | dict.fromkeys(lacking, drawn), []
        if self.settings.folds is not None:
            drawn = sorted({*drawn, *fixed.pop("train", ()), *fixed.pop("val", ())})
        return Assignment(fixed, drawn)

    def _split_folders(self) -> dict[str, list[str]]:
        pairings = self.content.division.pairings
        names: dict[str, list[str]] = {}
        for split, pairing in pairings.items():
            names[split] = [f"{split}/{name}" for name in pairing.pairs]
        return names

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
        division = self.content.division
        if division.by_folders:
            known = {*division.pairings}
            known |= {"val"} if "train" in known else set()
        else:
            known = {"train", "val", *self.content.lists, *division.split_folders}
        return tuple(split for split in SPLITS if split in known)

    @property
    def divided(self) -> bool:
        """Whether folders, lists or settings define the splits."""
        division = self.content.division
        by_folders = division.by_folders or division.split_folders
        return bool(by_folders or self.content.lists or self.settings.folds or self.settings.val_ratio != 0.2)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split without reading its masks; if not `strict`, files without partner are left out.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        known = (*self.splits, ALL)
        if split not in known:
            raise CrispsegError(f"there is no split '{split}'{did_you_mean(split, known)}")
        self._check_pairings(split, strict)
        if strict:
            self._check_lists()
        excluded = {*names_or_file(self.settings.exclude)}
        names = [name for name in (self.pairs_by_name if split == ALL else self.names[split]) if name not in excluded]
        if not names:
            raise CrispsegError(f"'{split}' is empty: {self._why_empty}")
        pooled = split == ALL or self.settings.folds is not None
        pairs = [self.pairs_by_name[name] for name in names]
        return [pair._replace(name=name) if pooled else pair for name, pair in zip(names, pairs, strict=True)]

    def _check_pairings(self, split: str, strict: bool) -> None:
        pairings = self.content.division.pairings
        own = [split if split in pairings else "train"] if self.content.division.by_folders else [*pairings]
        for part in pairings if split == ALL or self.settings.folds is not None else own:
            error = pairings[part].error
            if error and (strict or not pairings[part].pairs):
                raise error

    def _check_lists(self) -> None:
        lists = self.content.lists
        for split, (_, unknown) in self._lists.items():
            if unknown:
                wrong = f"{plural(len(unknown), 'line')} with no or several matching images: {few(unknown)}"
                raise CrispsegError(f"{lists[split]} has {wrong}; add sub-folders, or give other data.images")
        for one, other in combinations(lists, 2):
            if both := sorted({*self.listed[one]} & {*self.listed[other]}):
                shared = f"{lists[one]} and {lists[other]} share {plural(len(both), 'image')}: {few(both)}"
                raise CrispsegError(f"{shared}; remove them from one of the lists")

    @property
    def _why_empty(self) -> str:
        places = [*self.content.lists.values(), *self.content.division.split_folders.values()]
        if places:
            return f"{few(places)} leave no image with a mask for it; change them"
        count = plural(len(self.pairs_by_name), "image")
        ratio = f"data.val_ratio is {self.settings.val_ratio:g}; add images, or give a share such as 0.2"
        return f"{self.settings.root or self.content.located.images} has {count} with a mask, and {ratio}"

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
        if copies != "pixels":
            return together(names, *keys)
        images = self._drawn_images
        keys.append({name: image.digest[:-1] for name, image in images.items() if not image.constant})
        files, facts = [*images], [*images.values()]
        overlaps = [(files[one], files[other]) for one, other in sharing(facts, facts)]
        groups = together(names, *keys, pairs=overlaps)
        largest = max(Counter(groups.values()).values(), default=0)
        return groups if 2 * largest <= len(names) else together(names, *keys)  # else the overlaps are reported

    @property
    def _drawn_images(self) -> dict[str, ImageFacts]:
        files = {name: self.pairs_by_name[name].image for name in self.drawn}
        facts = read_facts("image", read_image_facts, files.values())
        images = {name: facts[file] for name, file in files.items()}
        return {name: image for name, image in images.items() if isinstance(image, ImageFacts)}

    @property
    def _drawn_places(self) -> dict[str, PurePosixPath]:
        return {name: self.place(self.pairs_by_name[name]) for name in self.drawn}

    @cached_property
    def named_groups(self) -> dict[str, str]:
        """Group of each name in `drawn` that has one by `data.group`."""
        pattern = self.settings.group
        if pattern is None:
            return {}
        groups = {name: group_of(pattern, place) for name, place in self._drawn_places.items()}
        if groups and not any(groups.values()):
            some = f"'{pattern}', which matches no image, such as {few(groups, 2)}"
            raise CrispsegError(f"is {some}; correct it, or leave it out", "data.group")
        return {name: group for name, group in groups.items() if group}

    # Notes ----------------------------------------------------------------------------------------------------------

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line."""
        content = self.content
        lines = [f"the splits follow {places}"] if (places := self._places_of_splits()) else []
        if content.annotated:
            lines.append(f"{content.annotated} lists {len(self.pairs_by_name)} annotated images; others are left out")
        lines += content.unused
        if content.division.outside:
            some = few((pair.image for pair in content.division.outside), 1)
            remedy = "to use them, name their folders train, val or test, or give data.train_list and data.val_list"
            lines.append(f"images in no split: {some}; {remedy}")
        if content.hint and self.declared.names is None:
            lines.append(content.hint)
        lines += [pairing.note for pairing in content.pairings if pairing.note]
        return [*lines, *self._notes_of_groups()]

    def _places_of_splits(self) -> str:
        """Return the lists or folders that define the splits, in their root if there is one."""
        division = self.content.division
        used = [split for split in division.split_folders if division.by_folders or self.listed[split]]
        paths = [*self.content.lists.values()] or [division.split_folders[split] for split in used]
        root = self.settings.root
        inside = [path.relative_to(root) if root and path.is_relative_to(root) else path for path in paths]
        return ", ".join(map(str, inside))

    def _notes_of_groups(self) -> Iterator[str]:
        names, groups, key = self.drawn, self.groups, self.settings.group
        alone = [name for name in names if name not in self.named_groups]
        if key and alone:
            yield f"data.group {key} fits {len(names) - len(alone)} of {len(names)} images, not {few(alone, 2)}"
        if len({*self.named_groups.values()}) == len(names) > 1:
            yield f"data.group {key} groups nothing: {len(names)} images form {len(names)} groups"
        sizes = Counter(groups.values())
        if len(sizes) == len(names):
            return
        largest, size = sizes.most_common(1)[0]
        some = few((name for name in names if groups[name] == largest), 2)
        line = f"{len(names)} images form {plural(len(sizes), 'group')}, which are not divided"
        share = len(self.names["val"]) / len(names)
        yield f"{line}; the largest has {size} ({some}), and val {share:.0%} of the images"

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
        try:
            masks_given = self.settings.masks is not None and self.settings.root is None
            instances = Path(str(self.settings.masks)) if masks_given else None
            return read(self.declared, masks, Path(str(self.settings.masks or self.settings.root)), instances)
        except Question as question:
            facts = [*question.facts, self.content.hint] if self.content.hint else question.facts
            raise Question(question.title, facts, question.choices, question.advice) from None

    @cached_property
    def masks(self) -> list[MaskFacts]:
        """Facts of the masks in use; of declared classes, without files that cannot be read."""
        used = {*self.drawn}.union(*self.assignment.fixed.values()) - {*names_or_file(self.settings.exclude)}
        pairs = [pair for name, pair in self.pairs_by_name.items() if name in used] or self.pairs(ALL)
        masks: list[MaskFacts] = []
        facts_of = read_facts("mask", read_mask_facts, (pair.mask for pair in pairs))
        for facts in facts_of.values():
            if isinstance(facts, MaskFacts):
                masks.append(facts)
            elif self.declared.count is None:
                raise facts
        return masks

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
