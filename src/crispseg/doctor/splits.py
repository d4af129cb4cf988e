"""Findings about what images share: duplicates within and between splits, masks that many images have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from crispseg.doctor.kinds import Finding, Severity, finding
from crispseg.doctor.scan import ImageFacts, MaskFacts, PairFacts, readable
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


def duplicate_findings(subject: Subject, facts: Sequence[PairFacts]) -> list[Finding]:
    """The same image twice, the same mask for different images, and one image with two masks."""
    between, within, contradicting = [], [], []
    for group in duplicate_groups(facts):
        by_split: dict[str, list[str]] = defaultdict(list)
        for one in group:
            by_split[one.split].append(one.image_file)
        if len(by_split) > 1:
            between.append([one.image_file for one in group])
        within += [files for files in by_split.values() if len(files) > 1]
        if len({one.mask.digest for one in group if isinstance(one.mask, MaskFacts)}) > 1:
            contradicting.append([one.image_file for one in group])
    near = near_duplicates(facts)
    across, beside = (
        [[a.image_file, b.image_file] for a, b in near if (a.split != b.split) is apart] for apart in (True, False)
    )
    shared = _shared_masks(facts, {frozenset((a.image_file, b.image_file)) for a, b in near})
    information = Severity.INFORMATION
    wanted = getattr(subject.source, "train_on", "") == "trainval"
    return [
        _grouped("image-in-two-splits", between, severity=information if wanted else None),
        _grouped("duplicate-image", within),
        _grouped("contradicting-masks", contradicting),
        _grouped("near-duplicate", across, where="different splits"),
        _grouped("near-duplicate", beside, where="one split", severity=information),
        _grouped("shared-mask", shared, count=sum(map(len, shared))),
    ]


def _grouped(code: str, groups: list[list[str]], **more: Any) -> Finding:
    """A finding that counts groups of files."""
    return finding(code, chain(*groups), details={"groups": groups}, **{"count": len(groups), **more})


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
    contrast = thumbnails.std(axis=1)
    means = thumbnails.mean(axis=1)
    order = np.argsort(means, kind="stable")
    order = order[contrast[order] >= LEAST_CONTRAST]
    found = []
    for step in range(1, len(order)):
        first, second = order[:-step], order[step:]
        bound = NEAR * np.minimum(contrast[first], contrast[second])
        close = means[second] - means[first] <= bound
        if not (means[second] - means[first] <= NEAR * contrast.max()).any():
            break
        first, second, bound = first[close], second[close], bound[close]
        rms = np.sqrt(np.square(thumbnails[first] - thumbnails[second]).mean(axis=1))
        found += [
            (owners[min(a, b)], owners[max(a, b)])
            for a, b in zip(first[rms <= bound], second[rms <= bound], strict=True)
        ]
    return sorted(found, key=lambda pair: (pair[0].image_file, pair[1].image_file))


def _shared_masks(facts: Sequence[PairFacts], near: set[frozenset[str]]) -> list[list[str]]:
    """Groups of masks that are one, for images that neither are nor look the same."""
    groups: dict[bytes, dict[bytes, PairFacts]] = defaultdict(dict)
    for one, image, mask in readable(facts):
        if mask.distinct > 1:
            groups[mask.digest].setdefault(image.digest, one)
    return [
        [one.mask_file for one in (first, *others)]
        for first, *others in (list(group.values()) for group in groups.values())
        if others and not any(frozenset((first.image_file, one.image_file)) in near for one in others)
    ]
