"""Reader of class ids."""

from __future__ import annotations

from crispseg.folders.lookup import IdLookup
from crispseg.folders.meaning import Declared, Meaning
from crispseg.folders.readers.reader import Masks, Reader, palettes_differ, values_of
from crispseg.labels import IGNORE

MOST_IDS = 20  # largest number of undeclared classes in a mask; more values may number objects or be shades


class Ids(Reader):
    """Grey or palette masks of ids 0, 1, 2, …, in which 255 means ignore."""

    def fits(self, declared: Declared, masks: Masks) -> bool:
        exact = [mask for mask in masks if not mask.colors and not mask.lossy]
        if not exact or palettes_differ(masks) or white_may_be_a_class(declared, exact):
            return False
        if declared.count is not None:  # masks that do not fit are reported one by one
            return True
        values = values_of(exact) - {*declared.ignore}
        ids = values - {IGNORE}
        gaps = IGNORE in values and len(ids) <= max(ids, default=0)
        few_in_each = all(len(mask.held - {IGNORE, *declared.ignore}) <= MOST_IDS for mask in exact)
        return len(exact) == len(masks) and few_in_each and plausible(ids) and not gaps

    def meaning(self, declared: Declared, masks: Masks) -> Meaning:
        count = declared.count
        if count is None:
            ids = values_of(masks) - {IGNORE, *declared.ignore}
            count = max(ids) + 1
        count = max(count, 2)
        return Meaning(declared.labels(count), IdLookup(count, declared.ignore))


def plausible(ids: set[int]) -> bool:
    """Return whether undeclared values look like class ids: at least half of 0 to the last occur."""
    return bool(ids) and 2 * len(ids) > max(ids)


def white_may_be_a_class(declared: Declared, masks: Masks) -> bool:
    """Return whether more masks have 255 next to 0 only than next to other ids, where it means ignore."""
    if IGNORE in declared.ignore:
        return False
    white = [mask.held - {0, IGNORE} for mask in masks if {0, IGNORE} <= mask.held]
    return 2 * sum(bool(ids) for ids in white) < len(white)
