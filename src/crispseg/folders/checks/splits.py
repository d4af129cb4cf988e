"""Checks of images that splits share, or that a split has more than once."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from crispseg.folders.examined import Examined
from crispseg.folders.finding import Finding, Severity, finding_of
from crispseg.folders.groups import group_of, likely_group, original, together

Member: TypeAlias = tuple[str, str]  # split and file of an image
Groups: TypeAlias = list[list[Member]]


def image_in_two_splits(data: Examined) -> Finding | None:
    severity = Severity.INFORMATION if data.shared_on_purpose else None
    return grouped("image-in-two-splits", data, across(digests(data)), severity)


def copies_in_two_splits(data: Examined) -> Finding | None:
    """Copies by the names of augmentation tools, or by mirrored or rotated pixels."""
    pixels = digests(data)
    turned = {member: digest[:-1] for member, digest in pixels.items()}
    copies = together([*places(data)], originals(data), turned)
    different = [group for group in across(copies) if len(keys_of(group, pixels)) > 1]
    return grouped("copies-in-two-splits", data, different)


def keys_of(group: Sequence[Member], keys: Mapping[Member, Hashable]) -> set[Hashable]:
    """Return the different keys in a group; members without a key differ from all others."""
    return {keys.get(member, member) for member in group}


def parts_in_two_splits(data: Examined) -> Finding | None:
    """Groups of images, such as slices of one patient; a warning if the user named them, or for half of val."""
    pattern = data.group or likely_group(places(data).values())
    if pattern is None:
        return None
    group_names = {member: group_of(pattern, place) for member, place in places(data).items()}
    groups = {member: group for member, group in group_names.items() if group}
    in_train = {group for (split, _), group in groups.items() if split == "train"}
    leaked = sum(split == "val" and group in in_train for (split, _), group in groups.items())
    half = 2 * leaked >= data.sizes.get("val", 0) > 0
    severity = Severity.WARNING if data.group or half else None
    return grouped("parts-in-two-splits", data, across(groups), severity, pattern=shlex.quote(pattern))


def duplicate_image(data: Examined) -> Finding | None:
    within = {member: (member[0], digest) for member, digest in digests(data).items()}
    return grouped("duplicate-image", data, groups_of(within))


def contradicting_masks(data: Examined) -> Finding | None:
    """Equal images, in any split, with different masks."""
    digest_of = {(pair.split, str(pair.pair.image)): pair.mask.digest for pair in data.survey.readable}
    groups = groups_of({member: digest for member, digest in digests(data).items() if member in digest_of})
    contradicting = [group for group in groups if len(keys_of(group, digest_of)) > 1]
    return grouped("contradicting-masks", data, contradicting)


def digests(data: Examined) -> dict[Member, bytes]:
    """Return the hash of each readable image; images of one colour are not compared."""
    images = {path: image for path, image in data.survey.images.items() if not image.constant}
    pairs = data.survey.pairs
    return {(split, str(pair.image)): images[pair.image].digest for split, pair in pairs if pair.image in images}


def places(data: Examined) -> dict[Member, PurePosixPath]:
    """Return the path of each image in the folder of images, without suffix."""
    pairs, known = data.survey.pairs, data.places
    return {(split, str(pair.image)): known.get(pair.image, PurePosixPath(pair.name)) for split, pair in pairs}


def originals(data: Examined) -> dict[Member, PurePosixPath]:
    """Return the path of the original of each image; names that repeat in the folders of the splits are left out."""
    place_of = places(data)
    repeated = {place_of[group[0]] for group in across(place_of)}
    return {member: original(place) for member, place in place_of.items() if place not in repeated}


def groups_of(keys: Mapping[Member, Hashable]) -> Groups:
    """Return the groups of members that share a key, sorted by split."""
    groups: dict[Hashable, list[Member]] = defaultdict(list)
    for member, key in keys.items():
        groups[key].append(member)
    return [group for group in groups.values() if len(group) > 1]


def across(keys: Mapping[Member, Hashable]) -> Groups:
    """Return the groups of members of several splits that share a key."""
    return [group for group in groups_of(keys) if len(dict(group)) > 1]


def grouped(
    code: str,
    data: Examined,
    groups: Sequence[Sequence[Member]],
    severity: Severity | None = None,
    **values: Any,
) -> Finding | None:
    """Return a finding of groups, with the number of images in later splits."""
    files: list[list[str]] = []
    later: set[Member] = set()
    for group in groups:
        files.append([file for _, file in group])
        later |= {member for member in group if member[0] != group[0][0]}
    counts = Counter(split for split, _ in later)
    shares = [f"{count} of {data.sizes[split]} in {split}" for split, count in counts.items()]
    where = f" ({', '.join(shares)})" if shares else ""
    return finding_of(code, chain(*files), severity, count=len(files), groups=files, where=where, **values)


SPLIT_CHECKS = [
    image_in_two_splits,
    copies_in_two_splits,
    parts_in_two_splits,
    duplicate_image,
    contradicting_masks,
]
