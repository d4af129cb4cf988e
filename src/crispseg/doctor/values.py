"""What the values of the masks mean: as declared, or as they can be read, and what is wrong with them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from crispseg.data.base import Decoder, IdDecoder
from crispseg.data.check import BLACK_AND_WHITE
from crispseg.data.folder import ColorDecoder, plausible_ids
from crispseg.data.layouts import TableDecoder
from crispseg.doctor.facts import MaskFacts, PairFacts
from crispseg.doctor.kinds import Finding, finding, plural
from crispseg.doctor.subject import Subject
from crispseg.labels import IGNORE, Color, LabelSet

Everywhere: TypeAlias = Callable[[Decoder], dict[str, Decoder]]
"""One decoder for all splits."""

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
    decoders: dict[str, Decoder]
    """For each split."""
    findings: list[Finding] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    """Mask files of another kind than the others, such as colours among ids, which cannot be read."""

    def decode(self, split: str, mask: MaskFacts) -> Decoded:
        """Labels of the values of a mask, without an error for those of no class."""
        decoder = self.decoders[split]
        values = mask.values.astype(np.uint8) if mask.values.max(initial=0) <= 255 else mask.values.astype(np.uint16)
        if mask.header.file in self.refused:
            return Decoded(np.full(len(values), IGNORE, np.uint8), np.ones(len(values), bool))
        try:
            return Decoded(decoder(values[None])[0], np.zeros(len(values), bool))
        except ValueError:
            one_by_one = [_decode_one(decoder, values[None, index : index + 1]) for index in range(len(values))]
            labels = np.array([IGNORE if label is None else label for label in one_by_one], np.uint8)
            return Decoded(labels, np.array([label is None for label in one_by_one]))


def _decode_one(decoder: Decoder, value: NDArray[Any]) -> int | None:
    try:
        return int(decoder(value).item())
    except ValueError:
        return None


def usable(facts: Iterable[PairFacts]) -> list[tuple[str, MaskFacts]]:
    """Split and facts of the masks whose values tell something."""
    return [(one.split, one.mask) for one in facts if isinstance(one.mask, MaskFacts) and not one.mask.header.lossy]


def read_values(subject: Subject, facts: Sequence[PairFacts]) -> Reading | None:
    """How to read the masks, and what is wrong with their values; None if no mask can be read."""
    masks = usable(facts)
    if not masks:
        return None
    declared = None
    if subject.labels is not None:
        declared = {split.name: split.decode for split in subject.splits if split.decode is not None}
        if not all(isinstance(decoder, (IdDecoder, TableDecoder)) for decoder in declared.values()):
            return _declared(subject.labels, declared, masks)
    colored = [mask for _, mask in masks if mask.colors]
    grey = [mask for _, mask in masks if not mask.colors]

    def everywhere(decoder: Decoder) -> dict[str, Decoder]:
        return {split.name: decoder for split in subject.splits}

    if len(colored) > len(grey) and _own(subject):
        return _colored(colored, grey, everywhere)
    public = None if _own(subject) else next(iter((declared or {}).values()), None)
    few = [_rgb_among_ids(colored, public)] if colored else []
    refused = frozenset(mask.header.file for mask in colored)
    special = _special(subject, grey, declared, everywhere)
    if special is not None:
        return Reading(special.labels, special.decoders, [*special.findings, *few], refused)
    if declared is not None and subject.labels is not None:
        reading = _declared(subject.labels, declared, masks, refused)
    else:
        ids = _without_strays(grey, subject.ignore)
        count = min(max(ids[-1] + 1 if ids else 0, 2), IGNORE)
        inferred: Decoder = IdDecoder(count, subject.ignore)
        remedy = "write masks of the class ids 0 to 254" if ids and ids[-1] >= count else None
        reading = _declared(LabelSet.numbered(count), everywhere(inferred), masks, refused, remedy)
    single = _black_and_white_single(grey) if _own(subject) else []
    return Reading(reading.labels, reading.decoders, [*reading.findings, *few, *single], refused)


def _own(subject: Subject) -> bool:
    """Whether the masks are the user's own, whose values may mean anything."""
    return subject.name == "folder"


def _special(
    subject: Subject, grey: list[MaskFacts], declared: dict[str, Decoder] | None, everywhere: Everywhere
) -> Reading | None:
    """Masks that all have one of the common mistakes of own data; None where they have not."""
    if not _own(subject):
        return None
    ignored = {IGNORE, *subject.ignore}
    first = next(iter((declared or {}).values()), None)
    if isinstance(first, IdDecoder):
        ignored |= set(first.ignore)
    pixels = _pixels(grey)
    total = sum(pixels.values())
    values = set(pixels)
    between = total - pixels.get(0, 0) - pixels.get(255, 0)
    if pixels.get(255) and pixels.get(0) and (values == {0, 255} or (between < 0.05 * total and len(values) > 64)):
        files = [mask.header.file for mask in grey if 255 in mask.values]
        message = f"{plural(len(files), 'mask', ('holds', 'hold'))} 0 and 255; 255 means ignore in masks of class ids"
        found = finding("black-and-white-masks", message, files, remedy=BLACK_AND_WHITE)
        labels = subject.labels if subject.labels is not None and len(subject.labels) == 2 else LabelSet.numbered(2)
        decoder = ColorDecoder(((0, 0, 0), (255, 255, 255)))
        reading = _declared(labels, everywhere(decoder), [("", mask) for mask in grey])
        return Reading(labels, everywhere(decoder), [found, *reading.findings])
    drawn = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    ids = sorted(set(_pixels(drawn)) - ignored) if declared else _without_strays(drawn, subject.ignore)
    if not ids:
        return None
    count = len(subject.labels) if subject.labels is not None else ids[-1]
    if ids[0] == 1 and ids[-1] == count and (declared or plausible_ids(ids)) and len(ids) > 1 and count <= IGNORE:
        files = [mask.header.file for mask in grey]
        message = f"the ids are 1 to {count}; 0 never occurs" + (
            f", and {count} is out of range 0 to {count - 1}" if declared else ", so class 0 would be empty"
        )
        labels = subject.labels or LabelSet.numbered(max(count, 2))
        decoders = everywhere(TableDecoder((IGNORE, *range(len(labels))), "ids from 1"))
        reading = _declared(labels, decoders, [("", mask) for mask in grey])
        return Reading(labels, decoders, [finding("one-based-ids", message, files), *reading.findings])
    if declared is None and not plausible_ids(ids) and 2 <= len(ids) <= IGNORE:
        return _sparse(ids, subject.ignore, grey, everywhere)
    return None


def _sparse(ids: list[int], ignore: tuple[int, ...], grey: list[MaskFacts], everywhere: Everywhere) -> Reading:
    """Few values, far between, which are taken as classes in their order."""
    if ids[-1] <= 255:
        palette: tuple[Color, ...] = tuple((value, value, value) for value in ids)
        remedy = f"say what they mean by --data.num_classes or --data.classes, or give {_flag(palette)}"
        labels = LabelSet(LabelSet.numbered(len(palette)).names, palette)
        void = (IGNORE, *(value for value in ignore if value <= 255))
        decoder: Decoder = ColorDecoder(palette, tuple((value, value, value) for value in void))
    else:
        remedy = f"write masks of class ids, such as 0 to {len(ids) - 1}; values over 255 are none"
        labels = LabelSet.numbered(len(ids))
        table = np.full(max(ids[-1], *ignore, 0) + 1, IGNORE + 1)
        table[ids], table[list(ignore)] = np.arange(len(ids)), IGNORE
        decoder = TableDecoder(tuple(table.tolist()), "values")
    shown = ", ".join(map(str, ids[:12])) + (", …" if len(ids) > 12 else "")
    found = finding(
        "sparse-ids",
        f"the masks hold {len(ids)} values up to {ids[-1]} ({shown}), which hardly are all class ids",
        [mask.header.file for mask in grey],
        remedy=remedy,
        values=ids,
    )
    return Reading(labels, everywhere(decoder), [found])


def _colored(colored: list[MaskFacts], grey: list[MaskFacts], everywhere: Everywhere) -> Reading:
    """Most masks have colours, and no palette is declared: propose one."""
    pixels: dict[Color, int] = defaultdict(int)
    for mask in (*colored, *grey):
        colors = mask.values if mask.colors else np.repeat(mask.values[:, None], 3, axis=1)
        for (red, green, blue), count in zip(colors.tolist(), mask.counts.tolist(), strict=True):
            pixels[red, green, blue] += count
    total = sum(pixels.values())
    several = len(pixels) > IGNORE or any(mask.blended >= BLENDED for mask in colored)
    palette = tuple(sorted(color for color, count in pixels.items() if not several or count >= 1e-3 * total))[:IGNORE]
    if len(palette) < 2:
        palette = tuple(sorted(pixels, key=pixels.__getitem__)[-2:])
    files = [mask.header.file for mask in colored]
    kept = f"; the {len(palette)} of at least 0.1 % of the pixels are proposed" if several else ""
    found = finding(
        "rgb-masks",
        f"{plural(len(files), 'mask', ('has', 'have'))} colours, {len(pixels)} in all, and there is no palette{kept}",
        files,
        remedy=f"give {_flag(palette)} and, in this order, --data.classes '[name, …]'",
        palette=palette,
    )
    labels = LabelSet(LabelSet.numbered(len(palette)).names, palette)
    return Reading(labels, everywhere(ColorDecoder(palette)), [found])


def _rgb_among_ids(colored: list[MaskFacts], decoder: Decoder | None) -> Finding:
    """Masks with colours where ids are expected, of own data or, with its decoder, of a public data set."""
    colors = sorted({(red, green, blue) for mask in colored for red, green, blue in mask.values.tolist()})
    shown = ", ".join(str(list(color)) for color in colors[:8]) + (", …" if len(colors) > 8 else "")
    files = [mask.header.file for mask in colored]
    remedy = f"save these as class ids like the others or, if all should have colours, give {_flag(colors[:IGNORE])}"
    if decoder is not None:
        remedy = getattr(decoder, "remedy", "restore the original masks, of class ids")
    return finding(
        "rgb-masks",
        f"{plural(len(files), 'mask', ('has', 'have'))} colours ({shown}) where class ids are expected",
        files,
        remedy=remedy,
        palette=colors[:IGNORE],
    )


def _declared(
    labels: LabelSet,
    decoders: dict[str, Decoder],
    masks: list[tuple[str, MaskFacts]],
    refused: frozenset[str] = frozenset(),
    remedy: str | None = None,
) -> Reading:
    """Masks that are read as declared: which values mean no class, and where they are."""
    reading = Reading(labels, decoders, [], refused)
    pixels: dict[bool, dict[Any, int]] = {True: defaultdict(int), False: defaultdict(int)}
    files: dict[bool, dict[str, int]] = {True: {}, False: {}}
    from_one: list[str] = []
    for split, mask in masks:
        if mask.header.file in refused or mask.blended >= BLENDED:
            continue
        decoded = reading.decode(split or next(iter(decoders)), mask)
        if not decoded.bad.any():
            continue
        if isinstance(decoders[split or next(iter(decoders))], IdDecoder) and _starts_at_one(
            mask, decoded, len(labels)
        ):
            from_one.append(mask.header.file)
            continue
        in_colors = mask.colors or isinstance(decoders[split or next(iter(decoders))], ColorDecoder)
        for value, count in zip(mask.values[decoded.bad].tolist(), mask.counts[decoded.bad].tolist(), strict=True):
            pixels[in_colors][tuple(value) if isinstance(value, list) else value] += count
        files[in_colors][mask.header.file] = int(mask.counts[decoded.bad].sum())
    for in_colors, code, noun in ((False, "value-out-of-range", "value"), (True, "unknown-color", "colour")):
        strange = pixels[in_colors]
        if strange:
            most = sorted(strange, key=lambda value: -strange[value])
            shown = ", ".join(
                f"{list(value) if isinstance(value, tuple) else value} ({plural(strange[value], 'pixel')})"
                for value in most[:8]
            )
            more = f" and {len(most) - 8} more" if len(most) > 8 else ""
            allowed = "" if in_colors else f", out of range 0 to {len(labels) - 1}"
            reading.findings.append(
                finding(
                    code,
                    f"{plural(len(files[in_colors]), 'mask', ('has', 'have'))} the {noun} {shown}{more}{allowed}",
                    [file for file, _ in sorted(files[in_colors].items(), key=lambda item: -item[1])],
                    remedy=remedy,
                    values={str(value): strange[value] for value in most},
                    pixels=files[in_colors],
                )
            )
    if from_one:
        message = f"{plural(len(from_one), 'mask', ('has', 'have'))} the ids 1 to {len(labels)}, without 0"
        reading.findings.append(finding("one-based-ids", message, from_one))
    return reading


def _starts_at_one(mask: MaskFacts, decoded: Decoded, classes: int) -> bool:
    """Whether a mask has no 0, two or more ids, and the number of classes as its only value of no class."""
    ids = mask.values[decoded.bad | (decoded.labels != IGNORE)].tolist()
    return len(ids) > 1 and 0 not in ids and mask.values[decoded.bad].tolist() == [classes]


def _black_and_white_single(grey: list[MaskFacts]) -> list[Finding]:
    """Single masks of 0 and 255 among masks of ids that hardly use 255."""
    suspects = [mask.header.file for mask in grey if mask.values.tolist() == [0, 255]]
    others = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    use = sum(IGNORE in mask.values for mask in others)
    if not suspects or len(suspects) > len(others) or use > 0.2 * len(others):
        return []
    message = f"{plural(len(suspects), 'mask', ('holds', 'hold'))} 0 and 255 only, where the others hold other values"
    return [finding("black-and-white-mask", message, suspects)]


def _without_strays(grey: list[MaskFacts], ignore: tuple[int, ...]) -> list[int]:
    """The sorted values, without those to ignore and without high ones in few masks that no ids lead up to."""
    files: dict[int, int] = defaultdict(int)
    for mask in grey:
        if mask.blended < BLENDED:
            for value in mask.values.tolist():
                files[value] += 1
    every = sorted(set(files) - {IGNORE, *ignore})
    ids = list(every)
    while ids and not plausible_ids(ids) and files[ids[-1]] <= STRAY_FILES * len(grey):
        ids.pop()
    return ids if len(ids) > 1 and plausible_ids(ids) else every


def _pixels(masks: list[MaskFacts]) -> dict[int, int]:
    pixels: dict[int, int] = defaultdict(int)
    for mask in masks:
        for value, count in zip(mask.values.tolist(), mask.counts.tolist(), strict=True):
            pixels[value] += count
    return pixels


def _flag(palette: Sequence[Color]) -> str:
    """To paste into a shell."""
    return "--data.palette '[" + ",".join(f"[{red},{green},{blue}]" for red, green, blue in palette) + "]'"
