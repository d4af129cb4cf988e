"""Custom data from a folder of images and a folder of masks, optionally in splits."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt
from pydantic.dataclasses import dataclass

from crispseg.config.settings import CHECKS, Settings, plural
from crispseg.data.dataset import DataSource, FileDataset
from crispseg.data.folder_layout import FolderLayout, own_layout, rivals
from crispseg.data.folder_search import SPLITS, pictures
from crispseg.data.pairing import chosen_names, folded, shared_out
from crispseg.errors import CrispsegError, Question, did_you_mean, few
from crispseg.folders.copies import sharing
from crispseg.folders.facts import ImageFacts, MaskFacts, read_image_facts, read_mask_facts
from crispseg.folders.groups import group_of, original, together
from crispseg.folders.lookup import INSTANCE_CLASSES, ColorLookup, IdLookup
from crispseg.folders.meaning import Declared, Meaning
from crispseg.folders.names import names_or_file, read_names
from crispseg.folders.palettes import as_color, numbered_colors
from crispseg.folders.readers import read
from crispseg.folders.survey import Pair, read_facts
from crispseg.io.value_range import check_range
from crispseg.labels import IGNORE, Color, LabelSet

ALL = "all"  # split of all images that have a mask


@dataclass(frozen=True, config=CHECKS)
class Folder(Settings):
    """Custom data: images in one folder and masks with the same names in another, or both in one folder.

    The mask of `x.jpg` is `x.png`, `x_mask.png`, `x_label.png`, `mask_x.png` or similar. Mask values are class ids and
    255 means ignore, unless a palette is given or all masks contain only 0 and 255. A grey value v equals the colour
    (v, v, v). Sub-folders are searched. Sub-folders train, val and test of both folders are the splits.

    Args:
        images: folder of images; or a pattern of folders, such as data/*/rgb, or of files, such as data/*.tif.
        masks: folder of masks; or a pattern with the same wildcards.
        root: folder that contains both under common names, such as images and masks or train/images and train/masks, if
            these are not given. It may also contain classes.txt, train.txt, val.txt and test.txt.
        classes: class names in the order of their ids: a list, names separated by commas, or a text file with one name
            per line, or with an id and a name, such as "2 car".
        num_classes: number of classes if they have no names. It is inferred from the masks if classes, num_classes and
            palette are not given.
        palette: colour of each class, [r, g, b] from 0 to 255, or a list of its colours; or a file of colours and
            names: lines "r g b name", CSV, JSON, YAML or CVAT's labelmap.txt. Equal names are one class.
            Classes are displayed in these colours, unless all are greys.
        palette_tolerance: largest RGB distance, 0 to 442, at which another colour counts as the nearest one of
            palette; auto derives it from the masks.
        val_ratio: share of the images for validation, if neither folders nor lists define the splits.
        seed: random seed of the choice of these images.
        train_list: text file with the names of the training images, used instead of val_ratio.
        val_list: text file with the names of the validation images. With only one list, the other split is the rest.
        test_list: text file with the names of the test images.
        group: keeps images of one patient, scene or video in one split. `folder` groups by sub-folder. A name pattern,
            such as patient*_slice*, groups by the text of its first *, or of {*} as in slice*_P{*}.
        copies: keeps copies of one image in one split. `names` finds copies by names of augmentation tools, such as
            a_aug_1 and a_flip; `pixels` also finds equal, mirrored and overlapping images; `none` disables the search.
        folds: number of equal parts of the train and val images, for cross-validation.
        fold: number of the part that is the val split, 1 to folds; the others are the train split.
        ignore: further mask values, or [r, g, b] colours, that mean ignore.
        merge: class → names of the classes to merge into it, as {vehicle: [car, bus]}; it may be new or exist already.
        drop: names of classes to remove; their pixels are ignored.
        exclude: names of images to leave out, or a text file of names; training adds images with odd masks.
        value_range: values of 16-bit images that become black and white, such as [0, 4095]; auto measures them in all
            training images together. `image` measures them in each image, also of 8 bits, for images of different
            exposure.
        instances: folder of instance masks to evaluate objects: grey files with the names of the images. 0 is
            background, and 1, 2, … number the objects of a class. If masks are not given, they are made from these with
            classes background, object and border (within 2 pixels of two objects). Three names in classes
            replace these.
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
    value_range: tuple[float, float] | Literal["auto", "image"] = "auto"
    instances: str | Path | None = None
    name: ClassVar[str] = "folder"

    def __post_init__(self) -> None:
        both = self.images is not None and (self.masks is not None or self.instances is not None)
        if not both and self.root is None:
            raise CrispsegError("give either data.root, or data.images and data.masks (or data.instances)")
        if self.of_instances and (self.palette is not None or self.ignore):
            raise CrispsegError("data.palette and data.ignore apply to data.masks; leave them out, or give data.masks")
        if self.fold > (self.folds or 1):
            raise CrispsegError(f"data.fold is {self.fold}; give 1 to {self.folds or 1}, the number of data.folds")
        if self.group not in (None, "folder") and "*" not in str(self.group):
            raise CrispsegError("has no *; give folder, or a pattern such as patient*_slice*", "data.group")
        check_range(self.value_range, "data.value_range")

    @property
    def of_instances(self) -> bool:
        """Whether masks are made from `instances`."""
        return self.instances is not None and self.masks is None and self.root is None

    def label_set(self) -> LabelSet:
        """Return names and colours of the classes.

        Raises:
            CrispsegError: the declarations contradict each other, or the masks do not determine the classes.
        """
        return self.meaning.labels

    def splits(self) -> tuple[str, ...]:
        """Return the available splits; `dataset` also accepts "all" for all images.

        Raises:
            CrispsegError: the root has no known layout.
        """
        there = {*self.layout.matched} if self.layout.divided else {"train", "val", *self.layout.lists}
        return tuple(split for split in SPLITS if split in there or (split == "val" and "train" in there))

    @property
    def divided(self) -> bool:
        """Whether lists, folds or a custom `val_ratio` define the splits. Errors are those of `splits`."""
        return bool(self.layout.lists or self.folds) or self.val_ratio != Folder.val_ratio

    @property
    def drawn(self) -> bool:
        """Whether train and val are random parts, which `group` affects. Errors are those of `splits`."""
        return bool(self._dictated[""])

    def dataset(self, split: str) -> FileDataset:
        """Return one split, defined by folders, by lists or by a seeded shuffle of the sorted names.

        Raises:
            CrispsegError: the split is unknown or empty, the folders do not match, or a list is wrong.
        """
        declared = None if self.value_range == "auto" else self.value_range
        pairs = self.pairs(split)
        numbered = None
        if self.instances is not None and not self.of_instances:
            there = {name: file for file, name in pictures(Path(self.instances)).items()}
            names = self.full_names(pairs)
            if missing := [name for name in names if name not in there]:
                lacking = f"data.instances {self.instances} has no file for {len(missing)} of {len(pairs)} images"
                raise CrispsegError(f"{lacking}: {few(missing)}; give each image a file of the same name")
            numbered = {pair.name: there[name] for pair, name in zip(pairs, names, strict=True)}
        return FileDataset(pairs, self.meaning.labels, self.meaning.lookup, 3, declared, numbered)

    def full_names(self, pairs: Iterable[Pair]) -> list[str]:
        """Return the names of pairs as in list files, with the folder of the split. Errors are those of `splits`."""
        names = {pair.image: name for name, pair in self._pairs.items()}
        return [names[pair.image] for pair in pairs]

    def pairs(self, split: str, strict: bool = True) -> list[Pair]:
        """Return the files of one split without checking the content of its masks.

        Errors are those of `dataset`; if not `strict`, the `faults` are left out instead.
        """
        if split not in (*self.splits(), ALL):
            raise CrispsegError(f"there is no split '{split}'{did_you_mean(split, (*self.splits(), ALL))}")
        matched, pooled = self.layout.matched, split == ALL or self.folds is not None
        for part in matched if pooled or not self.layout.divided else [split if split in matched else "train"]:
            if (error := matched[part].error) and (strict or not matched[part].pairs):
                raise error
        if strict:
            lists = self.layout.lists
            for split_list, (_, entries) in self._chosen.items():
                if entries:
                    wrong = f"{plural(len(entries), 'line')} with no or several matching images: {few(entries)}"
                    raise CrispsegError(f"{lists[split_list]} has {wrong}; add sub-folders, or give other data.images")
            for one, other in combinations(lists, 2):
                if both := sorted({*self._names[one]} & {*self._names[other]}):
                    shared = f"{lists[one]} and {lists[other]} share {plural(len(both), 'image')}: {few(both)}"
                    raise CrispsegError(f"{shared}; remove them from one of the lists")
        names, out = self._pairs if split == ALL else self._names[split], names_or_file(self.exclude)
        names = [name for name in names if name not in out]
        if not names:
            named = ", ".join(map(str, self.layout.lists.values()))
            found = f"{self.root or self.layout.images} has {plural(len(self._pairs), 'image')} with a mask"
            why = f"{found}, and data.val_ratio is {self.val_ratio:g}; add images, or give a share such as 0.2"
            why = f"{named} leave no image with a mask for it; change them" if named else why
            raise CrispsegError(f"'{split}' is empty: {why}")
        return [self._pairs[name]._replace(name=name) if pooled else self._pairs[name] for name in names]

    def place(self, pair: Pair) -> PurePosixPath:
        """Return the path of an image in the folder of images or of the split, without suffix."""
        return PurePosixPath(self.layout.names.get(pair.image, pair.name))

    def faults(self) -> dict[str, list[str]]:
        """Return unpaired files and list entries without an image. Errors are those of `splits`."""
        found: dict[str, list[str]] = defaultdict(list)
        for matched in self.layout.matched.values():
            for kind, files in matched.faults.items():
                found[kind] += map(str, files)
        for split, (_, entries) in self._chosen.items():
            found["listed-file-missing"] += [f"{self.layout.lists[split]}: {entry}" for entry in entries]
        return found

    def settled(self) -> Folder:
        """Return the same data with inferred settings declared, so that files added later do not change them.

        Errors are those of `label_set` and `dataset`.
        """
        lookup = self.meaning.lookup
        found = replace(self, classes=self._classes, exclude=names_or_file(self.exclude))
        if self.copies == "pixels" and len({*self._grouped("names").values()}) == len({*self._groups.values()}):
            found = replace(found, copies="names")  # so that files are compared once
        if isinstance(lookup, ColorLookup):
            found = replace(found, palette=self.palette or [*lookup.palette], palette_tolerance=lookup.tolerance)
        elif isinstance(lookup, IdLookup):
            found = replace(found, num_classes=self.num_classes if self.declared.count else lookup.classes)
            if any(IGNORE in mask.held for mask in self._masks if not mask.colors):
                found = replace(found, ignore=(*{*self.ignore, IGNORE},))  # else other masks may seem black and white
        return found

    def notes(self) -> list[str]:
        """Return notes about inferred settings, one per line. Errors are those of `dataset`."""
        layout = self.layout
        lists = {path: split for split, path in layout.lists.items() if layout.divided or self._chosen[split][0]}
        shown = ", ".join(os.path.relpath(path, self.root) if self.root else str(path) for path in lists)
        lines = [f"the splits follow {shown}"] if lists else []
        if self.root is not None and self.masks is None and (places := rivals(Path(self.root), layout)[0]):
            lines.append(f"images and masks may be in {few(places)}; choose with data.images and data.masks")
        if layout.only:
            lines.append(f"{layout.only} lists {len(self._pairs)} annotated images; others are left out")
        lines += [*layout.unused, *([layout.hint] if layout.hint and self.declared.names is None else [])]
        lines += [matched.note for matched in layout.matched.values() if matched.note]
        return [*lines, *self._group_notes()]

    def _group_notes(self) -> Iterator[str]:
        groups, names, key = self._groups, self._dictated[""], self.group
        if key and (apart := [name for name in names if name not in self._group_of_names]):
            yield f"data.group {key} fits {len(names) - len(apart)} of {len(names)} images, not {few(apart, 2)}"
        if len({*self._group_of_names.values()}) == len(names) > 1:
            yield f"data.group {key} groups nothing: {len(names)} images form {len(names)} groups"
        for largest, size in Counter(groups.values()).most_common(1):
            if size > 1:
                some = few((name for name in names if groups[name] == largest), 2)
                line = f"{len(names)} images form {plural(len({*groups.values()}), 'group')}, which are not divided"
                share = len(self._names["val"]) / len(names)
                yield f"{line}; the largest has {size} ({some}), and val {share:.0%} of the images"

    @cached_property
    def layout(self) -> FolderLayout:
        """Locations of the files."""
        given = self.root, self.images, self.instances if self.of_instances else self.masks
        root, images, masks = (None if path is None else Path(path) for path in given)
        lists = {"train": self.train_list, "val": self.val_list, "test": self.test_list}
        return own_layout(root, images, masks, {key: Path(path) for key, path in lists.items() if path is not None})

    @cached_property
    def _pairs(self) -> dict[str, Pair]:
        """All pairs by name, prefixed with the split if folders define the splits."""
        pairs = {
            f"{part}/{name}" if part else name: pair
            for part, found in self.layout.matched.items()
            for name, pair in found.pairs.items()
        }
        only = self.layout.only
        return {name: pairs[name] for name in chosen_names(only, [*pairs], ())[0]} if only else pairs

    @cached_property
    def _chosen(self) -> dict[str, tuple[list[str], list[str]]]:
        """Split → image names in its list, and entries without an image."""
        every = [name for one in self.layout.matched.values() for part in one.faults.values() for name in part.values()]
        return {
            split: ([name for name, pair in self._pairs.items() if pair.image.is_relative_to(path)], [])
            if path.is_dir()
            else chosen_names(path, list(self._pairs), every)
            for split, path in self.layout.lists.items()
        }

    @cached_property
    def _dictated(self) -> dict[str, list[str]]:
        """Splits from folders or lists; "" has the names to divide between train and val."""
        if self.layout.divided:
            names = {part: [f"{part}/{name}" for name in found.pairs] for part, found in self.layout.matched.items()}
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
        """Representative of the group of each name to divide; a group stays in one split."""
        names, groups = self._dictated[""], self._grouped(self.copies)
        if len(names) < 2 or len({*groups.values()}) > 1:
            return groups
        if self.group:
            some = f"'{self.group}', which makes one group of all {len(names)} images, {few(names, 2)}"
            raise CrispsegError(f"is {some}; give a finer group, or choose images with data.val_list", "data.group")
        return dict(zip(names, names, strict=True))  # all images are copies of one

    def _grouped(self, copies: str) -> dict[str, str]:
        names, places = self._dictated[""], self._places
        keys: list[Mapping[str, Hashable]] = [self._group_of_names]
        if copies != "none":
            again = len({*places.values()}) < len(names)  # names repeat in the folders of the splits
            keys.append({name: original(PurePosixPath(name) if again else places[name]) for name in names})
        overlaps: list[tuple[str, str]] = []
        if copies == "pixels":
            images = self._image_facts(names)
            keys.append({name: image.digest[:-1] for name, image in images.items() if not image.constant})
            facts, named = [*images.values()], [*images]
            overlaps = [(named[one], named[other]) for one, other in sharing(facts, facts)]
        groups = together(names, *keys, pairs=overlaps)
        largest = max(Counter(groups.values()).values(), default=0)
        return groups if 2 * largest <= len(names) else together(names, *keys)  # else the overlaps are reported

    def _image_facts(self, names: Iterable[str]) -> dict[str, ImageFacts]:
        """Facts of the images that can be read."""
        paths = {name: self._pairs[name].image for name in names}
        facts = read_facts("image", read_image_facts, paths.values())
        images = {name: facts[path] for name, path in paths.items()}
        return {name: image for name, image in images.items() if isinstance(image, ImageFacts)}

    @cached_property
    def _group_of_names(self) -> dict[str, str]:
        """Group of each name to divide that has one."""
        found = {name: self.group and group_of(self.group, place) for name, place in self._places.items()}
        if self.group and found and not any(found.values()):
            some = f"'{self.group}', which matches no image, such as {few(found, 2)}"
            raise CrispsegError(f"is {some}; correct it, or leave it out", "data.group")
        return {name: group for name, group in found.items() if group}

    @property
    def _places(self) -> dict[str, PurePosixPath]:
        """Path of each image to divide, see `place`."""
        return {name: self.place(self._pairs[name]) for name in self._dictated[""]}

    @property
    def _classes(self) -> list[str] | str | Path | None:
        classes = self.layout.classes if self.classes is None else self.classes
        words = [] if isinstance(classes, list) or classes is None else str(classes).split(",")
        return [word.strip() for word in words] if len(words) > 1 and not Path(str(classes)).exists() else classes

    @cached_property
    def declared(self) -> Declared:
        """Declared meaning of the masks; contradictions raise a `CrispsegError`."""
        colors, names = (None, None) if self.palette is None else numbered_colors(self.palette)
        if (classes := self._classes) is not None:
            names = tuple(classes if isinstance(classes, list) else read_names(classes))
        declared = {
            "data.classes": None if names is None else len(names),
            "data.num_classes": self.num_classes,
            "data.palette": None if colors is None else len({*colors.values()}),
            "data.instances": len(INSTANCE_CLASSES) if self.of_instances else None,
        }
        counts = {key: count for key, count in declared.items() if count is not None}
        names = INSTANCE_CLASSES if names is None and self.of_instances else names
        if len(set(counts.values())) > 1:
            stated = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise CrispsegError(f"the numbers of classes differ: {stated}; make them agree")
        if colors is None and (several := [list(value) for value in self.ignore if not isinstance(value, int)]):
            raise CrispsegError(f"data.ignore has the colour {several[0]}, which needs data.palette; add it")
        ignore = self.ignore if colors is None else tuple(as_color(value) for value in self.ignore)
        if both := [list(color) for color in colors or () if color in ignore]:
            what = f"data.palette and data.ignore both have the colour {both[0]}"
            raise CrispsegError(f"{what}; remove it from one of them, or give data.drop with the name of the class")
        tolerance = 0.0 if self.palette_tolerance == "auto" else self.palette_tolerance
        count = next(iter(counts.values()), None)
        return Declared(count, names, colors, ignore, tolerance, self.of_instances, self.merge, self.drop)

    @cached_property
    def meaning(self) -> Meaning:
        """Meaning of the masks. Errors are those of `label_set`."""
        needed = self.declared.palette is None and not self.of_instances
        return self.meaning_of(self._masks if needed else [])

    def meaning_of(self, masks: Sequence[MaskFacts]) -> Meaning:
        """Return the meaning of masks; a `Question` asks if it is unclear."""
        try:
            instances = Path(self.masks) if self.masks is not None and self.root is None else None
            return read(self.declared, masks, Path(str(self.masks or self.root)), instances)
        except Question as question:
            facts = [*question.facts, self.layout.hint] if self.layout.hint else question.facts
            raise Question(question.title, facts, question.choices, question.advice) from None

    @cached_property
    def _masks(self) -> list[MaskFacts]:
        """Facts of the masks in use; of declared classes, without files that cannot be read."""
        used = set().union(*self._dictated.values()) - {*names_or_file(self.exclude)}
        pairs = [pair for name, pair in self._pairs.items() if name in used] or self.pairs(ALL)
        masks: list[MaskFacts] = []
        for facts in read_facts("mask", read_mask_facts, [pair.mask for pair in pairs]).values():
            if isinstance(facts, MaskFacts):
                masks.append(facts)
            elif self.declared.count is None:
                raise facts
        return masks


def settle(source: DataSource) -> tuple[DataSource, list[str]]:
    return (source.settled(), source.notes()) if isinstance(source, Folder) else (source, [])
