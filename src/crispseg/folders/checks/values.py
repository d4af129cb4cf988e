"""Checks of mask values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from crispseg.folders.examined import Examined, if_clear
from crispseg.folders.facts import MaskFacts
from crispseg.folders.finding import Finding, finding_of
from crispseg.folders.lookup import NONE, MaskLookup
from crispseg.folders.mask_values import palettes_differ, pixels_of
from crispseg.labels import IGNORE


def unclear_masks(data: Examined) -> Finding | None:
    """Masks that no reader or several fit."""
    question = data.question
    if question is None:
        return None
    settings = [*question.choices.values()]
    files = [mask.file for mask in data.masks]
    texts = {"title": question.title, "facts": question.facts, "advice": question.advice}
    return finding_of("unclear-masks", files, None, settings, **texts)


def value_out_of_range(data: Examined) -> Finding | None:
    lookup = data.lookup
    if lookup.colors:
        return None
    files, pixels = without_class(lookup, [mask for mask in data.masks if not mask.colors])
    return finding_of("value-out-of-range", files, pixels=pixels, wrong=lookup.wrong, remedy=lookup.remedy)


def unknown_color(data: Examined) -> Finding | None:
    """Colours that are not in the palette, with the distance at which they would be read as the nearest one."""
    lookup = data.lookup
    if not lookup.colors:
        return None
    files, pixels = without_class(lookup, data.masks)
    is_deep = any(max(color) > IGNORE for color in pixels)
    nearest = lookup.adjustable and pixels and not is_deep
    settings = [{"data.palette_tolerance": largest_distance(lookup, [*pixels])}] if nearest else []
    shown = {str(list(color)): count for color, count in pixels.items()}
    remedy = "save the masks with 8 bits" if is_deep else lookup.remedy
    return finding_of("unknown-color", files, None, settings, pixels=shown, remedy=remedy)


def rgb_masks(data: Examined) -> Finding | None:
    """Masks of colours, although the others have numbers."""
    if data.lookup.colors:
        return None
    return finding_of("rgb-masks", (mask.file for mask in data.masks if mask.colors))


def differing_palettes(data: Examined) -> Finding | None:
    """Palette files that are read by their indices, although a colour has another index in some of them."""
    masks = [mask for mask in data.masks if mask.palette and not data.lookup.by_color(mask.palette)]
    return finding_of("palettes-differ", (mask.file for mask in masks) if palettes_differ(masks) else ())


def all_ignored(data: Examined) -> Finding | None:
    if data.lookup.by_pixel:
        return None
    files = [pair.mask.file for pair in data.decodable if (data.lookup.labels_of(pair.mask) == IGNORE).all()]
    return finding_of("all-ignored", files)


def nodata_class(data: Examined) -> Finding | None:
    """GeoTIFFs whose value without data, as their metadata say, is one of three or more classes."""
    if len(data.labels) < 3:
        return None
    masks = [mask for mask in data.masks if mask.nodata in mask.held]
    labels = {mask.file: int(data.lookup.labels_of(mask)[mask.values == mask.nodata][0]) for mask in masks}
    files = [file for file, label in labels.items() if label < IGNORE]
    label = labels[files[0]] if files else 0
    return finding_of("nodata-class", files, label=label, name=data.labels.names[label])


def without_class(lookup: MaskLookup, masks: Sequence[MaskFacts]) -> tuple[list[str], dict[Any, int]]:
    """Return the masks with values or colours that have no class, and the pixel counts of these, the largest first."""
    unknown = [mask.only(lookup.labels_of(mask) == NONE) for mask in masks]
    pixels = pixels_of(mask.in_color if lookup.colors else mask for mask in unknown)
    return [mask.file for mask in unknown if len(mask.values)], dict(pixels.most_common())


def largest_distance(lookup: MaskLookup, colors: list[Any]) -> int:
    """Return the largest distance of colours from the palette, rounded up."""
    distances, _ = KDTree(np.array([*lookup.meaning])).query(np.array(colors))
    return math.ceil(float(distances.max()))


VALUE_CHECKS = [
    unclear_masks,
    *map(if_clear, (value_out_of_range, unknown_color, rgb_masks, differing_palettes, all_ignored, nodata_class)),
]
