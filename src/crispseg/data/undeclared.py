"""What the values of masks tell about the classes, where nobody says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from operator import and_
from pathlib import Path

import numpy as np

from crispseg.data.mask_lookup import grey
from crispseg.data.pairing import few
from crispseg.data.split_check import parallel
from crispseg.errors import CrispsegError
from crispseg.io.images import largest_value, palette_of, read_mask
from crispseg.labels import IGNORE, Color

OBJECTS = 20
"""Up to so many ids may well be classes that all occur in one image."""


def values_of(path: Path) -> set[int]:
    """The values of a mask.

    Raises:
        CrispsegError: it cannot be read, or has colours.
    """
    try:
        return set(np.unique(grey(read_mask(path), "say what they mean, by --data.palette")).tolist())
    except ValueError as error:
        raise CrispsegError(f"{path}: {error}") from None


def read_values(masks: Sequence[Path]) -> list[set[int]]:
    """The values of each mask. Raises as `values_of`."""
    return list(parallel(values_of, masks, "Reading masks"))


def white_among_ids(found: Sequence[set[int]]) -> list[bool]:
    """Whether each mask holds 255, where some hold 0 and 255 only and the others 0 and 1 only; else empty.

    Then two programs have written them, and 255 hardly means ignore.
    """
    white = [IGNORE in values for values in found]
    ones = [1 in values for values in found]
    mixed = {0, IGNORE} in found and any(ones) and set().union(*found) <= {0, 1, IGNORE}
    return white if mixed and not any(map(and_, white, ones)) else []


def refuse_white_among_ids(found: Sequence[set[int]]) -> None:
    """Raises a CrispsegError where there is `white_among_ids`."""
    if white := white_among_ids(found):
        raise CrispsegError(
            f"{sum(white)} of {len(white)} masks hold 0 and 255 only, and others 0 and 1, so that the white would be "
            "ignored; write all in one way ('crispseg doctor' names the files, and its --fix writes them), or give "
            "--data.ignore '[255]' if 255 means ignore"
        )


def usual_colors(shown: Iterable[Iterable[tuple[int, Color]]]) -> dict[int, Color]:
    """The colour in which most masks show each value, of the values and their colours in each mask."""
    votes = Counter(vote for every in shown for vote in every)
    return dict(vote for vote, _ in reversed(votes.most_common()))  # the most frequent colour of a value comes last


def odd_palettes(masks: Sequence[Path], classes: int, ignored: Collection[int]) -> list[str]:
    """A line that says so where masks with a palette show a class in another colour than most do; else none.

    A program that numbers the colours of each file anew may have written them, and a value may mean two classes.
    """
    palettes = {path: palette[:classes] for path in masks if (palette := palette_of(path))}
    usual = usual_colors(enumerate(colors) for colors in palettes.values())
    odd = {
        path: values
        for path, colors in palettes.items()
        if (values := {value for value, color in enumerate(colors) if usual[value] != color})
    }
    try:
        held = read_values(list(odd))
    except CrispsegError:  # which is told where pairs are checked
        return []
    names = [path.name for (path, values), there in zip(odd.items(), held, strict=True) if values & there - {*ignored}]
    return names and [
        f"{len(names)} of {len(masks)} masks show a class in another colour than most ({few(names)}); it is the values "
        "that count: if colours are right, save the masks as RGB and give --data.palette"
    ]


def saturated(masks: Sequence[Path], classes: int | None) -> int | None:
    """The largest value of masks that have 2 or 4 bits a pixel, where it must have been 255 before they were packed.

    That is where it is none of the `classes` and all other values are; where their number is None, where the others
    look like class ids and do not any more with this one. None elsewhere, for instance where no mask is packed.
    """
    try:
        packed = [(path, top) for path in masks if (top := largest_value(path)) < IGNORE]
        if not packed:
            return None
        found = set().union(*read_values([path for path, _ in packed]))
    except CrispsegError:  # which is told where pairs are checked
        return None
    top = max(top for _, top in packed)
    others = sorted(found - {top})
    if top not in found or not others:
        return None
    if classes is None:
        return top if plausible_ids(others) and not plausible_ids([*others, top]) else None
    return top if others[-1] < classes <= top else None


def count_classes(values: Sequence[set[int]], ignored: Collection[int], where: str) -> int:
    """1 + the largest value, where that is plausible.

    Args:
        values: those of each mask.
        ignored: values that mean ignore, beside 255.
        where: what the masks are called in an error.

    Raises:
        CrispsegError: the values tell nothing, or do not look like class ids.
    """
    found = [held - {*ignored} for held in values]
    every = set().union(*found)
    ids = sorted(every - {IGNORE})
    remedy = "say what they mean with --data.num_classes, --data.classes or --data.palette"
    if ids not in ([], [0]):
        if number_objects(found):
            what = f"{len(ids)} values up to {ids[-1]} that count up from 1: they number objects, not classes"
            remedy = f"give them by --data.instances in place of --data.masks; or, if they are classes, {remedy}"
        elif plausible_ids(ids) and ids[-1] < IGNORE:
            return ids[-1] + 1
        else:
            what = f"{len(ids)} values up to {ids[-1]} ({few(ids)}), which hardly are all class ids"
            remedy = _palette_for(ids, ignored, white=IGNORE in every) or remedy
            if {0, IGNORE} <= every:
                what = what.replace(", which", f", and {IGNORE}, which")
                remedy = (
                    "if they are black and white with soft edges, make them again of 0 and 255 only "
                    f"('crispseg doctor' names the files); if not, {remedy}"
                )
    else:
        what = f"only the value {few(sorted(every)) or 'to ignore'}"
    raise CrispsegError(f"the masks in {where} hold {what}; {remedy}")


def _palette_for(ids: Sequence[int], ignored: Collection[int], *, white: bool) -> str:
    """The flags by which grey values are classes; empty where these are one, too many, or too large for a palette.

    Args:
        ids: the values.
        ignored: values that are ignored by now, which the flags say again.
        white: whether 255 occurs, which may be ignored or a class.
    """
    if not 2 <= len(ids) <= OBJECTS or ids[-1] >= IGNORE:
        return ""
    flags = (
        f"--data.palette '[{','.join(f'[{value},{value},{value}]' for value in ids)}]' for the classes in this order"
    )
    if white:
        void = ", ".join(map(str, sorted({*ignored, IGNORE})))
        flags += f", and --data.ignore '[{void}]', or [255,255,255] in the palette too if 255 is a class"
    return f"give {flags}"


def plausible_ids(values: Sequence[int]) -> bool:
    """Whether sorted values, without those to ignore, look like class ids: at least half of 0 to the last occur."""
    return 2 * len(values) >= values[-1] + 1


def number_objects(found: Sequence[set[int]]) -> bool:
    """Whether masks with many values hold nearly all from 1 to the largest one, as no photograph has all classes."""
    many = [ids for values in found if max(ids := values - {0, IGNORE}, default=0) > OBJECTS]
    return bool(many) and sum(len(ids) >= 0.9 * max(ids) for ids in many) >= 0.8 * len(many)
