"""Own data without code: a folder of images and a folder of masks with the same names, perhaps in splits."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings, plural
from crispseg.data.copies import digests, group_of, original, together
from crispseg.data.dataset import DataSource, FileDataset, Pair, read_lines
from crispseg.data.folder_layout import FolderLayout, chosen_names, own_layout, rivals
from crispseg.data.folder_search import SPLITS, pictures
from crispseg.data.loading import parallel, tried
from crispseg.data.mask_lookup import CLASSES, ColorLookup, IdLookup, InstanceLookup, MaskStatistics, read_statistics
from crispseg.data.mask_reading import DeclaredClasses, MaskReading, Severity, read_masks
from crispseg.data.pairing import PairingKind, few, folded, shared_out
from crispseg.data.palettes import as_color, read_palette
from crispseg.errors import CrispsegError, did_you_mean
from crispseg.io.value_range import check_range
from crispseg.labels import IGNORE, Color, LabelSet

ALL = "all"
"""The split of every image that has a mask."""


@dataclass(frozen=True, config=CHECKS)
class Folder(Settings):
    """Images in one folder, masks of the same names in another, sub-folders included; or both in one.

    `x.jpg` belongs to `x.png`, or to `x_mask.png`, `x_label.png`, `mask_x.png` and the like. The values of a mask are
    class ids and 255 means ignore, unless a palette says which colours mean the classes or all masks hold 0 and 255
    and nothing else. A grey value v and the colour (v, v, v) are the same. The sub-folders train, val and test of both
    folders are the splits, where there are some.

    Args:
        images: folder of images; or a pattern of folders, such as data/*/rgb, or of files, such as data/*.tif.
        masks: folder of masks; or a pattern with the same wildcards.
        root: folder that holds both, if these are not given, under usual names, or train/images, train/masks,
            val/images and so on; with classes.txt, train.txt, val.txt and test.txt for classes and lists.
        classes: names of the classes in the order of their ids, as a list or as a text file with one name a line.
        num_classes: number of classes, where they have no names. Without any of classes, num_classes and palette it
            is read off the masks.
        palette: the colour that means each class, [r, g, b] of 0 to 255, or a list of several; or a file of colours
            and names: lines "r g b name", CSV, JSON, YAML or CVAT's labelmap.txt, in which equal names are one class.
            Classes are shown in these colours, unless they are greys.
        palette_tolerance: distance in RGB, 0 to 442, up to which other colours are taken for the nearest of palette;
            auto decides by the masks.
        val_ratio: share of the images that are kept for validation, where neither folders nor lists tell.
        seed: chooses which images these are.
        train_list: text file with the names of the images to train on, instead of a share.
        val_list: text file with the names of the images to validate on. With one list the other split is the rest.
        test_list: text file with the names of the images to test on.
        group: what images of one patient, scene or video share, so that they stay in one split: `folder` for their
            sub-folder, or a pattern of their names, such as patient*_slice*, whose first * it is.
        copies: how copies of one image are found, which stay in one split: by the `names` that augmentation gives, such
            as a_aug_1 and a_flip; by equal or mirrored `pixels` too; or `none`.
        folds: divide the images of train and val into this many parts of equal size, for cross-validation.
        fold: which of the parts is the val split, 1 to folds; the others are the train split.
        ignore: further mask values, or [r, g, b] colours, that mean ignore.
        merge: class → names of the classes that it is made of, as {vehicle: [car, bus]}; new, or one of those that are.
        drop: names of classes whose pixels are ignored.
        exclude: names of images that are left out; those whose masks do not fit the others are recorded here.
        value_range: the values of images of 16 bits a channel that are black and white, such as [0, 4095]; auto
            measures them.
        instances: folder of instance masks, grey files with the names of the images that number the objects of a class,
            1, 2, …, and hold 0 elsewhere; to score objects by. Without masks these are made of them, with the classes
            background, object and border (within 2 pixels of two objects), or three names that classes gives.
    """

    prefix: ClassVar[str] = "data."
    images: str | Path | None = None
    masks: str | Path | None = None
    root: str | Path | None = None
    classes: list[str] | str | Path | None = None
    num_classes: int | None = None
    palette: list[Color | list[Color]] | str | Path | None = None
    palette_tolerance: Annotated[float, Field(ge=0, le=442)] | Literal["auto"] = "auto"
    val_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    seed: NonNegativeInt = 0
    train_list: str | Path | None = None
    val_list: str | Path | None = None
    test_list: str | Path | None = None
    group: str | None = None
    copies: Literal["names", "pixels", "none"] = "pixels"
    folds: Annotated[int, Field(ge=2)] | None = None
    fold: PositiveInt = 1
    ignore: tuple[Annotated[int, Field(ge=0, le=0xFFFF)] | Color, ...] = ()
    merge: dict[str, list[str]] = Field(default_factory=dict)
    drop: list[str] = Field(default_factory=list)
    exclude: list[str] = Field(default_factory=list)
    value_range: tuple[float, float] | Literal["auto"] = "auto"
    instances: str | Path | None = None
    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        both = self.images is not None and (self.masks is not None or self.instances is not None)
        if not both and self.root is None:
            raise CrispsegError("give either data.root, or data.images and data.masks (or data.instances)")
        if self.of_instances and (self.palette is not None or self.ignore):
            raise CrispsegError("data.palette and data.ignore are about data.masks; leave them out, or give these")
        if self.fold > (self.folds or 1):
            raise CrispsegError(f"data.fold is {self.fold}; give 1 to {self.folds or 1}, the number of data.folds")
        if self.group not in (None, "folder") and "*" not in str(self.group):
            raise CrispsegError("has no *; give folder, or a pattern such as patient*_slice*", "data.group")
        if self.value_range != "auto":
            check_range(self.value_range, "data.value_range")

    @property
    def of_instances(self) -> bool:
        """Whether masks are made of `instances`."""
        return self.instances is not None and self.masks is None and self.root is None

    def label_set(self) -> LabelSet:
        """Names and colours of the classes.

        Raises:
            CrispsegError: what is declared does not fit together, or nothing is and the masks do not tell.
        """
        return self.reading.labels

    def splits(self) -> tuple[str, ...]:
        """The splits that there are; `dataset` also knows "all", which is every image of them.

        Raises:
            CrispsegError: the root has no known layout.
        """
        there = self._layout.matched.keys() if self._layout.divided else {"train", "val", *self._layout.lists}
        return tuple(split for split in SPLITS if split in there or (split == "val" and "train" in there))

    @property
    def divided(self) -> bool:
        """Whether anything but the defaults says which image is in which split. Raises as `splits` does."""
        return bool(self._layout.lists or self.folds) or self.val_ratio != Folder.val_ratio

    def dataset(self, split: str) -> FileDataset:
        """One split: by folders, by lists, or by shuffling the sorted names with the seed.

        Raises:
            CrispsegError: no such split, nothing in it, folders that do not pair, or a list that does not fit.
        """
        declared = None if self.value_range == "auto" else self.value_range
        pairs = [pair for pair in self.pairs(split) if str(pair.mask) not in self.reading.left_out]
        numbered = None
        if self.instances is not None and not self.of_instances:
            there = {name: file for file, name in pictures(Path(self.instances)).items()}
            names = {pair.mask: name for name, pair in self._pairs.items()}  # with the folder of the split
            if missing := [names[pair.mask] for pair in pairs if names[pair.mask] not in there]:
                lacking = f"data.instances {self.instances} has no file for {len(missing)} of {len(pairs)} images"
                remedy = "number the objects of each image in a file of its name"
                raise CrispsegError(f"{lacking}: {few(missing)}; {remedy}")
            numbered = {pair.name: there[names[pair.mask]] for pair in pairs}
        return FileDataset(pairs, self.reading.labels, self.reading.lookup, 3, declared, numbered)

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """The files of one split, whatever their masks hold.

        Raises as `dataset` does; if not `strict`, the `faults` are left out instead.
        """
        if split not in (*self.splits(), ALL):
            raise CrispsegError(f"there is no split '{split}'{did_you_mean(split, (*self.splits(), ALL))}")
        matched, pooled = self._layout.matched, split == ALL or self.folds is not None
        for part in matched if pooled or not self._layout.divided else [split if split in matched else "train"]:
            if (error := matched[part].error) and (strict or not matched[part].pairs):
                raise error
        if strict:
            lists = self._layout.lists
            for split_list, (_, entries) in self._chosen.items():
                if entries:
                    wrong = f"{plural(len(entries), 'line')} that name no image or several: {few(entries)}"
                    raise CrispsegError(f"{lists[split_list]} has {wrong}; write one name a line, with its sub-folder")
            for one, other in combinations(lists, 2):
                if both := sorted({*self._names[one]} & {*self._names[other]}):
                    shared = f"{lists[one]} and {lists[other]} share {plural(len(both), 'image')}: {few(both)}"
                    raise CrispsegError(f"{shared}; remove them from one of the lists")
        names = [name for name in (self._pairs if split == ALL else self._names[split]) if name not in self.exclude]
        if not names:
            why = f"data.val_ratio is {self.val_ratio:g}; give a share such as {Folder.val_ratio}"
            if self._layout.lists:
                named = ", ".join(map(str, self._layout.lists.values()))
                why = f"{named} leave no image with a mask to it; change them"
            elif 0 < self.val_ratio < 1:
                top = self.root or self._layout.images
                why = f"{top} holds fewer than the two images that are needed to train; add some"
            raise CrispsegError(f"'{split}' is empty: {why}")
        return [self._pairs[name]._replace(name=name) if pooled else self._pairs[name] for name in names]

    def place(self, pair: Pair) -> PurePosixPath:
        """The path of an image without suffix in the folder of images, or in that of the split."""
        return PurePosixPath(self._layout.names.get(pair.image, pair.name))

    def faults(self) -> dict[PairingKind, list[str]]:
        """The files that do not pair and the entries of lists that name none. Raises as `splits` does."""
        found: dict[PairingKind, list[str]] = defaultdict(list)
        for matched in self._layout.matched.values():
            for kind, files in matched.faults.items():
                found[kind] += map(str, files)
        for split, (_, entries) in self._chosen.items():
            found["listed-file-missing"] += [f"{self._layout.lists[split]}: {entry}" for entry in entries]
        return found

    def settled(self) -> Folder:
        """The same data with what was found in their files declared, so that it holds whatever is added to them.

        Raises:
            CrispsegError: as `label_set` and `dataset`.
        """
        lookup, left_out = self.reading.lookup, self.reading.left_out
        odd = [name for name, pair in self._pairs.items() if str(pair.mask) in left_out]
        found = replace(self, classes=self._classes, exclude=[*self.exclude, *odd])
        if self.copies == "pixels" and len({*self._grouped("names").values()}) == len({*self._groups.values()}):
            found = replace(found, copies="names")  # so that files are compared once
        if isinstance(lookup, ColorLookup):
            found = replace(found, palette=self.palette or [*lookup.palette], palette_tolerance=lookup.tolerance)
        elif isinstance(lookup, IdLookup):
            found = replace(found, num_classes=self.num_classes if self.declared.count else lookup.classes)
            grey = [mask for mask in self._scanned if isinstance(mask, MaskStatistics) and not mask.colors]
            if lookup.classes == 2 and any(IGNORE in mask.held for mask in grey):
                found = replace(found, ignore=(*{*self.ignore, IGNORE},))  # or masks elsewhere may seem black and white
        return found

    def notes(self) -> list[str]:
        """What was found or understood, and is good to know beforehand, a line each. Raises as `dataset`."""
        layout = self._layout
        lines = [f"the splits are as in {', '.join(map(str, layout.lists.values()))}"] if layout.lists else []
        if self.root is not None and self.masks is None and (several := rivals(Path(self.root), layout)):
            named = ", ".join(sorted({str(masks.path) for _, masks in several}))
            lines.append(f"masks may be those in {named}: data.masks chooses")
        if layout.only:
            lines.append(f"{layout.only} names the images that are annotated: {len(self._pairs)}; others are left out")
        lines += [layout.legend] if layout.legend and self.declared.names is None else []
        lines += [matched.note for matched in layout.matched.values() if matched.note]
        lines += [fault.line for fault in self.reading.faults if fault.severity < Severity.ERROR]
        return [*lines, *self._group_notes()]

    def _group_notes(self) -> Iterator[str]:
        groups, names, key = self._groups, self._dictated[""], self.group
        if key and (apart := [name for name in names if name not in self._group_of_names]):
            yield f"data.group {key} fits {len(names) - len(apart)} of {len(names)} images, not {few(apart, 2)}"
        if len({*self._group_of_names.values()}) == len(names) > 1:
            yield f"data.group {key} groups nothing: {len(names)} images are {len(names)} groups"
        for largest, size in Counter(groups.values()).most_common(1):
            if size > 1:
                some = few((name for name in names if groups[name] == largest), 2)
                line = f"{len(names)} images are {plural(len({*groups.values()}), 'group')}, none of which is divided"
                share = len(self._names["val"]) / len(names)
                yield f"{line}; the largest has {size} ({some}), and val {share:.0%} of the images"

    @cached_property
    def _layout(self) -> FolderLayout:
        given = self.root, self.images, self.instances if self.of_instances else self.masks
        root, images, masks = (None if path is None else Path(path) for path in given)
        lists = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        try:
            return own_layout(root, images, masks, {key: Path(path) for key, path in lists.items() if path is not None})
        except CrispsegError as error:
            if self.root is None or self.instances is None:
                raise
            remedy = "instead of data.root give data.images and data.instances, and data.masks of classes, if any"
            raise CrispsegError(f"{error}; {remedy}") from None

    @cached_property
    def _pairs(self) -> dict[str, Pair]:
        """All pairs by name, those of folders of splits with the split in front."""
        pairs = {
            f"{part}/{name}" if part else name: pair
            for part, found in self._layout.matched.items()
            for name, pair in found.pairs.items()
        }
        only = self._layout.only
        return {name: pairs[name] for name in chosen_names(only, [*pairs], ())[0]} if only else pairs

    @cached_property
    def _chosen(self) -> dict[str, tuple[list[str], list[str]]]:
        """Split → names that its list means, and entries that mean none."""
        every = [
            name for one in self._layout.matched.values() for part in one.faults.values() for name in part.values()
        ]
        return {
            split: ([name for name, pair in self._pairs.items() if pair.image.is_relative_to(path)], [])
            if path.is_dir()
            else chosen_names(path, list(self._pairs), every)
            for split, path in self._layout.lists.items()
        }

    @cached_property
    def _dictated(self) -> dict[str, list[str]]:
        """The splits as folders or lists say; "" has the names that are shared out between train and val."""
        if self._layout.divided:
            names = {part: [f"{part}/{name}" for name in found.pairs] for part, found in self._layout.matched.items()}
            rest = names.pop("train") if "val" not in names and "train" in names else []
        else:
            names = {split: chosen for split, (chosen, _) in self._chosen.items()}
            rest = sorted(set(self._pairs).difference(*names.values()))
            lacking = {"train", "val"} - names.keys()
            if len(lacking) < 2:
                names, rest = names | dict.fromkeys(lacking, rest), []
        if self.folds is not None:
            rest = sorted({*rest, *names.pop("train", ()), *names.pop("val", ())})
        return {**names, "": rest}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        names = dict(self._dictated)
        if rest := names.pop(""):
            if self.folds is None:
                names |= shared_out(rest, self.val_ratio, self.seed, self._groups)
            else:
                names |= folded(rest, self.folds, self.fold, self.seed, self._groups)
        return {"train": [], "val": [], **names}

    @cached_property
    def _groups(self) -> dict[str, str]:
        """For each name to be shared out the one that stands for all that stay on its side."""
        names, groups = self._dictated[""], self._grouped(self.copies)
        if len(names) < 2 or len({*groups.values()}) > 1:
            return groups
        if self.group:
            some = f"'{self.group}', which makes one group of all {len(names)} images, {few(names, 2)}"
            raise CrispsegError(f"is {some}; give a finer one, or choose images by data.val_list", "data.group")
        return dict(zip(names, names, strict=True))  # all are copies of one, which cannot be divided

    def _grouped(self, copies: str) -> dict[str, str]:
        names = self._dictated[""]
        keys: list[Mapping[str, Hashable]] = [self._group_of_names]
        if self.group and names and not self._group_of_names:
            some = f"'{self.group}', which fits no image, such as {few(names, 2)}"
            raise CrispsegError(f"is {some}; correct it, or leave it out", "data.group")
        if copies != "none":
            places = {name: self.place(self._pairs[name]) for name in names}
            again = len({*places.values()}) < len(names)  # they restart in the folder of each split
            keys.append({name: original(PurePosixPath(name) if again else places[name]) for name in names})
        if copies == "pixels":
            keys.append(digests({name: self._pairs[name].image for name in names}))
        return together(names, *keys)

    @cached_property
    def _group_of_names(self) -> dict[str, str]:
        """The group of each name to be shared out that has one."""
        places = {name: self.place(self._pairs[name]) for name in self._dictated[""]}
        found = {name: self.group and group_of(self.group, place) for name, place in places.items()}
        return {name: group for name, group in found.items() if group}

    @cached_property
    def _colors(self) -> tuple[dict[Color, int], tuple[str, ...] | None] | None:
        """Colour → class of the palette, and names of the classes."""
        if self.palette is None:
            return None
        if isinstance(self.palette, (str, Path)):
            groups, names = read_palette(Path(self.palette))
        else:
            groups, names = [each if isinstance(each, list) else [each] for each in self.palette], None
        found = {as_color(color): index for index, group in enumerate(groups) for color in group}
        if twice := [color for index, group in enumerate(groups) for color in group if found[as_color(color)] != index]:
            raise CrispsegError(f"data.palette gives the colour {list(twice[0])} to two classes; give each its own")
        return found, names

    @property
    def _classes(self) -> list[str] | str | Path | None:
        return self._layout.classes if self.classes is None else self.classes

    @cached_property
    def declared(self) -> DeclaredClasses:
        """What is declared about the masks.

        Raises:
            CrispsegError: it does not fit together.
        """
        colors, names = self._colors or (None, None)
        if (classes := self._classes) is not None:
            names = tuple(classes if isinstance(classes, list) else read_lines(classes))
        declared = {
            "data.classes": None if names is None else len(names),
            "data.num_classes": self.num_classes,
            "data.palette": None if colors is None else len({*colors.values()}),
        }
        counts = {key: count for key, count in declared.items() if count is not None}
        if self.of_instances:
            names = names or CLASSES
            counts["data.instances"] = len(CLASSES)
        if len(set(counts.values())) > 1:
            stated = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise CrispsegError(f"the numbers of classes differ: {stated}; make them agree")
        if colors is None and (several := [list(value) for value in self.ignore if not isinstance(value, int)]):
            raise CrispsegError(f"data.ignore holds the colour {several[0]}, which needs data.palette; add that")
        ignore = self.ignore if colors is None else tuple(as_color(value) for value in self.ignore)
        tolerance = None if self.palette_tolerance == "auto" else self.palette_tolerance
        count = next(iter(counts.values()), None)
        return DeclaredClasses(count, names, colors, ignore, tolerance, self.merge, self.drop)

    @cached_property
    def reading(self) -> MaskReading:
        """What the masks mean.

        Raises:
            CrispsegError: what is declared does not fit together, or nothing is and the masks do not tell.
        """
        if self.of_instances:
            labels, ids = self.declared.labels(len(CLASSES)).regrouped(self.merge, self.drop)
            return MaskReading(labels, InstanceLookup().regrouped(ids))
        masks, undeclared = self._scanned, self.declared.count is None
        if undeclared and (broken := [mask for mask in masks if isinstance(mask, CrispsegError)]):
            raise broken[0]
        readable = [mask for mask in masks if isinstance(mask, MaskStatistics)]
        found = read_masks(self.declared, readable)
        if undeclared and not found.lookup.tolerance and (lossy := [mask.lossy for mask in readable if mask.lossy]):
            raise CrispsegError(lossy[0])
        for fault in found.errors:
            some = f" ({few(Path(file).name for file in fault.files)})" if len(fault.files) < len(masks) else ""
            legend = self._layout.legend and f"; {self._layout.legend}"
            line = f"{self.masks or self.root}: {fault.message}{some}; {fault.remedy}{legend}"
            if fault.code == "sparse-ids" and self.root and not fault.details.get("settings"):
                line += f"; 'crispseg doctor {shlex.quote(str(self.root))}' says how to make a copy with these"
            raise CrispsegError(line, settings=fault.details.get("settings", ()))
        return found

    @cached_property
    def _scanned(self) -> list[MaskStatistics | CrispsegError]:
        """What the masks of the splits hold, if that can say more than what is declared."""
        declared = self.declared
        told = declared.count not in (None, 2) if declared.palette is None else declared.tolerance is not None
        first = min(self._pairs.values(), default=None)
        found = first and tried(read_statistics)(first.mask)
        if told and (declared.palette is not None or not isinstance(found, MaskStatistics) or not found.palette):
            return []
        used = set().union(*self._dictated.values()) - {*self.exclude}
        pairs = [pair for name, pair in self._pairs.items() if name in used] or self.pairs(ALL)
        return list(parallel(tried(read_statistics), [pair.mask for pair in pairs], "Reading masks"))


def settle(source: DataSource) -> tuple[DataSource, list[str]]:
    """A data source with what it finds in its files declared, and notes on that, a line each.

    Raises:
        CrispsegError: the files tell nothing, or do not pair.
    """
    return (source.settled(), source.notes()) if isinstance(source, Folder) else (source, [])
