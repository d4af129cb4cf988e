"""Findings about single files and pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from crispseg.config.wording import plural
from crispseg.data.mask_reading import BLENDED, Severity
from crispseg.data.pairing import PairingKind
from crispseg.doctor.facts import ImageFacts, MaskFacts, PairFacts, Unreadable, files_of, readable
from crispseg.doctor.kinds import Finding, finding
from crispseg.doctor.subject import Subject
from crispseg.models.info import MIN_SIDE


def pairing_findings(subject: Subject) -> list[Finding]:
    """What did not pair."""
    found = [finding("in-no-split", subject.in_no_split)]
    for kind in get_args(PairingKind):
        files = dict.fromkeys(file for fault in subject.faults if fault.kind == kind for file in fault.files)
        found.append(finding(kind, files))
    for split, fault in subject.unavailable.items():
        reason, _, remedy = fault.rpartition("; ")
        found.append(finding("split-unavailable", count=1, remedy=remedy, split=split, reason=reason or remedy))
    return found


def file_findings(facts: Sequence[PairFacts], channels: int = 3) -> list[Finding]:
    """What is wrong with single files: unreadable, or odd in format."""
    # files that stand in two splits count once
    images = [*{one.image_file: one.image for one in facts if isinstance(one.image, ImageFacts)}.values()]
    masks = [*{one.mask_file: one.mask for one in facts if isinstance(one.mask, MaskFacts)}.values()]
    every: list[ImageFacts | MaskFacts] = [*images, *masks]
    wrong = [one for one in every if not one.header.suffix_fits]
    shown = ", ".join(sorted({f"{one.header.kind} in {Path(one.header.file).suffix}" for one in wrong}))
    return [
        *_unreadable(facts),
        *_image_findings(images, channels),
        *_mask_findings(masks),
        finding("wrong-suffix", files_of(wrong), shown=shown),
        finding("several-frames", files_of(one for one in every if one.header.frames > 1)),
    ]


def pair_findings(facts: Sequence[PairFacts]) -> list[Finding]:
    """What is wrong between an image and its mask."""
    turned, unclear = [], []
    differ: dict[str, str] = {}
    for one, image, mask in readable(facts):
        first, second = image.header.orientation, mask.header.orientation
        if image.size == mask.size:
            quarter = 1 in (first, second) and max(first, second) >= 5 and image.size[0] != image.size[1]
            if first != second and not quarter:  # of a quarter the sizes show that they fit
                unclear.append(one.image_file)
        elif needs_turning(image, mask):
            turned.append(one.image_file)
        elif needs_turning(mask, image):
            turned.append(one.mask_file)
        else:
            differ[one.mask_file] = f"{_size(mask.size)} but its image {_size(image.size)}"
    return [
        finding("sizes-differ", differ, first=next(iter(differ.values()), "")),
        finding("exif-rotation", turned),
        finding("exif-unclear", unclear),
    ]


def needs_turning(one: ImageFacts | MaskFacts, other: ImageFacts | MaskFacts) -> bool:
    """Whether EXIF turns one file of a pair by a quarter and not the other, which fits the first as it is stored."""
    return one.header.orientation >= 5 and other.header.orientation == 1 and one.size != other.size == one.header.stored


def _unreadable(facts: Sequence[PairFacts]) -> list[Finding]:
    broken: dict[str, dict[str, str]] = defaultdict(dict)
    for one in facts:
        for result, file in ((one.image, one.image_file), (one.mask, one.mask_file)):
            if isinstance(result, Unreadable):
                broken[result.code][file] = result.reason
    found = []
    for code, reasons in broken.items():
        first = next(iter(reasons.values())).rpartition("; ")[0]
        number = f"{plural(len(reasons), 'file')}; the first: " if len(reasons) > 1 else ""
        found.append(finding(code, reasons, details={"reasons": reasons}, reason=number + first))
    return found


def _image_findings(images: Sequence[ImageFacts], channels: int) -> list[Finding]:
    found = []
    if channels == 3:
        clear = files_of(one for one in images if one.header.alpha == "varying")
        opaque = files_of(one for one in images if one.header.alpha == "opaque")
        which = f"{len(clear)} with transparent pixels" if clear else "all opaque"
        severity = Severity.WARNING if clear else Severity.INFORMATION
        found.append(finding("image-alpha", clear + opaque, severity=severity, which=which))
        odd = [one for one in images if one.header.mode in ("CMYK", "LAB") or one.header.dropped]
        extra = {one.header.mode + (f" and {one.header.dropped} more" if one.header.dropped else "") for one in odd}
        found.append(finding("odd-channels", files_of(odd), shown=", ".join(sorted(extra))))

    deep, shallow = (files_of(one for one in images if (one.header.bits > 8) is above) for above in (True, False))
    found.append(finding("deep-image", deep))
    fewer = min(deep, shallow, key=len)
    found.append(finding("mixed-depth", fewer, deep=len(deep), shallow=len(shallow)))

    constant = [one for one in images if one.constant]
    grey = [one for one in images if one.grey and not one.constant]
    if len(grey) + len(constant) < len(images):
        found.append(finding("grey-among-color", files_of(grey), others=len(images) - len(grey)))
    found.append(finding("constant-image", files_of(constant)))
    found.append(finding("tiny-image", files_of(one for one in images if min(one.size) < MIN_SIDE), least=MIN_SIDE))
    sizes = sorted({one.size for one in images}, key=lambda size: (size[0] * size[1], size))
    if len(sizes) > 1:
        found.append(finding("sizes-vary", count=len(sizes), smallest=_size(sizes[0]), largest=_size(sizes[-1])))
    return found


def _mask_findings(masks: Sequence[MaskFacts]) -> list[Finding]:
    blended = [one for one in masks if one.statistics.blended >= BLENDED]
    highest = max((one.statistics.blended for one in blended), default=0.0)
    clear = [one for one in masks if one.header.alpha == "varying" and one.statistics.shown is None]
    return [
        finding("interpolated-edges", files_of(blended), highest=highest),
        finding("mask-alpha", files_of(clear)),
    ]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
