"""Undeclared values of grey masks: which are class ids, and which are shades, object numbers or values far apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from crispseg.config.settings import plural
from crispseg.data.finding import Finding, Severity
from crispseg.data.mask_lookup import NOISE, OBJECTS, MaskStatistics, held
from crispseg.data.palettes import compact
from crispseg.errors import few
from crispseg.io.images import writer_of
from crispseg.labels import IGNORE, Color

SHADES, LIGHT = 64, 192  # more values than `SHADES` are no class ids if masks are interpolated or one reaches `LIGHT`
COUNTED, SINGLE = 0.9, 0.6  # smallest shares of masks with ids from 1 without a gap, and of ids of one area
BOTH = 0.1  # smallest share of masks with ids from 0, and of masks with ids from 1, that are two kinds
STRAY_FILES = 0.2  # largest share of masks with stray values, which are 0 or beyond a gap, if no classes are declared
THRESHOLD = 255  # tolerance with which a black and white palette is a threshold at 128, even for greys that JPEG tinted

BY_THRESHOLD = f"data.palette '[[0,0,0],[255,255,255]]' and data.palette_tolerance {THRESHOLD}"


def beyond_ids(mask: MaskStatistics, count: int) -> bool:
    """Return whether a grey mask may be other than ids of `count` classes and 255, by a palette or its values."""
    values = set() if mask.colors else mask.held
    return bool(mask.palette) or values == {0, IGNORE} or max(values - {IGNORE}, default=0) >= count


def mixed_first_ids(grey: Sequence[MaskStatistics], void: Sequence[int], count: int | None) -> Finding | None:
    """Return the fault of masks of which some have ids from 0 and others, without 0, ids that are one larger."""
    ids = [mask.held - {IGNORE, *void} for mask in grey]
    last = max(set().union(*ids), default=0)
    low, high = ([mask for mask, own in zip(grey, ids, strict=True) if each in own] for each in (0, last))
    enough = min(len(low), len(high)) >= max(2, BOTH * len(grey))
    apart = not any({0, last} <= own for own in ids)
    if last < 2 or not (enough and apart) or last - 1 not in held(low) or 1 not in held(high):
        return None
    what = f"{last} but no 0, and {len(low)} others 0 but no {last}: their ids may begin at 1"
    remedy = f"subtract 1 from their ids; or, if all are right, give data.num_classes {last + 1}"
    settings = [] if count else [{"data.num_classes": last + 1}]
    return fault_of("one-based-ids", high, what, remedy, settings=settings, copy=False)


def no_ids(ids: list[int], grey: list[MaskStatistics], void: Sequence[int]) -> Finding | None:
    """Return the fault of undeclared masks that are grey images or object numbers, or None for class ids."""
    last = ids[-1] if ids else 0
    soft = 2 * sum(mask.interpolated for mask in grey) > len(grey)
    if last < IGNORE and len(ids) > SHADES and (last >= LIGHT or soft):
        what = f"{len(ids)} values up to {last}, like grey images or soft edges"
        remedy = f"give {BY_THRESHOLD} if they are black and white, or data.num_classes if they are class ids"
        return fault_of("grey-pictures", grey, what, remedy)
    none = {0, IGNORE, *void}
    many = [mask for mask in grey if max(mask.held - none, default=0) > OBJECTS]
    full = [mask for mask in many if mask.distinct - len(mask.held & none) >= 0.9 * max(mask.held - none)]
    few_objects = last <= OBJECTS and numbers_objects([mask for mask in grey if mask.held - none])
    if few_objects or (many and len(full) >= 0.8 * len(many)):  # no photograph has all classes
        what = f"ids from 1 to a different number of at most {last}: they number objects, not classes"
        remedy = "give data.instances instead of data.masks; or, if they are class ids, give data.num_classes"
        settings: list[dict[str, object]] = []
        if few_objects:
            remedy = f"merge them by data.merge; or, to tell them apart, {remedy} {last + 1}"
            merged = {"object": [f"class {index}" for index in range(1, last + 1)]}
            settings = [{"data.num_classes": last + 1, "data.merge": merged}, {"data.num_classes": last + 1}]
        return fault_of("object-numbers", grey, what, remedy, settings=settings, copy=False)
    return None


def numbers_objects(masks: Sequence[MaskStatistics]) -> bool:
    """Return whether masks number few objects: each has ids from 1 to its own last, most of one area."""
    counted = [(mask.single, max(mask.held - {IGNORE})) for mask in masks if mask.single is not None]
    several = len({last for _, last in counted}) > 2 and len(counted) >= COUNTED * len(masks)
    return several and sum(single - SINGLE * last for single, last in counted) >= 0


def class_values(ids: list[int], grey: Sequence[MaskStatistics], void: Sequence[int], count: int | None) -> list[int]:
    """Return values that are too far apart to be class ids, in the order of the classes; nothing for class ids.

    Declared classes are in the order of multiples modulo 256 if the values are such.
    """
    white = IGNORE in held(grey) - {*void}
    if count is None:
        if plausible_ids(ids) or len(ids) > IGNORE:
            return []
        return [*ids, IGNORE] if white and IGNORE < 2 * ids[-1] < 2 * IGNORE else ids  # the others range as far as 255
    ids = [*ids, IGNORE] if white and len(ids) < count else ids
    if len(ids) != count or ids[-1] > IGNORE or plausible_ids(ids) or ids[-2] < count:
        return []
    multiples = ([factor * index % 256 for index in range(count)] for factor in range(2, 256))
    return next((each for each in multiples if sorted(each) == ids), ids)


def sparse(order: Sequence[int], grey: Sequence[MaskStatistics], void: Sequence[int], count: int | None) -> Finding:
    """Return the fault of values that are far apart; 255 is ignored unless it is among them."""
    if len(kinds := unmixed_values(grey)) > 1:
        what = f"values of {len(kinds)} kinds ({'; '.join(few(each, 6) for each in kinds)}), which no mask mixes"
        remedy = "write the same class ids in all masks; or, if all values are different classes, give data.palette "
        remedy += f"'{compact([(value,) * 3 for value in sorted(held(grey))])}'"
        return fault_of("sparse-ids", grey, what, remedy, copy=False)
    last, white = max(order), IGNORE in held(grey)
    what = f"{plural(len(order), 'value')} up to {last} ({few(order, 12)}), "
    what += "as many as the classes" if count else "which are probably not all class ids"
    if last > IGNORE or not (count or 2 <= len(order) <= OBJECTS):
        remedy = "write masks of class ids; for ids of objects in Cityscapes or KITTI, these are value // 1000 "
        remedy += "or // 256"
        return fault_of("sparse-ids", grey, what, remedy, copy=False)
    greys, ignored = tuple((value,) * 3 for value in order), sorted({*void, *[IGNORE] * white} - {*order})
    choices = [(greys, ignored)]
    if white and not void and not count:
        choices.append((greys[:-1], [IGNORE]) if IGNORE in order else ((*greys, (IGNORE,) * 3), []))
    if order[0] == 0 and not count and len(order) > 3:
        choices.append((greys[1:], [0, *ignored]))
    what += f"; {few(ignored)} ignored" * bool(ignored)
    given = " or ".join(f"data.palette '{compact(one)}' and data.ignore '{others}'" for one, others in choices)
    remedy = f"give {given}, with the classes in this order and unlabelled values as data.ignore"
    remedy += "" if count else f"; or, if they are class ids, data.num_classes {max({*order} - {IGNORE}) + 1}"
    settings: list[dict[str, object]] = [{"data.palette": one, "data.ignore": others} for one, others in choices]
    if not count and last >= IGNORE - NOISE and all(not NOISE < value < IGNORE - NOISE for value in order):
        remedy = f"give {BY_THRESHOLD} if they are black and white; or {remedy}"
        settings = [{"data.palette": [(0,) * 3, (IGNORE,) * 3], "data.palette_tolerance": THRESHOLD}, *settings]
    return fault_of("sparse-ids", grey, what, remedy, settings=settings)


def unmixed_values(masks: Sequence[MaskStatistics]) -> list[list[int]]:
    """Return the values of each kind of masks, which share only 0, if some kinds are ids from 1 and others are not."""
    kinds: list[frozenset[int]] = []
    for values in {frozenset(mask.held - {0}) for mask in masks} - {frozenset()}:
        joined = values.union(*(kind for kind in kinds if kind & values))
        kinds = [*(kind for kind in kinds if not kind & joined), joined]
    least = max(2, BOTH * len(masks))
    found = sorted(sorted(kind) for kind in kinds if sum(bool(kind & mask.held) for mask in masks) >= least)
    plausible = [kind for kind in found if plausible_ids([0, *kind])]
    return found if 0 < len(plausible) < len(found) and any(len(kind) > 1 for kind in found) else []


def stretched(grey: Sequence[MaskStatistics], palette: Sequence[Color]) -> Finding | None:
    """Return the fault of values near 255 * k / m with several m; with one m, only in files of Matplotlib."""
    scales = {m: {round(IGNORE * k / m) + by for k in range(m + 1) for by in (-1, 0, 1)} for m in range(1, OBJECTS + 1)}
    some = [mask for mask in grey if mask.held != {0}]
    found = [next((m for m, scale in scales.items() if mask.held <= scale), 0) for mask in some]
    if not all(found) or not all(IGNORE in mask.held for mask in some) or len({*found}) < 2:
        return None
    one_scale = held(some) <= scales[max(found)]
    if one_scale and "Matplotlib" not in writer_of(some[0].file):
        return None
    what = f"values that depend on the file ({few(sorted(held(some)), 8)}): each may be stretched to its own maximum"
    remedy = "save the class ids unchanged, with PIL.Image.fromarray(ids).save(file) instead of plt.imsave"
    remedy += f"; or, if vmin and vmax were given, give data.palette '{compact(palette)}'" * one_scale
    return fault_of("stretched-masks", grey, what, remedy, copy=False)


def plausible_ids(values: Sequence[int]) -> bool:
    """Return whether sorted values, without ignored ones, look like class ids: at least half of 0 to the last occur."""
    return not values or 2 * len(values) >= values[-1] + 1


def without_strays(grey: list[MaskStatistics], void: Sequence[int]) -> list[int]:
    """Return the values of masks, without rare values beyond a gap."""
    files = Counter(value for mask in grey for value in mask.held)
    every = sorted(files.keys() - {IGNORE, *void})
    ids = list(every)
    while ids and not plausible_ids(ids) and files[ids[-1]] <= STRAY_FILES * len(grey):
        ids.pop()
    return ids if len(ids) > 1 and plausible_ids(ids) else every


def fault_of(
    code: str,
    masks: Sequence[MaskStatistics],
    what: str,
    remedy: str,
    severity: Severity = Severity.ERROR,
    **details: Any,
) -> Finding:
    message = f"{plural(len(masks), 'mask')} {'contains' if len(masks) == 1 else 'contain'} {what}"
    return Finding(code, severity, message, remedy, max(len(masks), 1), tuple(mask.file for mask in masks), details)
