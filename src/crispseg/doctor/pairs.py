"""Findings about single files and pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from crispseg.doctor.kinds import Finding, Severity, counted, finding, plural
from crispseg.doctor.scan import Header, ImageFacts, MaskFacts, PairFacts, Unreadable, readable
from crispseg.doctor.subject import Subject
from crispseg.doctor.values import BLENDED

MIN_SIDE = 32
"""Pixels that a model needs."""
LEVELS = 32
"""Levels of 256 that images of 16 bits should use at least."""

_PAIRING = {
    "image-without-mask": ("image has", "no mask"),
    "mask-without-image": ("mask has", "no image"),
    "ambiguous-names": ("file has", "a name that another one has too"),
    "listed-file-missing": ("listed file is", "missing"),
}


def pairing_findings(subject: Subject) -> list[Finding]:
    """What did not pair."""
    found = []
    for kind, words in _PAIRING.items():
        files = dict.fromkeys(file for fault in subject.faults if fault.kind == kind for file in fault.files)
        found += counted(kind, [*files], *words)
    found += counted("in-no-split", subject.in_no_split, "image is", "in no split")
    for split, reason in subject.unavailable.items():
        message, _, remedy = reason.rpartition("; ")
        found.append(finding("split-unavailable", f"{split}: {message or remedy}", count=1, remedy=remedy))
    return found


def file_findings(facts: Sequence[PairFacts], channels: int = 3) -> list[Finding]:
    """What is wrong with single files: unreadable, or odd in format."""
    # files that stand in two splits count once
    images = {one.image_file: one.image for one in facts if isinstance(one.image, ImageFacts)}
    masks = {one.mask_file: one.mask for one in facts if isinstance(one.mask, MaskFacts)}
    headers = [*(one.header for one in images.values()), *(one.header for one in masks.values())]
    wrong = [one for one in headers if not one.suffix_fits]
    shown = ", ".join(sorted({f"{one.kind} in {Path(one.file).suffix}" for one in wrong}))
    frames = _files(one for one in headers if one.frames > 1)
    return [
        *_unreadable(facts),
        *_image_findings([*images.values()], channels),
        *_mask_findings([*masks.values()]),
        *counted("wrong-suffix", _files(wrong), "file has", f"the suffix of another format: {shown}"),
        *counted("several-frames", frames, "file has", "several pages or frames; the first counts"),
    ]


def pair_findings(facts: Sequence[PairFacts]) -> list[Finding]:
    """What is wrong between an image and its mask."""
    images, masks, differ, unclear = [], [], [], []
    example = ""
    for one, image, mask in readable(facts):
        first, second = image.header.orientation, mask.header.orientation
        if image.size == mask.size:
            quarter = 1 in (first, second) and max(first, second) >= 5 and image.size[0] != image.size[1]
            if first != second and not quarter:  # of a quarter the sizes show that they fit
                unclear.append(one.image_file)
        elif needs_turning(image, mask):
            images.append(one.image_file)
        elif needs_turning(mask, image):
            masks.append(one.mask_file)
        else:
            example = example or f"{_size(mask.size)} but its image {_size(image.size)}"
            differ.append(one.mask_file)
    turned = [f"{plural(len(images), 'image is')} turned by EXIF, and the mask is not"] if images else []
    turned += [f"{plural(len(masks), 'mask is')} turned by EXIF, and the image is not"] if masks else []
    return [
        *counted(
            "sizes-differ",
            differ,
            "mask has",
            f"another size than the image; the first is {example} (height x width)",
        ),
        *([finding("exif-rotation", "; ".join(turned), images + masks)] if turned else []),
        *counted(
            "exif-unclear",
            unclear,
            "image is",
            "turned or mirrored by EXIF otherwise than the mask; the sizes do not tell whether they fit",
        ),
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
        found.append(finding(code, number + first, reasons, reasons=reasons))
    return found


def _image_findings(images: Sequence[ImageFacts], channels: int) -> list[Finding]:
    found = []
    headers = [one.header for one in images]
    if channels == 3:
        clear = _files(one for one in headers if one.alpha == "varying")
        opaque = _files(one for one in headers if one.alpha == "opaque")
        rest = f", {len(clear)} with transparent pixels" if clear else ", all opaque"
        severity = Severity.WARNING if clear else Severity.INFORMATION
        rest = f"an alpha channel, which is dropped{rest}"
        found += counted("image-alpha", clear + opaque, "image has", rest, severity=severity)
        odd = [one for one in headers if one.mode in ("CMYK", "LAB") or one.dropped]
        kinds = sorted({one.mode + (f" and {one.dropped} more" if one.dropped else "") for one in odd})
        rest = f"channels other than grey, RGB and alpha: {', '.join(kinds)}"
        found += counted("odd-channels", _files(odd), "image has", rest)
    deep, shallow = (_files(one for one in headers if (one.bits > 8) is above) for above in (True, False))
    peak = max((one.peak for one in images), default=0)
    rest = "16 bits a channel" + (f"; the largest value is {peak}" if peak else "")
    severity = Severity.WARNING if 0 < peak < LEVELS * 256 else Severity.INFORMATION
    found += counted("deep-image", deep, "image has", rest, severity=severity)
    if deep and shallow:
        message = f"{len(deep)} images have 16 bits a channel and {len(shallow)} have 8"
        found.append(finding("mixed-depth", message, deep if len(deep) <= len(shallow) else shallow))
    grey = _files(one.header for one in images if one.grey and not one.constant)
    if len(grey) < sum(not one.constant for one in images):
        found += counted("grey-among-color", grey, "image is", f"grey, {len(images) - len(grey)} are not")
    constant = _files(one.header for one in images if one.constant)
    found += counted("constant-image", constant, "image has", "one colour only")
    small = _files(one.header for one in images if min(one.size) < MIN_SIDE)
    found += counted("tiny-image", small, "image has", f"a side under {MIN_SIDE} pixels")
    sizes = sorted({one.size for one in images}, key=lambda size: (size[0] * size[1], size))
    if len(sizes) > 1:
        ends = f"{_size(sizes[0])} to {_size(sizes[-1])}"
        message = f"images have {len(sizes)} sizes, {ends} (height x width)"
        found.append(finding("sizes-vary", message, count=len(sizes)))
    return found


def _mask_findings(masks: Sequence[MaskFacts]) -> list[Finding]:
    lossy = _files(one.header for one in masks if one.header.lossy)
    kept = [one for one in masks if not one.header.lossy]
    blended = [one for one in kept if one.blended >= BLENDED]
    highest = max((one.blended for one in blended), default=0.0)
    between = f"values in between along edges (up to {highest:.0%} of the steps), as interpolation leaves them"
    clear = _files(one.header for one in kept if one.header.alpha == "varying" and one.shown is None)
    odd = _odd_palettes(kept)
    return [
        *counted("lossy-mask", lossy, "mask is", "stored with lossy compression"),
        *counted("interpolated-edges", _files(one.header for one in blended), "mask has", between),
        *counted("mask-alpha", clear, "mask has", "transparent pixels"),
        *counted("mask-palettes-differ", odd, "palette mask shows", "a value in another colour than the others"),
    ]


def _odd_palettes(masks: Sequence[MaskFacts]) -> list[str]:
    """Palette masks of which one shows a value in another colour than most do."""
    votes: dict[tuple[int, tuple[int, ...]], list[str]] = defaultdict(list)
    for mask in masks:
        if mask.shown is not None:
            for value, color in zip(mask.values.tolist(), mask.shown.tolist(), strict=True):
                votes[value, tuple(color)].append(mask.header.file)
    usual: dict[int, list[str]] = {}
    for (value, _), files in votes.items():
        if len(files) > len(usual.get(value, [])):
            usual[value] = files
    return [*dict.fromkeys(file for (value, _), files in votes.items() if files is not usual[value] for file in files)]


def _files(headers: Iterable[Header]) -> list[str]:
    return [one.file for one in headers]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
