"""Duplicates within a split, which may be wrong, and across splits, which inflate scores."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from crispseg.data.copies import alike, consecutive, group_of, likely_group, original, sharing, together
from crispseg.data.dataset import SegmentationDataset
from crispseg.data.finding import Finding, Severity
from crispseg.data.folder import Folder
from crispseg.data.mask_lookup import MaskStatistics
from crispseg.doctor.facts import PairScan, Subject, scan
from crispseg.doctor.findings import file_findings, finding
from crispseg.doctor.outlines import outline_findings
from crispseg.folders.facts import ImageFacts

Member: TypeAlias = tuple[str, str]  # split and file of an image

SAID = {"turned-images", "positions-differ", "unfitting-masks", "not-labelled", "same-masks"}
SAID |= {"contradicting-masks"}  # codes of findings that training prints


def leaks(subject: Subject) -> list[str]:
    """Return lines about images of custom data that splits share, with two examples each, or that only EXIF rotates.

    Further lines are about masks that seem to be interpolated, or that do not fit their images.
    """
    if not isinstance(subject.source, Folder):  # the splits of public data are known
        return []
    lines, reading, facts = [], subject.source.reading, scan(subject, sampled=True)
    of_files = *file_findings(facts), *outline_findings(facts)
    for one in (*duplicate_findings(subject, facts), *of_files):
        soft = one.code == "interpolated-edges" and one.severity is Severity.WARNING and not reading.lookup.tolerance
        if one.count and (soft or "splits" in one.code or one.code in SAID):
            lines += [one.line, *(f"    {group[0]} = {group[-1]}" for group in one.details.get("groups", ())[:2])]
    return lines


def duplicate_findings(subject: Subject, facts: Sequence[PairScan]) -> Iterator[Finding]:
    """Yield findings about shared pixels, copies, masks and groups; files count if in `facts`, and names always."""
    images = {_member(one): one.image for one in facts if isinstance(one.image, ImageFacts)}
    masks = {_member(one): one.mask for one in facts if isinstance(one.mask, MaskStatistics)}
    pixels = {member: image.digest for member, image in images.items() if not image.constant}
    wanted = getattr(subject.source, "train_on", "") == "trainval"
    yield _grouped("image-in-two-splits", _across(pixels), subject, severity=Severity.INFORMATION if wanted else None)
    within = _groups({member: (member[0], digest) for member, digest in pixels.items()})
    yield _grouped("duplicate-image", within, subject)
    twice = [group for group in _groups(pixels) if len({masks[one].digest for one in group if one in masks}) > 1]
    yield _grouped("contradicting-masks", twice, subject)

    own = subject.source if isinstance(subject.source, Folder) else None
    pairs = {_member(one): one.pair for one in facts}
    for split, items in subject.splits.items():
        if not isinstance(items, SegmentationDataset):
            pairs |= {(split, str(pair.image)): pair for pair in items}
    places = {member: own.place(pair) if own else PurePosixPath(pair.name) for member, pair in pairs.items()}
    again = {places[group[0]] for group in _across(places)}  # names repeat in the folders of the splits
    names = {member: original(place) for member, place in places.items() if place not in again}
    copies = together(pairs, names, {member: digest[:-1] for member, digest in pixels.items()})
    copied = [group for group in _across(copies) if len({pixels.get(member, member) for member in group}) > 1]
    near = [(one, other) for one, other in _pairs(subject, images, alike) if copies[one] != copies[other]]
    yield _grouped("copies-in-two-splits", [*copied, *near], subject)
    yield _grouped("tiles-in-two-splits", [*_pairs(subject, images, sharing)], subject)
    alone = together(pairs, copies, pairs=near)
    same = _across({member: mask.digest for member, mask in masks.items() if mask.distinct > 1})
    yield _grouped("mask-in-two-splits", [one for one in same if len({alone[member] for member in one}) > 1], subject)
    if own and (pattern := own.group or likely_group(places.values())):
        groups = {member: group for member, place in places.items() if (group := group_of(pattern, place))}
        found = _parts(own, subject, pattern, groups)
        yield found
        if found.count:
            return
    if own:
        yield _next_to_each_other(subject, places, images)


NEIGHBOURS = 0.1  # smallest share of the images of a split next to those of an earlier one; blocks of a video have few


def _next_to_each_other(
    subject: Subject, places: Mapping[Member, PurePosixPath], images: Mapping[Member, ImageFacts]
) -> Finding:
    """Return the finding of images of two splits that are consecutive in a sequence."""
    members = [*images]  # split by split
    found = consecutive([places[member] for member in members], [images[member] for member in members])
    pairs = [(members[one], members[other]) for one, other in map(sorted, found)]
    pairs = [pair for pair in pairs if pair[0][0] != pair[1][0]]
    later = Counter(split for split, _ in {pair[1] for pair in pairs})
    kept = [pair for pair in pairs if later[pair[1][0]] >= NEIGHBOURS * len(subject.splits[pair[1][0]])]
    return _grouped("neighbours-in-two-splits", kept, subject)


def _parts(own: Folder, subject: Subject, pattern: str, groups: Mapping[Member, str]) -> Finding:
    """Return the finding of groups in several splits, and settings that keep each group in train or val."""
    train, val = ({group for (split, _), group in groups.items() if split == one} for one in ("train", "val"))
    settings: dict[str, object] = {}
    sizes = Counter(groups.values())
    if train & val and len(train | val) > 2 and 2 * max(sizes.values()) <= sizes.total():
        settings = {"data.group": pattern} | ({} if own.drawn else {"data.folds": min(5, len(train | val))})
    given = " and ".join(f"{key} {shlex.quote(str(value))}" for key, value in settings.items())
    given = given and f"; {given} would keep each in train or val"
    leaked = sum(split == "val" and group in train for (split, _), group in groups.items())
    severity = Severity.WARNING if own.group or 2 * leaked >= len(subject.splits.get("val", ())) > 0 else None
    found = _grouped("parts-in-two-splits", _across(groups), subject, severity=severity, pattern=pattern, given=given)
    return replace(found, details={**found.details, "settings": [settings] if settings else []})


def _member(one: PairScan) -> Member:
    return one.split, str(one.pair.image)


def _groups(keys: Mapping[Member, Hashable]) -> list[list[Member]]:
    """Return the groups of members that share a key, sorted by split."""
    groups: dict[Hashable, list[Member]] = defaultdict(list)
    for member, key in keys.items():
        groups[key].append(member)
    return [group for group in groups.values() if len(group) > 1]


def _across(keys: Mapping[Member, Hashable]) -> list[list[Member]]:
    """Return the groups of members of several splits that share a key."""
    return [group for group in _groups(keys) if len({split for split, _ in group}) > 1]


def _pairs(
    subject: Subject,
    images: Mapping[Member, ImageFacts],
    related: Callable[[Sequence[ImageFacts], Sequence[ImageFacts]], list[tuple[int, int]]],
) -> Iterator[tuple[Member, Member]]:
    """Yield related images across splits, the image of the earlier split first."""
    earlier: list[Member] = []
    for split in subject.splits:
        own = [member for member in images if member[0] == split]
        found = related([images[member] for member in own], [images[member] for member in earlier])
        yield from {own[i]: (earlier[j], own[i]) for i, j in reversed(found)}.values()
        earlier += own


def _grouped(code: str, groups: Sequence[Sequence[Member]], subject: Subject, **more: Any) -> Finding:
    files = [[file for _, file in group] for group in groups]
    later = Counter(split for split, _ in {one for group in groups for one in group if one[0] != group[0][0]})
    shares = ", ".join(f"{count} of {len(subject.splits[split])} in {split}" for split, count in later.items())
    more["where"] = f" ({shares})" if shares else ""
    return finding(code, chain(*files), count=len(files), details={"groups": files}, **more)
