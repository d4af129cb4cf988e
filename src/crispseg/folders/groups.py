"""Images that belong together, such as the slices of a patient, by their names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeVar

from scipy.cluster.hierarchy import DisjointSet

from crispseg.errors import CrispsegError, few
from crispseg.folders.facts import read_image_facts
from crispseg.folders.survey import read_facts

Item = TypeVar("Item")

GROUP_PATTERNS = ("{*}_*", "{*}-*", "{*}/*")  # patient_slice, patient-slice, patient/slice

_CHANGE = (
    r"(?:aug(?:mented)?[-_]?\d{0,3}|[hv]?flip(?:ped)?(?:[-_](?:lr|ud|h|v))?|mirror(?:ed)?"
    r"|rot(?:ated)?[-_]?(?:90|180|270))"
)
_COPY = re.compile(rf"(?<=.)(?:[-_]{_CHANGE}|(?:_(?:jpe?g|png))?\.rf\.\w+)+$|^(?:{_CHANGE}[-_])+(?=.)", re.IGNORECASE)
"""Name affixes of augmentation tools: a_aug_3, a_flip, a_rot90 and Roboflow's a_jpg.rf.3f2a."""


def group_of(pattern: str, place: PurePosixPath) -> str | None:
    """Return the group of an image by its path in the folder of images, without suffix, or None.

    Args:
        pattern: `folder` for the sub-folder; or a pattern of the file name, or of the path if it contains a slash. The
            group is the shortest text of {*}, else the longest of the first *. Any other * matches anything, and [LR]
            one of these letters.
    """
    pattern = "*/*" if pattern == "folder" else pattern
    mark, group = ("{*}", "(.+?)") if "{*}" in pattern else ("*", "(.+)")
    before, _, after = pattern.partition(mark)
    match = re.fullmatch(_regex(before) + group + _regex(after), str(place) if "/" in pattern else place.name)
    return match and match[1]


def _regex(pattern: str) -> str:
    return re.sub(r"\\\[(\w+)\\\]", r"[\1]", re.escape(pattern)).replace(r"\*", ".*")


def likely_group(places: Iterable[PurePosixPath]) -> str | None:
    """Return the first of `GROUP_PATTERNS` that gives several groups, of two images or more on average, or None."""
    places = list(places)
    for pattern in GROUP_PATTERNS:
        sizes = Counter(group_of(pattern, place) for place in places)
        if None not in sizes and 1 < len(sizes) <= len(places) / 2:
            return pattern
    return None


def original(place: PurePosixPath) -> PurePosixPath:
    """Return the path of the original of an augmented copy; the same path for any other image.

    >>> str(original(PurePosixPath("cells/a_flip_aug_3"))), str(original(PurePosixPath("parrot_12")))
    ('cells/a', 'parrot_12')
    """
    return place.with_name(_COPY.sub("", place.name))


def together(items: Iterable[Item], *keys: Mapping[Item, object]) -> dict[Item, Item]:
    """Return the representative of each item; items that are connected by keys share one."""
    sets = DisjointSet(items)
    for key in keys:
        first: dict[object, Item] = {}
        for item, value in key.items():
            sets.merge(first.setdefault(value, item), item)
    return {item: sets[item] for item in sets}


def groups_by(pattern: str, places: Mapping[str, PurePosixPath]) -> dict[str, str]:
    """Return the group of each image by a pattern of `group_of`, without those that it does not match.

    A `CrispsegError` is raised if it matches none.
    """
    matches = {name: group_of(pattern, place) for name, place in places.items()}
    groups = {name: group for name, group in matches.items() if group}
    if matches and not groups:
        images = f"'{pattern}', which matches no image, such as {few(matches, 2)}"
        raise CrispsegError(f"is {images}; correct it, or leave it out", "data.group")
    return groups


def digests(images: Mapping[str, Path]) -> dict[str, object]:
    """Return a key of the pixels of each image, the same for mirrored and rotated ones; none for images of one colour.

    Files that cannot be read have none either.
    """
    facts, _ = read_facts("image", read_image_facts, images.values())
    readable = {name: facts[file] for name, file in images.items() if file in facts}
    return {name: image.digest[:-1] for name, image in readable.items() if not image.constant}


def undivided(
    images: Mapping[str, Path], places: Mapping[str, PurePosixPath], pattern: str | None, copies: str
) -> dict[str, str]:
    """Return the representative of each image that is divided between splits; images that share one stay together.

    Errors are those of `groups_by`; a `CrispsegError` is also raised if the pattern makes one group of all.

    Args:
        images: files of the images by name.
        places: their paths in the folder of images, without suffix.
        pattern: pattern of `group_of`, whose groups stay together.
        copies: "names" keeps copies together that augmentation made, by their names; "pixels" also equal images.
    """
    keys: list[Mapping[str, object]] = [groups_by(pattern, places)] if pattern else []
    if copies != "none":
        repeated = len({*places.values()}) < len(images)  # names repeat in the folders of the splits
        keys.append({name: original(PurePosixPath(name) if repeated else places[name]) for name in images})
    if copies == "pixels":
        keys.append(digests(images))
    representatives = together(images, *keys)
    if len(images) < 2 or len({*representatives.values()}) > 1:
        return representatives
    if pattern:
        fault = f"'{pattern}', which makes one group of all {len(images)} images, {few(images, 2)}"
        raise CrispsegError(f"is {fault}; give a finer group, or choose images with data.val_list", "data.group")
    return {name: name for name in images}  # all are copies of one
