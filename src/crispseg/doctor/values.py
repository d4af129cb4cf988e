"""What the values of the masks mean: as declared, or as they can be read, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crispseg.data.check import BLACK_AND_WHITE
from crispseg.data.decoders import ColorDecoder, Decoder, IdDecoder, TableDecoder, ValueDecoder
from crispseg.data.folder import plausible_ids
from crispseg.doctor.kinds import Finding, counted, finding, plural
from crispseg.doctor.scan import MaskFacts, PairFacts
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
    decoder: Decoder
    findings: list[Finding] = field(default_factory=list)
    refused: frozenset[str] = frozenset()
    """Mask files of another kind than the others, such as colours among ids, which cannot be read."""

    def decode(self, mask: MaskFacts) -> Decoded:
        """Labels of the values of a mask, without an error for those of no class."""
        in_colors = mask.colors or isinstance(self.decoder, ColorDecoder)
        keys: list[Any] = _colors(mask) if in_colors else mask.values.tolist()
        known: Mapping[Any, int] = {} if mask.header.file in self.refused else self.decoder.meaning
        found = [known.get(key) for key in keys]
        labels = [IGNORE if label is None else label for label in found]
        return Decoded(np.array(labels, np.uint8), np.array([label is None for label in found]))


def usable(facts: Iterable[PairFacts]) -> list[MaskFacts]:
    """The masks whose values tell something."""
    return [one.mask for one in facts if isinstance(one.mask, MaskFacts) and not one.mask.header.lossy]


def read_values(subject: Subject, facts: Sequence[PairFacts]) -> Reading | None:
    """How to read the masks, and what is wrong with their values; None if no mask can be read."""
    masks, declared = usable(facts), subject.decoder
    if not masks:
        return None
    if subject.labels is not None and isinstance(declared, ColorDecoder):
        return _read_by(subject.labels, declared, masks)
    colored, grey = [mask for mask in masks if mask.colors], [mask for mask in masks if not mask.colors]
    if len(colored) > len(grey) and subject.own:
        return _colored(colored, grey)
    reading = _special(subject, grey) if subject.own else None
    single = _black_and_white_single(grey) if subject.own and reading is None else []
    if reading is None and subject.labels is not None and declared is not None:
        reading = _read_by(subject.labels, declared, grey)
    elif reading is None:
        ids = _without_strays(grey, subject.ignore)
        count = min(max(ids[-1] + 1 if ids else 0, 2), IGNORE)
        remedy = "write masks of the class ids 0 to 254" if ids and ids[-1] >= count else None
        reading = _read_by(LabelSet.numbered(count), IdDecoder(count, subject.ignore), grey, remedy)
    few = _rgb_among_ids(colored, None if subject.own else declared) if colored else []
    refused = frozenset(mask.header.file for mask in colored)
    return Reading(reading.labels, reading.decoder, [*reading.findings, *few, *single], refused)


def _special(subject: Subject, grey: list[MaskFacts]) -> Reading | None:
    """Masks that all have one of the common mistakes of own data; None where they have not."""
    declared = subject.decoder
    pixels = _pixels(grey)
    total = sum(pixels.values())
    between = total - pixels[0] - pixels[255]
    if pixels[255] and pixels[0] and (set(pixels) == {0, 255} or (between < 0.05 * total and len(pixels) > 64)):
        files = [mask.header.file for mask in grey if 255 in mask.values]
        rest = "0 and 255; 255 means ignore in masks of class ids"
        found = counted("black-and-white-masks", files, "mask holds", rest, remedy=BLACK_AND_WHITE)
        labels = subject.labels if subject.labels is not None and len(subject.labels) == 2 else LabelSet.numbered(2)
        return _read_by(labels, ColorDecoder(((0, 0, 0), (255, 255, 255))), grey, before=found)
    drawn = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    if isinstance(declared, ValueDecoder):
        ids = sorted(value for value in _pixels(drawn) if declared.meaning.get(value) != IGNORE)
    else:
        ids = _without_strays(drawn, subject.ignore)
    if not ids:
        return None
    count = len(subject.labels) if subject.labels is not None else ids[-1]
    if ids[0] == 1 and ids[-1] == count and (declared or plausible_ids(ids)) and len(ids) > 1 and count <= IGNORE:
        message = f"the ids are 1 to {count}; 0 never occurs" + (
            f", and {count} is out of range 0 to {count - 1}" if declared else ", so class 0 would be empty"
        )
        found = [finding("one-based-ids", message, [mask.header.file for mask in grey])]
        labels = subject.labels or LabelSet.numbered(max(count, 2))
        decoder = TableDecoder({0: IGNORE, **{index + 1: index for index in range(len(labels))}}, "ids from 1")
        return _read_by(labels, decoder, grey, before=found)
    if declared is None and not plausible_ids(ids) and 2 <= len(ids) <= IGNORE:
        return _sparse(ids, subject.ignore, grey)
    return None


def _sparse(ids: list[int], ignore: tuple[int, ...], grey: list[MaskFacts]) -> Reading:
    """Few values, far between, which are taken as classes in their order."""
    palette: tuple[Color, ...] | None = tuple((value, value, value) for value in ids) if ids[-1] <= 255 else None
    labels = LabelSet.numbered(len(ids))
    remedy = f"write masks of class ids, such as 0 to {len(ids) - 1}; values over 255 are none"
    if palette is not None:
        labels = LabelSet(labels.names, palette)
        remedy = f"say what they mean by --data.num_classes or --data.classes, or give {_flag(palette)}"
    shown = ", ".join(map(str, ids[:12])) + (", …" if len(ids) > 12 else "")
    message = f"the masks hold {len(ids)} values up to {ids[-1]} ({shown}), which hardly are all class ids"
    files = [mask.header.file for mask in grey]
    decoder = TableDecoder(
        {**{value: index for index, value in enumerate(ids)}, **dict.fromkeys(ignore, IGNORE)}, "values"
    )
    return Reading(labels, decoder, [finding("sparse-ids", message, files, remedy=remedy, values=ids)])


def _colored(colored: list[MaskFacts], grey: list[MaskFacts]) -> Reading:
    """Most masks have colours, and no palette is declared: propose one."""
    pixels: Counter[Color] = Counter()
    for mask in (*colored, *grey):
        pixels.update(dict(zip(_colors(mask), mask.counts.tolist(), strict=True)))
    several = len(pixels) > IGNORE or any(mask.blended >= BLENDED for mask in colored)
    least = 1e-3 * pixels.total() if several else 0
    palette = tuple(sorted(color for color, count in pixels.items() if count >= least))[:IGNORE]
    if len(palette) < 2:
        palette = tuple(color for color, _ in pixels.most_common(2))
    kept = f"; the {len(palette)} of at least 0.1 % of the pixels are proposed" if several else ""
    found = counted(
        "rgb-masks",
        [mask.header.file for mask in colored],
        "mask has",
        f"colours, {len(pixels)} in all, and there is no palette{kept}",
        remedy=f"give {_flag(palette)} and, in this order, --data.classes '[name, …]'",
        palette=palette,
    )
    return Reading(LabelSet(LabelSet.numbered(len(palette)).names, palette), ColorDecoder(palette), found)


def _rgb_among_ids(colored: list[MaskFacts], decoder: Decoder | None) -> list[Finding]:
    """Masks with colours where ids are expected, of own data or, with its decoder, of a public data set."""
    colors = sorted({color for mask in colored for color in _colors(mask)})
    shown = ", ".join(str(list(color)) for color in colors[:8]) + (", …" if len(colors) > 8 else "")
    remedy = f"save these as class ids like the others or, if all should have colours, give {_flag(colors[:IGNORE])}"
    if isinstance(decoder, ValueDecoder):
        remedy = decoder.remedy
    files, rest = [mask.header.file for mask in colored], f"colours ({shown}) where class ids are expected"
    return counted("rgb-masks", files, "mask has", rest, remedy=remedy, palette=colors[:IGNORE])


def _read_by(
    labels: LabelSet,
    decoder: Decoder,
    masks: list[MaskFacts],
    remedy: str | None = None,
    before: Sequence[Finding] = (),
) -> Reading:
    """Masks that are read by a decoder: which values mean no class, and where they are."""
    reading = Reading(labels, decoder)
    pixels: Counter[Any] = Counter()
    files: dict[str, int] = {}
    from_one: list[str] = []
    in_colors = isinstance(decoder, ColorDecoder)
    for mask in masks:
        decoded = reading.decode(mask)
        if mask.blended >= BLENDED or not decoded.bad.any():
            continue
        if isinstance(decoder, IdDecoder) and _starts_at_one(mask, decoded, len(labels)):
            from_one.append(mask.header.file)
            continue
        keys = _colors(mask) if mask.colors else mask.values.tolist()
        for key, count, bad in zip(keys, mask.counts.tolist(), decoded.bad, strict=True):
            pixels[key] += count if bad else 0
        files[mask.header.file] = int(mask.counts[decoded.bad].sum())
    strange = {key: count for key, count in pixels.most_common() if count}
    shown = [
        f"{list(key) if isinstance(key, tuple) else key} ({plural(count, 'pixel')})" for key, count in strange.items()
    ]
    more = f" and {len(shown) - 8} more" if len(shown) > 8 else ""
    rest = f"the {'colour' if in_colors else 'value'} {', '.join(shown[:8])}{more}"
    found = counted(
        "unknown-color" if in_colors else "value-out-of-range",
        [file for file, _ in sorted(files.items(), key=lambda item: -item[1])],
        "mask has",
        rest if in_colors else f"{rest}, out of range 0 to {len(labels) - 1}",
        remedy=remedy,
        values={str(key): count for key, count in strange.items()},
        pixels=files,
    )
    found += counted("one-based-ids", from_one, "mask has", f"the ids 1 to {len(labels)}, without 0")
    return Reading(labels, decoder, [*before, *found])


def _starts_at_one(mask: MaskFacts, decoded: Decoded, classes: int) -> bool:
    """Whether a mask has no 0, two or more ids, and the number of classes as its only value of no class."""
    ids = mask.values[decoded.bad | (decoded.labels != IGNORE)].tolist()
    return len(ids) > 1 and 0 not in ids and mask.values[decoded.bad].tolist() == [classes]


def _black_and_white_single(grey: list[MaskFacts]) -> list[Finding]:
    """Single masks of 0 and 255 among masks of ids that hardly use 255."""
    suspects = [mask.header.file for mask in grey if mask.values.tolist() == [0, 255]]
    others = [mask for mask in grey if mask.values.tolist() != [0, 255]]
    use = sum(IGNORE in mask.values for mask in others)
    if len(suspects) > len(others) or use > 0.2 * len(others):
        return []
    return counted("black-and-white-mask", suspects, "mask holds", "0 and 255 only, where the others hold other values")


def _without_strays(grey: list[MaskFacts], ignore: tuple[int, ...]) -> list[int]:
    """The sorted values, without those to ignore and without high ones in few masks that no ids lead up to."""
    files = Counter(value for mask in grey if mask.blended < BLENDED for value in mask.values.tolist())
    every = sorted(set(files) - {IGNORE, *ignore})
    ids = list(every)
    while ids and not plausible_ids(ids) and files[ids[-1]] <= STRAY_FILES * len(grey):
        ids.pop()
    return ids if len(ids) > 1 and plausible_ids(ids) else every


def _pixels(masks: list[MaskFacts]) -> Counter[int]:
    pixels: Counter[int] = Counter()
    for mask in masks:
        pixels.update(dict(zip(mask.values.tolist(), mask.counts.tolist(), strict=True)))
    return pixels


def _colors(mask: MaskFacts) -> list[Color]:
    """The values of a mask as colours; a grey value v is (v, v, v)."""
    if mask.colors:
        return [(red, green, blue) for red, green, blue in mask.values.tolist()]
    return [(value, value, value) for value in mask.values.tolist()]


def _flag(palette: Sequence[Color]) -> str:
    """To paste into a shell."""
    return "--data.palette '[" + ",".join(f"[{red},{green},{blue}]" for red, green, blue in palette) + "]'"
