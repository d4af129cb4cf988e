"""The question about masks that no reader fits: what they contain, and settings to choose from."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from crispseg.config.settings import plural
from crispseg.errors import CrispsegError, Question, few
from crispseg.folders.facts import MaskFacts
from crispseg.folders.mask_values import (
    MOST_IDS,
    NOISE,
    THRESHOLD,
    WHITES,
    Masks,
    palettes_differ,
    pixels_of,
    plausible,
    values_of,
)
from crispseg.folders.meaning import BLACK_AND_WHITE, Declared
from crispseg.folders.palettes import as_color
from crispseg.labels import IGNORE, Color

MOST_CHOSEN = 40  # largest number of classes in a proposed palette
LEAST_SHARE = 0.001  # smallest share of the pixels of a proposed colour
LEAST_DISTANCE = 32  # largest distance of a variant to its colour
VARIANT = 0.25  # largest frequency of a variant, as a share of that of its colour
FARTHEST = 442  # distance between black and white, rounded up

Choices = dict[str, Mapping[str, object]]

ADVICE = (
    "give another folder as data.masks if these are no masks; give them as data.instances if they number objects; "
    "correct masks that differ from the others, or leave their images out with data.exclude"
)


def question_about(declared: Declared, masks: Masks, place: Path, instances: Path | None) -> Question:
    """Return the question, with a line for each kind of masks."""
    kinds: dict[tuple[bool, ...], list[MaskFacts]] = defaultdict(list)
    for mask in masks:
        kinds[kind_of(mask)].append(mask)
    is_mixed = palettes_differ(masks)
    by_color = is_mixed or any(mask.colors for mask in masks)
    if not by_color and values_of(masks) <= {*declared.ignore}:
        raise CrispsegError(f"{place}: no mask has a labelled pixel; label some, or correct data.ignore")
    choices = color_choices(masks) if by_color else value_choices(masks, declared, instances)
    title = f"{place}: the meaning of the mask values is unclear"
    if declared.count is not None:
        title += f" for {declared.count} classes"
    if is_mixed:
        title += "; palettes differ from file to file"
    return Question(title, [*map(fact, kinds.values())], choices, ADVICE)


def kind_of(mask: MaskFacts) -> tuple[bool, ...]:
    """Return how a single mask looks: its colours, compression, black and white, and values without large gaps."""
    black_and_white = bool(mask.held & WHITES) and mask.held <= WHITES | {0}
    return mask.colors, bool(mask.lossy), black_and_white, plausible(mask.held - {IGNORE})


def fact(masks: Masks) -> str:
    """Return a line about masks of one kind, such as "2 masks, such as a.png, with 2 values: 0 (90 %), 3 (10 %)"."""
    noun = "colour" if masks[0].colors else "value"
    pixels = pixels_of(masks)
    total = sum(pixels.values())
    shown = [f"{key} ({count / total:.2%})" for key, count in pixels.items()]
    example = f", such as {Path(masks[0].file).name},"
    lossy = ", changed by lossy compression" if masks[0].lossy else ""
    return f"{plural(len(masks), 'mask')}{example} with {plural(len(pixels), noun)}{lossy}: {few(shown, 8)}"


def value_choices(masks: Masks, declared: Declared, instances: Path | None) -> Choices:
    """Return the possible meanings of grey values."""
    values = values_of(masks)
    ids = values - {IGNORE, *declared.ignore}
    choices: Choices = {}
    if IGNORE in values and len(ids) <= MOST_IDS and plausible(ids):  # other masks have no 255, or only 0 next to it
        choices["if 255 is unlabelled, as in masks of strokes"] = {"data.ignore": sorted({*declared.ignore, IGNORE})}
        if ids == {0, 1}:
            choices["if 1 and 255 are one class"] = {"data.palette": [[as_color(0)], [as_color(1), as_color(IGNORE)]]}
        return choices
    if ids == {*range(len(ids))} and IGNORE not in values:
        choices["if each value is a class"] = {"data.num_classes": len(ids)}
        if instances is not None:
            choices["if each value is an object"] = {"data.masks": None, "data.instances": str(instances)}
        return choices
    return grey_choices(sorted(values - {*declared.ignore}), declared)


def grey_choices(values: list[int], declared: Declared) -> Choices:
    """Return the possible meanings of values far apart."""
    choices: Choices = {}
    if 1 < len(values) <= MOST_CHOSEN and values[-1] <= IGNORE:
        palette, ignore = [*map(as_color, values)], [*declared.ignore]
        choices[f"if the classes are {few(values, 8)}"] = {"data.palette": palette, "data.ignore": ignore}
        if values[-1] == IGNORE and len(values) > 2:
            settings = {"data.palette": palette[:-1], "data.ignore": [*ignore, IGNORE]}
            choices["if 255 means ignore, and the others are classes"] = settings
    if IGNORE - NOISE <= values[-1] <= IGNORE:
        threshold: dict[str, object] = {"data.palette": [*BLACK_AND_WHITE], "data.palette_tolerance": THRESHOLD}
        choices["if the masks are black and white, with soft edges or noise"] = threshold
    return choices


def color_choices(masks: Masks) -> Choices:
    """Return the palette of frequent colours without variants of them; and of all, if they are few."""
    pixels = pixels_of([mask.in_color for mask in masks])
    least = LEAST_SHARE * sum(pixels.values())
    palette: list[Color] = []
    for color, count in pixels.most_common():
        if count < least:
            break
        near = [other for other in palette if math.dist(color, other) < LEAST_DISTANCE]
        if all(count > VARIANT * pixels[other] for other in near):
            palette.append(color)
    choices: Choices = {}
    if 2 <= len(palette) <= MOST_CHOSEN and len(palette) < len(pixels):
        settings = {"data.palette": sorted(palette), "data.palette_tolerance": FARTHEST}
        choices[f"if the {len(palette)} most frequent colours are the classes, and others are the nearest"] = settings
    if len(pixels) <= MOST_CHOSEN:
        choices["if each colour is a class"] = {"data.palette": [*pixels]}
    return choices
