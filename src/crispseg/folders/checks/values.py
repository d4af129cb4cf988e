"""Checks of mask values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from crispseg.folders.examined import Examined, if_clear
from crispseg.folders.facts import MaskFacts
from crispseg.folders.finding import Finding, finding_of
from crispseg.folders.lookup import NONE, MaskLookup
from crispseg.folders.readers.reader import palettes_differ
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
    if data.lookup.colors:
        return None
    found = [(mask, without_class(data.lookup, mask)) for mask in data.masks if not mask.colors]
    files = [mask.file for mask, values in found if values]
    pixels = total_of(values for _, values in found)
    return finding_of("value-out-of-range", files, pixels=pixels, wrong=data.lookup.wrong, remedy=data.lookup.remedy)


def unknown_color(data: Examined) -> Finding | None:
    """Colours that are not in the palette, with the distance at which they would be read as the nearest one."""
    if not data.lookup.colors:
        return None
    found = [(mask, without_class(data.lookup, mask)) for mask in data.masks]
    pixels = total_of(values for _, values in found)
    distance = largest_distance(data.lookup, [*pixels])
    settings = [{"data.palette_tolerance": distance}] if data.lookup.adjustable else []
    shown = {str(list(color)): count for color, count in pixels.items()}
    files = [mask.file for mask, values in found if values]
    return finding_of("unknown-color", files, None, settings, pixels=shown, remedy=data.lookup.remedy)


def rgb_masks(data: Examined) -> Finding | None:
    """Masks of colours, although the others have class ids."""
    if data.lookup.colors or data.lookup.by_pixel:
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
    labels: dict[str, int] = {}
    for mask in data.masks:
        if mask.nodata is not None and not mask.colors:
            for label in data.lookup.labels_of(mask)[mask.values == mask.nodata].tolist():
                labels[mask.file] = label
    files = [file for file, label in labels.items() if label < IGNORE]
    label = labels[files[0]] if files else 0
    return finding_of("nodata-class", files, label=label, name=data.labels.names[label])


def without_class(lookup: MaskLookup, mask: MaskFacts) -> dict[Any, int]:
    """Return the values or colours of a mask that have no class, and their pixel counts."""
    colored = lookup.colors
    mask = mask.in_color if lookup.by_color(mask.palette) else mask
    if colored and not mask.colors:
        mask = mask._replace(values=np.repeat(mask.values[:, None], 3, axis=1))
    unknown = lookup.labels_of(mask) == NONE
    keys = mask.values[unknown].tolist()
    counts = mask.counts[unknown].tolist()
    return {tuple(key) if colored else key: count for key, count in zip(keys, counts, strict=True)}


def total_of(counts: Iterator[dict[Any, int]]) -> dict[Any, int]:
    """Return the sums of counts, the largest first."""
    total: Counter[Any] = Counter()
    for values in counts:
        total.update(values)
    return dict(total.most_common())


def largest_distance(lookup: MaskLookup, colors: list[Any]) -> int:
    """Return the largest distance of colours from the palette, rounded up."""
    if not colors:
        return 0
    palette: NDArray[Any] = np.array([*lookup.meaning])
    distances, _ = KDTree(palette).query(np.array(colors))
    return math.ceil(float(distances.max()))


VALUE_CHECKS = [
    unclear_masks,
    *map(if_clear, (value_out_of_range, unknown_color, rgb_masks, differing_palettes, all_ignored, nodata_class)),
]
