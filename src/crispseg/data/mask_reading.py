"""What masks mean: which of their values and colours are classes, which are ignored, and what is wrong with them.

Training and scoring refuse what has errors here, `crispseg doctor` reports it, and both read masks by the same lookup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np

from crispseg.config.settings import plural
from crispseg.data.mask_lookup import (
    DEEP_WHITE,
    NOISE,
    NONE,
    ColorLookup,
    IdLookup,
    MaskLookup,
    MaskStatistics,
    flat_between,
    held,
    pixels_of,
    without_tint,
)
from crispseg.data.pairing import few
from crispseg.data.palettes import compact, palettes_differ, proposed, tolerance_for, without_variants
from crispseg.data.split_check import TWO_CLASSES
from crispseg.labels import IGNORE, Color, LabelSet

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

OBJECTS = 20
"""Up to so many ids may well be classes that all occur in one image."""

SHADES = 64
"""If no classes are declared: more values than these, up to `LIGHT` or in interpolated masks, are hardly class ids."""

BLENDED = 0.3
"""From this share of blended steps on a mask counts as interpolated. CamVid's masks have up to 0.04."""

STRAY_FILES = 0.2
"""If no classes are declared: values beyond a gap, in no more than this share of the masks, are strays."""

ODD_FILES = 0.01
"""Up to this share of the masks, those that do not fit what most masks say are left out; more are an error."""

WHITES = {IGNORE, DEEP_WHITE}
DARK, LIGHT = 64, 192
"""Masks that are black and white have a value below the one, and one from the other on."""
SPIKE = 0.4
"""No value along soft edges has a larger share of the pixels that are not black."""

THRESHOLD = 255
"""Tolerance with which the palette of black and white means a threshold at half, for greys that JPEG tinted too."""


BY_THRESHOLD = f"data.palette '[[0,0,0],[255,255,255]]' and data.palette_tolerance {THRESHOLD}"


class Severity(IntEnum):
    """An error stops training or makes scores wrong; a warning may cost quality; information is worth knowing."""

    INFORMATION = 0
    WARNING = 1
    ERROR = 2

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True)
class Finding:
    """Something about data that is wrong or worth knowing, and where it was found."""

    code: str
    """Its kind, one of `crispseg.doctor.KINDS`."""
    severity: Severity
    message: str
    remedy: str
    count: int
    """Number of files, pairs, groups or classes; 0 where nothing was found."""
    files: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for the JSON report."""

    @property
    def line(self) -> str:
        """What it is, and what to do."""
        return f"{self.message}; {self.remedy}"


@dataclass(frozen=True)
class DeclaredClasses:
    """What is declared about masks."""

    count: int | None
    """Number of classes; None if nothing is declared."""
    names: tuple[str, ...] | None = None
    palette: tuple[Color, ...] | None = None
    """The colours that mean the classes."""
    ids: tuple[int, ...] = ()
    """The classes of these colours, if one has several."""
    ignore: tuple[Any, ...] = ()
    """Values, or with a palette colours, that are ignored besides 255."""
    tolerance: float | None = None
    """That of the palette, see `ColorLookup`; if None, the masks tell."""
    merge: Mapping[str, Sequence[str]] = field(default_factory=dict)
    drop: Sequence[str] = ()
    """Classes that are made of others, and classes that are ignored."""

    def labels(self, count: int) -> LabelSet:
        """So many classes, with the names and colours that are declared; greys are none to draw in."""
        palette = self.palette or ()
        if self.ids:
            palette = tuple(palette[self.ids.index(index)] for index in range(count))
        names = tuple(f"class {index}" for index in range(count)) if self.names is None else self.names
        if self.names is None and palette == (BLACK, WHITE):
            names = ("background", "class 1")
        drawn = any(len({*color}) > 1 for color in palette)
        return LabelSet(names, palette) if drawn else LabelSet.colored(names)


@dataclass(frozen=True)
class MaskReading:
    """The meaning of the masks of a data set."""

    labels: LabelSet
    lookup: MaskLookup
    faults: tuple[Finding, ...] = ()
    corrected: MaskReading | None = None
    """How a corrected copy reads them, if faults can be corrected: with ids from 0, say, where these start at 1."""
    left_out: tuple[str, ...] = ()
    """Files of masks that are not read, since they do not fit what most masks say."""

    @property
    def best(self) -> MaskReading:
        """As corrected, if that can be."""
        return self.corrected or self

    @property
    def shown(self) -> MaskReading:
        """As training reads the masks or, if it refuses them, the best."""
        return self.best if any(fault.severity is Severity.ERROR for fault in self.faults) else self


def read_masks(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read own masks: as declared, or as their values and colours tell; then merge and drop classes.

    Masks of lossy files can be read by a lookup that has a tolerance, and count nowhere else.
    """
    reading = _all_classes(declared, masks)
    if inverted := [mask for mask in masks if mask.inverted]:
        mixed = len(inverted) < len(masks)
        what = f"0 for white{', unlike the others' * mixed}, and are read the other way round"
        remedy = "if that is wrong, tifffile.imwrite(file, tifffile.imread(file)) keeps the values as they are stored"
        fault = _fault("inverted-masks", inverted, what, remedy, Severity.ERROR if mixed else Severity.WARNING)
        reading = replace(reading, faults=(*reading.faults, fault))
    if not (declared.merge or declared.drop):
        return reading
    labels, ids = reading.labels.regrouped(declared.merge, declared.drop)
    return replace(reading, labels=labels, lookup=reading.lookup.regrouped(ids), corrected=None)


def _all_classes(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    if declared.palette is not None:
        return _by_palette(declared, declared.palette, masks)
    masks = [mask.in_color for mask in masks] if palettes_differ(masks) else [*map(without_tint, masks)]
    exact = [mask for mask in masks if not mask.lossy]
    colored, grey = [mask for mask in exact if mask.colors], [mask for mask in masks if not mask.colors]
    if len(colored) > len(grey):
        return _colors_without_palette(colored, [mask for mask in grey if not mask.lossy])
    black_and_white = _black_and_white(declared, grey)
    reading = black_and_white or _ids(declared, [mask for mask in grey if not mask.lossy])
    remedy = "save these as class ids like the others or, if all should have colours, give data.palette"
    reading = replace(reading, faults=(*reading.faults, *_colors_among_ids(colored, remedy)))
    return _outvoted(reading, len(masks)) if black_and_white or declared.count is None else reading


def _by_palette(declared: DeclaredClasses, palette: tuple[Color, ...], masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read masks by a palette. Colours that are none of it, and no class either, mean the nearest that is."""
    exact = ColorLookup(palette, declared.ignore, declared.ids, tolerance=declared.tolerance or 0)
    masks = [mask.in_color for mask in masks] if exact.in_color else masks
    reading = read_by(declared.labels(declared.count or len(palette)), exact, masks)
    off = [
        mask for mask in masks if mask.lossy or mask.file in {file for fault in reading.faults for file in fault.files}
    ]
    if declared.tolerance is not None or not off:
        return reading
    grey = [*map(without_tint, masks)]
    two = replace(declared, palette=None, count=2)
    if palette == (BLACK, WHITE) and not any(mask.colors for mask in grey) and (found := _black_and_white(two, grey)):
        return found
    tolerance, largest = tolerance_for(exact, off)
    if tolerance is None:
        others = f", or give data.palette_tolerance {largest} to take the nearest colours"
        refusal = exact.refusal + others * all(mask.colors for mask in off)
        exact = ColorLookup(palette, declared.ignore, declared.ids, refusal)
        return read_by(reading.labels, exact, [mask for mask in masks if not mask.lossy])
    what = f"colours that are not in data.palette, up to a distance of {largest}: the nearest ones are meant"
    remedy = "give data.palette_tolerance 0 to refuse them"
    note = _fault("near-colors", off, what, remedy, Severity.INFORMATION)
    near = ColorLookup(palette, declared.ignore, declared.ids, tolerance=tolerance)
    return MaskReading(reading.labels, near, (note,))


def _outvoted(reading: MaskReading, count: int) -> MaskReading:
    """Leave out the masks that do not fit what most say, if these are few."""
    odd = [fault for fault in reading.faults if fault.code in ODD and len(fault.files) <= ODD_FILES * count]
    faults = [fault for fault in reading.faults if fault not in odd]
    for fault in odd:
        names = few(Path(file).name for file in fault.files)
        message = f"{fault.message}, unlike the others; training leaves them out ({names})"
        faults.append(replace(fault, severity=Severity.WARNING, message=message))
    left_out = {file for fault in odd for file in fault.files}
    return replace(reading, faults=tuple(faults), left_out=tuple(sorted(left_out)))


OF_ALL = ("black-and-white-among-ids", "black-and-white-masks", "odd-masks", "inverted-masks")
"""Kinds of faults that only all masks together show, whatever is declared."""

ODD = ("black-and-white-among-ids", "odd-masks", "rgb-masks", "value-out-of-range")
"""Kinds of faults that single masks may have."""


def read_by(labels: LabelSet, lookup: MaskLookup, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read masks by a lookup that is known: values without meaning are faults, as are colours that it cannot read."""
    faults, colors = [], lookup.colors
    if not colors:
        faults = _colors_among_ids([mask for mask in masks if mask.colors], lookup.remedy)
        masks = [mask for mask in masks if not mask.colors]
    pixels: Counter[Any] = Counter()  # of the values without meaning
    strange = []  # the files with these
    for mask in masks:
        wrong = lookup.labels_of(mask) == NONE
        if wrong.any():
            pixels.update(pixels_of([mask._replace(values=mask.values[wrong], quarters=mask.quarters[wrong])], colors))
            strange.append(mask)
    if strange:
        counts = pixels.most_common()
        shown = [f"{list(key) if colors else key} ({plural(count, 'pixel')})" for key, count in counts]
        reason, _, remedy = lookup.refusal.partition("; ")
        what = f"the {'colour' if colors else 'value'} {few(shown, 8)}, which {reason}"
        code, values = "unknown-color" if colors else "value-out-of-range", {str(key): count for key, count in counts}
        faults.append(_fault(code, strange, what, remedy, values=values))
    return MaskReading(labels, lookup, tuple(faults))


def _black_and_white(declared: DeclaredClasses, grey: list[MaskStatistics]) -> MaskReading | None:
    """Read masks in which 255 means a class, or should; None if they are none of these."""
    if WHITES & {*declared.ignore} or declared.count not in (None, 2) or not any(mask.held - {0} for mask in grey):
        return None
    labels = replace(declared, palette=(BLACK, WHITE)).labels(2)
    pure = MaskReading(labels, ColorLookup((BLACK, WHITE)))
    threshold = replace(pure, lookup=ColorLookup((BLACK, WHITE), tolerance=THRESHOLD))
    white, ones = ([mask for mask in grey if {1, IGNORE} & mask.held == {value}] for value in (IGNORE, 1))
    both = sum({1, IGNORE} <= mask.held for mask in grey)
    if ones and [mask.held for mask in white].count({0, IGNORE}) > both and held(grey) == {0, 1, IGNORE}:
        # two programs have written them, and 255 hardly means ignore
        few_ones = len(ones) < len(white)
        what = f"0 and {1 if few_ones else 255} only, and the others 0 and {255 if few_ones else 1}"
        remedy = "write all in one way; or give data.ignore '[255]' if 255 means ignore"
        fault = _fault("black-and-white-among-ids", ones if few_ones else white, what, remedy)
        usual = pure if few_ones else MaskReading(declared.labels(2), IdLookup(2, declared.ignore))
        corrected = MaskReading(labels, ColorLookup((BLACK, (1, 1, 1), WHITE), ids=(0, 1, 1)))
        return replace(usual, faults=(fault,), corrected=corrected)
    tones = [(_tones(mask), mask) for mask in grey]
    pure_ones, soft, strays, odd = (
        [mask for tone, mask in tones if tone == kind] for kind in ("pure", "soft", "strays", "odd")
    )
    inexact, fitting = [*soft, *strays], [mask for tone, mask in tones if tone != "odd"]
    values = held(fitting) or {IGNORE}
    if (odd and len(odd) >= len(pure_ones) + len(inexact)) or min(values) >= DARK or max(values) < LIGHT:
        return None
    ids, between = sorted({0, *held(odd)} - WHITES), sorted(held(inexact) - WHITES - {0})
    if len(odd) > ODD_FILES * len(grey) and plausible_ids(ids) and any(WHITES & mask.held for mask in odd):
        return None  # class ids, and pixels that are ignored
    faults = []
    if strays and not soft:
        in_a_row = between[-1] == len(between)
        if len(strays) > ODD_FILES * len(grey) if in_a_row else 2 * len(strays) > len(fitting):
            remedy = f"give {BY_THRESHOLD} if they are black and white, or data.ignore '[255]' if 255 means ignore"
            what = f"0 and 255, and few pixels of {few(between, 8)}"
            faults.append(_fault("black-and-white-masks", strays, what, remedy))
    if odd:
        remedy = f"correct or remove them, or give {BY_THRESHOLD} to take what is at least 128 for white"
        levels = sorted({value for mask in odd for value in flat_between(mask)[:2]} or held(odd))
        what = f"the values {few(levels, 8)}, and the others are black and white"
        faults.append(_fault("odd-masks", odd, what, remedy))
    name = f"class 1, '{labels.names[1]}'"
    what = f"0 and 255 only: 255 is read as {name}"
    if inexact:
        what = f"0 and 255, and others along edges or as strays: 128 and more are read as {name}, less as class 0"
        what += f" ({plural(len(strays), 'mask')} with {few(sorted(held(strays) - {0, *WHITES}), 8)})" * bool(strays)
    remedy = "give data.ignore '[255]' if it means ignore"
    marked = [mask for mask in fitting if mask.held - {0}]
    if not faults or odd:
        faults.append(_fault("black-and-white-masks", marked, what, remedy, Severity.INFORMATION))
    return replace(threshold if inexact else pure, faults=tuple(faults))


def _tones(mask: MaskStatistics) -> str:
    """How a grey mask is black and white: pure, soft along edges, with few strays, or hardly, which is odd; "" if all
    of it is the one or the other.
    """
    values, counts, total = mask.values, mask.counts, mask.counts.sum()
    white = np.isin(values, [*WHITES])
    between, marked = counts[~white & (values > 0)].sum(), counts[values > 0].sum()
    if not between:
        return "pure" if white.any() and not white.all() else ""
    if values[-1] > IGNORE or flat_between(mask):
        return "odd"
    far = (values > NOISE * bool(mask.lossy)) & (values < IGNORE - NOISE)
    blended = mask.blended >= BLENDED and far.sum() > 1  # a single value is a class, or a border
    spread = mask.lossy or blended or (far.sum() >= 16 and values[~white].max() >= LIGHT)
    if spread and 2 * counts[far].sum() <= total and max(counts[far], default=0) <= SPIKE * marked:
        return "soft"
    few_pixels = 20 * between <= marked or (100 * between <= total and 2 * between < marked)
    return "strays" if few_pixels and white.any() and not mask.lossy else "odd"


def _ids(declared: DeclaredClasses, grey: list[MaskStatistics]) -> MaskReading:
    count, void = declared.count, declared.ignore
    found = []
    ids = _without_strays(grey, void) if count is None else sorted(held(grey) - {IGNORE, *void})
    last = ids[-1] if ids else 0
    classes = count or min(max(last + 1, 2), IGNORE)
    plain = declared.labels(classes), IdLookup(classes, void)
    shaded = sum(mask.blended >= BLENDED for mask in grey)
    levels = Counter(value for mask in grey for value in flat_between(mask)[:2])
    grey_levels = last < IGNORE and len(ids) > (OBJECTS if levels else SHADES)
    if count is None and grey_levels and (last >= LIGHT or 2 * shaded > len(grey)):
        what = f"{len(ids)} values up to {last}, as grey pictures and soft edges have"
        what += f", and flat areas of {few((value for value, _ in levels.most_common(3)), 3)}" * bool(levels)
        remedy = f"give {BY_THRESHOLD} if they are black and white, or data.num_classes if they are class ids"
        return MaskReading(*plain, (_fault("grey-pictures", grey, what, remedy),))
    if count is None and _number_objects(grey, void):
        remedy = "give them by data.instances instead of data.masks; or, if they are class ids, give data.num_classes"
        what = f"values up to {last} that count up from 1: they number objects, not classes"
        return MaskReading(*plain, (_fault("object-numbers", grey, what, remedy),))
    corrected: tuple[LabelSet, MaskLookup] | None = None
    if len(ids) > 1 and ids[0] == 1 and last == (count or last) < IGNORE and (count or plausible_ids(ids)):
        remedy = "write masks with ids from 0, and 255 for what is unlabelled; 'crispseg doctor' can write a copy"
        severity = Severity.ERROR if count else Severity.WARNING
        found.append(_fault("one-based-ids", grey, f"the ids 1 to {last}, without 0", remedy, severity))
        moved = {**dict.fromkeys((0, *void, IGNORE), IGNORE), **{index + 1: index for index in range(last)}}
        corrected = declared.labels(last), MaskLookup(moved, plain[1].refusal)
    if count is None and ids in ([], [0]):
        what = "only the value 0" if ids else "nothing but ignored values"
        found.append(_fault("one-class-only" if ids else "no-labels", grey, what, TWO_CLASSES))
    elif count is None and not plausible_ids(ids) and len(ids) <= IGNORE:
        found.append(_sparse(ids, void, grey))
        meaning = {value: index for index, value in enumerate(ids)} | dict.fromkeys((*void, IGNORE), IGNORE)
        corrected = LabelSet.numbered(max(len(ids), 2)), MaskLookup(meaning, plain[1].refusal)
    pixels = pixels_of(grey)
    if count is None and not found and 2 * pixels[IGNORE] > pixels.total() - pixels[0] and IGNORE not in void:
        ignored = [mask for mask in grey if IGNORE in mask.held]
        what, remedy = "255 in most pixels that are not 0, and it is ignored", "give data.palette if it means a class"
        found.append(_fault("black-and-white-masks", ignored, what, remedy, Severity.INFORMATION))
    best = read_by(*(corrected or plain), grey)
    return MaskReading(*plain, (*found, *best.faults), best if corrected else None)


def _sparse(ids: list[int], void: Sequence[int], grey: list[MaskStatistics]) -> Finding:
    remedy = f"write masks of class ids, such as 0 to {len(ids) - 1}"
    if 2 <= len(ids) <= OBJECTS and ids[-1] < IGNORE:
        ignored = sorted({*void, *({IGNORE} & held(grey))})
        greys = compact([(value, value, value)] for value in ids)
        remedy = f"give data.palette '{greys}' for the classes in this order"
        remedy += f", and data.ignore '{ignored}'" if ignored else ""
        remedy += f"; or, if they are class ids, data.num_classes {ids[-1] + 1}"
    what = f"{plural(len(ids), 'value')} up to {ids[-1]} ({few(ids, 12)}), which hardly are all class ids"
    return _fault("sparse-ids", grey, what, remedy, values=ids)


def _colors_without_palette(colored: list[MaskStatistics], grey: list[MaskStatistics]) -> MaskReading:
    """Read masks most of which have colours, if no palette is declared: propose one."""
    pixels = pixels_of([*colored, *(mask for mask in grey if mask.values[-1] <= IGNORE)], as_colors=True)
    several = len(pixels) > IGNORE or any(mask.blended >= BLENDED for mask in colored)
    least = 1e-3 * pixels.total() if several else 0
    frequent = [color for color, count in pixels.most_common(IGNORE) if count >= least]
    palette = tuple(sorted(without_variants(frequent, colored)))
    near = f"; {len(frequent) - len(palette)} near others, in masks without these, are taken for them"
    if len(palette) < 2:
        palette = tuple(dict.fromkeys([*(color for color, _ in pixels.most_common(2)), BLACK, WHITE]))[:2]
    kept = f"; the {len(palette)} of at least 0.1 % of the pixels are proposed" if several else ""
    what = f"{len(pixels)} colours, and there is no palette{kept}{near if len(frequent) > len(palette) else ''}"
    what += "; their own palettes differ, so that indices mean nothing" * any(mask.palette for mask in colored)
    setting = proposed(palette, colored)
    clear = [list(color) for group in setting for color in group if len(group) > 1]
    what += f"; transparent pixels have the colours {few(clear, 8)}, which are proposed as one class" * bool(clear)
    remedy = f"give data.palette '{compact(setting)}' and, in this order, data.classes '[name, …]'"
    if several and 2 * sum(pixels[color] for color in palette) < pixels.total():
        remedy = "if these are photographs, give the masks by data.masks; else data.palette, a colour for each class"
        return MaskReading(
            LabelSet.numbered(2), ColorLookup((BLACK, WHITE)), (_fault("rgb-masks", colored, what, remedy),)
        )
    settings = [{"data.palette": tuple(group[0] if len(group) == 1 else group for group in setting)}]
    fault = _fault("rgb-masks", colored, what, remedy, palette=palette, settings=settings)
    ids = {color: index for index, group in enumerate(setting) for color in group}
    labels = LabelSet(LabelSet.numbered(len(setting)).names, tuple(group[0] for group in setting))
    return MaskReading(labels, ColorLookup((*ids,), ids=(*ids.values(),)), (fault,))


def _colors_among_ids(colored: list[MaskStatistics], remedy: str) -> list[Finding]:
    if not colored:
        return []
    colors = sorted(pixels_of(colored, as_colors=True))
    what = f"the colours {few(map(list, colors), 8)} where class ids are expected"
    return [_fault("rgb-masks", colored, what, remedy, palette=colors[:IGNORE])]


def plausible_ids(values: Sequence[int]) -> bool:
    """Whether sorted values, without those to ignore, look like class ids: at least half of 0 to the last occur."""
    return 2 * len(values) >= values[-1] + 1


def _number_objects(grey: list[MaskStatistics], void: Sequence[int]) -> bool:
    """Whether masks with many values hold nearly all from 1 to the largest one, as no photograph has all classes."""
    none = {0, IGNORE, *void}
    ids = [(mask.held - none, mask.distinct - len(mask.held & none)) for mask in grey]
    many = [count >= 0.9 * max(held) for held, count in ids if max(held, default=0) > OBJECTS]
    return bool(many) and sum(many) >= 0.8 * len(many)


def _without_strays(grey: list[MaskStatistics], void: Sequence[int]) -> list[int]:
    files = Counter(value for mask in grey for value in mask.held)
    every = sorted(files.keys() - {IGNORE, *void})
    ids = list(every)
    while ids and not plausible_ids(ids) and files[ids[-1]] <= STRAY_FILES * len(grey):
        ids.pop()
    return ids if len(ids) > 1 and plausible_ids(ids) else every


def _fault(
    code: str,
    masks: Sequence[MaskStatistics],
    what: str,
    remedy: str,
    severity: Severity = Severity.ERROR,
    **details: Any,
) -> Finding:
    message = f"{plural(len(masks), 'mask')} {'holds' if len(masks) == 1 else 'hold'} {what}"
    return Finding(code, severity, message, remedy, max(len(masks), 1), tuple(mask.file for mask in masks), details)
