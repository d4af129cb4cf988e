"""Readers of mask values: what values and colours mean, or a question to the user."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from crispseg.folders.facts import MaskFacts
from crispseg.folders.lookup import INSTANCE_CLASSES, ColorLookup, IdLookup, InstanceLookup
from crispseg.folders.mask_values import (
    MOST_IDS,
    NOISE,
    THRESHOLD,
    WHITES,
    Masks,
    palettes_differ,
    plausible,
    values_of,
)
from crispseg.folders.meaning import BLACK_AND_WHITE, Declared, Meaning
from crispseg.folders.question import question_about
from crispseg.labels import IGNORE

EDGES = 0.05  # largest share of the pixels that lossy compression changes by more than `NOISE`


def read(declared: Declared, masks: Masks, place: Path, instances: Path | None = None) -> Meaning:
    """Return the meaning of the masks in `place`, with merged and dropped classes.

    `instances` is their folder, if it may be given as `data.instances` instead of `data.masks`.

    If no reader or several fit, a `Question` names what the masks contain, and the settings to choose from.
    """
    meaning = declared_meaning(declared)
    if meaning is None:
        fitting = [reader for reader in READERS if reader.fits(declared, masks)]
        if len(fitting) != 1:
            raise question_about(declared, masks, place, instances)
        meaning = fitting[0].meaning(declared, masks)
    return meaning.regrouped(declared.merge, declared.drop)


def declared_meaning(declared: Declared) -> Meaning | None:
    """Return the meaning of masks that number objects, or of declared colours; a grey value v is (v, v, v)."""
    if declared.instances:
        return Meaning(declared.labels(len(INSTANCE_CLASSES)), InstanceLookup())
    if declared.palette is None:
        return None
    lookup = ColorLookup(declared.palette, declared.ignore, tolerance=declared.tolerance, adjustable=True)
    return Meaning(declared.labels(len({*declared.palette.values()})), lookup)


class Reader(NamedTuple):
    """One way to read masks without a declared meaning. Readers exclude each other, or the user is asked."""

    fits: Callable[[Declared, Masks], bool]
    meaning: Callable[[Declared, Masks], Meaning]


def are_black_and_white(declared: Declared, masks: Masks) -> bool:
    """Return whether masks have 0 and 255, or 0 and 65535; in lossy files, values from 128 up are white."""
    if declared.count not in (None, 2) or WHITES & {*declared.ignore} or any(mask.colors for mask in masks):
        return False
    if any(mask.lossy for mask in masks):
        return all(nearly_black_and_white(mask) for mask in masks)
    whites = values_of(masks) - {0}
    return len(whites) == 1 and whites <= WHITES


def nearly_black_and_white(mask: MaskFacts) -> bool:
    """Return whether a grey mask is black and white, but for the noise of lossy compression."""
    if not mask.lossy:
        return mask.held <= {0, IGNORE}
    between = (mask.values > NOISE) & (mask.values < IGNORE - NOISE)
    return bool(mask.counts[between].sum() <= EDGES * np.prod(mask.size))


def black_and_white(declared: Declared, masks: Masks) -> Meaning:
    tolerance = THRESHOLD if any(mask.lossy for mask in masks) else 0
    labels = replace(declared, palette=BLACK_AND_WHITE).labels(2)
    return Meaning(labels, ColorLookup(BLACK_AND_WHITE, tolerance=tolerance))


def are_ids(declared: Declared, masks: Masks) -> bool:
    """Return whether masks are grey or palette files of ids 0, 1, 2, …, in which 255 means ignore."""
    exact = [mask for mask in masks if not mask.colors and not mask.lossy]
    if not exact or palettes_differ(masks) or white_may_be_a_class(declared, exact):
        return False
    if declared.count is not None:  # masks that do not fit are reported one by one
        return True
    return len(exact) == len(masks) and look_like_ids(declared, exact)


def look_like_ids(declared: Declared, masks: Masks) -> bool:
    """Return whether values are few, and without large gaps, or without any gap if 255 is among them."""
    values = values_of(masks) - {*declared.ignore}
    ids = values - {IGNORE}
    if any(len(mask.held & ids) > MOST_IDS for mask in masks):
        return False
    return plausible(ids) and (IGNORE not in values or max(ids) < len(ids))


def white_may_be_a_class(declared: Declared, masks: Masks) -> bool:
    """Return whether more masks have 255 next to 0 only than next to other ids, where it means ignore."""
    if IGNORE in declared.ignore:
        return False
    white = [mask.held - {0, IGNORE} for mask in masks if {0, IGNORE} <= mask.held]
    return 2 * sum(bool(ids) for ids in white) < len(white)


def ids(declared: Declared, masks: Masks) -> Meaning:
    largest = max(values_of(masks) - {IGNORE, *declared.ignore}, default=0)
    count = max(largest + 1 if declared.count is None else declared.count, 2)
    return Meaning(declared.labels(count), IdLookup(count, declared.ignore))


READERS = [Reader(are_black_and_white, black_and_white), Reader(are_ids, ids)]
