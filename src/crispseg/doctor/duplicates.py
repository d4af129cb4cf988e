"""Findings about what images share: duplicates within and between splits, masks that many images have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from crispseg.data.mask_reading import Severity
from crispseg.doctor.facts import ImageFacts, MaskFacts, PairFacts, readable
from crispseg.doctor.kinds import Finding, finding
from crispseg.doctor.subject import Subject

NEAR = 0.03
"""Thumbnails whose rms difference is under this share of their contrast show the same picture.

JPEG compression and resizing stay under it, and so may two neighbouring frames of a video.
"""

LEAST_CONTRAST = 4.0
"""Standard deviation of a thumbnail, of 255 levels, under which there is too little to compare."""


def duplicate_groups(facts: Sequence[PairFacts]) -> list[list[PairFacts]]:
    """Pairs whose decoded images are equal; images of one colour are no duplicates."""
    groups: dict[bytes, list[PairFacts]] = defaultdict(list)
    for one in facts:
        if isinstance(one.image, ImageFacts) and not one.image.constant:
            groups[one.image.digest].append(one)
    return [group for group in groups.values() if len(group) > 1]


def mask_digests(group: Iterable[PairFacts]) -> set[bytes]:
    """The different masks of some pairs, those that can be read."""
    return {one.mask.statistics.digest for one in group if isinstance(one.mask, MaskFacts)}


def duplicate_findings(subject: Subject, facts: Sequence[PairFacts]) -> list[Finding]:
    """The same image twice, the same mask for different images, and one image with two masks."""
    equal, near = duplicate_groups(facts), near_duplicates(facts)
    within = [[one for one in group if one.split == split] for group in equal for split in subject.splits]
    shared = _shared_masks(facts, {frozenset((a.image_file, b.image_file)) for a, b in near})
    wanted = getattr(subject.source, "train_on", "") == "trainval"
    return [
        _grouped(
            "image-in-two-splits",
            [group for group in equal if len({one.split for one in group}) > 1],
            severity=Severity.INFORMATION if wanted else None,
        ),
        _grouped("duplicate-image", [group for group in within if len(group) > 1]),
        _grouped("contradicting-masks", [group for group in equal if len(mask_digests(group)) > 1]),
        _grouped("near-duplicate", [(a, b) for a, b in near if a.split != b.split], where="different splits"),
        _grouped(
            "near-duplicate",
            [(a, b) for a, b in near if a.split == b.split],
            severity=Severity.INFORMATION,
            where="one split",
        ),
        finding("shared-mask", chain(*shared), details={"groups": shared}),
    ]


def _grouped(code: str, groups: Iterable[Sequence[PairFacts]], **more: Any) -> Finding:
    """A finding that counts groups of images."""
    files = [[one.image_file for one in group] for group in groups]
    return finding(code, chain(*files), count=len(files), details={"groups": files}, **more)


def near_duplicates(facts: Sequence[PairFacts]) -> list[tuple[PairFacts, PairFacts]]:
    """Pairs of different images that hardly differ, as thumbnails; of equal images the first stands for all.

    Images are sorted by mean brightness. A difference of means is a lower bound of the rms difference, so each image
    is compared with the few that follow it within the bound.
    """
    unique: dict[bytes, tuple[PairFacts, ImageFacts]] = {}
    for one in facts:
        if isinstance(one.image, ImageFacts):
            unique.setdefault(one.image.digest, (one, one.image))
    if len(unique) < 2:
        return []
    owners = [one for one, _ in unique.values()]
    thumbnails = np.stack([image.thumbnail for _, image in unique.values()]).astype(np.float32)  # (images, 192)
    order = np.argsort(thumbnails.mean(axis=1), kind="stable")
    order = order[thumbnails[order].std(axis=1) >= LEAST_CONTRAST]
    thumbnails = thumbnails[order]
    means, bounds = thumbnails.mean(axis=1), NEAR * thumbnails.std(axis=1)
    found = []
    for index, end in enumerate(np.searchsorted(means, means + bounds, side="right")):
        others = slice(index + 1, end)
        rms = np.sqrt(np.square(thumbnails[others] - thumbnails[index]).mean(axis=1))
        for near in np.flatnonzero(rms <= np.minimum(bounds[others], bounds[index])):
            first, second = sorted((order[index], order[index + 1 + near]))
            found.append((owners[first], owners[second]))
    return sorted(found, key=lambda pair: (pair[0].image_file, pair[1].image_file))


def _shared_masks(facts: Sequence[PairFacts], near: set[frozenset[str]]) -> list[list[str]]:
    """Groups of masks that are one, for images that neither are nor look the same."""
    groups: dict[bytes, dict[bytes, PairFacts]] = defaultdict(dict)
    for one, image, mask in readable(facts):
        if mask.statistics.distinct > 1:
            groups[mask.statistics.digest].setdefault(image.digest, one)
    return [
        [one.mask_file for one in (first, *others)]
        for first, *others in (list(group.values()) for group in groups.values())
        if others and not any(frozenset((first.image_file, one.image_file)) in near for one in others)
    ]
