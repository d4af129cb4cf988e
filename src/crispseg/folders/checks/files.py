"""Checks of single files and of pairs."""

from __future__ import annotations

from functools import partial

import numpy as np

from crispseg.folders.examined import Check, Examined
from crispseg.folders.finding import Finding, Severity, finding_of
from crispseg.folders.mask_values import MOSTLY
from crispseg.folders.pairs import AMBIGUOUS, NO_IMAGE, NO_MASK

UNPAIRED = NO_MASK, NO_IMAGE, AMBIGUOUS, "listed-file-missing"


def unpaired(code: str, data: Examined, severity: Severity | None = None) -> Finding | None:
    """Files that are in no split, for one reason."""
    return finding_of(code, data.unpaired.get(code, ()), severity)


def image_without_mask(data: Examined) -> Finding | None:
    """Images without a mask; where others have strokes only, these are still to be labelled."""
    in_work = any(report.void > MOSTLY for report in data.reports)
    return unpaired(NO_MASK, data, Severity.INFORMATION if in_work else None)


def split_unavailable(data: Examined) -> Finding | None:
    problems = [f"{split}: {problem}" for split, problem in data.unavailable.items()]
    return finding_of("split-unavailable", count=len(problems), problems=problems)


def unusable_file(data: Examined) -> Finding | None:
    first = next(iter(data.unusable.values()), "")
    return finding_of("unusable-file", data.unusable, reason=first, reasons=data.unusable)


def sizes_differ(data: Examined) -> Finding | None:
    differing = [pair for pair in data.survey.readable if pair.image.size != pair.mask.size]
    sizes = ["{}x{} but its image is {}x{}".format(*pair.mask.size, *pair.image.size) for pair in differing]
    return finding_of("sizes-differ", (pair.mask.file for pair in differing), first="".join(sizes[:1]))


def constant_image(data: Examined) -> Finding | None:
    return finding_of("constant-image", (image.file for image in data.survey.images.values() if image.constant))


def turned_images(data: Examined) -> Finding | None:
    """Images that EXIF turns without a change of size, so that an unturned mask goes unnoticed."""
    turned = [pair.image for pair in data.survey.readable if pair.image.orientation > 1 == pair.mask.orientation]
    same_size = [image for image in turned if image.orientation < 5 or image.size[0] == image.size[1]]
    return finding_of("turned-images", (image.file for image in same_size))


def positions_differ(data: Examined) -> Finding | None:
    """GeoTIFF masks whose coordinates are off by more than a hundredth of a pixel."""
    apart = []
    for _, _, image, mask in data.survey.readable:
        if image.place and mask.place:
            pixels = np.abs(np.subtract(image.place, mask.place)).max() / max(map(abs, image.place[:2]))
            if pixels > 0.01:
                apart.append(mask.file)
    return finding_of("positions-differ", apart)


def inverted_masks(data: Examined) -> Finding | None:
    """TIFF masks with 0 for white, which are inverted when they are read."""
    inverted = [mask.file for mask in data.survey.masks.values() if mask.inverted]
    every = len(inverted) == len(data.survey.masks)
    return finding_of("inverted-masks", inverted, Severity.WARNING if every else Severity.ERROR)


def transparent_pixels(data: Examined) -> Finding | None:
    """Transparent pixels, which are read as black; indices of palette files keep their values."""
    by_index = data.meaning is not None and not data.lookup.in_color
    masks = [mask for mask in data.survey.masks.values() if mask.transparent and not (by_index and mask.palette)]
    return finding_of("transparent-pixels", (mask.file for mask in masks))


FILE_CHECKS: list[Check] = [
    image_without_mask,
    *(partial(unpaired, code) for code in UNPAIRED[1:]),
    split_unavailable,
    unusable_file,
    sizes_differ,
    constant_image,
    turned_images,
    positions_differ,
    inverted_masks,
    transparent_pixels,
]
