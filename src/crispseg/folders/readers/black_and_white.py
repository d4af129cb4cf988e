"""Reader of black and white masks, in which 255 is a class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from crispseg.folders.facts import MaskFacts
from crispseg.folders.lookup import ColorLookup
from crispseg.folders.meaning import BLACK_AND_WHITE, Declared, Meaning
from crispseg.folders.readers.reader import WHITES, Masks, Reader, values_of
from crispseg.labels import IGNORE

NOISE = 32  # largest change of black and white by JPEG compression, but for a few pixels at edges
EDGES = 0.05  # largest share of these pixels
THRESHOLD = 255  # tolerance with which a black and white palette is a threshold at 128


class BlackAndWhite(Reader):
    """Masks of 0 and 255, or of 0 and 65535; in lossy files, values from 128 up are white."""

    def fits(self, declared: Declared, masks: Masks) -> bool:
        if declared.count not in (None, 2) or WHITES & {*declared.ignore} or any(mask.colors for mask in masks):
            return False
        if any(mask.lossy for mask in masks):
            return all(nearly_black_and_white(mask) for mask in masks)
        whites = values_of(masks) - {0}
        return len(whites) == 1 and whites <= WHITES

    def meaning(self, declared: Declared, masks: Masks) -> Meaning:
        tolerance = THRESHOLD if any(mask.lossy for mask in masks) else 0
        return Meaning(
            replace(declared, palette=BLACK_AND_WHITE).labels(2), ColorLookup(BLACK_AND_WHITE, tolerance=tolerance)
        )


def nearly_black_and_white(mask: MaskFacts) -> bool:
    """Return whether a grey mask is black and white, but for the noise of lossy compression."""
    if not mask.lossy:
        return mask.held <= {0, IGNORE}
    between = (mask.values > NOISE) & (mask.values < IGNORE - NOISE)
    return bool(mask.counts[between].sum() <= EDGES * np.prod(mask.size))
