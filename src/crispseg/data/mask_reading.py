"""What masks mean: which of their values and colours are classes, which are ignored, and what is wrong with them.

Training and scoring refuse what has errors here, `crispseg doctor` reports it, and both read masks by the same lookup.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

from crispseg.config.settings import plural
from crispseg.data.mask_lookup import DEEP_WHITE, NONE, ColorLookup, IdLookup, MaskLookup, MaskStatistics
from crispseg.data.pairing import few
from crispseg.data.split_check import TWO_CLASSES
from crispseg.labels import IGNORE, Color, LabelSet

BLACK, WHITE = (0, 0, 0), (255, 255, 255)

OBJECTS = 20
"""Up to so many ids may well be classes that all occur in one image."""

BLENDED = 0.3
"""From this share of blended steps on a mask counts as interpolated. CamVid's masks have up to 0.04."""

STRAY_FILES = 0.2
"""If no classes are declared: values beyond a gap, in no more than this share of the masks, are strays."""


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
    ignore: tuple[Any, ...] = ()
    """Values, or with a palette colours, that are ignored besides 255."""

    def labels(self, count: int) -> LabelSet:
        """So many classes, with the names and colours that are declared; black and white are none to draw in."""
        names = tuple(f"class {index}" for index in range(count)) if self.names is None else self.names
        drawn = self.palette is not None and {*self.palette} != {BLACK, WHITE}
        return LabelSet(names, self.palette or ()) if drawn else LabelSet.colored(names)


@dataclass(frozen=True)
class MaskReading:
    """The meaning of the masks of a data set."""

    labels: LabelSet
    lookup: MaskLookup
    faults: tuple[Finding, ...] = ()
    corrected: MaskReading | None = None
    """How a corrected copy reads them, if faults can be corrected: with ids from 0, say, where these start at 1."""

    @property
    def best(self) -> MaskReading:
        """As corrected, if that can be."""
        return self.corrected or self

    @property
    def shown(self) -> MaskReading:
        """As training reads the masks or, if it refuses them, the best."""
        return self.best if any(fault.severity is Severity.ERROR for fault in self.faults) else self


def read_masks(declared: DeclaredClasses, masks: Sequence[MaskStatistics]) -> MaskReading:
    """Read own masks: as declared, or as their values and colours tell."""
    if declared.palette is not None:
        lookup = ColorLookup(declared.palette, declared.ignore)
        return read_by(declared.labels(len(declared.palette)), lookup, masks)
    colored, grey = [mask for mask in masks if mask.colors], [mask for mask in masks if not mask.colors]
    if len(colored) > len(grey):
        return _colors_without_palette(colored, grey)
    reading = _black_and_white(declared, grey) or _ids(declared, grey)
    remedy = "save these as class ids like the others or, if all should have colours, give data.palette"
    return replace(reading, faults=(*reading.faults, *_colors_among_ids(colored, remedy)))


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
            pixels.update(_pixels([mask._replace(values=mask.values[wrong], quarters=mask.quarters[wrong])], colors))
            strange.append(mask.file)
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
    whites = {IGNORE, DEEP_WHITE}
    if whites & {*declared.ignore} or declared.count not in (None, 2):
        return None
    two = declared.labels(2)
    as_ids = MaskReading(two, IdLookup(2, declared.ignore))
    black_and_white = MaskReading(two, ColorLookup((BLACK, WHITE)))
    each = [mask.held for mask in grey]
    if {0, IGNORE} in each and _held(grey) == {0, 1, IGNORE} and not any({1, IGNORE} <= one for one in each):
        # two programs have written them, and 255 hardly means ignore
        white = [mask.file for mask in grey if IGNORE in mask.held]
        remedy = "write all in one way; or give data.ignore '[255]' if 255 means ignore"
        fault = _fault("black-and-white-among-ids", white, "0 and 255 only, and the others 0 and 1", remedy)
        corrected = MaskReading(two, ColorLookup((BLACK, (1, 1, 1), WHITE), ids=(0, 1, 1)))
        return replace(as_ids, faults=(fault,), corrected=corrected)
    pixels = _pixels(grey)
    bright = pixels[IGNORE] + pixels[DEEP_WHITE]
    if not (bright and pixels[0]):
        return None
    files = [mask.file for mask in grey if whites & mask.held]
    pure = {*pixels} <= {0, *whites}
    between = pixels.total() - pixels[0] - bright
    if pure:
        what = f"0 and 255 only: 255 is read as class 1, '{two.names[1]}'"
        remedy = "give data.ignore '[255]' if it means ignore"
        fault = _fault("black-and-white-masks", files, what, remedy, Severity.INFORMATION)
        return replace(black_and_white, faults=(fault,))
    if len(pixels) > 64 and between < 0.05 * pixels.total() and any(one.blended >= BLENDED for one in grey):
        what = f"0 and 255, with {len(pixels) - 2} values in between along soft edges"
        remedy = "make them again of 0 and 255 only; or, if all values are class ids, give data.num_classes"
        fault = _fault("black-and-white-masks", files, what, remedy)
        return replace(as_ids, faults=(fault,), corrected=black_and_white)
    return None


def _ids(declared: DeclaredClasses, grey: list[MaskStatistics]) -> MaskReading:
    count, void, files = declared.count, declared.ignore, [mask.file for mask in grey]
    found = []
    ids = _without_strays(grey, void) if count is None else sorted(_held(grey) - {IGNORE, *void})
    last = ids[-1] if ids else 0
    classes = count or min(max(last + 1, 2), IGNORE)
    plain = declared.labels(classes), IdLookup(classes, void)
    if count is None and _number_objects(grey, void):
        remedy = "give them by data.instances instead of data.masks; or, if they are class ids, give data.num_classes"
        what = f"values up to {last} that count up from 1: they number objects, not classes"
        return MaskReading(*plain, (_fault("object-numbers", files, what, remedy),))
    corrected: tuple[LabelSet, MaskLookup] | None = None
    if len(ids) > 1 and ids[0] == 1 and last == (count or last) < IGNORE and (count or plausible_ids(ids)):
        remedy = "write masks with ids from 0, and 255 for what is unlabelled; 'crispseg doctor' can write a copy"
        severity = Severity.ERROR if count else Severity.WARNING
        found.append(_fault("one-based-ids", files, f"the ids 1 to {last}, without 0", remedy, severity))
        moved = {**dict.fromkeys((0, *void, IGNORE), IGNORE), **{index + 1: index for index in range(last)}}
        corrected = declared.labels(last), MaskLookup(moved, plain[1].refusal)
    if count is None and ids in ([], [0]):
        what = "only the value 0" if ids else "nothing but ignored values"
        found.append(_fault("one-class-only" if ids else "no-labels", files, what, TWO_CLASSES))
    elif count is None and not plausible_ids(ids) and len(ids) <= IGNORE:
        found.append(_sparse(ids, void, grey))
        meaning = {value: index for index, value in enumerate(ids)} | dict.fromkeys((*void, IGNORE), IGNORE)
        corrected = LabelSet.numbered(max(len(ids), 2)), MaskLookup(meaning, plain[1].refusal)
    best = read_by(*(corrected or plain), grey)
    return MaskReading(*plain, (*found, *best.faults), best if corrected else None)


def _sparse(ids: list[int], void: Sequence[int], grey: list[MaskStatistics]) -> Finding:
    remedy = f"write masks of class ids, such as 0 to {len(ids) - 1}"
    if 2 <= len(ids) <= OBJECTS and ids[-1] < IGNORE:
        ignored = sorted({*void, *({IGNORE} & _held(grey))})
        remedy = f"give {_setting([(value, value, value) for value in ids])} for the classes in this order"
        remedy += f", and data.ignore '{ignored}'" if ignored else ""
        remedy += f"; or, if they are class ids, data.num_classes {ids[-1] + 1}"
    what = f"{plural(len(ids), 'value')} up to {ids[-1]} ({few(ids, 12)}), which hardly are all class ids"
    return _fault("sparse-ids", [mask.file for mask in grey], what, remedy, values=ids)


def _colors_without_palette(colored: list[MaskStatistics], grey: list[MaskStatistics]) -> MaskReading:
    """Read masks most of which have colours, if no palette is declared: propose one."""
    pixels = _pixels([*colored, *grey], as_colors=True)
    several = len(pixels) > IGNORE or any(mask.blended >= BLENDED for mask in colored)
    least = 1e-3 * pixels.total() if several else 0
    palette = tuple(sorted(color for color, count in pixels.most_common(IGNORE) if count >= least))
    if len(palette) < 2:
        palette = tuple(dict.fromkeys([*(color for color, _ in pixels.most_common(2)), BLACK, WHITE]))[:2]
    kept = f"; the {len(palette)} of at least 0.1 % of the pixels are proposed" if several else ""
    what = f"{len(pixels)} colours, and there is no palette{kept}"
    remedy = f"give {_setting(palette)} and, in this order, data.classes '[name, …]'"
    fault = _fault("rgb-masks", [mask.file for mask in colored], what, remedy, palette=palette)
    return MaskReading(LabelSet(LabelSet.numbered(len(palette)).names, palette), ColorLookup(palette), (fault,))


def _colors_among_ids(colored: list[MaskStatistics], remedy: str) -> list[Finding]:
    if not colored:
        return []
    colors = sorted(_pixels(colored, as_colors=True))
    what = f"the colours {few(map(list, colors), 8)} where class ids are expected"
    return [_fault("rgb-masks", [mask.file for mask in colored], what, remedy, palette=colors[:IGNORE])]


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


def _held(grey: Iterable[MaskStatistics]) -> set[int]:
    return set().union(*(mask.held for mask in grey))


def _pixels(masks: Iterable[MaskStatistics], as_colors: bool = False) -> Counter[Any]:
    """The pixels of each value in all masks, or of each colour; a grey value v is the colour (v, v, v)."""
    pixels: Counter[Any] = Counter()
    for mask in masks:
        values = mask.values[:, None].repeat(3, 1) if as_colors and not mask.colors else mask.values
        keys = map(tuple, values.tolist()) if as_colors else values.tolist()
        pixels.update(dict(zip(keys, mask.counts.tolist(), strict=True)))
    return pixels


def _fault(
    code: str, files: Sequence[str], what: str, remedy: str, severity: Severity = Severity.ERROR, **details: Any
) -> Finding:
    hold = "holds" if len(files) == 1 else "hold"
    return Finding(
        code, severity, f"{plural(len(files), 'mask')} {hold} {what}", remedy, max(len(files), 1), tuple(files), details
    )


def _setting(palette: Iterable[Color]) -> str:
    """A palette as a setting, to paste into a shell."""
    return "data.palette '[" + ",".join(f"[{red},{green},{blue}]" for red, green, blue in palette) + "]'"
