"""Meaning of masks: which values and colours are classes, ignored or wrong.

Training and evaluation refuse masks with errors, and `crispseg doctor` reports the errors. All use the same lookup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from crispseg.config.settings import plural
from crispseg.data.finding import Finding, Severity
from crispseg.data.id_checks import (
    BY_THRESHOLD,
    STRAY_FILES,
    THRESHOLD,
    class_values,
    fault_of,
    mixed_first_ids,
    no_ids,
    plausible_ids,
    sparse,
    stretched,
    without_strays,
)
from crispseg.data.mask_lookup import (
    DEEP_WHITE,
    NOISE,
    NONE,
    TONE,
    ColorLookup,
    IdLookup,
    MaskLookup,
    MaskStatistics,
    as_colors,
    held,
    in_flat_areas,
    least_flat,
    part,
    pixels_of,
)
from crispseg.data.pairing import ODD_FILES
from crispseg.data.palettes import beyond, color_map_levels, compact, palettes_differ, proposed, tolerance_for
from crispseg.data.reading_checks import (
    SIDES,
    changed_values,
    class_folders,
    swapped,
    thin_bands,
    unsuitable_names,
    without_data,
)
from crispseg.errors import few
from crispseg.labels import IGNORE, Color, LabelSet

BLACK_AND_WHITE = {(0, 0, 0): 0, (255, 255, 255): 1}

ODD = ("odd-masks", "rgb-masks", "value-out-of-range")  # kinds of faults of single masks
MANY_COLORS = 40  # largest number of colours for which a palette is proposed
WHITES = {IGNORE, DEEP_WHITE}


@dataclass(frozen=True)
class DeclaredClasses:
    """Declared meaning of masks."""

    count: int | None  # number of classes; None if nothing is declared
    names: tuple[str, ...] | None = None
    palette: Mapping[Color, int] | None = None  # colour → class
    ignore: tuple[Any, ...] = ()  # values to ignore in addition to 255, or colours if there is a palette
    tolerance: float | None = None  # tolerance of the palette, see `ColorLookup`; None derives it from the masks
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)  # class → classes to merge into it
    drop: Sequence[str] = ()  # classes to ignore
    folders: Mapping[str, str] = field(default_factory=dict)  # mask → its sub-folder, if only masks are in sub-folders

    def labels(self, count: int) -> LabelSet:
        """Return `count` classes with the declared names and colours; a palette of greys is not used to draw."""
        colors = {index: color for color, index in [*(self.palette or {}).items()][::-1]}
        first = "background" if self.palette == BLACK_AND_WHITE else "class 0"
        numbered = (first, *(f"class {index}" for index in range(1, count)))[:count]
        names = numbered if self.names is None else self.names
        drawn = any(len({*color}) > 1 for color in colors.values())
        return LabelSet(names, tuple(colors[index] for index in range(count))) if drawn else LabelSet.colored(names)


@dataclass(frozen=True)
class MaskReading:
    """Meaning of the masks of a data set; if faults are errors, the meaning of a corrected copy."""

    labels: LabelSet
    lookup: MaskLookup
    faults: tuple[Finding, ...] = ()
    left_out: tuple[str, ...] = ()  # mask files that are left out because they do not match the others

    @property
    def errors(self) -> list[Finding]:
        """Faults that make training refuse the masks."""
        return [fault for fault in self.faults if fault.severity is Severity.ERROR]


def read_masks(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read custom masks, as declared or inferred from their content; then merge and drop classes.

    Lossy masks need a lookup with a tolerance, and are ignored otherwise.
    """
    reading = _undeclared(declared, masks) if declared.palette is None else _by_palette(declared, masks)
    labels, ids = reading.labels.regrouped(declared.merge, declared.drop)
    lookup = reading.lookup.regrouped(ids)
    ignored = {name for index, name in enumerate(reading.labels.names) if index in declared.ignore}
    kept = [mask for mask in masks if mask.file not in reading.left_out]
    faults = (
        *(class_folders(reading.lookup, kept, declared.folders) if declared.count != 2 else ()),
        *reading.faults,
        *changed_values(lookup, masks),
        *swapped(labels, lookup, masks),
        *(without_data(labels, lookup, masks) if declared.names is None else ()),
        *(thin_bands(labels, lookup, masks) if declared.names is None else ()),
        *unsuitable_names(labels.names, ignored),
    )
    return replace(reading, labels=labels, lookup=lookup, faults=faults)


def _undeclared(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read masks without a palette; a few that do not match the others are left out."""
    masks = [mask.in_color for mask in masks] if palettes_differ(masks) else masks
    exact = [mask for mask in masks if not mask.lossy]
    colored, grey = [mask for mask in exact if mask.colors], [mask for mask in masks if not mask.colors]
    if len(colored) > len(grey):
        return _in_color(declared.count, colored, [mask for mask in grey if not mask.lossy])
    reading = _black_and_white(declared, grey)
    may_leave_out = declared.count is None or reading is not None
    reading = reading or _ids(declared, [mask for mask in grey if not mask.lossy])
    remedy = "save these as class ids like the others or, if all should have colours, give data.palette"
    faults = [*reading.faults, *_colors_among_ids(colored, remedy)]
    odd = [one for one in faults if one.code in ODD and len(one.files) <= ODD_FILES * len(masks) and may_leave_out]
    for fault in odd:
        names = few(Path(file).name for file in fault.files)
        message = f"{fault.message}, unlike the others; training leaves them out ({names})"
        faults[faults.index(fault)] = replace(fault, severity=Severity.WARNING, message=message)
    return replace(reading, faults=tuple(faults), left_out=tuple(sorted({file for one in odd for file in one.files})))


def _by_palette(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read masks by a palette; other colours that are noise become the nearest palette colour."""
    assert declared.palette is not None
    remedy = "add it there or to data.ignore" + ", or give data.palette_tolerance auto" * (declared.tolerance == 0)
    lookup = partial(ColorLookup, declared.palette, declared.ignore, remedy=remedy)
    exact = lookup(tolerance=declared.tolerance or 0)
    labels = declared.labels(len({*declared.palette.values()}))
    if palettes_differ(masks) and (by_index := [mask for mask in masks if not exact.by_color(mask.palette)]):
        what = "palettes that differ from file to file, so that indices have no fixed meaning"
        fault = fault_of("rgb-masks", by_index, what, "save them as RGB, and give data.palette in these colours")
        return MaskReading(labels, exact, (fault,))
    masks = [mask.in_color if exact.by_color(mask.palette) else mask for mask in masks]
    off = [mask for mask in masks if mask.lossy or (exact.labels_of(mask) == NONE).any()]
    if declared.tolerance is not None or not off:
        return read_by(labels, exact, masks)
    grey = declared.palette == BLACK_AND_WHITE and not any(mask.colors for mask in masks)
    if found := _black_and_white(declared, masks) if grey else None:
        return found
    tolerance, largest, strange = tolerance_for(exact, off)
    if strange:
        nearest = f", or give data.palette_tolerance {largest} to use the nearest colours"
        near = largest <= TONE and all((mask.colors or bool(mask.lossy)) and not mask.transparent for mask in off)
        remedy = exact.remedy + nearest * near
        if exchanged := all(color[::-1] in declared.palette for color in pixels_of(strange, in_color=True)):
            remedy = "red and blue may be exchanged, as cv2.imwrite does with RGB arrays; exchange them in the masks"
        return MaskReading(labels, exact, (_without_meaning(lookup(remedy=remedy), strange, copy=not exchanged),))
    what = f"colours that are not in data.palette, up to a distance of {largest}; they become the nearest ones"
    remedy = "give data.palette_tolerance 0 to refuse them"
    note = fault_of("near-colors", off, what, remedy, Severity.INFORMATION)
    return MaskReading(labels, lookup(tolerance=tolerance), (note,))


def read_by(labels: LabelSet, lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read masks by a known lookup; values without a class and unexpected colours are faults."""
    faults: list[Finding] = []
    if not lookup.colors:
        faults = _colors_among_ids([mask for mask in masks if mask.colors], lookup.remedy)
        masks = [mask for mask in masks if not mask.colors]
    wrong = [(mask, lookup.labels_of(mask) == NONE) for mask in masks]
    if strange := [part(mask, at) for mask, at in wrong if at.any()]:
        lost = not lookup.colors and len(strange) > STRAY_FILES * len(masks)  # a class, which is not declared
        faults.append(_without_meaning(lookup, strange, copy=not lost))
    return MaskReading(labels, lookup, tuple(faults))


def _without_meaning(lookup: MaskLookup, strange: Sequence[MaskStatistics], copy: bool) -> Finding:
    counts = pixels_of(strange, lookup.colors).most_common()
    shown = few([f"{list(key) if lookup.colors else key} ({plural(count, 'pixel')})" for key, count in counts], 8)
    what = f"the {'colour' if lookup.colors else 'value'} {shown}, which {lookup.wrong}"
    what += "; transparent pixels are read as black" * any(mask.transparent for mask in strange)
    code, values = "unknown-color" if lookup.colors else "value-out-of-range", {str(key): n for key, n in counts}
    return fault_of(code, strange, what, lookup.remedy, values=values, copy=copy)


def _black_and_white(declared: DeclaredClasses, grey: Sequence[MaskStatistics]) -> MaskReading | None:
    """Read black and white masks, in which 255 is a class; return None for other masks."""
    if WHITES & {*declared.ignore} or declared.count not in (None, 2) or not any(mask.held - {0} for mask in grey):
        return None
    tones = [(_tone(mask), mask) for mask in grey]
    odd, soft, strays = ([mask for tone, mask in tones if tone == each] for each in ("odd", "soft", "strays"))
    fitting, alone = [mask for tone, mask in tones if tone != "odd"], sum(tone == "one" for tone, _ in tones)
    values, few_masks = held(fitting) or {IGNORE}, ODD_FILES * len(grey)
    if len(odd) >= len(fitting) - alone or not min(values) < 128 <= max(values):
        return None
    ids = sorted({0, *held(odd)} - WHITES)
    if len(odd) > few_masks and plausible_ids(ids) and any(WHITES & mask.held for mask in odd):
        return None  # class ids, and pixels that are ignored
    labels = replace(declared, palette=BLACK_AND_WHITE).labels(2)
    between = sorted(held([*soft, *strays]) - WHITES - {0})
    name, severity, remedy = labels.names[1], Severity.INFORMATION, "give data.ignore '[255]' if 255 means ignore"
    what = f"0 and 255: 255 is read as class 1, '{name}'"
    if between:
        files = few(sorted(Path(mask.file).name for mask in (*soft, *strays)), 2)
        what = f"0 and 255, and {few(between, 8)} in {files}: values from 128 up are class 1, '{name}', others class 0"
    may_be_ids = between == [*range(1, len(between) + 1)] and len(strays) > few_masks
    if not (soft or declared.palette) and (may_be_ids or 2 * len(strays) > len(fitting)):
        what, severity = f"0 and 255, and few pixels of {few(between, 8)}", Severity.ERROR
        remedy = f"give {BY_THRESHOLD} if they are black and white, or data.ignore '[255]' if 255 means ignore"
    elif not declared.palette and _white_around(fitting):
        what, severity = f"{what}; it surrounds the others, which may be the objects", Severity.WARNING
        remedy = f"give data.palette '[[255,255,255],[0,0,0]]' if 255 is background, or {remedy.removeprefix('give ')}"
    concerned = strays if severity is Severity.ERROR else [mask for mask in fitting if mask.held - {0}]
    sure = severity is not Severity.WARNING
    faults = [fault_of("black-and-white-masks", concerned, what, remedy, severity, copy=sure)]
    if odd:
        remedy = f"correct or remove them, or give {BY_THRESHOLD} to read values from 128 up as white"
        values = {int(mask.values[at]) for mask in odd for at in _flat_greys(mask)[:2]} or held(odd)
        if values <= {0, 1}:
            white = "data.palette '[[[0,0,0]],[[1,1,1],[255,255,255]]]'"
            remedy = f"write 255 instead of 1 in them, or give {white} to read both as white"
        what = f"the values {few(sorted(values), 8)}, but the others are black and white"
        faults.append(fault_of("odd-masks", odd, what, remedy))
    return MaskReading(labels, ColorLookup(BLACK_AND_WHITE, tolerance=THRESHOLD if between else 0), tuple(faults))


def _white_around(masks: Sequence[MaskStatistics]) -> bool:
    """Return whether most pixels of grey masks, and nearly all along their frames, are from 128 up."""
    light = np.concatenate([mask.values for mask in masks]) >= 128
    counts, frame = np.concatenate([mask.counts for mask in masks]), np.concatenate([mask.frame for mask in masks])
    return bool(counts[light].sum() / counts.sum() > 0.5 and frame[light].sum() / frame.sum() > 1 - SIDES)


def _tone(mask: MaskStatistics) -> str:
    """Return how a grey mask is black and white: one (only one of both), pure, soft (edges), strays (few) or odd."""
    values, counts = mask.values, mask.counts
    white = np.isin(values, [*WHITES])
    middle, far = ~white & (values > 0), (values > NOISE) & (values < IGNORE - NOISE)
    if not middle.any():
        return "pure" if 0 < white.sum() < len(white) else "one"
    if values[-1] > IGNORE or len(_flat_greys(mask)):
        return "odd"
    light = (values >= IGNORE - NOISE) & (values < IGNORE)  # noise of JPEG, also in a PNG
    several = far.sum() > 1 or (light.sum() > 2 and not far.any())  # a single value is a class, or a border
    if (mask.lossy or (mask.interpolated and several)) and 2 * counts[far].sum() <= counts.sum():
        return "soft"
    between, marked = counts[middle].sum(), counts[values > 0].sum()
    few_pixels = 20 * between <= marked or (100 * between <= counts.sum() and 2 * between < marked)
    return "strays" if few_pixels and white.any() and not mask.lossy else "odd"


def _flat_greys(mask: MaskStatistics) -> NDArray[np.intp]:
    """Return the indices of the values of flat areas of a grey mask that are neither black nor white."""
    return in_flat_areas(mask, (mask.values > TONE) & (mask.values < IGNORE - TONE))


def _ids(declared: DeclaredClasses, grey: list[MaskStatistics]) -> MaskReading:
    count, void, pixels = declared.count, declared.ignore, pixels_of(grey)
    ids = sorted(held(grey) - {IGNORE, *void}) if count else without_strays(grey, void)
    last = ids[-1] if ids else 0
    classes = count or min(max(last + 1, 2), IGNORE)
    labels = declared.labels(classes)
    lookup: MaskLookup = IdLookup(classes, void)

    def in_order(order: Sequence[int]) -> MaskLookup:
        meaning = dict.fromkeys((0, *void, IGNORE), IGNORE) | {value: index for index, value in enumerate(order)}
        return MaskLookup(meaning, lookup.wrong, lookup.remedy)

    order = sorted(held(grey))
    if fault := stretched(grey, [(value,) * 3 for value in order]):
        return MaskReading(LabelSet.numbered(len(order)), in_order(order), (fault,))
    if fault := None if count else no_ids(ids, grey, void):
        return MaskReading(labels, lookup, (fault,))
    if order := class_values(ids, grey, void, count):
        labels = labels if count else LabelSet.numbered(max(len(order), 2))
        return MaskReading(labels, in_order(order), (sparse(order, grey, void, count),))
    mixed = mixed_first_ids(grey, void, count) if count in (None, last) else None
    found, zero = [mixed] if mixed else [], [mask for mask in grey if 0 in {*ids} & mask.held]
    few_zeros = len(zero) <= STRAY_FILES * len(grey) and 20 * pixels[0] <= pixels.total()
    kept = "class 0" not in declared.drop
    if kept and not found and 1 in ids and last > 1 and (last == count and not zero if count else few_zeros):
        what = f"{plural(pixels[0], 'pixel')} of 0, and otherwise ids from 1 to {last}"
        remedy = "" if count else "give data.drop '[class 0]' if 0 means unlabelled; or "
        remedy += "write masks with ids from 0, and 255 for unlabelled pixels, as 'crispseg doctor' does with "
        remedy += f"data.ignore '[0]' and data.num_classes {last}"
        severity = Severity.ERROR if count else Severity.WARNING
        found.append(fault_of("one-based-ids", zero or grey, what, remedy, severity))
        lookup = in_order(range(1, last + 1)) if count else lookup
    others, white = pixels.total() - pixels[0] - pixels[IGNORE], pixels[IGNORE]
    if not (count or found or IGNORE in void) and white > others:
        ignored = [mask for mask in grey if IGNORE in mask.held]
        what, palette = f"255 in most pixels that are not 0, and otherwise {few(ids, 8)}", [(IGNORE,) * 3]
        palette += [(value, value, value) for value in ids]
        settings = [{"data.palette": palette, "data.ignore": []}, {"data.ignore": [IGNORE]}]
        remedy = f"give {BY_THRESHOLD} if they are black and white, data.palette '{compact(palette)}' and data.ignore "
        remedy += "'[]' if 255 is background, or data.ignore '[255]' if 255 means ignore"
        strays = len(ids) <= last or (4 if last == 1 else 20) * others <= white  # gaps, or few pixels
        severity = Severity.ERROR if strays or 2 * white > pixels.total() else Severity.INFORMATION
        found.append(fault_of("black-and-white-masks", ignored, what, remedy, severity, settings=settings))
    refused = any(one.severity is Severity.ERROR for one in found)
    with_ids = [IGNORE in mask.held for mask in grey if mask.held - {0, IGNORE}]
    without = [mask for mask in grey if mask.held == {0, IGNORE}]
    if with_ids and sum(with_ids) < len(without) and not refused and IGNORE not in void:
        remedy = "write class ids like the others, or give data.ignore '[255]' if 255 means unlabelled"
        code = "odd-masks"
        if classes == 2:
            code, lookup = "black-and-white-masks", MaskLookup({0: 0, 1: 1, IGNORE: 1}, lookup.wrong, lookup.remedy)
        found.append(fault_of(code, without, "0 and 255 only, and the others class ids without 255", remedy))
    reading = read_by(labels, lookup, grey)
    return replace(reading, faults=tuple(found) if mixed else (*found, *reading.faults))


def _in_color(count: int | None, colored: list[MaskStatistics], grey: list[MaskStatistics]) -> MaskReading:
    """Propose a palette for masks that mostly have colours."""
    masks = [*colored, *(mask for mask in grey if mask.values[-1] <= IGNORE)]
    pixels = pixels_of(masks, in_color=True)
    what, several = f"{len(pixels)} colours, but there is no palette", len(pixels) > IGNORE
    levels = {} if several else color_map_levels(pixels)
    as_levels = [np.array([levels.get(tuple(color), 0) for color in as_colors(mask).tolist()]) for mask in masks]
    leveled = [mask._replace(values=each) for mask, each in zip(masks, as_levels, strict=True)]
    if fault := stretched(leveled, sorted(levels, key=levels.__getitem__)):
        return MaskReading(LabelSet.numbered(2), ColorLookup(BLACK_AND_WHITE), (fault,))
    if several or any(mask.interpolated for mask in colored):
        ((_, background),), every = pixels.most_common(1), pixels.total()
        pixels = pixels_of([part(mask, mask.flat > least_flat(mask)) for mask in masks], in_color=True)
        several &= 2 * (pixels.total() - background) < every - background
        if known := [*pixels]:
            unblended = [part(mask, beyond(as_colors(mask), np.array(known))) for mask in masks]
            pixels |= pixels_of(unblended, in_color=True)
    palette = proposed([color for color, _ in pixels.most_common(IGNORE)], colored)
    palette.sort(key=lambda color: levels.get(color, 0))
    bands = Counter(mask.band for mask in colored)
    void = [color for color in palette if 2 * bands[color] > len(colored)] if len(palette) > 2 else []
    palette = [color for color in palette if color not in void]
    what += "; their palettes differ, so indices have no fixed meaning" * any(mask.palette for mask in colored)
    numbered = sorted(map(sum, [*palette, *void])) == [*range(last := len(palette) + len(void))]
    if numbered := numbered and len({color.index(max(color)) for color in palette if any(color)}) == 1:
        what += f"; they are the numbers 0 to {last - 1} in one channel, of classes or of objects"
    if not 2 <= len(palette) <= MANY_COLORS or several:
        remedy = "if these are photographs, give data.masks; if each object has a colour, write masks of class ids"
        remedy += ", often one of the channels; otherwise give data.palette, a colour for each class"
        fault = fault_of("rgb-masks", colored, what, remedy)
        return MaskReading(LabelSet.numbered(2), ColorLookup(BLACK_AND_WHITE), (fault,))
    lookup = ColorLookup(palette, void)
    settings: dict[str, object] = {"data.palette": tuple(palette)} | ({"data.ignore": void} if void else {})
    remedy = f"give data.palette '{compact(palette)}' and, in this order, data.classes '[name, …]'"
    remedy += f"; and data.ignore '{compact(void)}', a thin band between the others" * bool(void)
    if len(palette) > 3 and (0, 0, 0) in palette:
        remedy += "; if black means unlabelled, give it as data.ignore instead"
    remedy += "; if they number objects, save this channel alone and give data.instances" * numbered
    _, largest, strange = tolerance_for(lookup, masks)
    if strange:
        settings["data.palette_tolerance"] = largest
        remedy += f"; and data.palette_tolerance {largest} to replace other colours by the nearest of these"
    labels = LabelSet(LabelSet.numbered(len(palette)).names, tuple(palette))
    choices = [settings] if count in (None, len(palette)) else []
    return MaskReading(labels, lookup, (fault_of("rgb-masks", colored, what, remedy, settings=choices),))


def _colors_among_ids(colored: list[MaskStatistics], remedy: str) -> list[Finding]:
    if not colored:
        return []
    colors = sorted(pixels_of(colored, in_color=True))
    what = f"the colours {few(map(list, colors), 8)} instead of class ids"
    return [fault_of("rgb-masks", colored, what, remedy)]
