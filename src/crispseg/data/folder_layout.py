"""Layout of a folder of data, from file names and from lists of image names."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple

from crispseg.data.catalogue import catalogue
from crispseg.data.folder_search import (
    MASK_FOLDERS,
    OTHERS,
    SPLIT_OF,
    SPLITS,
    by_ending,
    by_split,
    described,
    endings,
    is_pattern,
    listing,
    nearly_same,
    other_masks,
    pictures,
    readings,
    settings,
    split_of,
)
from crispseg.data.pairing import AFTER_NAME, MERGE, Matched, apart, match, plain
from crispseg.data.yolo import yolo_files, yolo_root
from crispseg.errors import CrispsegError, few
from crispseg.io.images import IMAGE_FOLDERS, SUFFIXES

# Files that may define classes
LEGEND = re.compile(r".*(legend|label|class|categor|colou?r|code).*\.([ct]sv|txt|json|ya?ml)|dataset\.json", re.I)
NOTES = re.compile(r"read[-_ ]?me(\.\w+)?|.*notes?\.(txt|md|rst|pdf|html?)", re.I)
LIST = re.compile(rf"(?<![a-z])({'|'.join(SPLIT_OF)}|trainval|list|split)s?(?![a-z])", re.I)  # in names of lists
# Split in the name of an image, as in train_1 and testA_1
SPLIT_IN_NAME = re.compile(rf"(?:^|.*[_-])({'|'.join(SPLIT_OF)})[a-z]?(?:[_-].*|\d.*|$)", re.I)
LIST_BYTES = 2**22  # largest size of a table or JSON file that may list images
MOST_LISTS = 20  # lists in a folder, of which more may belong to single images
LEGEND_BYTES = 4096  # largest file that is compared with others of its name; longer ones may list images
IMPORTED = {".json", ".xml", ".geojson"}
ANNOTATION = re.compile(rb'"categories"|"shapes"|"Feature|"result"|<annotation')  # in files that `data import` reads
CVAT_LIST = Path("ImageSets/Segmentation/default.txt")


class FolderLayout(NamedTuple):
    """Locations of custom data."""

    images: Path  # folder or pattern of all images
    masks: Path
    matched: Mapping[str, Matched]  # split → pairs, if folders define the splits; otherwise "" → pairs
    names: Mapping[Path, str]  # image → its path in the folder of images or of its split, without suffix
    lists: Mapping[str, Path] = MappingProxyType({})  # split → file that lists its images, or folder that contains them
    classes: Path | None = None  # file of the class names
    only: Path | None = None  # CVAT's list of annotated images
    class_files: tuple[Path, ...] = ()  # files that may define the classes
    descriptions: tuple[Path, ...] = ()  # files that may describe the data
    unused: tuple[str, ...] = ()  # notes about tables of the images, if neither lists nor folders define the splits

    @property
    def divided(self) -> bool:
        """Whether folders of both images and masks define the splits."""
        return "" not in self.matched

    @property
    def hint(self) -> str:
        """Note about files that may define the classes or describe the data; empty if there are none."""
        note = "may define the classes: give names as data.classes, colours as data.palette, void values as data.ignore"
        found = [(self.class_files, note), (self.descriptions, "may describe the data")]
        return "; ".join(f"{few(files)} {what}" for files, what in found if files)


def recognise(root: Path, given: Collection[str] = ()) -> dict[str, Any]:
    """Return the `data.*` settings for a folder; `given` are keys of the settings that the user gave."""
    if not root.is_dir():
        what = "not a folder" if root.exists() else "missing"
        raise CrispsegError(f"{root} is {what}; give a folder of data, a run, a YAML file or data.name with its keys")
    for entry in catalogue().values():
        for mark in entry.marks:
            holds, lacks = (any(root.glob(path)) for path in mark["holds"]), map(root.glob, mark.get("lacks", ()))
            if all(holds) and not any(map(any, lacks)):
                return {"name": entry.name, "root": str(root), **mark.get("keys", {})}
    chosen = {"images", "masks", "instances"} & {key.removeprefix("data.") for key in given}
    places, choices = ([], []) if chosen else rivals(root, own_layout(root))
    if places:
        remedy = "give one of each as data.images and data.masks, as patterns such as x/*_t1.tif if names differ"
        remedy += "" if choices else ", or move each kind to a folder"
        inner = Counter(one.parent for one in listing(root) if not (split_of(one.name) or OTHERS.search(one.name)))
        used = {file.parent.parent for place in places for file in pictures(Path(place))}
        if of_classes := sorted(one for one in inner.keys() - used if one.name in MASK_FOLDERS and inner[one] > 1):
            remedy += f"; {few(of_classes)} may contain a folder for each class: {MERGE}"
        remedy += "; each command takes a part of the images" * (len({one.get("data.images") for one in choices}) > 1)
        found = f"{few(places, 12)}; it contains {described(root)}"
        raise CrispsegError(f"{root} has several images or masks: {found}; {remedy}", settings=choices)
    return {"name": "folder", "root": str(root)}


def unwrapped(root: Path) -> Path:
    """Return the innermost of folders that contain one folder only, as after unpacking an archive."""
    inside = [path for path in root.glob("[!.]*") if path.name != "__MACOSX"]
    return unwrapped(inside[0]) if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink() else root


def rivals(root: Path, layout: FolderLayout) -> tuple[list[Path] | list[str], list[dict[str, str]]]:
    """Return all places of images and masks if those of a layout also match others, and settings that choose.

    Both are empty otherwise. Folders whose masks are all the same are last.
    """
    if layout.images == layout.masks:
        found = by_ending(layout.images, *apart(pictures(layout.images)))
        return [reading["data.masks"] for reading in found], [reading for reading in found if "data.images" in reading]
    image_of, mask_of = pictures(layout.images), pictures(layout.masks)
    images, masks = set(layout.names), {*mask_of}
    every = sorted(readings(root), key=lambda reading: nearly_same(sorted(reading[1].files)))
    same = [(images.isdisjoint(one.files), masks.isdisjoint(other.files), one.usual) for one, other in every]
    if any(image < mask or (mask < image and usual) for image, mask, usual in same):
        return [*dict.fromkeys(place.path for reading in every for place in reading)], settings(every)
    others = other_masks(image_of, mask_of, root)
    return ([layout.images, layout.masks, *others] if others else []), []


def own_layout(
    root: Path | None,
    images: Path | None = None,
    masks: Path | None = None,
    lists: Mapping[str, Path] = MappingProxyType({}),
) -> FolderLayout:
    """Return the layout of the data below `root`; given folders are not searched for.

    Given lists take precedence over split folders, and these over lists that are found. An unknown layout raises a
    `CrispsegError`.
    """
    found_lists = dict(lists)
    if root is not None:
        usual = _first(root, IMAGE_FOLDERS), _first(root, MASK_FOLDERS)
        if images is None and masks is None and not all(map(Path.is_dir, usual)):
            usual = _searched(root, usual[0])
        images, masks = images or usual[0], masks or usual[1]
        places = [root / CVAT_LIST.parent, root / "splits", root / "split", root]  # the last wins
        own = {split: path for place in places for split in SPLITS if (path := place / f"{split}.txt").is_file()}
        found_lists = own | found_lists
    assert images is not None and masks is not None
    layout = _matched(images, masks, bool(lists))
    classes = root / "classes.txt" if root is not None and (root / "classes.txt").is_file() else None
    divided = layout.divided or layout.lists or found_lists
    top = unwrapped(root) if root else next(path for path in images.parents if not is_pattern(path))
    inner = [top, *sorted(top.glob("*/"))]
    legends = map(legend_files, dict.fromkeys([*inner[: None if root else 1], masks, masks.parent]))
    return layout._replace(
        unused=layout.unused if divided else tuple(unused_splits(top, layout.names, listing(top) if root else inner)),
        lists=layout.lists or found_lists,
        classes=classes,
        only=listed if (listed := images.parent / CVAT_LIST).is_file() else None,
        class_files=tuple(file for files in legends if len(files) < 5 for file in files),  # more are of single images
        descriptions=tuple(file for file in sorted(top.glob("*")) if NOTES.fullmatch(file.name) and file.is_file()),
    )


def _first(root: Path, names: tuple[str, ...]) -> Path:
    """Return the first folder of these names in upper or lower case, with images if there is one, or the first path."""
    there = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()} if root.is_dir() else {}
    found = [there[name] for name in names if name in there]
    return next(filter(pictures, found), found[0] if found else root / names[0])


def unused_splits(root: Path, names: Mapping[Path, str], places: Iterable[Path]) -> list[str]:
    """Return notes about tables in a folder and lists in `places` that name its images, and about splits in names."""
    stems = {file.stem for file in names}
    named = [(file.stem, PurePosixPath(name).name, file.parent.name) for file, name in names.items()]  # of a video
    write, notes = f"write the names of each split to train.txt, val.txt and test.txt in {root}", []
    splits = [found[1].lower() for stem in stems if (found := SPLIT_IN_NAME.match(stem))]
    if len(splits) == len(stems) and len({*splits}) > 1:
        parts = few(sorted({*splits}))
        notes.append(f"names of images contain {parts}, which does not divide the images; if it should, {write}")
    tables = {file for file in root.glob("*") if file.suffix.lower() in (".csv", ".tsv", ".json", ".yaml", ".yml")}
    for folder in places:
        lists = {file for end in ("*.csv", "*.txt") for file in folder.glob(end) if LIST.search(file.stem)}
        tables |= lists if len(lists) <= MOST_LISTS else {file for file in lists if LIST.fullmatch(file.stem)}
    for file in sorted(tables):
        is_text, inner = file.suffix == ".txt", file.suffix == ".csv" and file.parent != root
        if file.is_file() and os.access(file, os.R_OK) and file.stat().st_size <= LIST_BYTES and file.stem not in stems:
            words = re.split(r"""[\r\n\t,;:"'/\\\[\]{}]+""", file.read_text("utf-8", "replace"))
            words += [AFTER_NAME.sub("", word) for word in words if len(word) < 256]
            listed_names = {re.sub(r"\.[a-z]\w{1,4}$", "", word.strip(), flags=re.I) for word in words}
            listed_names |= {re.sub(r"[_-][^_-]+$", "", word) for word in listed_names}  # as x_S1 for x_S2 or x
            listed_names -= {"", *filter(str.isdecimal, listed_names if inner else ())}  # numbers may be any results
            listed = sum(not listed_names.isdisjoint(each[: 3 if is_text else 2]) for each in named)
            lists_images = listed > 1 and (2 * listed >= len(named) or LIST.fullmatch(file.stem))
            by_others = file.suffix.lower() in (".yaml", ".yml") and LIST.search(file.stem)  # by numbers or other names
            if lists_images or by_others or ("split" in file.stem.lower() and not inner):
                usable = lists_images and is_text
                remedy = "give data.train_list, data.val_list or data.test_list" if usable else write
                does = "lists images" if lists_images else "may divide the images"
                notes.append(f"{file} {does} and is not used; if it has splits or patients, {remedy}")
    return notes


def legend_files(root: Path) -> list[Path]:
    """Return the files in a folder that may define the classes, by their names."""
    return [path for path in sorted(root.glob("*")) if LEGEND.fullmatch(path.name) and path.name != "classes.txt"]


def _searched(root: Path, images: Path) -> tuple[Path, Path]:
    """Return the places of images and masks, by common folder names or because masks are next to images."""
    found = readings(root, usual=True)
    if len(found) == 1:
        one, other = found[0]
        stems = [file.stem for file in one.files]
        split = by_split(one.path, one.files).keys() != {""}
        if split or not is_pattern(one.path) or len({*stems}) == len(stems):  # otherwise one may be a copy of the other
            return one.path, other.path
    there = images if images.is_dir() else root
    images_there, masks_there = ({plain(name) for name in side.values()} for side in apart(pictures(there)))
    if not images_there.isdisjoint(masks_there):
        return there, there
    what = "contains images, but no masks" if images.is_dir() else "has no known layout"
    remedy = annotated(root) + (
        "; images and masks may be in images and masks, train/images and train/masks, train_images and train_masks, or "
        "a_mask.png next to a.jpg; or give data.images and data.masks, which may be patterns such as x/*_t1.tif and "
        f"x/*_seg.tif; {MERGE}"
    )
    if found := readings(root) or endings(root):
        places = " and ".join(str(place.path) for place in found[0])
        remedy = f"{annotated(root)}; give data.images and data.masks, such as {places}"
        remedy += f"; {MERGE}" * any(one.path == found[0][0].path for one, _ in found[1:])
        remedy += "; each command takes a part of the images" * any(one.path != found[0][0].path for one, _ in found)
    holds = described(root) or "no images"
    raise CrispsegError(f"{root} {what}; it contains {holds}{remedy}", settings=settings(found))


def _matched(images: Path, masks: Path, listed: bool) -> FolderLayout:
    """Match the files of two places, by split unless lists are given."""
    try:
        image_of, mask_of = _files(images, masks)
    except CrispsegError as error:
        return FolderLayout(images, masks, {"": Matched(error=error)}, {})
    images_in, masks_in = by_split(images, image_of), by_split(masks, mask_of)
    both = (images_in.keys() & masks_in.keys()) - {""}
    every = masks_in | images_in
    parents = {split: [file.parent for file in every[split]] for split in SPLITS if split in every}
    folders = {split: Path(os.path.commonpath(paths)) for split, paths in parents.items()}
    if not listed and (len(both) > 1 or (both and "" not in masks_in)):
        for split in [*folders]:  # test images may have no masks; in a shared folder, other splits too
            if split not in masks_in and (split == "test" or images == masks):
                del folders[split]
        sides = {split: (images_in.get(split, {}), masks_in.get(split, {})) for split in folders}
        names = {file: name for part in images_in.values() for file, name in part.items()}
        matched = {split: match(*side, images, masks) for split, side in sides.items()}
        rest = match(images_in.get("", {}), masks_in.get("", {}), images, masks).pairs
        remedy = "; to use them, name their folders train, val or test, or give data.train_list and data.val_list"
        note = f"images in no split: {few((pair.image for pair in rest.values()), 1)}{remedy}"
        return FolderLayout(images, masks, matched, names, folders, unused=(note,) * bool(rest))
    by_images = masks_in.keys() == {""} and "train" in images_in and all("/" in name for name in image_of.values())
    if listed or not by_images:  # a test folder may be next to others that are no split
        folders = {"test": folders["test"]} if both == {"test"} and not listed else {}
    elif "val" not in folders:  # val is a share of the train images
        del folders["train"]
    return FolderLayout(images, masks, {"": match(image_of, mask_of, images, masks)}, image_of, folders)


def _files(images: Path, masks: Path) -> tuple[dict[Path, str], dict[Path, str]]:
    """Return the files of two places with their names; files in both belong to the place with fewer files.

    In a shared folder, masks are recognised by names such as a_mask.png; otherwise all but JPEGs are masks.
    """
    if images.is_file() and masks.is_file():
        return {images: images.stem}, {masks: images.stem}
    image_of, mask_of = pictures(images), pictures(masks)
    for place, files in ((images, image_of), (masks, mask_of)):
        if not files:
            raise CrispsegError(f"{place} contains no images, {', '.join(sorted(SUFFIXES))}{annotated(place)}")
    if images.resolve() == masks.resolve():
        image_of, mask_of = apart(image_of)
        if not image_of or not mask_of:
            raise CrispsegError(f"{images} is the folder of images and of masks; name the mask of a.jpg a_mask.png")
    if len(image_of) <= len(mask_of):
        return image_of, {file: name for file, name in mask_of.items() if file not in image_of}
    return {file: name for file, name in image_of.items() if file not in mask_of}, mask_of


def annotated(folder: Path) -> str:
    """Return a remedy for a folder of annotations that are not images, as the end of an error; otherwise ""."""
    suffixes = {suffix for counts in listing(folder).values() for suffix in counts}
    tables = [file for file in folder.glob("*.csv") if file.is_file() and b"EncodedPixels" in file.read_bytes()[:999]]
    polygons = next(yolo_files(folder), None)
    root = shlex.quote(str((polygons and yolo_root(polygons)) or folder))
    imports = f"'crispseg data import {root} -o {root}_masks' makes masks of its annotations"
    unread = sorted(suffixes & {".npy", ".npz", ".mat"}) or tables
    if unread and not polygons:
        remedy = "save each mask as a PNG of class ids, with 255 for ignored pixels"
        return f"; {few(unread)} cannot be read as masks: {remedy}"
    files = [
        file for suffix in IMPORTED & suffixes for file in islice(folder.rglob(f"*{suffix}"), 20) if file.is_file()
    ]
    known = (file.stat().st_size > LIST_BYTES or ANNOTATION.search(file.read_bytes()) for file in files)
    return f"; {imports}" if polygons or any(known) else ""
