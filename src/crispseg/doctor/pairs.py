"""Findings about single files and pairs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from crispseg.doctor.facts import Header, ImageFacts, MaskFacts, PairFacts, Unreadable
from crispseg.doctor.kinds import KINDS, Finding, Severity, finding, plural
from crispseg.doctor.subject import Subject
from crispseg.doctor.values import BLENDED

MIN_SIDE = 32
"""Pixels that a model needs."""
LEVELS = 32
"""Of 256, that images of 16 bits should use at least."""

Facts = TypeVar("Facts", ImageFacts, MaskFacts)

Has = tuple[str, str]
HAS: Has = ("has", "have")
IS: Has = ("is", "are")


def pairing_findings(subject: Subject) -> list[Finding]:
    """What did not pair."""
    nouns = {
        "image-without-mask": ("image", HAS, "no mask"),
        "mask-without-image": ("mask", HAS, "no image"),
        "ambiguous-names": ("file", HAS, "a name that another one has too"),
        "listed-file-missing": ("listed file", IS, "missing"),
    }
    files: dict[str, list[str]] = defaultdict(list)
    for fault in subject.faults:
        files[fault.kind] += [file for file in fault.files if file not in files[fault.kind]]
    found = []
    for kind, names in files.items():
        noun, verb, rest = nouns[kind]
        found.append(finding(kind, f"{plural(len(names), noun, verb)} {rest}", names))
    if subject.in_no_split:
        count = len(subject.in_no_split)
        found.append(finding("in-no-split", f"{plural(count, 'image', IS)} in no split", subject.in_no_split))
    for split, reason in subject.unavailable.items():
        message, _, remedy = reason.rpartition("; ")
        found.append(finding("split-unavailable", f"{split}: {message or remedy}", count=1, remedy=remedy))
    return found


def file_findings(facts: Sequence[PairFacts], channels: int = 3) -> list[Finding]:
    """What is wrong with single files: unreadable, or odd in format."""
    found = _unreadable(facts)
    images = _once(one.image for one in facts if isinstance(one.image, ImageFacts))
    masks = _once(one.mask for one in facts if isinstance(one.mask, MaskFacts))
    found += _image_findings(images, channels)
    found += _mask_findings(masks)
    both = [*(one.header for one in images), *(one.header for one in masks)]
    wrong = [one for one in both if not one.suffix_fits]
    if wrong:
        shown = ", ".join(sorted({f"{one.kind} in {Path(one.file).suffix}" for one in wrong}))
        message = f"{plural(len(wrong), 'file', HAS)} the suffix of another format: {shown}"
        found.append(finding("wrong-suffix", message, _files(wrong)))
    found += _if_any(
        "several-frames",
        [one for one in both if one.frames > 1],
        "file",
        HAS,
        "several pages or frames; the first counts",
    )
    return found


def pair_findings(facts: Sequence[PairFacts]) -> list[Finding]:
    """What is wrong between an image and its mask."""
    turned: list[PairFacts] = []
    differ: list[PairFacts] = []
    unclear: list[PairFacts] = []
    for one in facts:
        if not (isinstance(one.image, ImageFacts) and isinstance(one.mask, MaskFacts)):
            continue
        if one.image.size != one.mask.size:
            (turned if needs_turning(one) or needs_no_turning(one) else differ).append(one)
        elif one.image.header.orientation != one.mask.header.orientation:
            upright, other = sorted((one.image.header.orientation, one.mask.header.orientation))
            quarter = upright == 1 and other >= 5 and one.image.size[0] != one.image.size[1]
            if not quarter:  # otherwise the sizes show that they fit
                unclear.append(one)
    found = []
    if differ:
        worst = differ[0]
        assert isinstance(worst.image, ImageFacts) and isinstance(worst.mask, MaskFacts)
        example = f"{_size(worst.mask.size)} but its image {_size(worst.image.size)}"
        message = (
            f"{plural(len(differ), 'mask', HAS)} another size than the image; the first is {example} (height x width)"
        )
        found.append(finding("sizes-differ", message, [one.mask_file for one in differ]))
    if turned:
        images = [one.image_file for one in turned if needs_turning(one)]
        masks = [one.mask_file for one in turned if needs_no_turning(one)]
        parts = [f"{plural(len(images), 'image', IS)} turned by EXIF, and the mask is not"] if images else []
        parts += [f"{plural(len(masks), 'mask', IS)} turned by EXIF, and the image is not"] if masks else []
        found.append(finding("exif-rotation", "; ".join(parts), images + masks))
    if unclear:
        message = (
            f"{plural(len(unclear), 'image', IS)} turned or mirrored by EXIF otherwise than the mask; the sizes do not "
            "tell whether they fit"
        )
        found.append(finding("exif-unclear", message, [one.image_file for one in unclear]))
    return found


def needs_turning(one: PairFacts) -> bool:
    """Whether the mask was drawn on the image as stored, which EXIF turns by a quarter."""
    return (
        isinstance(one.image, ImageFacts)
        and isinstance(one.mask, MaskFacts)
        and one.image.header.orientation >= 5
        and one.mask.header.orientation == 1
        and one.image.size != one.mask.size == one.image.header.stored
    )


def needs_no_turning(one: PairFacts) -> bool:
    """Whether EXIF turns the mask by a quarter, though it fits its image as stored."""
    return (
        isinstance(one.image, ImageFacts)
        and isinstance(one.mask, MaskFacts)
        and one.mask.header.orientation >= 5
        and one.image.header.orientation == 1
        and one.mask.size != one.image.size == one.mask.header.stored
    )


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
    if channels == 3:
        clear = [one.header for one in images if one.header.alpha == "varying"]
        alpha = [one.header for one in images if one.header.alpha != "none"]
        if alpha:
            severity = Severity.WARNING if clear else Severity.INFORMATION
            parts = f", {len(clear)} with transparent pixels" if clear else ", all opaque"
            message = f"{plural(len(alpha), 'image', HAS)} an alpha channel, which is dropped{parts}"
            files = [*_files(clear), *(file for file in _files(alpha) if file not in set(_files(clear)))]
            found.append(finding("image-alpha", message, files, severity=severity))
        odd = [one.header for one in images if one.header.mode in ("CMYK", "LAB") or one.header.dropped]
        if odd:
            kinds = sorted({one.mode + (f" and {one.dropped} more" if one.dropped else "") for one in odd})
            message = f"{plural(len(odd), 'image', HAS)} channels other than grey, RGB and alpha: {', '.join(kinds)}"
            found.append(finding("odd-channels", message, _files(odd)))
    deep = [one for one in images if one.header.bits > 8]
    if deep:
        peak = max(one.peak for one in deep)
        dark = 0 < peak < LEVELS * 256
        message = f"{plural(len(deep), 'image', HAS)} 16 bits a channel" + (
            f"; the largest value is {peak}" if peak else ""
        )
        severity = Severity.WARNING if dark else Severity.INFORMATION
        found.append(finding("deep-image", message, _files(one.header for one in deep), severity=severity))
        shallow = len(images) - len(deep)
        if shallow:
            files = _files(one.header for one in images if (one.header.bits > 8) == (len(deep) <= shallow))
            found.append(
                finding("mixed-depth", f"{len(deep)} images have 16 bits a channel and {shallow} have 8", files)
            )
    grey = [one.header for one in images if one.grey and not one.constant]
    if grey and len(grey) < sum(not one.constant for one in images):
        message = f"{plural(len(grey), 'image', IS)} grey, {len(images) - len(grey)} are not"
        found.append(finding("grey-among-color", message, _files(grey)))
    found += _if_any("constant-image", [one.header for one in images if one.constant], "image", HAS, "one colour only")
    small = [one.header for one in images if min(one.size) < MIN_SIDE]
    found += _if_any("tiny-image", small, "image", HAS, f"a side under {MIN_SIDE} pixels")
    sizes = sorted({one.size for one in images}, key=lambda size: (_area(size), size))
    if len(sizes) > 1:
        ends = f"{_size(sizes[0])} to {_size(sizes[-1])}"
        found.append(
            finding("sizes-vary", f"images have {len(sizes)} sizes, {ends} (height x width)", count=len(sizes))
        )
    return found


def _mask_findings(masks: Sequence[MaskFacts]) -> list[Finding]:
    found = _if_any(
        "lossy-mask", [one.header for one in masks if one.header.lossy], "mask", IS, "stored with lossy compression"
    )
    kept = [one for one in masks if not one.header.lossy]
    blended = [one for one in kept if one.blended >= BLENDED]
    if blended:
        highest = max(one.blended for one in blended)
        message = (
            f"{plural(len(blended), 'mask', HAS)} values in between along edges (up to {highest:.0%} of the steps), as "
            "interpolation leaves them"
        )
        found.append(finding("interpolated-edges", message, _files(one.header for one in blended)))
    clear = [one.header for one in kept if one.header.alpha == "varying" and one.shown is None]
    found += _if_any("mask-alpha", clear, "mask", HAS, "transparent pixels")
    found += _palettes(kept)
    return found


def _palettes(masks: Sequence[MaskFacts]) -> list[Finding]:
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
    odd = [file for (value, _), files in votes.items() if files is not usual[value] for file in files]
    if not odd:
        return []
    files = list(dict.fromkeys(odd))
    message = f"{plural(len(files), 'palette mask', ('shows', 'show'))} a value in another colour than the others"
    return [finding("mask-palettes-differ", message, files)]


def _if_any(code: str, headers: Sequence[Header], noun: str, verb: Has, rest: str) -> list[Finding]:
    assert code in KINDS
    return [finding(code, f"{plural(len(headers), noun, verb)} {rest}", _files(headers))] if headers else []


def _once(facts: Iterable[Facts]) -> list[Facts]:
    """Files that stand in two splits count once."""
    return list({one.header.file: one for one in facts}.values())


def _files(headers: Iterable[Header]) -> list[str]:
    return [one.file for one in headers]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
