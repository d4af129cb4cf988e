"""What the values of the masks mean: as declared, or as they can be read, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.config.wording import plural
from crispseg.data.folder import Folder
from crispseg.data.mask_lookup import DEEP_WHITE, ColorLookup, IdLookup, MaskLookup, TableLookup, ValueLookup
from crispseg.data.pairing import few
from crispseg.data.split_check import BLACK_AND_WHITE
from crispseg.data.undeclared import number_objects, plausible_ids, white_among_ids
from crispseg.doctor.kinds import Finding, Severity, finding
from crispseg.doctor.scan import MaskFacts, PairFacts, files_of
from crispseg.doctor.subject import Subject
from crispseg.labels import IGNORE, Color, LabelSet

STRAY = 0.01
"""So large a share of a mask may have values of no class for the rest of it to be worth keeping."""

BLENDED = 0.3
"""From this share of blended steps on a mask counts as interpolated. CamVid's masks have up to 0.04."""

STRAY_FILES = 0.2
"""Where nothing is declared: values beyond a gap, in no more than this share of the masks, are strays."""


class Decoded(NamedTuple):
    """Labels of a mask's values."""

    labels: NDArray[np.uint8]
    """`(n,)`, 255 for those to ignore and those of no class."""
    bad: NDArray[np.bool_]
    """`(n,)` whether a value means no class."""

    def histogram(self, facts: MaskFacts) -> NDArray[np.int64]:
        """`(256,)` pixels of each label."""
        return np.bincount(self.labels, facts.counts, minlength=256).astype(np.int64)

    def stray(self, facts: MaskFacts) -> float:
        """The share of pixels of no class."""
        return float(facts.counts[self.bad].sum() / facts.counts.sum())


@dataclass(frozen=True)
class Reading:
    """How the masks are best read."""

    labels: LabelSet
    lookup: MaskLookup
    findings: list[Finding] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    """Mask files of another kind than the others, such as colours among ids, which cannot be read."""

    def decode(self, mask: MaskFacts) -> Decoded:
        """Labels of the values of a mask, without an error for those of no class."""
        known: Mapping[Any, int] = {} if mask.header.file in self.refused else self.lookup.meaning
        found = [known.get(key) for key in _keys(mask, as_colors=isinstance(self.lookup, ColorLookup))]
        labels = [IGNORE if label is None else label for label in found]
        return Decoded(np.array(labels, np.uint8), np.array([label is None for label in found]))


def usable(facts: Iterable[PairFacts]) -> list[MaskFacts]:
    """The masks whose values tell something."""
    return [one.mask for one in facts if isinstance(one.mask, MaskFacts) and not one.mask.header.lossy]


def read_values(subject: Subject, facts: Sequence[PairFacts]) -> Reading | None:
    """How to read the masks, and what is wrong with their values; None if no mask can be read."""
    masks, declared = usable(facts), subject.lookup
    if not masks:
        return None
    if subject.labels is not None and isinstance(declared, ColorLookup):
        return _read_by(subject.labels, declared, masks)
    colored, grey = [mask for mask in masks if mask.colors], [mask for mask in masks if not mask.colors]
    if len(colored) > len(grey) and subject.own:
        return _colored(colored, grey)
    found = [_colors_among_ids(colored, None if subject.own else declared)]
    reading = _special(subject, grey) if subject.own else None
    if reading is None:
        reading = _plain(subject, grey)
        if subject.own:
            found.append(_black_and_white_single(grey))
        if subject.own and declared is None:
            numbers = number_objects([set(mask.values.tolist()) - {IGNORE, *subject.ignore} for mask in grey])
            found.append(finding("object-numbers", files_of(grey) if numbers else []))
    return replace(reading, findings=[*reading.findings, *found], refused=frozenset(files_of(colored)))


def _special(subject: Subject, grey: list[MaskFacts]) -> Reading | None:
    """Masks that all have one of the common mistakes of own data; None where they have not."""
    declared, labels = subject.lookup, subject.labels
    pixels = _pixels(grey)
    ignored = isinstance(subject.source, Folder) and {IGNORE, DEEP_WHITE} & {*subject.source.ignore}
    two = labels if labels is not None and len(labels) == 2 else LabelSet.numbered(2)
    among = [] if ignored else white_among_ids([set(mask.values.tolist()) for mask in grey])
    if any(among) and labels in (None, two):
        found = finding("black-and-white-among-ids", files_of(compress(grey, among)))
        either = ColorLookup(((0, 0, 0), (1, 1, 1), (255, 255, 255)), ids=(0, 1, 1))
        return _read_by(two, either, grey, before=[found])
    bright = pixels[IGNORE] + pixels[DEEP_WHITE]
    white = bright and pixels[0] and not ignored
    pure = {*pixels} <= {0, IGNORE, DEEP_WHITE}
    between = pixels.total() - pixels[0] - bright
    if white and (pure or (between < 0.05 * pixels.total() and len(pixels) > 64)):
        files = files_of(mask for mask in grey if {IGNORE, DEEP_WHITE} & {*mask.values.tolist()})
        if pure and (labels is None or len(labels) == 2):
            remedy = "nothing needs to be done: 255 is read as class 1; give --data.ignore '[255]' if it means ignore"
            found = finding("black-and-white-masks", files, severity=Severity.INFORMATION, remedy=remedy)
        else:
            found = finding("black-and-white-masks", files, remedy=BLACK_AND_WHITE)
        either = ColorLookup(((0,) * 3, (IGNORE,) * 3, (DEEP_WHITE,) * 3), ids=(0, 1, 1))
        return _read_by(two, either if pixels[DEEP_WHITE] else ColorLookup(either.palette[:2]), grey, before=[found])
    drawn = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    if isinstance(declared, ValueLookup):
        ids = sorted(value for value in _pixels(drawn) if declared.meaning.get(value) != IGNORE)
    else:
        ids = _without_strays(drawn, subject.ignore)
    if len(ids) < 2:
        return None
    count = ids[-1] if labels is None else len(labels)
    if ids[0] == 1 and ids[-1] == count <= IGNORE and (declared or plausible_ids(ids)):
        effect = f", and {count} is out of range 0 to {count - 1}" if declared else ", so class 0 would be empty"
        found = finding("one-based-ids", files_of(grey), last=count, effect=effect)
        lookup = TableLookup({0: IGNORE, **{index + 1: index for index in range(count)}}, "ids from 1")
        return _read_by(labels or LabelSet.numbered(count), lookup, grey, before=[found])
    if declared is None and not plausible_ids(ids) and len(ids) <= IGNORE:
        return _sparse(ids, subject.ignore, grey)
    return None


def _sparse(ids: list[int], ignore: tuple[int, ...], grey: list[MaskFacts]) -> Reading:
    """Few values, far between, which are taken as classes in their order."""
    labels = LabelSet.numbered(len(ids))
    remedy = f"write masks of class ids, such as 0 to {len(ids) - 1}; values over 255 are none"
    if ids[-1] <= 255:
        labels = LabelSet(labels.names, tuple((value, value, value) for value in ids))
        remedy = f"give {_flag(labels.palette)}"
        if any(IGNORE in mask.values for mask in grey):
            remedy += " and --data.ignore '[255]', or 255 as one more colour if it is a class"
        remedy += f"; or, if they are class ids, --data.num_classes {ids[-1] + 1}"
    found = finding(
        "sparse-ids",
        files_of(grey),
        remedy=remedy,
        details={"values": ids},
        number=len(ids),
        last=ids[-1],
        shown=few(ids, 12),
    )
    meaning = {value: index for index, value in enumerate(ids)} | dict.fromkeys(ignore, IGNORE)
    return Reading(labels, TableLookup(meaning, "values"), [found])


def _plain(subject: Subject, grey: list[MaskFacts]) -> Reading:
    """Masks read as declared or, where nothing is, as ids up to the last one."""
    if subject.labels is not None and subject.lookup is not None:
        return _read_by(subject.labels, subject.lookup, grey)
    ids = _without_strays(grey, subject.ignore)
    count = min(max(ids[-1] + 1 if ids else 0, 2), IGNORE)
    remedy = "write masks of the class ids 0 to 254" if ids and ids[-1] >= count else None
    return _read_by(LabelSet.numbered(count), IdLookup(count, subject.ignore), grey, remedy)


def _colored(colored: list[MaskFacts], grey: list[MaskFacts]) -> Reading:
    """Most masks have colours, and no palette is declared: propose one."""
    pixels = _pixels([*colored, *grey], as_colors=True)
    several = len(pixels) > IGNORE or any(mask.blended >= BLENDED for mask in colored)
    least = 1e-3 * pixels.total() if several else 0
    palette = tuple(sorted(color for color, count in pixels.items() if count >= least))[:IGNORE]
    if len(palette) < 2:
        palette = tuple(color for color, _ in pixels.most_common(2))
    kept = f"; the {len(palette)} of at least 0.1 % of the pixels are proposed" if several else ""
    found = finding(
        "rgb-masks",
        files_of(colored),
        which=f", {len(pixels)} in all, and there is no palette{kept}",
        remedy=f"give {_flag(palette)} and, in this order, --data.classes '[name, …]'",
        details={"palette": palette},
    )
    return Reading(LabelSet(LabelSet.numbered(len(palette)).names, palette), ColorLookup(palette), [found])


def _colors_among_ids(colored: list[MaskFacts], lookup: MaskLookup | None) -> Finding:
    """Masks with colours where ids are expected, of own data or, with its lookup, of a public data set."""
    colors = sorted(_pixels(colored, as_colors=True))
    remedy = f"save these as class ids like the others or, if all should have colours, give {_flag(colors[:IGNORE])}"
    if isinstance(lookup, ValueLookup):
        remedy = lookup.remedy
    which = f" ({few(map(list, colors), 8)}) where class ids are expected"
    return finding("rgb-masks", files_of(colored), remedy=remedy, details={"palette": colors[:IGNORE]}, which=which)


def _read_by(
    labels: LabelSet,
    lookup: MaskLookup,
    masks: list[MaskFacts],
    remedy: str | None = None,
    before: Sequence[Finding] = (),
) -> Reading:
    """Masks that are read by a lookup: which values mean no class, and where they are."""
    reading = Reading(labels, lookup)
    strange: list[MaskFacts] = []  # with nothing but the values of no class
    from_one: list[str] = []
    for mask in masks:
        decoded = reading.decode(mask)
        if mask.blended >= BLENDED or not decoded.bad.any():
            continue
        if isinstance(lookup, IdLookup) and _starts_at_one(mask, decoded, len(labels)):
            from_one.append(mask.header.file)
        else:
            strange.append(mask._replace(values=mask.values[decoded.bad], counts=mask.counts[decoded.bad]))
    pixels = dict(_pixels(strange).most_common())
    shown = [f"{list(key) if isinstance(key, tuple) else key} ({plural(pixels[key], 'pixel')})" for key in pixels]
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    files = dict(Counter({mask.header.file: int(mask.counts.sum()) for mask in strange}).most_common())
    found = finding(
        "unknown-color" if isinstance(lookup, ColorLookup) else "value-out-of-range",
        files,
        remedy=remedy,
        details={"values": {str(key): count for key, count in pixels.items()}, "pixels": files},
        shown=", ".join(shown[:8]) + more,
        last=len(labels) - 1,
    )
    reading.findings.extend((*before, found, finding("one-based-ids", from_one, last=len(labels), effect="")))
    return reading


def _starts_at_one(mask: MaskFacts, decoded: Decoded, classes: int) -> bool:
    """Whether a mask has no 0, two or more ids, and the number of classes as its only value of no class."""
    ids = mask.values[decoded.bad | (decoded.labels != IGNORE)].tolist()
    return len(ids) > 1 and 0 not in ids and mask.values[decoded.bad].tolist() == [classes]


def _black_and_white_single(grey: list[MaskFacts]) -> Finding:
    """Single masks of 0 and 255 among masks of ids that hardly use 255."""
    suspects = [mask for mask in grey if mask.values.tolist() == [0, 255]]
    others = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    use = sum(IGNORE in mask.values for mask in others)
    usual = len(suspects) > len(others) or use > 0.2 * len(others)
    return finding("black-and-white-mask", [] if usual else files_of(suspects))


def _without_strays(grey: list[MaskFacts], ignore: tuple[int, ...]) -> list[int]:
    """The sorted values, without those to ignore and without high ones in few masks that no ids lead up to."""
    files = Counter(value for mask in grey if mask.blended < BLENDED for value in mask.values.tolist())
    every = sorted(set(files) - {IGNORE, *ignore})
    ids = list(every)
    while ids and not plausible_ids(ids) and files[ids[-1]] <= STRAY_FILES * len(grey):
        ids.pop()
    return ids if len(ids) > 1 and plausible_ids(ids) else every


def _pixels(masks: Iterable[MaskFacts], as_colors: bool = False) -> Counter[Any]:
    """The pixels of each value, or colour, in all of the masks."""
    pixels: Counter[Any] = Counter()
    for mask in masks:
        pixels.update(dict(zip(_keys(mask, as_colors), mask.counts.tolist(), strict=True)))
    return pixels


def _keys(mask: MaskFacts, as_colors: bool) -> list[Any]:
    """The values of a mask, those of colours as tuples; `as_colors` makes a grey value v the colour (v, v, v)."""
    if mask.colors:
        return [*map(tuple, mask.values.tolist())]
    return [(value, value, value) if as_colors else value for value in mask.values.tolist()]


def _flag(palette: Sequence[Color]) -> str:
    """To paste into a shell."""
    return "--data.palette '[" + ",".join(f"[{red},{green},{blue}]" for red, green, blue in palette) + "]'"
