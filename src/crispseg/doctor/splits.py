"""Findings about what images share: duplicates within and between splits, masks that many images have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from crispseg.doctor.facts import ImageFacts, MaskFacts, PairFacts
from crispseg.doctor.kinds import Finding, Severity, finding, plural
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
        names = [one.image_file for one in group]
        splits = [one.split for one in group]
        if len(set(splits)) > 1:
            between.append(names)
        for split in dict.fromkeys(splits):
            same = [name for name, own in zip(names, splits, strict=True) if own == split]
            if len(same) > 1:
                within.append(same)
        if len({one.mask.digest for one in group if isinstance(one.mask, MaskFacts)}) > 1:
            contradicting.append(names)
    found = []
    for code, groups, message in (
        ("image-in-two-splits", between, f"{plural(len(between), 'picture', ('is', 'are'))} in more than one split"),
        ("duplicate-image", within, f"{plural(len(within), 'picture', ('is', 'are'))} in one split more than once"),
        (
            "contradicting-masks",
            contradicting,
            f"{plural(len(contradicting), 'picture', ('has', 'have'))} two or more different masks",
        ),
    ):
        if groups:
            files = [name for names in groups for name in names]
            found.append(finding(code, message, files, count=len(groups), groups=groups))
    if subject.val_in_train:
        found = [one.less() if one.code == "image-in-two-splits" else one for one in found]
    near = near_duplicates(facts)
    found += _near_findings(near)
    return found + _shared_masks(facts, {frozenset((a.image_file, b.image_file)) for a, b in near})


def near_duplicates(facts: Sequence[PairFacts]) -> list[tuple[PairFacts, PairFacts]]:
    """Pairs of different images that hardly differ, as thumbnails; of equal images the first stands for all.

    Images are sorted by mean brightness. A difference of means is a lower bound of the rms difference, so each image
    is compared with the few that follow it within the bound.
    """
    unique: dict[bytes, tuple[PairFacts, NDArray[np.uint8]]] = {}
    for one in facts:
        if isinstance(one.image, ImageFacts):
            unique.setdefault(one.image.digest, (one, one.image.thumbnail))
    if len(unique) < 2:
        return []
    thumbnails = np.stack([thumbnail for _, thumbnail in unique.values()]).astype(np.float32)  # (images, 192)
    contrast = thumbnails.std(axis=1)
    means = thumbnails.mean(axis=1)
    order = np.argsort(means, kind="stable")
    order = order[contrast[order] >= LEAST_CONTRAST]
    owners = [one for one, _ in unique.values()]
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


def _near_findings(near: list[tuple[PairFacts, PairFacts]]) -> list[Finding]:
    found = []
    for across in (True, False):
        groups = [[a.image_file, b.image_file] for a, b in near if (a.split != b.split) == across]
        if groups:
            where = "in different splits" if across else "in one split"
            one = finding(
                "near-duplicate",
                f"{plural(len(groups), 'pair')} of pictures {where} hardly differ",
                [name for names in groups for name in names],
                count=len(groups),
                severity=Severity.WARNING if across else Severity.INFORMATION,
                groups=groups,
            )
            found.append(one)
    return found


def _shared_masks(facts: Sequence[PairFacts], near: set[frozenset[str]]) -> list[Finding]:
    """One mask for images that neither are nor look the same."""
    groups: dict[bytes, dict[bytes, PairFacts]] = defaultdict(dict)
    for one in facts:
        if isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts) and one.mask.distinct > 1:
            groups[one.mask.digest].setdefault(one.image.digest, one)
    shared = []
    for group in groups.values():
        pairs = list(group.values())
        if len(pairs) > 1 and not any(frozenset((pairs[0].image_file, one.image_file)) in near for one in pairs[1:]):
            shared.append([one.mask_file for one in pairs])
    if not shared:
        return []
    files = [name for names in shared for name in names]
    message = f"{plural(len(files), 'image', ('has', 'have'))} a mask that another image has too"
    return [finding("shared-mask", message, files, groups=shared)]
